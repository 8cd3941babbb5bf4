"""Answers without end: what is read and what is decompressed is bounded, in time too, and one error says so."""

from __future__ import annotations

import asyncio
import gzip
import resource
import sys
import time
import urllib.request
import zlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muse import models
from muse.errors import AnswerTooLarge, MuseError, ProviderError
from muse.journal.config import parse_config
from muse.policies.resend_guard import STALE
from muse.providers._http.decoding import Decoder
from muse.providers._http.http1 import Head
from tests.desk import QUESTION, WAYS, Desk
from tests.loopback.behaviours import Raw
from tests.loopback.outcomes import TEXT
from tests.odd_server import OddServer
from tests.provider_cases import FAMILY, WIRES, Case

every_way = pytest.mark.parametrize("way", WAYS)
every_wire = pytest.mark.parametrize("case", WIRES, ids=str)
OK = b"HTTP/1.1 200 OK\r\n"
ERROR = b"HTTP/1.1 500 Oops\r\n"
JSON, EVENTS = b"content-type: application/json\r\n", b"content-type: text/event-stream\r\n"
HTML = b"content-type: text/html\r\n"
MB = 1_000_000


def _coded(body: bytes, *codings: str) -> bytes:
    for coding in codings:
        body = gzip.compress(body, 9) if coding == "gzip" else zlib.compress(body, 9)
    return body


def _answer(start: bytes, body: bytes, *codings: str) -> bytes:
    said = f"content-encoding: {', '.join(codings)}\r\n".encode() if codings else b""
    sent = _coded(body, *codings)
    return start + said + b"content-length: %d\r\n\r\n" % len(sent) + sent


def _bound(desk: Desk, case: Case, max_mb: float) -> None:
    """Route everything to `case`, whose answers may have so many megabytes."""
    desk.reach(case)
    section = {**case.providers(desk.server.url), "answers": {"max_mb": max_mb}}
    section["default"] = {**section["default"], "retries": 3}
    desk.journal.write({"providers": section})


@every_wire
@every_way
@pytest.mark.parametrize("start", [OK + JSON, OK + EVENTS, ERROR + JSON, ERROR + HTML])
@pytest.mark.parametrize("codings", [(), ("gzip",), ("deflate", "gzip")], ids=str)
def test_an_answer_beyond_the_bound_is_one_error_after_one_request(
    desk: Desk, case: Case, way: str, start: bytes, codings: Sequence[str]
) -> None:
    _bound(desk, case, 0.5)
    body = b": x\n\n" * 400_000 if start.endswith(EVENTS) else b"{" + b" " * 2 * MB + b"}"
    desk.play(case, Raw(_answer(start, body, *codings)))
    error = desk.fail(way)
    assert isinstance(error, AnswerTooLarge)
    assert (error.provider, error.code, error.retryable) == (case.name, "answer_too_large", False)
    assert "more than 0.5 MB" in str(error)
    assert "providers.answers.max_mb" in str(error)
    assert len(desk.server.requests) == 1
    # The server closed the connection of the call before, which the first sending may have met.
    lines = [line["error"] for line in desk.journal.lines() if line["error"].get("code") != STALE]
    assert [line["class"] for line in lines] == ["AnswerTooLarge"]


@every_way
def test_an_event_without_end_is_too_large_long_before_the_answer_is(desk: Desk, way: str) -> None:
    case = WIRES[0]
    desk.use(case)
    desk.play(case, Raw(_answer(OK + EVENTS, b'data: {"a": "' + b"b" * 20 * MB + b'"}\n\n', "gzip")))
    error = desk.fail(way)
    assert isinstance(error, AnswerTooLarge)
    assert "an event of a stream of more than 16 MB" in str(error)


@every_wire
@every_way
def test_answers_within_the_bound_are_read_whichever_way_they_are_compressed(desk: Desk, case: Case, way: str) -> None:
    _bound(desk, case, 64)
    plain = desk.ask(way)
    is_stream = way in ("stream", "astream")
    request, kind = desk.server.requests[-1], EVENTS if is_stream else JSON
    path = request.path if not is_stream or case.name != "google" else f"{request.path}?alt=sse"
    with urllib.request.urlopen(urllib.request.Request(desk.server.url + path, request.content)) as answer:
        body = answer.read()
    for codings in (("gzip",), ("deflate",), ("gzip", "deflate"), ("identity",)):
        used = [coding for coding in codings if coding != "identity"]
        desk.play(case, Raw(_answer(OK + kind, body, *used)))
        assert desk.ask(way).text == plain.text == TEXT


_BOMB = 1_000 * MB


