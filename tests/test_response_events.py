"""Streamed answers put together: parts that one event tells as a whole, refusals, ends that lack items, choices."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from muse.providers import backend_of
from muse.providers._backend.backend import ProviderBackend
from muse.providers._chat import ChatAccumulator, chat_messages, decode_completion
from muse.types.messages import Reply, Request, ToolResult, ToolResults, User
from muse.types.provider_spec import ModelProfile
from tests.provider_cases import WIRES, Case

REQUEST = Request("m", (User(("x",)),))
CALL = {"type": "function_call", "id": "f", "call_id": "a1", "name": "get", "arguments": ""}
ARGS = '{"a": 1}'


def gathered(*told: dict[str, Any], output: Any = ()) -> tuple[str, Reply]:
    """The pieces given out, and the reply, of events of a response that ends with this output."""
    backend = backend_of(WIRES[0].name)
    assert isinstance(backend, ProviderBackend)
    accumulator = backend.provider.gather()
    end = {"type": "response.completed", "response": {"status": "completed", "output": output, "model": "m"}}
    pieces = "".join(map(accumulator.feed, (*told, end)))
    raw = accumulator.raw()
    assert raw is not None
    return pieces, backend.provider.decode(raw, REQUEST)


def event(kind: str, place: int = 0, **more: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", "output_index": place, **more}


def calls_of(reply: Reply) -> list[tuple[str, str, dict[str, Any]]]:
    return [(one.call_id, one.name, dict(one.args)) for one in reply.turn.calls]


@pytest.mark.parametrize("output", [None, [], [{"type": "reasoning", "summary": []}]])
@pytest.mark.parametrize(
    "told",
    [
        [event("output_text.done", text="Hello")],
        [event("content_part.done", part={"type": "output_text", "text": "Hello"})],
        [event("output_text.delta", delta=None), event("output_text.delta", delta="Hello")],
        [event("output_text.delta", delta="Hello"), event("output_text.done", text="Hello")],
        [{"type": "response.output_text.delta", "delta": "Hello"}, event("output_text.done", 3, text="Hello")],
        [
            event("content_part.done", part={"type": "reasoning_text", "text": "hm"}),
            event("output_text.done", text="Hello"),
        ],
    ],
)
def test_text_that_is_told_as_a_whole_is_given_out_once(told: list[dict[str, Any]], output: Any) -> None:
    pieces, reply = gathered(*told, output=output)
    assert (pieces, reply.text, reply.finish) == ("Hello", "Hello", "stop")


@pytest.mark.parametrize("pieces", [[], ['{"a": ', "1}"]])
def test_arguments_that_are_told_as_a_whole_are_those_of_the_call(pieces: list[str]) -> None:
    told = [event("function_call_arguments.delta", delta=piece) for piece in pieces]
    done = event("function_call_arguments.done", arguments=ARGS)
    assert calls_of(gathered(event("output_item.added", item=CALL), *told, done)[1]) == [("a1", "get", {"a": 1})]


def test_a_call_that_an_end_with_text_lacks_is_not_lost() -> None:
    message = {"type": "message", "content": [{"type": "output_text", "text": "Look"}]}
    told = [event("output_text.delta", delta="Look"), event("output_item.done", 1, item=CALL | {"arguments": ARGS})]
    pieces, reply = gathered(*told, output=[message])
    assert (pieces, reply.text, reply.finish, calls_of(reply)) == ("Look", "Look", "tools", [("a1", "get", {"a": 1})])
    assert calls_of(gathered(*told, output=[message, CALL | {"arguments": ARGS}])[1]) == [("a1", "get", {"a": 1})]


@pytest.mark.parametrize(
    "told",
    [
        [event("refusal.delta", delta="I can"), event("refusal.delta", delta="not")],
        [event("refusal.done", refusal="I cannot")],
        [event("refusal.delta", delta="I cannot"), event("refusal.done", refusal="I cannot")],
        [event("content_part.done", part={"type": "refusal", "refusal": "I cannot"})],
    ],
)
def test_a_refusal_that_only_events_tell_is_a_blocked_answer(told: list[dict[str, Any]]) -> None:
    pieces, reply = gathered(*told)
    assert (pieces, reply.text, reply.finish) == ("", "I cannot", "blocked")


def test_a_refusal_among_the_parts_of_a_message_is_a_blocked_answer() -> None:
    message = {"content": [{"type": "refusal", "refusal": "I cannot"}]}
    reply = decode_completion({"choices": [{"message": message, "finish_reason": "stop"}]}, REQUEST, "gateway")
    assert (reply.text, reply.finish) == ("I cannot", "blocked")


def test_of_several_choices_the_first_one_is_the_answer() -> None:
    accumulator = ChatAccumulator("gateway")
    told = [
        {"choices": [{"index": place, "delta": {"content": text}} for place, text in choices]}
        for choices in ([(0, "He"), (1, "B")], [(1, "ye")], [(0, "llo")])
    ]
    end = [
        {"choices": [{"index": place, "delta": {}, "finish_reason": end}]}
        for place, end in ((1, "length"), (0, "stop"))
    ]
    assert "".join(map(accumulator.feed, (*told, *end))) == "Hello"
    raw = accumulator.raw()
    assert raw is not None
    assert raw["choices"][0] == {"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}


def test_pieces_of_a_gemini_answer_may_be_null_and_arguments_may_be_text() -> None:
    case = next(case for case in WIRES if case.name == "google")
    backend = backend_of(case.name)
    assert isinstance(backend, ProviderBackend)
    accumulator = backend.provider.gather()
    parts: list[dict[str, Any]] = [{"text": None}, {"text": "Hi"}, {"functionCall": {"name": "get", "args": ARGS}}]
    assert accumulator.feed({"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}) == "Hi"
    raw = accumulator.raw()
    assert raw is not None
    reply = backend.provider.decode(raw, REQUEST)
    assert (reply.text, [dict(call.args) for call in reply.turn.calls]) == ("Hi", [{"a": 1}])


@pytest.mark.parametrize("case", WIRES, ids=str)
@pytest.mark.parametrize("said", ['{"a":', "[1]", "x", 5])
def test_arguments_that_are_none_are_sent_back_as_an_object(case: Case, said: Any) -> None:
    backend = backend_of(case.name)
    assert isinstance(backend, ProviderBackend)
    reply = backend.provider.decode(
        {
            "openai": {"output": [CALL | {"arguments": said}], "status": "completed"},
            "anthropic": {"content": [{"type": "tool_use", "id": "a1", "name": "get", "input": said}]},
            "google": {"candidates": [{"content": {"parts": [{"functionCall": {"name": "get", "args": said}}]}}]},
        }.get(case.name)
        or {"choices": [{"message": {"tool_calls": [{"id": "a1", "function": {"name": "get", "arguments": said}}]}}]},
        REQUEST,
    )
    assert "_invalid" in reply.turn.calls[0].args
    turns = (*REQUEST.turns, reply.turn, ToolResults((ToolResult("a1", "get", ("no",), failed=True),)))
    sent = list(_arguments(backend.provider.encode(Request("m", turns)).payload))
    objects = [json.loads(value) if isinstance(value, str) else value for value in sent]
    assert len(objects) == 1
    assert "_invalid" in objects[0]


def _arguments(value: Any) -> Iterator[Any]:
    """The arguments of calls in a request, in whatever form."""
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _arguments(inner)
    if isinstance(value, dict) and "name" in value:
        yield from (value[key] for key in ("arguments", "input", "args") if key in value)


def test_names_and_empty_texts_that_endpoints_refuse_are_not_sent_back() -> None:
    items = [{"type": "message", "content": [{"type": "output_text", "text": ""}]}, CALL | {"name": "a b!"}]
    provider = backend_of("openai").provider  # type: ignore[attr-defined]
    turn = provider.decode({"output": items, "status": "completed"}, REQUEST).turn
    sent = provider.encode(Request("m", (*REQUEST.turns, turn))).payload["input"][1:]
    assert [(item["type"], item.get("name")) for item in sent] == [("function_call", "a_b_")]
    assert turn.calls[0].name == "a b!"
    call = {"id": "a1", "function": {"name": "a b!", "arguments": "{}"}}
    raw = {"choices": [{"message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    reply = decode_completion(raw, REQUEST, "gateway")
    messages = chat_messages(Request("m", (reply.turn,)), ModelProfile("*"), "gateway")
    assert messages[0]["tool_calls"][0]["function"]["name"] == "a_b_"
