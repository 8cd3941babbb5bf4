"""Streams as servers really send them, of each provider: frames, ends, errors in the middle, JSON bodies."""

from __future__ import annotations

import json
from typing import Any

import pytest

from muse.errors import InterruptedReply, ProviderDown
from tests.desk import WAYS, Desk
from tests.loopback.behaviours import Raw
from tests.provider_cases import WIRES, Case
from tests.reply_bodies import GOOD_END, body, events, sse, whole

TEXT = "Low water \u2028 is \x85 at noön \U0001f30a."
STREAMS = ("stream", "astream")
PLAIN = ("sync", "async")

every_wire = pytest.mark.parametrize("case", WIRES, ids=str)
every_stream = pytest.mark.parametrize("way", STREAMS)


def stream_of(case: Case) -> bytes:
    return sse(events(case.wire, TEXT, GOOD_END[case.wire]))


FRAMES: dict[str, Any] = {
    "plain": lambda told: told,
    "byte order mark": lambda told: b"\xef\xbb\xbf" + told,
    "CRLF": lambda told: told.replace(b"\n", b"\r\n"),
    "CR": lambda told: told.replace(b"\n", b"\r"),
    "comments": lambda told: b": begin\n\n" + told.replace(b"data:", b": still here\nid: 1\nretry: 5\ndata:"),
    "no blank after data": lambda told: told.replace(b"data: ", b"data:"),
    "no last line end": lambda told: told.rstrip(b"\n"),
    "leading blank lines": lambda told: b"\r\n\n" + told,
    "data over two lines": lambda told: told.replace(b', "', b',\ndata: "'),
    "done at the end": lambda told: told + b"data: [DONE]\n\n",
    "not escaped": lambda told: told.decode().encode("utf-8").replace(b"\\ud83c\\udf0a", "\U0001f30a".encode()),
    "raw separators": lambda told: told.replace(b"\\u2028", "\u2028".encode()).replace(b"\\u0085", "\x85".encode()),
}


@pytest.mark.parametrize("frame", FRAMES)
@every_stream
@every_wire
def test_the_text_is_whole_in_every_frame(desk: Desk, case: Case, way: str, frame: str) -> None:
    desk.use(case)
    desk.play(case, whole(FRAMES[frame](stream_of(case)), "text/event-stream"))
    assert desk.ask(way).text == TEXT


@pytest.mark.parametrize("media_type", ["application/json", "text/plain", "text/event-stream"])
@every_stream
@every_wire
def test_the_first_bytes_tell_a_stream_from_a_whole_answer(desk: Desk, case: Case, way: str, media_type: str) -> None:
    desk.use(case)
    answer = json.dumps(body(case.wire, TEXT, GOOD_END[case.wire])).encode()
    desk.play(case, whole(stream_of(case), media_type), whole(answer, media_type))
    assert desk.ask(way).text == TEXT
    assert desk.ask(way).text == TEXT


@pytest.mark.parametrize("way", PLAIN)
@every_wire
def test_a_stream_that_nobody_asked_for_is_read_all_the_same(desk: Desk, case: Case, way: str) -> None:
    desk.use(case)
    desk.play(case, whole(stream_of(case), "text/event-stream"), whole(b"\xef\xbb\xbf" + stream_of(case)))
    assert desk.ask(way).text == TEXT
    assert desk.ask(way).text == TEXT


@every_stream
def test_an_array_of_chunks_is_read_like_their_stream(desk: Desk, way: str) -> None:
    case = next(case for case in WIRES if case.wire == "google")
    desk.use(case)
    desk.play(case, whole(json.dumps(events(case.wire, TEXT, "STOP"), indent=1).encode()))
    assert desk.ask(way).text == TEXT


@every_stream
@every_wire
def test_a_stream_that_says_it_is_over_needs_no_word_for_its_end(desk: Desk, case: Case, way: str) -> None:
    desk.use(case)
    told = events(case.wire, TEXT, None)
    if case.wire == "openai":
        told = told[:-1]
    if case.wire == "anthropic":
        told = told[:-2]
    desk.play(case, whole(sse(told) + b"data: [DONE]\n\n", "text/event-stream"), whole(sse(told), "text/event-stream"))
    assert desk.ask(way).text == TEXT
    error = desk.fail(way)
    assert isinstance(error, InterruptedReply)
    assert error.text == TEXT


@every_stream
@every_wire
def test_a_stream_that_only_says_it_is_over_has_no_answer(desk: Desk, case: Case, way: str) -> None:
    desk.use(case)
    desk.play(case, whole(b"data: [DONE]\n\n", "text/event-stream"))
    error = desk.fail(way)
    assert isinstance(error, ProviderDown)
    assert error.code == "no_stream"


@every_stream
@every_wire
def test_a_connection_that_breaks_after_the_end_of_the_answer_loses_nothing(desk: Desk, case: Case, way: str) -> None:
    desk.use(case)
    told = stream_of(case)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    desk.play(case, Raw(head + b"%x\r\n" % len(told) + told + b"\r\n"))
    assert desk.ask(way).text == TEXT


ERRORS: dict[str, bytes] = {
    "error body": b'data: {"error": {"code": 503, "message": "upstream died"}}\n\n',
    "error event": b"event: error\n"
    b'data: {"type": "error", "error": {"type": "overloaded_error", "message": "upstream died"}}\n\n',
    "error event without a type": b'event: error\ndata: {"message": "upstream died"}\n\n',
    "error event in words": b"event: error\ndata: upstream died\n\n",
}


@pytest.mark.parametrize("error", ERRORS)
@every_stream
@every_wire
def test_an_error_in_the_middle_keeps_the_text_before_it(desk: Desk, case: Case, way: str, error: str) -> None:
    desk.use(case)
    half = sse(events(case.wire, TEXT, None)[:4])
    desk.play(case, whole(half + ERRORS[error] + stream_of(case), "text/event-stream"))
    found = desk.fail(way)
    assert isinstance(found, InterruptedReply)
    assert TEXT.startswith(found.text)
    assert found.text
    assert "upstream died" in str(found)
    assert isinstance(found.__cause__, ProviderDown)


@every_stream
@every_wire
def test_a_whole_error_in_place_of_a_stream_is_that_error(desk: Desk, case: Case, way: str) -> None:
    desk.use(case)
    desk.play(case, whole(b'{"error": {"code": 503, "message": "upstream died"}}'))
    error = desk.fail(way)
    assert isinstance(error, ProviderDown)
    assert "upstream died" in str(error)


@pytest.mark.parametrize("way", WAYS)
@every_wire
def test_halves_of_characters_are_joined_or_replaced_in_all_that_is_told(desk: Desk, case: Case, way: str) -> None:
    desk.use(case)
    text = "hi \ud83d \ude00!"  # a space stands between the halves, so the words of the stream end and begin with them
    if way in STREAMS:
        told = whole(sse(events(case.wire, text, GOOD_END[case.wire])).replace(b"\\ud83d ", b"\\ud83d"), "x/y")
    else:
        told = whole(json.dumps(body(case.wire, text.replace(" \ude00", "\ude00"), GOOD_END[case.wire])).encode())
    desk.play(case, told)
    assert desk.ask(way).text == "hi \U0001f600!"
    lone = sse(events(case.wire, "a \ud83d", GOOD_END[case.wire])) if way in STREAMS else b""
    lone = lone or json.dumps(body(case.wire, "a \ud83d", GOOD_END[case.wire])).encode()
    desk.play(case, whole(lone))
    assert desk.ask(way).text == "a \ufffd"