@pytest.fixture(scope="module", name="bomb")
def _bomb() -> bytes:
    """About 1 MB of gzip that becomes 1 GB."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = b" " * MB
    return b"".join([squeeze.compress(zeros) for _ in range(_BOMB // MB)]) + squeeze.flush()


@every_way
@pytest.mark.parametrize("max_mb", [64.0, 2_000.0])
def test_a_bomb_ends_with_the_bound_or_with_the_time_and_takes_no_memory(
    desk: Desk, bomb: bytes, way: str, max_mb: float
) -> None:
    case = WIRES[0]
    _bound(desk, case, max_mb)
    start = OK + (EVENTS if way in ("stream", "astream") else JSON) + b"content-encoding: gzip\r\n"
    desk.play(case, Raw(start + b"content-length: %d\r\n\r\n" % len(bomb) + bomb))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started_s = time.monotonic()
    error = desk.fail(way, timeout_s=0.5 if max_mb > 64 else 30)
    if max_mb > 64:
        assert time.monotonic() - started_s < 8, error
        assert isinstance(error, (AnswerTooLarge, MuseError))
    else:
        assert isinstance(error, AnswerTooLarge)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown * (1 if sys.platform == "darwin" else 1024) < 300 * MB


async def test_the_event_loop_goes_on_while_a_bomb_is_decompressed(desk: Desk, bomb: bytes) -> None:
    case = WIRES[0]
    _bound(desk, case, 200)
    start = OK + JSON + b"content-encoding: gzip\r\n"
    desk.play(case, Raw(start + b"content-length: %d\r\n\r\n" % len(bomb) + bomb))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    with pytest.raises(AnswerTooLarge):
        await models.agenerate(QUESTION, "app.bomb", timeout_s=60)
    counting.cancel()
    assert turns > 200 * MB / 262_144 * 0.9, "one turn for each piece of 256 KiB"


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_bound_of_ones_own_counts_for_its_provider_and_from_the_next_call_on(desk: Desk, way: str) -> None:
    case = FAMILY[0]
    desk.use(case)
    assert desk.ask(way).text == TEXT
    desk.journal.write({"providers": {**case.providers(desk.server.url), "answers": {"providers": {"openai": 0.0001}}}})
    assert isinstance(desk.fail(way), AnswerTooLarge)
    desk.journal.write({"providers": {**case.providers(desk.server.url), "answers": {"providers": {"google": 0.0001}}}})
    assert desk.ask(way).text == TEXT


def test_an_answer_too_large_goes_down_the_ladder(desk: Desk) -> None:
    first, second = FAMILY[:2]
    desk.reach(first, second)
    section = {
        "default": {"provider": "openai", "model": first.model, "fallbacks": ["anthropic"]},
        "answers": {"providers": {"openai": 0.0001}},
    }
    desk.journal.write({"providers": section})
    assert desk.ask("sync").provider == "anthropic"


@pytest.mark.parametrize(
    ("said", "path"),
    [
        ({"max_mb": 0}, "providers.answers.max_mb"),
        ({"max_mb": "64"}, "providers.answers.max_mb"),
        ({"providers": {"openai": -1}}, "providers.answers.providers['openai']"),
        ({"providers": {"openai": True}}, "providers.answers.providers['openai']"),
        ({"providers": {"opnai": 5}}, "providers.answers.providers['opnai']"),
        ({"mx_mb": 5}, "providers.answers.mx_mb"),
    ],
)
def test_a_bound_that_is_none_is_a_problem_with_its_place(said: object, path: str) -> None:
    config, problems = parse_config({"providers": {"answers": said}}, {"openai"})
    assert [problem.path for problem in problems] == [path]
    assert config.policies.answers.max_bytes("openai") == 64 * MB


@given(
    st.binary(max_size=3_000).map(lambda data: data * 200),
    st.lists(st.sampled_from(["gzip", "deflate"]), max_size=4),
    st.lists(st.integers(1, 5_000), max_size=20),
)
def test_decoding_gives_back_what_was_coded_however_it_is_cut(body: bytes, codings: list[str], cuts: list[int]) -> None:
    sent = _coded(body, *codings)
    head = Head(200, "", [(b"Content-Encoding", ", ".join(codings).encode())], "close", 0, False)
    decoder = Decoder(head, None)
    found, at = b"", 0
    for cut in [*cuts, len(sent)]:
        found += b"".join(decoder.decode(sent[at : at + cut])) if sent[at : at + cut] else b""
        at += cut
    decoder.finish()
    assert found == body


def test_members_of_gzip_in_a_row_are_one_body() -> None:
    head = Head(200, "", [(b"content-encoding", b"gzip")], "close", 0, False)
    decoder = Decoder(head, None)
    assert b"".join(decoder.decode(gzip.compress(b"a" * 10) + gzip.compress(b"b"))) == b"a" * 10 + b"b"


def test_bare_deflate_is_read_too() -> None:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    sent = squeeze.compress(b"tide" * 99) + squeeze.flush()
    head = Head(200, "", [(b"content-encoding", b"deflate")], "close", 0, False)
    assert b"".join(Decoder(head, None).decode(sent)) == b"tide" * 99


@every_way
def test_cut_off_compressed_data_is_no_answer(desk: Desk, way: str) -> None:
    case = WIRES[0]
    sent = gzip.compress(b'{"a": 1}')[:-4]
    kind = EVENTS if way in ("stream", "astream") else JSON
    with OddServer([OK + kind + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(sent) + sent]) as server:
        desk.use(case, url=f"http://{server.address}")
        assert isinstance(desk.fail(way), ProviderError)
