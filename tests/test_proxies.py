"""Proxies of the environment: which one is asked, how requests pass it, and that no key is handed to it in the open."""

from __future__ import annotations

import asyncio
import base64
import ssl
from pathlib import Path

import pytest

from muse.errors import ConfigError, ProviderDown
from muse.providers._http import clients
from muse.providers._http.destination import destination
from muse.providers._http.proxies import is_loopback, proxy_for
from tests.desk import WAYS, Desk
from tests.loopback.outcomes import TEXT
from tests.loopback.proxy import LoopbackProxy
from tests.odd_server import OddServer
from tests.provider_cases import WIRES, Case
from tests.tls import self_signed

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
FINE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
every_wire = pytest.mark.parametrize("case", WIRES, ids=str)
every_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


# --- which proxy


@pytest.mark.parametrize(
    ("said", "address", "port"),
    [
        ({}, "https://a.example", None),
        ({"no_proxy": "*"}, "https://a.example", None),
        ({"https_proxy": "http://p:1"}, "https://a.example", 1),
        ({"HTTPS_PROXY": "http://p:1"}, "https://a.example", 1),
        ({"https_proxy": "http://p:1"}, "http://a.example", None),
        ({"http_proxy": "http://p:2"}, "http://a.example", 2),
        ({"all_proxy": "http://p:3"}, "http://a.example", 3),
        ({"ALL_PROXY": "p:3"}, "https://a.example", 3),
        ({"ALL_PROXY": "http://p:3", "https_proxy": "http://p:1"}, "https://a.example", 1),
        ({"https_proxy": "http://p:1", "HTTPS_PROXY": "http://p:9"}, "https://a.example", 1),
        ({"https_proxy": "http://p"}, "https://a.example", 80),
        ({"https_proxy": ""}, "https://a.example", None),
    ],
)
def test_a_scheme_has_its_proxy_or_the_one_of_all(
    monkeypatch: pytest.MonkeyPatch, said: dict[str, str], address: str, port: int | None
) -> None:
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    proxy = destination(clients.parsed(address)).proxy
    assert (proxy.port if proxy else None) == port


