"""Streamed bodies: the same events however the bytes are split and their lines end, and those of a body of JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muse.errors import ProviderDown
from muse.providers._http.sse import DONE, EventReader, aread_events, read_events

texts = st.text(st.characters(codec="utf-8"), max_size=8)
values = st.dictionaries(texts, texts | st.integers(-5, 5) | st.lists(texts, max_size=2), max_size=3)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, list[Any]]:
    """A stream of events as servers write it, and the values in it."""
    end = draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    told = draw(st.lists(values, max_size=5))
    lines: list[bytes] = []
    for value in told:
        lines += [b": a comment"] if draw(st.booleans()) else []
        lines += [b"id: 7", b"retry: 10"] if draw(st.booleans()) else []
        text = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
        gap = b" " if draw(st.booleans()) else b""
        lines += [b"data:" + gap + line.encode() for line in text.split("\n")]
        lines += [b""] * draw(st.integers(1, 3))
    if draw(st.booleans()):
        lines += [b"data: [DONE]", b"", b"data: {}", b""]
        told = [*told, DONE]
    elif lines and draw(st.booleans()):
        while lines and not lines[-1]:
            lines.pop()
    body = draw(st.sampled_from([b"", b"\xef\xbb\xbf", end * 2])) + b"".join(line + end for line in lines)
    return body.removesuffix(end) if told and told[-1] is not DONE and draw(st.booleans()) else body, told


def split(body: bytes, places: Sequence[int]) -> list[bytes]:
    cuts = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:stop] for start, stop in pairwise(cuts)]


async def _awaited(pieces: list[bytes]) -> list[Any]:
    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return [event async for event in aread_events(body(), "p")]


@given(bodies(), st.lists(st.integers(0, 10_000), max_size=12))
def test_any_split_of_the_bytes_gives_the_same_events(case: tuple[bytes, list[Any]], places: list[int]) -> None:
    body, told = case
    pieces = split(body, places)
    assert list(read_events(pieces, "p")) == told
    assert asyncio.run(_awaited(pieces)) == told


@given(bodies())
def test_one_byte_at_a_time_gives_the_same_events(case: tuple[bytes, list[Any]]) -> None:
    body, told = case
    assert list(read_events([body[place : place + 1] for place in range(len(body))], "p")) == told


@given(st.lists(values, min_size=1, max_size=3), st.lists(st.integers(0, 10_000), max_size=6), st.booleans())
def test_a_body_of_json_gives_its_values_and_is_over(told: list[Any], places: list[int], marked: bool) -> None:
    mark = b"\xef\xbb\xbf" if marked else b"\r\n "
    one, many = json.dumps(told[0]).encode(), json.dumps(told).encode()
    by_line = b"\n".join(json.dumps(value).encode() for value in told)
    assert list(read_events(split(mark + one, places), "p")) == [told[0], DONE]
    assert list(read_events(split(mark + many, places), "p")) == [*told, DONE]
    assert list(read_events(split(mark + by_line, places), "p")) == [*told, DONE]


def events_of(body: bytes) -> list[Any]:
    return list(read_events([body], "p"))


@pytest.mark.parametrize("data", [b"hello", b"5", b"[1]", b'"x"', b"null", b"{", b"[" * 100_000])
def test_data_that_is_no_object_fails_after_the_events_before_it(data: bytes) -> None:
    found = read_events([b'data: {"a": 1}\n\ndata: ' + data + b'\n\ndata: {"b": 2}\n\n'], "p")
    assert next(found) == {"a": 1}
    with pytest.raises(ProviderDown, match="not an event of a stream") as caught:
        next(found)
    assert caught.value.code == "unreadable"


@pytest.mark.parametrize("body", [b"{", b"[1]", b'{"a": 1} x', b"[", b'[{"a": 1}, 5]'])
def test_a_body_that_begins_like_json_and_is_none_cannot_be_read(body: bytes) -> None:
    with pytest.raises(ProviderDown, match="not an event"):
        events_of(body)


@pytest.mark.parametrize("cut", range(1, len(b'data: {"a": "b"}')))
def test_an_event_that_is_cut_off_is_left_out(cut: int) -> None:
    assert events_of(b'data: {"a": 1}\n\n' + b'data: {"a": "b"}'[:cut]) == [{"a": 1}]


def test_a_name_stands_for_a_type_that_the_data_leaves_out() -> None:
    assert events_of(b'event: ping\ndata: {}\n\nevent: x\ndata: {"a": 1}\n\ndata: {"a": 2}\n\n') == [
        {"type": "x", "a": 1},
        {"a": 2},
    ]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b'{"error": {"message": "m"}}', {"message": "m"}),
        (b'{"message": "m"}', {"message": "m"}),
        (b"overloaded", {"message": "overloaded"}),
    ],
)
def test_an_event_named_error_is_one_whatever_its_data(data: bytes, error: dict[str, str]) -> None:
    assert events_of(b"event: error\ndata: " + data + b"\n\n") == [{"type": "error", "error": error}]


@pytest.mark.parametrize("name", [b"ping", b"keepalive", b"heartbeat"])
def test_an_event_that_only_keeps_the_connection_open_is_left_out(name: bytes) -> None:
    assert events_of(b"event: " + name + b"\ndata: still here\n\ndata:\n\n: thinking\n\n") == []


def test_a_page_of_html_has_no_events() -> None:
    assert events_of(b"<html>\n<body>data: {}</body>\n</html>\n\n") == []


def test_nothing_is_read_beyond_the_end() -> None:
    reader = EventReader("p")
    assert reader.feed(b'data: [DONE]\n\ndata: {"a": 1}\n\n') == [DONE]
    assert reader.feed(b'data: {"a": 1}\n\n') == reader.end() == []


@pytest.mark.parametrize("end", ["\n", "\n\n", ""])
def test_events_without_blank_lines_between_them_are_told_apart(end: str) -> None:
    lines = ['data: {"a": 1}', 'data: {"b": 2}']
    assert events_of(("\n".join(lines) + end).encode()) == [{"a": 1}, {"b": 2}]
    assert events_of(("\n".join([*lines, "data: [DONE]"]) + end).encode()) == [{"a": 1}, {"b": 2}, DONE]
