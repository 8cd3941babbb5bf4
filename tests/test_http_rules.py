"""One set of HTTP rules for sync and async: the same bytes get the same verdict, however they are cut."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muse.providers._http import clients
from muse.providers._http.http1 import ResponseBuffer
from tests.odd_server import OddServer

OK = b"HTTP/1.1 200 OK\r\n"
JSON = b"content-type: application/json\r\n"
EVENTS = b"content-type: text/event-stream\r\n"
EARLY = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
FINE = OK + JSON + b"content-length: 2\r\n\r\n{}"
CHUNKED = OK + JSON + b"transfer-encoding: chunked\r\n\r\n"

TAKEN = {
    "a length": FINE,
    "a length twice, the same": OK + JSON + b"content-length: 2\r\ncontent-length: 2\r\n\r\n{}",
    "a length in a list, the same": OK + JSON + b"content-length: 2, 2\r\n\r\n{}",
    "chunks": CHUNKED + b"1\r\n{\r\n1;a=b\r\n}\r\n0\r\nx: y\r\n\r\n",
    "chunks of two digits": CHUNKED + b"02\r\n{}\r\n00\r\n\r\n",
    "until the end": OK + JSON + b"\r\n{}",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n" + JSON + b"content-length: 2\r\n\r\n{}",
    "no reason": b"HTTP/1.1 200\r\n" + JSON + b"content-length: 2\r\n\r\n{}",
    "a reason of 8 bits": b"HTTP/1.1 200 Tr\xe8s bien\r\n" + JSON + b"content-length: 2\r\n\r\n{}",
    "bare line feeds": b"HTTP/1.1 200 OK\ncontent-type: application/json\ncontent-length: 2\n\n{}",
    "blanks around a value": OK + JSON + b"content-length:   2 \t\r\n\r\n{}",
    "an empty value": OK + JSON + b"x-empty:\r\ncontent-length: 2\r\n\r\n{}",
    "100 first": b"HTTP/1.1 100 Continue\r\n\r\n" + FINE,
    "102 first": b"HTTP/1.1 102 Processing\r\n\r\n" + FINE,
    "103 first": EARLY + FINE,
    "several first": (b"HTTP/1.1 100 Continue\r\n\r\n" + EARLY) * 3 + FINE,
}
REFUSED = {
    "two different lengths": OK + JSON + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    "two different lengths in a list": OK + JSON + b"content-length: 2, 3\r\n\r\n{}",
    "length and chunks": OK + JSON + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a negative length": OK + JSON + b"content-length: -2\r\n\r\n{}",
    "a length with a plus": OK + JSON + b"content-length: +2\r\n\r\n{}",
    "a length in words": OK + JSON + b"content-length: two\r\n\r\n{}",
    "a length with an underscore": OK + JSON + b"content-length: 0_2\r\n\r\n{}",
    "an empty length": OK + JSON + b"content-length:\r\n\r\n{}",
    "a length beyond all": OK + JSON + b"content-length: " + b"9" * 40 + b"\r\n\r\n{}",
    "another transfer coding": OK + JSON + b"transfer-encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"HTTP/1.0 200 OK\r\n" + JSON + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "NUL in a name": OK + JSON + b"x\0y: z\r\ncontent-length: 2\r\n\r\n{}",
    "NUL in a value": OK + JSON + b"x: y\0z\r\ncontent-length: 2\r\n\r\n{}",
    "CR in a name": OK + JSON + b"x\ry: z\r\ncontent-length: 2\r\n\r\n{}",
    "CR in a value": OK + JSON + b"x: y\rz\r\ncontent-length: 2\r\n\r\n{}",
    "a blank before the colon": OK + JSON + b"x : y\r\ncontent-length: 2\r\n\r\n{}",
    "a name without a colon": OK + JSON + b"xy\r\ncontent-length: 2\r\n\r\n{}",
    "an empty name": OK + JSON + b": y\r\ncontent-length: 2\r\n\r\n{}",
    "a folded value": OK + JSON + b"x: y\r\n z\r\ncontent-length: 2\r\n\r\n{}",
    "a folded first field": OK + b" x: y\r\n" + JSON + b"content-length: 2\r\n\r\n{}",
    "a bad chunk": CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
    "a negative chunk": CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n",
    "a chunk with 0x": CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n",
    "a chunk without its end": CHUNKED + b"2\r\n{}x\r\n0\r\n\r\n",
    "a chunk's line without end": CHUNKED + b"2;" + b"a" * 20_000,
    "a trailer that is none": CHUNKED + b"2\r\n{}\r\n0\r\nxy\r\n\r\n",
    "trailers without end": CHUNKED + b"2\r\n{}\r\n0\r\n" + b"x: y\r\n" * 1_000,
    "no status": b"HTTP/1.1 OK\r\n" + JSON + b"content-length: 2\r\n\r\n{}",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\n" + JSON + b"content-length: 2\r\n\r\n{}",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\n" + JSON + b"content-length: 2\r\n\r\n{}",
    "no HTTP": b"good morning\r\n\r\n",
    "101": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n" + FINE,
    "only interim answers": EARLY * 30 + FINE,
    "an interim answer and the end": EARLY,
    "half a head": OK + b"content-ty",
    "a short body": OK + JSON + b"content-length: 9\r\n\r\n{}",
    "no last chunk": CHUNKED + b"2\r\n{}\r\n",
    "too many fields": OK + JSON + b"x: y\r\n" * 300 + b"content-length: 2\r\n\r\n{}",
    "too large a head": OK + JSON + b"x: " + b"y" * 70_000 + b"\r\ncontent-length: 2\r\n\r\n{}",
    "a head without end": OK + b"x: " + b"y" * 200_000,
    "a coding nobody asked for": OK + JSON + b"content-encoding: br\r\ncontent-length: 2\r\n\r\n{}",
    "data that is not compressed": OK + JSON + b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}",
}
every_way = pytest.mark.parametrize("way", ["sync", "async"])
ASKED = {"content": b"{}", "headers": [("Content-Type", "application/json")], "timeout": 10.0}


def outcome(way: str, answer: bytes) -> bytes | Exception:
    """The body that a server's bytes are taken for, or the error."""
    with OddServer([answer]) as server:
        try:
            return post(way, server.url, **ASKED)
        except (httpx2.RequestError, OSError) as exc:
            return exc