@pytest.mark.parametrize(
    ("listed", "host", "is_exempt"),
    [
        ("*", "a.example", True),
        ("b.example, *", "a.example", True),
        ("a.example", "a.example", True),
        ("A.Example", "a.example", True),
        ("a.example", "deep.a.example", True),
        (".example", "a.example", True),
        ("a.example", "xa.example", False),
        ("a.example:443", "a.example", True),
        ("a.example:444", "a.example", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.0/8", "127.0.0.2", True),
        ("10.0.0.0/8,192.168.0.0/16", "192.168.3.4", True),
        ("10.0.0.0/8", "a.example", False),
        ("::1", "::1", True),
        ("[::1]:443", "::1", True),
        ("fd00::/8", "fd12::1", True),
        ("", "a.example", False),
    ],
)
def test_no_proxy_exempts_hosts_domains_ports_and_networks(
    monkeypatch: pytest.MonkeyPatch, listed: str, host: str, is_exempt: bool
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", listed)
    assert (proxy_for("https", host, 443) is None) == is_exempt


def test_the_variables_count_as_they_stand_at_the_call(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.use(WIRES[0])
    with LoopbackProxy() as one, LoopbackProxy() as other:
        for proxy, asked in ((one, [1, 0]), (other, [1, 1]), (None, [1, 1])):
            monkeypatch.setenv("http_proxy", proxy.url if proxy else "")
            for way in ("sync", "async"):
                assert desk.ask(way).text == TEXT
            assert [bool(one.heads), bool(other.heads)] == [bool(count) for count in asked]
    assert len(desk.server.requests) == 6


@pytest.mark.parametrize("value", ["socks5://user:hunter2pw@p:1", "ftp://p", "http://", "http://[::1", "http://p:0"])
@every_way
def test_a_proxy_that_cannot_be_used_names_its_variable_and_no_password(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, way: str, value: str
) -> None:
    desk.use(WIRES[0])
    monkeypatch.setenv("ALL_PROXY", value)
    error = desk.fail(way)
    assert isinstance(error, ConfigError)
    assert str(error).startswith("ALL_PROXY: found a proxy")
    assert "hunter2pw" not in str(error)
    assert desk.server.requests == []


@every_wire
@every_way
def test_a_proxy_that_no_call_needs_may_be_unusable(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, case: Case, way: str
) -> None:
    desk.use(case)
    monkeypatch.setenv("ALL_PROXY", "socks5://p:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert desk.ask(way).text == TEXT


# --- through a proxy


@every_wire
@every_way
def test_every_provider_goes_through_a_tunnel_and_keeps_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, case: Case, way: str
) -> None:
    desk.use(case)
    with LoopbackProxy() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//us%40er:p%3Aw@"))
        assert [desk.ask(way).text for _ in range(2)] == [TEXT] * 2
    netloc = desk.server.url.removeprefix("http://").encode()
    token = base64.b64encode(b"us@er:p:w")
    assert len(proxy.heads) == (1 if way in ("sync", "stream") else 2), "each asyncio.run has connections of its own"
    for head in proxy.heads:
        assert head.startswith(b"CONNECT %s HTTP/1.1\r\n" % netloc)
        assert b"\r\nProxy-Authorization: Basic %s\r\n" % token in head
        assert case.key.encode() not in head
    assert all("proxy-authorization" not in request.headers for request in desk.server.requests)


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_key_for_https_passes_a_proxy_only_within_tls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str
) -> None:
    certificate = self_signed(tmp_path)
    trusting = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr(clients, "tls_context", lambda: trusting)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate)
    with LoopbackProxy() as proxy, OddServer([FINE, FINE], tls=serving) as server:
        monkeypatch.setenv("https_proxy", proxy.url)
        assert _posts(way, server.url, 2) == [b"{}"] * 2
        assert len(server.requests) == 2
    assert len(proxy.heads) == 1
    assert proxy.heads[0].startswith(b"CONNECT localhost:")
    assert b"sk-test" not in proxy.heads[0] + proxy.sent
    assert b"sk-test" in server.requests[0][1]


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("is_tls", [True, False], ids=["https", "http"])
def test_a_proxy_may_itself_be_reached_over_tls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str, is_tls: bool
) -> None:
    certificate = self_signed(tmp_path)
    trusting = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr(clients, "tls_context", lambda: trusting)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate)
    long = b"{" + b" " * 300_000 + b"}"
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(long) + long
    with LoopbackProxy(tls=serving) as proxy, OddServer([answer, FINE], tls=serving if is_tls else None) as server:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        assert _posts(way, server.url, 2) == [long, b"{}"]
    assert len(proxy.heads) == 1
    assert (b"sk-test" in proxy.sent) != is_tls


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("status", [400, 403, 405, 407, 501])
def test_a_key_over_plain_http_is_sent_to_no_proxy_that_refuses_a_tunnel(
    monkeypatch: pytest.MonkeyPatch, way: str, status: int
) -> None:
    with LoopbackProxy(refusal=status) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        with pytest.raises(ConfigError, match=f"http_proxy: found a proxy that answers {status} to CONNECT"):
            _posts(way, "http://tides.example/v1", 1)
    assert len(proxy.heads) == 1
    assert b"sk-test" not in proxy.heads[0] + proxy.sent


@every_way
def test_a_proxy_without_tunnels_serves_where_nothing_leaves_this_machine(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    desk.use(WIRES[0])
    with LoopbackProxy(refusal=501) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert desk.ask(way).text == TEXT
    assert proxy.heads[-1].startswith(b"POST http://127.0.0.1:")


@every_way
@pytest.mark.parametrize("status", [502, 503])
def test_a_proxy_that_fails_for_the_moment_is_a_failure_of_the_way(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, way: str, status: int
) -> None:
    desk.use(WIRES[0])
    with LoopbackProxy(refusal=status) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        error = desk.fail(way)
    assert isinstance(error, ProviderDown)
    assert f"answers {status} to CONNECT" in str(error)


@every_way
def test_a_proxy_that_is_not_there_is_named(desk: Desk, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    desk.use(WIRES[0])
    with LoopbackProxy() as proxy:
        gone = proxy.url
    monkeypatch.setenv("ALL_PROXY", gone)
    error = desk.fail(way)
    assert isinstance(error, ProviderDown)
    assert "through the proxy that ALL_PROXY names" in str(error)


@pytest.mark.parametrize(
    ("host", "is_here"),
    [("localhost", True), ("a.localhost", True), ("127.8.0.1", True), ("::1", True), ("10.0.0.1", False), ("a", False)],
)
def test_this_machine_is_known_by_its_names(host: str, is_here: bool) -> None:
    assert is_loopback(host) == is_here


def _posts(way: str, url: str, times: int) -> list[bytes]:
    """The bodies of so many answers to a request with a key."""
    headers = [("Content-Type", "application/json"), ("X-Api-Key", "sk-test")]
    asked = {"content": b"{}", "headers": headers, "timeout": 10.0}
    if way == "sync":
        with clients.sync_client() as client:
            return [client.send(client.build_request("POST", url, **asked)).content for _ in range(times)]

    async def post() -> list[bytes]:
        async with clients.async_client() as client:
            return [(await client.send(client.build_request("POST", url, **asked))).content for _ in range(times)]

    return asyncio.run(post())
