"""`timeout_s` holds whatever a server or a proxy does, in every way to ask and with every proxy variable."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from muse import agents, models
from muse.errors import DeadlineExceeded, MuseError, ProviderTimeout
from muse.providers._http import sockets
from tests.desk import QUESTION, WAYS, Desk
from tests.loopback.proxy import Habit, LoopbackProxy
from tests.provider_cases import GATEWAYS
from tests.stalling import HABITS, StallingServers

TIMEOUT_S = 1.0
# The machine may be busy; what was wrong once was a wait of 10 s where 2 were given.
MOST_LATE_S = 5.0
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
ENVIRONMENTS: Mapping[str, Mapping[str, str]] = {
    "no variable": {},
    "NO_PROXY=*": {"NO_PROXY": "*"},
    "NO_PROXY=127.0.0.1": {"NO_PROXY": "127.0.0.1"},
    "NO_PROXY of others": {"no_proxy": "a.example"},
    "HTTP_PROXY": {"HTTP_PROXY": "proxy"},
    "HTTPS_PROXY": {"HTTPS_PROXY": "proxy"},
    "ALL_PROXY": {"ALL_PROXY": "proxy"},
    "ALL_PROXY and NO_PROXY": {"ALL_PROXY": "proxy", "NO_PROXY": "127.0.0.0/8"},
}
ALL_WAYS = (*WAYS, "object", "agent")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module", name="stalling")
def _stalling() -> Iterator[StallingServers]:
    with StallingServers() as servers:
        yield servers


def _ask(desk: Desk, way: str, provider: str) -> MuseError:
    """The error of a call or run that is to run out of time."""
    if way == "agent":
        events: list[dict[str, Any]] = []
        asked = {"prompt": QUESTION, "persona": "default", "disable_mcp": True}
        asyncio.run(agents.run({**asked, "provider": provider, "model": "m", "timeout_s": TIMEOUT_S}, events.append))
        assert events[-1]["event"] == "error", events
        return ProviderTimeout(str(events[-1]["error"]))
    context = f"app.{provider}"
    if way != "object":
        return desk.fail(way, context=context, timeout_s=TIMEOUT_S)
    with pytest.raises(MuseError) as caught:
        models.generate_object(QUESTION, context, {"type": "object"}, timeout_s=TIMEOUT_S)
    return caught.value


def _times(desk: Desk, calls: list[tuple[str, str]]) -> dict[tuple[str, str], tuple[float, MuseError]]:
    """How long each call took, all at once."""

    def timed(call: tuple[str, str]) -> tuple[float, MuseError]:
        started_s = time.monotonic()
        error = _ask(desk, *call)
        return time.monotonic() - started_s, error

    with ThreadPoolExecutor(len(calls)) as pool:
        return dict(zip(calls, pool.map(timed, calls), strict=True))


def _expect_in_time(desk: Desk, calls: list[tuple[str, str]]) -> None:
    for call, (took_s, error) in _times(desk, calls).items():
        is_late = isinstance(error, (ProviderTimeout, DeadlineExceeded)) or "timeout" in str(error)
        assert is_late, (call, error)
        assert TIMEOUT_S * 0.9 < took_s < TIMEOUT_S + MOST_LATE_S, (call, took_s)


def _route(desk: Desk, urls: Mapping[str, str]) -> None:
    """One endpoint for each address, and a context `app.<name>` routed to it."""
    rows = {name: {"base_url": url, "models": {"2": "m"}} for name, url in urls.items()}
    contexts = {f"app.{name}": {"provider": name, "model": "m", "retries": 0} for name in urls}
    desk.journal.write({"providers": {"compatible": rows, "contexts": contexts}})


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_no_server_holds_a_call_beyond_its_time(
    desk: Desk, stalling: StallingServers, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    urls = {f"odd{at}": f"http://127.0.0.1:{stalling.port[habit]}/v1" for at, habit in enumerate(HABITS)}
    urls["tls"] = f"https://127.0.0.1:{stalling.port['silent']}/v1"
    _route(desk, urls)
    with LoopbackProxy() as proxy:
        for variable, value in ENVIRONMENTS[name].items():
            monkeypatch.setenv(variable, proxy.url if value == "proxy" else value)
        _expect_in_time(desk, [(way, provider) for way in ALL_WAYS for provider in urls])
    passes = {"HTTP_PROXY": len(HABITS), "HTTPS_PROXY": 1, "ALL_PROXY": len(urls)}.get(name, 0)
    assert len(proxy.heads) >= passes
    assert bool(proxy.heads) == bool(passes)


@pytest.mark.parametrize("habit", ["silent", "drip", "deaf tunnel", "drip tunnel"])
def test_no_proxy_holds_a_call_beyond_its_time(desk: Desk, monkeypatch: pytest.MonkeyPatch, habit: Habit) -> None:
    _route(desk, {"plain": f"{desk.server.url}{GATEWAYS[0].path}", "tls": "https://127.0.0.1:9/v1"})
    kinds = ["plain"] if habit == "drip tunnel" else ["plain", "tls"]
    with LoopbackProxy(habit) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        _expect_in_time(desk, [(way, kind) for way in ALL_WAYS for kind in kinds])


@pytest.mark.parametrize("variable", ["no variable", "proxy"])
def test_a_name_that_nobody_resolves_holds_no_call_beyond_its_time(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    release = threading.Event()
    real = socket.getaddrinfo

    def stuck(host: str, *place: Any, **options: Any) -> Any:
        if host == "stuck.example":
            release.wait(30)
        return real("127.0.0.1" if host == "stuck.example" else host, *place, **options)

    monkeypatch.setattr(sockets.socket, "getaddrinfo", stuck)
    if variable == "proxy":
        monkeypatch.setenv("ALL_PROXY", "http://stuck.example:3128")
        _route(desk, {"stuck": "http://a.example/v1"})
    else:
        _route(desk, {"stuck": "http://stuck.example/v1"})
    try:
        _expect_in_time(desk, [(way, "stuck") for way in ALL_WAYS])
    finally:
        release.set()


def test_a_flood_of_bytes_is_no_way_around_the_time(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that always has something to read lets no read time out."""
    desk.journal.write({})
    listener = socket.create_server(("127.0.0.1", 0), backlog=16)
    stopping = threading.Event()

    def flood(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65_536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
            while not stopping.is_set():
                connection.sendall(b": ping\n\n" * 8)
                time.sleep(0.001)

    _serve(listener, flood)
    _route(desk, {"flood": f"http://127.0.0.1:{listener.getsockname()[1]}/v1"})
    try:
        _expect_in_time(desk, [(way, "flood") for way in ALL_WAYS])
    finally:
        stopping.set()
        listener.close()


def _serve(listener: socket.socket, answer: Callable[[socket.socket], None]) -> None:
    """Answer each connection in a thread of its own until the listener is closed."""

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
