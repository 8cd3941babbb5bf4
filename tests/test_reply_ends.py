"""How an answer ended: good words, truncation, refusal, and every other word, in each wire form and way of asking."""

from __future__ import annotations

import json

import pytest

from muse import models
from muse.errors import BlockedReply, EmptyReply, InterruptedReply, MuseError, ProviderDown, TruncatedReply
from muse.providers import backend_of
from muse.providers._backend.backend import ProviderBackend
from muse.providers._backend.provider import Provider
from muse.types.messages import Request, User
from tests.desk import CONTEXT, QUESTION, WAYS, Desk
from tests.provider_cases import WIRES, Case
from tests.reply_bodies import GOOD_END, LIMIT_END, answer, body, events, sse, whole

TEXT = "The tide turns at ha"
USAGE = {
    "openai": {"input_tokens": 40, "output_tokens": 6, "total_tokens": 46},
    "anthropic": {"input_tokens": 40, "output_tokens": 6},
    "google": {"promptTokenCount": 40, "candidatesTokenCount": 6, "totalTokenCount": 46},
    "compatible": {"prompt_tokens": 40, "completion_tokens": 6, "total_tokens": 46},
}
ERROR_ENDS = {
    "openai": ("cancelled", "in_progress", "queued", "abandoned"),
    "anthropic": ("pause_turn", "error", "abandoned"),
    "google": ("MALFORMED_FUNCTION_CALL", "OTHER", "UNEXPECTED_TOOL_CALL", "FINISH_REASON_UNSPECIFIED", "ABANDONED"),
    "compatible": ("error", "cancelled", "network_error", "abandoned", "pause_turn"),
}
BLOCKED_ENDS = {
    "anthropic": ("refusal",),
    "google": ("SAFETY", "RECITATION", "PROHIBITED_CONTENT", "SPII", "BLOCKLIST", "IMAGE_SAFETY"),
    "compatible": ("content_filter", "sensitive", "SAFETY"),
}
TRUNCATED_ENDS = ("length", "max_tokens", "MAX_TOKENS", "max_output_tokens", "model_length", "max_length")
GOOD_ENDS = ("stop", "STOP", "end_turn", "eos", "eos_token", "stop_sequence", "tool_calls", None, "")

every_wire = pytest.mark.parametrize("case", WIRES, ids=str)
every_way = pytest.mark.parametrize("way", WAYS)


def provider_of(case: Case) -> Provider:
    backend = backend_of(case.name)
    assert isinstance(backend, ProviderBackend)
    return backend.provider


@every_way
@every_wire
def test_a_word_that_is_no_end_is_an_error_that_names_it_and_what_was_spent(desk: Desk, case: Case, way: str) -> None:
    desk.use(case)
    for end in ERROR_ENDS[case.wire]:
        desk.play(case, answer(case, way, TEXT, end, USAGE[case.wire]))
        error = desk.fail(way)
        cause = error.__cause__ if isinstance(error, InterruptedReply) else error
        assert isinstance(cause, ProviderDown), (end, error)
        assert (cause.code, repr(end) in str(cause)) == ("unfinished", True)
        line = desk.last_line()
        assert (line["finish"], line["error"]["class"], line["usage"]["total_tokens"]) == ("error", "ProviderDown", 46)
        if way.endswith("stream"):
            assert isinstance(error, InterruptedReply)
            assert error.text == TEXT


@every_way
@every_wire
def test_a_good_end_and_an_end_at_the_limit_are_told_apart(desk: Desk, case: Case, way: str) -> None:
    desk.use(case)
    desk.play(case, answer(case, way, TEXT, GOOD_END[case.wire], USAGE[case.wire]))
    reply = desk.ask(way)
    assert (reply.text, reply.finish, reply.ended_with) == (TEXT, "stop", GOOD_END[case.wire])
    desk.play(case, answer(case, way, TEXT, LIMIT_END[case.wire], USAGE[case.wire]))
    error = desk.fail(way)
    assert isinstance(error, TruncatedReply)
    assert error.text == TEXT


@every_way
@every_wire
def test_a_blocked_answer_is_told_by_each_of_its_words(desk: Desk, case: Case, way: str) -> None:
    desk.use(case)
    for end in BLOCKED_ENDS.get(case.wire, ()):
        desk.play(case, answer(case, way, TEXT, end, USAGE[case.wire]))
        assert isinstance(desk.fail(way), BlockedReply), end


