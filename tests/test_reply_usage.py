"""The counts of an answer, as its reply and its line in the usage log have them, wherever the server tells them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from muse import models
from tests.desk import CONTEXT, QUESTION, WAYS, Desk
from tests.provider_cases import WIRES, Case
from tests.reply_bodies import GOOD_END, NO_COUNTS, answer, body, events, sse, whole

TEXT = "Low water is at noon, and high water is at six."
every_wire = pytest.mark.parametrize("case", WIRES, ids=str)


@pytest.mark.parametrize("told", ["missing", "zero"])
@pytest.mark.parametrize("way", WAYS)
@every_wire
def test_what_no_server_counted_is_an_estimate_and_not_free(desk: Desk, case: Case, way: str, told: str) -> None:
    desk.use(case)
    usage = NO_COUNTS[case.wire] if told == "zero" else None
    desk.play(case, answer(case, way, TEXT, GOOD_END[case.wire], usage))
    reply = desk.ask(way, model=case.model)
    assert (reply.usage.estimated, reply.usage.input_tokens) == (True, -(-len(QUESTION) // 4))
    assert reply.usage.output_tokens == -(-len(TEXT) // 4)
    line = desk.last_line()
    assert (line["estimated"], line["usage"]) == (True, reply.usage.as_dict())
    assert line["cost_usd"] != 0


def test_one_count_that_cannot_be_zero_is_estimated_and_the_other_stands(desk: Desk) -> None:
    case = WIRES[-1]
    desk.use(case)
    for counts, expected in (((50, 0), (50, 12)), ((0, 9), (6, 9))):
        usage = {"prompt_tokens": counts[0], "completion_tokens": counts[1]}
        desk.play(case, answer(case, "sync", TEXT, "stop", usage))
        found = desk.ask("sync").usage
        assert (found.input_tokens, found.output_tokens, found.estimated) == (*expected, True)


@every_wire
def test_the_estimate_of_a_tool_call_counts_its_name_and_arguments(desk: Desk, case: Case) -> None:
    desk.use(case)
    args: Any = {"path": "notes.md"}
    args = json.dumps(args) if case.wire in ("openai", "compatible") else args
    told = body(case.wire, "", GOOD_END[case.wire], [("a1", "read_file", args)])
    desk.play(case, whole(json.dumps(told).encode()))
    usage = desk.ask("sync").usage
    assert (usage.output_tokens >= 6, usage.estimated) == (True, True)


def _in_message(told: dict[str, Any], usage: dict[str, int]) -> dict[str, Any]:
    choice = told["choices"][0]
    name = "message" if "message" in choice else "delta"
    return told | {"choices": [choice | {name: choice[name] | {"usage": usage}}]}


PLACES: dict[str, Any] = {
    "on top": lambda whole_answer, usage: whole_answer | {"usage": usage},
    "in the choice": lambda whole_answer, usage: (
        whole_answer | {"choices": [whole_answer["choices"][0] | {"usage": usage}]}
    ),
    "in the message": _in_message,
    "in x_groq": lambda whole_answer, usage: whole_answer | {"x_groq": {"id": "r", "usage": usage}},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("way", WAYS)
def test_counts_are_found_on_top_in_the_choice_and_in_an_extension(desk: Desk, way: str, place: str) -> None:
    case = WIRES[-1]
    desk.use(case)
    usage = {"prompt_tokens": 100, "completion_tokens": 9, "total_tokens": 109}
    if way in ("sync", "async"):
        told = PLACES[place](body(case.wire, TEXT, "stop"), usage)
        desk.play(case, whole(json.dumps(told).encode()))
    else:
        chunks = events(case.wire, TEXT, "stop")
        desk.play(case, whole(sse([*chunks[:-1], PLACES[place](chunks[-1], usage)]), "text/event-stream"))
    found = desk.ask(way).usage
    assert (found.input_tokens, found.output_tokens, found.estimated) == (100, 9, False)


@pytest.mark.parametrize("way", ["stream", "astream"])
@pytest.mark.parametrize("case", WIRES[1:], ids=str)
def test_a_later_zero_in_a_stream_replaces_no_count(desk: Desk, case: Case, way: str) -> None:
    desk.use(case)
    usage: dict[str, dict[str, int]] = {
        "anthropic": {"input_tokens": 1000, "output_tokens": 9, "cache_read_input_tokens": 0},
        "google": {"promptTokenCount": 1000, "candidatesTokenCount": 9, "totalTokenCount": 1009},
        "compatible": {"prompt_tokens": 1000, "completion_tokens": 9, "total_tokens": 1009},
    }
    told = events(case.wire, TEXT, GOOD_END[case.wire], usage[case.wire])
    zero: dict[str, Any] = {
        "anthropic": {"type": "message_delta", "delta": {}, "usage": dict.fromkeys(usage["anthropic"], 0)},
        "google": {"usageMetadata": NO_COUNTS["google"] | {"candidatesTokenCount": None}},
        "compatible": {"choices": [], "usage": NO_COUNTS["compatible"]},
    }[case.wire]
    place = -1 if case.wire == "anthropic" else len(told)
    desk.play(case, whole(sse([*told[:place], zero, *told[place:]]), "text/event-stream"))
    found = desk.ask(way).usage
    assert (found.input_tokens, found.output_tokens, found.estimated) == (1000, 9, False)


@every_wire
def test_a_stream_left_early_counts_what_was_told_and_estimates_the_rest(desk: Desk, case: Case) -> None:
    desk.use(case)
    desk.play(case, answer(case, "stream", TEXT, GOOD_END[case.wire], NO_COUNTS[case.wire]))
    with models.stream(QUESTION, CONTEXT) as stream:
        next(stream)
    line = desk.last_line()
    assert line["finish"] == "closed"
    assert line["usage"]["input_tokens"] == -(-len(QUESTION) // 4)
    assert line["estimated"] is True
