"""Shows that connections which say nothing, and ones too many, are closed, and that a request may take its time."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn import Config
from uvicorn.server import ServerState

from apps.host.security import connection_limits
from apps.host.security.connection_limits import Connection

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
CLOSING = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _answer_slowly(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer after more looks than a silent connection is given."""
    await asyncio.sleep(6 * connection_limits.SILENCE_S)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def _answer_by_path(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer after the body; or begin, or do so wholly, before it."""
    start: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
    if scope["path"] != "/after":
        await send(start)
    while scope["path"] != "/before" and (message := await receive())["type"] != "http.disconnect":
        if not message["more_body"]:
            break
    if scope["path"] == "/after":
        await send(start)
    await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def _listening(app: ASGIApp = _answer_slowly, state: ServerState | None = None) -> AsyncIterator[int]:
    """A server of these connections on a free port."""
    config = Config(app, log_config=None, lifespan="off", timeout_keep_alive=60)
    make = functools.partial(Connection, config=config, server_state=state or ServerState(), app_state={})
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    async with server:
        yield int(server.sockets[0].getsockname()[1])


async def _said(streams: Streams, sent: bytes) -> bytes:
    """What comes back until the other side closes."""
    reader, writer = streams
    writer.write(sent)
    try:
        return await asyncio.wait_for(reader.read(), 20)
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_limits, "SILENCE_S", 0.05)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: local"])
async def test_a_connection_that_asks_nothing_is_closed(sent: bytes) -> None:
    async with _listening() as port:
        assert await _said(await asyncio.open_connection("127.0.0.1", port), sent) == b""


@pytest.mark.parametrize("more", [b"", b"GET /again HT"])
async def test_a_request_may_take_its_time_and_what_follows_may_not(more: bytes) -> None:
    async with _listening() as port:
        answer = await _said(await asyncio.open_connection("127.0.0.1", port), REQUEST + more)
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"ok")


async def test_one_connection_too_many_is_closed_and_the_others_stay(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection_limits, "MOST_CONNECTIONS", 2)
    monkeypatch.setattr(Connection, "_was_full", False)
    async with _listening() as port:
        kept = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        asked = [asyncio.create_task(_said(streams, REQUEST)) for streams in kept]
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                assert await _said(await asyncio.open_connection("127.0.0.1", port), REQUEST) == b""
        assert all(answer.endswith(b"ok") for answer in await asyncio.gather(*asked))
    assert caplog.text.count("more connections at once") == 1


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab"])
async def test_many_silent_or_slow_connections_lock_nobody_out(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(connection_limits, "SILENCE_S", 60.0)
    state = ServerState()
    async with _listening(_answer_by_path, state) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(140)]
        for _, writer in silent:
            writer.write(sent)
        for _ in range(5):
            answer = asyncio.create_task(_said(await asyncio.open_connection("127.0.0.1", port), CLOSING))
            assert (await answer).endswith(b"ok")
        assert len(state.connections) <= connection_limits.MOST_OF_ONE_ADDRESS
        for _, writer in silent:
            writer.close()


async def test_one_address_leaves_room_for_others_even_with_requests_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_limits, "SILENCE_S", 60.0)
    monkeypatch.setattr(connection_limits, "MOST_OF_ONE_ADDRESS", 3)
    come, released = asyncio.Semaphore(0), asyncio.Event()

    async def hold(scope: Scope, receive: Receive, send: Send) -> None:
        come.release()
        await released.wait()
        await _answer_by_path({**scope, "path": "/after"}, receive, send)

    async with _listening(hold) as port:
        asked = [
            asyncio.create_task(_said(await asyncio.open_connection("127.0.0.1", port), CLOSING)) for _ in range(3)
        ]
        for _ in asked:
            await asyncio.wait_for(come.acquire(), 20)
        refused = await _said(await asyncio.open_connection("127.0.0.1", port), CLOSING)
        other = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
        asked.append(asyncio.create_task(_said(other, CLOSING)))
        await asyncio.wait_for(come.acquire(), 20)
        released.set()
        answers = await asyncio.gather(*asked)
    assert refused == b""
    assert [answer.endswith(b"ok") for answer in answers] == [True] * 4


@pytest.mark.parametrize("pieces", [1, 40])
async def test_a_body_that_does_not_come_in_time_ends_its_connection(
    monkeypatch: pytest.MonkeyPatch, pieces: int
) -> None:
    monkeypatch.setattr(connection_limits, "SILENCE_S", 0.1)
    monkeypatch.setattr(connection_limits, "BODY_S", 0.3)
    head = b"POST /after HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
    async with _listening(_answer_by_path) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        ended = asyncio.create_task(asyncio.wait_for(reader.read(), 20))
        for _ in range(pieces):
            writer.write(b"x")
            await asyncio.sleep(0.02)
        try:
            assert await ended == b""
        except ConnectionResetError:  # the server closed before it had read all pieces
            assert pieces > 1
        writer.close()


@pytest.mark.parametrize(
    ("client", "known_by"),
    [
        (("127.0.0.1", 1), "127.0.0.1"),
        (("2001:db8:1:2:3::4", 1), "2001:db8:1:2::/64"),
        (("::ffff:10.0.0.1", 1), "10.0.0.1"),
        (("::1", 1), "::1"),
        (None, "None"),
    ],
)
def test_a_client_is_known_by_its_address_or_network(client: tuple[str, int] | None, known_by: str) -> None:
    assert connection_limits._address_of(client) == known_by


@pytest.mark.parametrize(
    ("path", "at_once", "status"),
    [("/after", False, 400), ("/after", True, 400), ("/before", True, 400), ("/within", False, 200)],
)
async def test_a_body_that_is_no_http_ends_its_request_without_a_trace(
    path: str, at_once: bool, status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection_limits, "SILENCE_S", 20)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    async with _listening(_answer_by_path) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head + b"zz\r\n\r\n" if at_once else head)
        begun = await reader.readline() if path == "/within" else b""
        answer = begun + await _said((reader, writer), b"" if at_once else b"zz\r\n\r\n")
    assert answer.startswith(f"HTTP/1.1 {status}".encode())
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_connection_that_is_gone_is_looked_at_no_more() -> None:
    come, gone = asyncio.Event(), asyncio.Event()
    made: list[Connection] = []

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        made.extend(one for one in state.connections if isinstance(one, Connection))
        come.set()
        while (await receive())["type"] != "http.disconnect":
            continue
        gone.set()

    state = ServerState()
    async with _listening(wait, state) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        await asyncio.wait_for(come.wait(), 20)
        writer.close()
        await asyncio.wait_for(gone.wait(), 20)
    assert [one._timer is not None and one._timer.cancelled() for one in made] == [True]