def test_endpoints_of_one_form_pass_on_the_words_of_others() -> None:
    case = WIRES[-1]
    request = Request(case.model, (User((QUESTION,)),))
    for end in TRUNCATED_ENDS:
        assert provider_of(case).decode(body(case.wire, TEXT, end), request).finish == "length", end
    for end in GOOD_ENDS:
        assert provider_of(case).decode(body(case.wire, TEXT, end), request).finish == "stop", end


@every_way
@every_wire
def test_an_answer_without_text_or_calls_is_empty_whatever_word_ends_it(desk: Desk, case: Case, way: str) -> None:
    desk.use(case)
    tools_end = {"anthropic": "tool_use", "compatible": "tool_calls"}.get(case.wire, GOOD_END[case.wire])
    for end in (GOOD_END[case.wire], tools_end):
        desk.play(case, answer(case, way, " ", end, USAGE[case.wire]))
        assert isinstance(desk.fail(way), EmptyReply), end


@every_wire
async def test_a_call_of_a_tool_that_nobody_offered_is_no_text(desk: Desk, case: Case) -> None:
    desk.use(case)
    args = "{}" if case.wire in ("openai", "compatible") else {}
    called = whole(_dumped(body(case.wire, "", GOOD_END[case.wire], [("a1", "get", args)], USAGE[case.wire])))
    desk.play(case, called, called, called, called)
    for ask in (models.generate, lambda *told: models.generate_object(*told, {"type": "object"})):
        with pytest.raises(EmptyReply, match="called get, which was not offered"):
            ask(QUESTION, CONTEXT)
    with pytest.raises(EmptyReply):
        await models.agenerate(QUESTION, CONTEXT)
    assert models.reply(QUESTION, CONTEXT).turn.calls[0].name == "get"


@every_wire
def test_words_beside_a_call_that_nobody_offered_are_the_text(desk: Desk, case: Case) -> None:
    desk.use(case)
    args = "{}" if case.wire in ("openai", "compatible") else {}
    desk.play(case, whole(_dumped(body(case.wire, "Low.", GOOD_END[case.wire], [("a1", "get", args)]))))
    assert models.generate(QUESTION, CONTEXT) == "Low."


@every_way
@every_wire
def test_an_end_that_no_list_has_is_not_asked_about_again_and_goes_to_the_next_rung(
    desk: Desk, case: Case, way: str
) -> None:
    desk.use(case)
    section = case.providers(desk.server.url)
    section["default"] |= {"retries": 2, "fallbacks": ["echo"]}
    desk.journal.write({"providers": section})
    desk.play(case, answer(case, way, TEXT, "abandoned", USAGE[case.wire]))
    assert desk.ask(way).provider == "echo"
    assert len(desk.server.requests) == 1


@every_wire
def test_an_error_within_a_choice_or_answer_is_that_error(desk: Desk, case: Case) -> None:
    desk.use(case)
    told = body(case.wire, TEXT, GOOD_END[case.wire], (), USAGE[case.wire])
    place = told["choices"][0] if case.wire == "compatible" else told
    place["error"] = {"code": 503, "type": "error", "message": "upstream died"}
    if case.wire == "anthropic":
        told["type"] = "error"
    desk.play(case, whole(_dumped(told)))
    with pytest.raises(MuseError, match="upstream died") as caught:
        models.reply(QUESTION, CONTEXT)
    assert isinstance(caught.value, ProviderDown)
    assert desk.last_line()["usage"]["total_tokens"] == 46, "it was paid for all the same"


def test_a_chunk_that_says_null_for_its_end_does_not_end(desk: Desk) -> None:
    case = WIRES[-1]
    desk.use(case)
    chunks = events(case.wire, TEXT, "stop", USAGE[case.wire])
    for chunk in chunks[:-1]:
        chunk["choices"][0]["finish_reason"] = "null"
    desk.play(case, whole(sse(chunks), "text/event-stream"), whole(sse(chunks[:-1]), "text/event-stream"))
    assert desk.ask("stream").text == TEXT
    assert isinstance(desk.fail("stream"), InterruptedReply)


def _dumped(value: object) -> bytes:
    return json.dumps(value).encode()
