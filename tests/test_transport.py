"""Shows the connections beneath the SDKs before odd servers: kept, lost, asked again once, and bounded in time."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from muse.policies.deadline import Deadline, time_limit
from muse.providers._http import clients
from tests.odd_server import HANG_UP, Drip, OddServer, Reset, Step
from tests.tls import self_signed

JSON, TEXT = b"content-type: application/json\r\n", b"content-type: text/event-stream\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
FINE = OK + JSON + b"content-length: 2\r\n\r\n{}"
BODY = b'{"when": "now"}'
every_way = pytest.mark.parametrize("way", ["sync", "async"])
Outcome = tuple[int, bytes] | Exception


def _asked(client: httpx2.Client | httpx2.AsyncClient, url: str) -> httpx2.Request:
    """A request made as the SDKs make theirs."""
    headers = [("Content-Type", "application/json"), ("X-Api-Key", "sk-test")]
    return client.build_request("POST", url, content=BODY, headers=headers, timeout=30.0)


def _post(way: str, url: str, times: int = 1, server: OddServer | None = None) -> list[Outcome]:
    """What comes of so many calls in a row with one client; with `server`, each waits until it has closed the last."""
    if way == "sync":
        return _posted(url, times, server)
    return asyncio.run(_posted_async(url, times, server))


def _posted(url: str, times: int, server: OddServer | None) -> list[Outcome]:
    outcomes: list[Outcome] = []
    with clients.sync_client() as client:
        for number in range(times):
            try:
                reply = client.send(_asked(client, url))
                outcomes.append((reply.status_code, reply.content))
            except httpx2.TransportError as exc:
                outcomes.append(exc)
            if server is not None:
                server.await_close(number)
    return outcomes


async def _posted_async(url: str, times: int, server: OddServer | None) -> list[Outcome]:
    outcomes: list[Outcome] = []
    async with clients.async_client() as client:
        for number in range(times):
            try:
                reply = await client.send(_asked(client, url))
                outcomes.append((reply.status_code, reply.content))
            except httpx2.TransportError as exc:
                outcomes.append(exc)
            if server is not None:
                await asyncio.to_thread(server.await_close, number)
    return outcomes


def _numbers(server: OddServer) -> list[int]:
    """The connection that each request came on."""
    return [number for number, _ in server.requests]


# --- what goes out


@every_way
def test_a_request_says_each_thing_once(way: str) -> None:
    with OddServer([FINE]) as server:
        assert _post(way, server.url) == [(200, b"{}")]
    head, _, body = server.requests[0][1].partition(b"\r\n\r\n")
    names = sorted(line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:])
    told = {b"accept-encoding", b"content-length", b"content-type", b"host", b"x-api-key"}
    assert told <= set(names)
    assert len(names) == len(set(names))
    assert b"x-api-key: sk-test" in head.lower()
    assert b"\r\naccept-encoding: gzip, deflate\r\n" in head.lower() + b"\r\n", "what the transport undoes, and no more"
    assert body == BODY


@every_way
def test_a_redirect_is_handed_back_and_not_followed(way: str) -> None:
    moved = b"HTTP/1.1 307 Moved\r\nlocation: /elsewhere\r\nset-cookie: a=b\r\n" + JSON + b"content-length: 2\r\n\r\n{}"
    with OddServer([moved, FINE], [FINE]) as server:
        assert _post(way, server.url, 2) == [(307, b"{}"), (200, b"{}")]
    assert len(server.requests) == 2
    assert all(b"/elsewhere" not in request for _, request in server.requests)


# --- kept connections


@every_way
@pytest.mark.parametrize(
    "answer",
    [
        FINE,
        OK + TEXT + b"content-length: 2\r\n\r\n{}",
        OK + JSON + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n1;x=y\r\n}\r\n0\r\n\r\n",
        OK + TEXT + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nmood: good\r\n\r\n",
        OK + JSON + b"content-encoding: gzip\r\ncontent-length: 22\r\n\r\n" + gzip.compress(b"{}"),
        b"HTTP/1.1 100 Continue\r\n\r\n" + FINE,
    ],
    ids=["length", "length, stream", "chunked", "chunked, stream", "gzip", "100 first"],
)
def test_an_answer_that_ends_by_itself_leaves_its_connection_for_the_next(way: str, answer: bytes) -> None:
    with OddServer([answer, answer, FINE]) as server:
        assert _post(way, server.url, 3) == [(200, b"{}")] * 3
    assert _numbers(server) == [0, 0, 0]
    assert server.requests[0][1].startswith(b"POST /v1/tides?when=now HTTP/1.1\r\n")
    assert all(request.endswith(b"\r\n\r\n" + BODY) for _, request in server.requests)


@every_way
@pytest.mark.parametrize(
    "answer",
    [
        OK + JSON + b"\r\n{}",
        OK + TEXT + b"\r\n{}",
        b"HTTP/1.0 200 OK\r\n" + JSON + b"content-length: 2\r\n\r\n{}",
        OK + JSON + b"connection: close\r\ncontent-length: 2\r\n\r\n{}",
    ],
    ids=["until close", "until close, stream", "http 1.0", "said so"],
)
def test_an_answer_that_ends_its_connection_is_whole(way: str, answer: bytes) -> None:
    with OddServer([answer], [answer]) as server:
        assert _post(way, server.url, 2) == [(200, b"{}")] * 2
    assert _numbers(server) == [0, 1]


@every_way
def test_a_connection_that_the_server_closed_meanwhile_is_not_used(way: str) -> None:
    with OddServer([FINE], [FINE]) as server:
        assert _post(way, server.url, 2, server) == [(200, b"{}")] * 2
    assert _numbers(server) == [0, 1]


# --- lost connections


@every_way
@pytest.mark.parametrize("loss", [HANG_UP, Reset()], ids=["closed", "reset"])
def test_a_request_that_a_kept_connection_lost_is_sent_once_more_on_a_new_one(way: str, loss: Step) -> None:
    with OddServer([FINE, loss], [FINE]) as server:
        assert _post(way, server.url, 2) == [(200, b"{}")] * 2
    assert _numbers(server) == [0, 0, 1]
    assert server.requests[2][1] == server.requests[1][1]


@every_way
def test_it_is_sent_no_third_time(way: str) -> None:
    with OddServer([FINE, HANG_UP], [HANG_UP], [FINE]) as server:
        first, second = _post(way, server.url, 2)
        assert first == (200, b"{}")
        assert isinstance(second, Exception)
    assert _numbers(server) == [0, 0, 1]


@every_way
@pytest.mark.parametrize("loss", [HANG_UP, Reset()], ids=["closed", "reset"])
def test_a_new_connection_that_is_lost_is_an_error(way: str, loss: Step) -> None:
    with OddServer([loss], [FINE]) as server:
        assert isinstance(_post(way, server.url)[0], Exception)
    assert _numbers(server) == [0]


@every_way
@pytest.mark.parametrize("begun", [b"HTTP/1.1 200 OK\r\ncontent-ty", FINE[:-1]], ids=["head", "body"])
def test_a_request_whose_answer_had_begun_is_not_sent_again(way: str, begun: bytes) -> None:
    with OddServer([FINE, begun], [FINE]) as server:
        assert isinstance(_post(way, server.url, 2)[1], Exception)
    assert _numbers(server) == [0, 0]


def test_the_second_time_goes_past_other_kept_connections() -> None:
    stream = OK + TEXT + b"content-length: 2\r\n\r\n{}"
    with OddServer([stream, HANG_UP], [FINE, HANG_UP], [FINE]) as server, clients.sync_client() as client:
        with closing(client.send(_asked(client, server.url), stream=True)) as one:
            assert client.send(_asked(client, server.url)).content == one.read() == b"{}"
        assert client.send(_asked(client, server.url)).content == b"{}"
    assert sorted(_numbers(server)) in ([0, 0, 1, 2], [0, 1, 1, 2])


def test_the_second_time_goes_past_other_kept_connections_of_a_loop_too() -> None:
    async def several(url: str) -> list[bytes]:
        async with clients.async_client() as client:
            both = await asyncio.gather(*(client.send(_asked(client, url)) for _ in range(2)))
            return [reply.content for reply in (*both, await client.send(_asked(client, url)))]

    with OddServer([FINE, HANG_UP], [FINE, HANG_UP], [FINE]) as server:
        assert asyncio.run(several(server.url)) == [b"{}"] * 3
    assert sorted(_numbers(server)) in ([0, 0, 1, 2], [0, 1, 1, 2])


# --- broken answers


@every_way
@pytest.mark.parametrize(
    "answer",
    [
        OK + JSON + b"content-length: 9\r\n\r\n{}",
        OK + TEXT + b"content-length: 9\r\n\r\n{}",
        OK + TEXT + b"transfer-encoding: chunked\r\n\r\n9\r\n{}",
        OK + TEXT + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
        OK + JSON + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}",
        b"good morning\r\n\r\n",
    ],
    ids=["short", "short stream", "short chunk", "no last chunk", "bad chunk", "no http"],
)
def test_a_broken_answer_is_an_error_and_its_connection_is_not_used_again(way: str, answer: bytes) -> None:
    with OddServer([answer], [FINE]) as server:
        first, second = _post(way, server.url, 2)
        assert isinstance(first, Exception)
        assert second == (200, b"{}")
    assert _numbers(server) == [0, 1]


@every_way
@pytest.mark.parametrize("answer", [Drip(FINE), Drip(OK + TEXT + b"\r\n" + b"x" * 500)], ids=["head", "body"])
def test_a_server_that_drips_does_not_hold_a_call_beyond_its_time(way: str, answer: bytes) -> None:
    started_s = time.monotonic()
    with OddServer([answer]) as server:
        if way == "sync":
            with time_limit(Deadline.after(0.4)):
                outcome = _post(way, server.url)[0]
            assert isinstance(outcome, httpx2.ReadTimeout)
        else:
            with pytest.raises(TimeoutError):
                asyncio.run(Deadline.after(0.4).bound(_posted_async(server.url, 1, None)))
    assert time.monotonic() - started_s < 5


# --- where a request goes


@every_way
def test_a_redirect_is_handed_back_and_takes_no_key_elsewhere(way: str) -> None:
    with OddServer([FINE]) as other:
        moved = b"HTTP/1.1 307 Moved\r\nlocation: " + other.url.encode() + b"\r\ncontent-length: 0\r\n\r\n"
        with OddServer([moved]) as server:
            assert _post(way, server.url) == [(307, b"")]
        assert other.requests == []


# --- TLS


@pytest.fixture(name="certificate", scope="module")
def _certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("tls"))


def _serving_tls(certificate: Path, *rows: Sequence[Step]) -> OddServer:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return OddServer(*rows, tls=context)


@every_way
def test_a_tls_connection_is_kept_and_asked_again_like_any_other(
    way: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusting = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr(clients, "tls_context", lambda: trusting)
    with _serving_tls(certificate, [FINE, FINE, HANG_UP], [FINE]) as server:
        assert _post(way, server.url, 3) == [(200, b"{}")] * 3
    assert _numbers(server) == [0, 0, 0, 1]


@every_way
def test_a_server_whose_certificate_nobody_signed_gets_no_request(way: str, certificate: Path) -> None:
    with _serving_tls(certificate, [FINE]) as server:
        outcome = _post(way, server.url)[0]
    assert "certificate" in str(outcome).lower()
    assert server.requests == []