def post(way: str, url: str, **asked: Any) -> bytes:
    """The body of the answer to one request."""
    if way == "sync":
        with clients.sync_client() as client:
            return client.send(client.build_request("POST", url, **asked)).content

    async def post() -> bytes:
        async with clients.async_client() as client:
            return (await client.send(client.build_request("POST", url, **asked))).content

    return asyncio.run(post())


@every_way
@pytest.mark.parametrize("name", TAKEN)
@pytest.mark.parametrize("kind", [JSON, EVENTS], ids=["whole", "stream"])
def test_both_take_it(way: str, name: str, kind: bytes) -> None:
    assert outcome(way, TAKEN[name].replace(JSON, kind)) == b"{}"


@every_way
@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("kind", [JSON, EVENTS], ids=["whole", "stream"])
def test_both_refuse_it(way: str, name: str, kind: bytes) -> None:
    error = outcome(way, REFUSED[name].replace(JSON, kind))
    assert isinstance(error, (httpx2.RemoteProtocolError, httpx2.DecodingError, httpx2.ReadError)), error


def test_both_say_the_same_of_what_they_refuse() -> None:
    for name, answer in REFUSED.items():
        assert str(outcome("sync", answer)) == str(outcome("async", answer)), name


@every_way
@pytest.mark.parametrize("name", ["x-key\r\nx-other", "x-key\0"])
def test_a_request_with_a_line_break_in_a_header_is_not_sent(way: str, name: str) -> None:
    with OddServer([FINE]) as server:
        with pytest.raises(httpx2.LocalProtocolError):
            post(way, server.url, content=b"{}", headers=[(name, "y"), ("x", "y")], timeout=10.0)
        assert server.requests == []


# --- laws


def read(pieces: list[bytes]) -> tuple[int, bytes, bool] | str:
    """Status, body and whether the connection can be kept, of an answer that comes in these pieces; or the error."""
    inbox, body = ResponseBuffer("POST"), b""
    try:
        for piece in pieces:
            inbox.feed(piece)
            body += inbox.take() or b""
        if not inbox.is_over:
            inbox.feed_end()
    except httpx2.RemoteProtocolError as exc:
        return str(exc)
    assert inbox.head is not None
    return inbox.head.status, body + (inbox.take() or b""), inbox.is_reusable


@given(st.sampled_from([*TAKEN.values(), *REFUSED.values()]), st.lists(st.integers(1, 400), max_size=40))
def test_it_does_not_matter_how_the_bytes_are_cut(answer: bytes, cuts: list[int]) -> None:
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(answer[at : at + cut])
        at += cut
    pieces.append(answer[at:])
    assert read([piece for piece in pieces if piece]) == read([answer])


@given(st.binary(max_size=2_000), st.lists(st.integers(1, 60), max_size=20), st.sampled_from(["length", "chunked"]))
def test_a_body_comes_back_as_it_was_and_h11_agrees(body: bytes, sizes: list[int], framing: str) -> None:
    head = [("content-length", str(len(body)))] if framing == "length" else [("transfer-encoding", "chunked")]
    server = h11.Connection(h11.SERVER)
    server.receive_data(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")
    assert isinstance(server.next_event(), h11.Request)
    assert isinstance(server.next_event(), h11.EndOfMessage)
    said = server.send(h11.Response(status_code=200, headers=head)) or b""
    left = body
    for size in sizes:
        said += server.send(h11.Data(left[:size])) or b""
        left = left[size:]
    said += server.send(h11.Data(left)) or b""
    said += server.send(h11.EndOfMessage()) or b""
    assert read([said]) == (200, body, True)


@given(st.binary(max_size=400))
def test_no_bytes_bring_another_error(noise: bytes) -> None:
    for answer in (noise, OK + noise, CHUNKED + noise):
        read([answer])
