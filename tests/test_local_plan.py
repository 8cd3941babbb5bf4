"""Tool use planned for a model that cannot call tools: each step against a scripted engine; it looks at no model."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from muse.policies.deadline import Deadline
from muse.providers._local.tool_planner.result_passages import best, is_backed, read_result
from muse.providers._local.tool_planner.task import Task, task_of
from muse.providers.local import LocalProvider
from muse.types.messages import Assistant, Request, Tool, ToolCall, ToolResult, ToolResults, User
from tests.desk import WAYS
from tests.planned import (
    DAYS,
    ERASE,
    FERRY,
    FOUND,
    LOG,
    NOTHING,
    READ,
    SAILINGS,
    SEARCH,
    TEXT,
    Scripted,
    after,
    called,
    completed,
    told,
    tool,
)

QUESTION = "When did Captain Orde sail?"
every_way = pytest.mark.parametrize("way", WAYS)


def turned(way: str, engine: Scripted, request: Request) -> dict[str, Any]:
    """The reply to a request as the provider decodes it, made in one of the ways, as comparable parts."""
    provider = LocalProvider()
    payload = provider.encode(request).payload
    deadline = Deadline.after(60)
    client: Any = engine
    if way == "sync":
        raw = provider.send(client, payload, deadline)
    elif way == "async":
        raw = asyncio.run(provider.asend(client, payload, deadline))
    else:
        accumulator = provider.gather()
        for event in _events(provider, client, payload, deadline, way):
            accumulator.feed(event)
        gathered = accumulator.raw()
        assert gathered is not None
        raw = gathered
    reply = provider.decode(raw, request)
    return {"text": reply.text, "calls": reply.turn.calls, "usage": reply.usage, "finish": reply.finish}


def _events(provider: LocalProvider, client: Any, payload: dict[str, Any], deadline: Deadline, way: str) -> list[Any]:
    if way == "stream":
        return list(provider.stream(client, payload, deadline))

    async def gather() -> list[Any]:
        return [event async for event in provider.astream(client, payload, deadline)]

    return asyncio.run(gather())


# The call


def test_a_call_is_an_ordinary_completion_whose_arguments_fit_the_schema() -> None:
    completion = completed(Task(QUESTION, FERRY), Scripted("Captain Orde sail"))
    choice = completion["choices"][0]
    call = choice["message"]["tool_calls"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert call["function"]["name"] == SEARCH.name
    assert json.loads(call["function"]["arguments"]) == {"query": "Captain Orde sail"}


def test_search_words_are_copied_under_a_grammar_that_keeps_names() -> None:
    engine = Scripted("Captain Orde")
    completed(Task(QUESTION, FERRY), engine)
    ((op, body),) = engine.asked
    assert op == "complete"
    assert body["temperature"] == 0
    lines = dict(line.split(" ::= ") for line in body["grammar"].splitlines())
    assert [lines[name].split('"')[1] for name in ("w0", "w1", "w2")] == [" Captain", " Orde", " sail"]
    assert lines["root"].startswith("(w0)"), "the first word is a name: nothing may stand before it, nothing without it"
    assert not lines["w0"].endswith("?"), "a name follows"
    assert lines["w1"].endswith("?"), "only a word that is no name follows"


def test_only_tools_that_change_nothing_are_called() -> None:
    assert called(Task("Erase the log of the lightship", FERRY), Scripted("lightship")) != (ERASE.name, {})
    for question in ("Erase the log!", "erase_log lightship", "Which log shall I erase?"):
        made = called(Task(question, FERRY), Scripted("lightship"))
        assert made is None or made[0] != ERASE.name


def test_without_a_read_only_tool_it_says_so_and_asks_nobody() -> None:
    engine = Scripted()
    completion = completed(Task(QUESTION, (ERASE,)), engine)
    assert "read-only" in completion["choices"][0]["message"]["content"]
    assert completion["choices"][0]["finish_reason"] == "stop"
    assert completion["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    assert not engine.asked


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Which days are in the log?", (LOG.name, {})),
        ("Show me the last 3 days", (LOG.name, {"limit": 3})),
        ("Show me the last 900 days", (LOG.name, {})),
        ("Read notes/1440_lightship.md to me", (READ.name, {"path": "notes/1440_lightship.md"})),
        ("Which sailings were there on 3 November 2026?", (SAILINGS.name, {"day": "20261103"})),
        ("Who relieved the lightship and/or the buoy?", (SEARCH.name, {"query": "lightship"})),
    ],
)
def test_the_question_decides_tool_and_arguments(question: str, expected: tuple[str, dict[str, Any]]) -> None:
    assert called(Task(question, FERRY), Scripted("lightship")) == expected


def test_a_weekday_is_looked_up_before_it_is_used() -> None:
    question = "Which sailings were there on Tuesday?"
    assert called(Task(question, FERRY), Scripted()) == (LOG.name, {})
    assert called(after(question, (LOG, {}, DAYS)), Scripted()) == (SAILINGS.name, {"day": "20261103"})


def test_without_a_list_of_days_a_weekday_is_the_latest_one() -> None:
    task = Task("Which sailings were there on Tuesday?", (SAILINGS,))
    assert called(task, Scripted()) == (SAILINGS.name, {"day": "20261117"})


def test_values_of_the_schema_are_taken_from_the_question_or_chosen_by_the_model() -> None:
    money = {"enum": ["EUR", "GBP", "USD"]}
    convert = tool(
        "convert", "Convert money.", {"amount": {"type": "number"}, "from_unit": money, "to_unit": money},
        ["amount", "from_unit", "to_unit"],
    )  # fmt: skip
    assert called(Task("How much is 12.5 USD in EUR?", (convert,)), Scripted()) == (
        "convert",
        {"amount": 12.5, "from_unit": "USD", "to_unit": "EUR"},
    )
    height = tool("tide_height", "Tide height.", {"unit": {"enum": ["feet", "metres"]}}, ["unit"])
    engine = Scripted("metres")
    assert called(Task("What is the tide height?", (height,)), engine) == ("tide_height", {"unit": "metres"})
    assert '" feet" | " metres"' in engine.asked[0][1]["grammar"]


VALUES = (
    {"type": "string"},
    {"type": "string", "maxLength": 3},
    {"type": "string", "format": "date"},
    {"type": "integer", "minimum": 2, "maximum": 9},
    {"type": "number"},
    {"type": "boolean"},
    {"enum": ["red", "green"]},
    {"type": ["string", "null"]},
    {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    {"type": "array", "items": {"type": "string"}},
    {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
    {},
)
NAMES = ("query", "day", "date_to", "path", "ticket_id", "limit", "place", "state")


@settings(deadline=None)
@given(
    properties=st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VALUES), max_size=4),
    required=st.sets(st.sampled_from(NAMES)),
    question=st.one_of(st.text(max_size=60), st.sampled_from(["Is 7 red?", "A-1 on 3 May in a/b.md, yesterday"])),
    said=st.text(max_size=20),
)
def test_whatever_the_schema_and_the_engine_every_call_fits(
    properties: dict[str, Any], required: set[str], question: str, said: str
) -> None:
    offered = tool("look_up", "Look things up.", properties, sorted(required & properties.keys()))
    made = called(Task(question, (offered,)), Scripted(said))
    if made is not None:
        Draft202012Validator(offered.schema).validate(made[1])


# The answer


def test_an_answer_that_the_passage_backs_stands_above_its_source() -> None:
    task = after(QUESTION, (SEARCH, {"query": "Orde"}, FOUND))
    text = told(task, Scripted("Captain Orde sailed on 12 November."))
    assert text.startswith(
        "Captain Orde sailed on 12 November.\n\nSource: 20261103/notes/1440_lightship.md, 20261103 14:40"
    )
    assert "with 14 men" in text, "the passage itself is quoted"


@pytest.mark.parametrize(
    "invented",
    ["Captain Orde sailed on 13 November.", "Captain Orde sailed.", "In November Captain Orde sailed on 12.", ""],
)
def test_an_invention_gives_way_to_the_passage(invented: str) -> None:
    task = after(QUESTION, (SEARCH, {"query": "Orde"}, FOUND))
    text = told(task, Scripted(invented))
    assert text.startswith("Captain Orde sailed on 12 November with 14 men.\n\nSource: ")


def test_records_that_were_asked_for_are_listed_without_the_model() -> None:
    engine = Scripted()
    sailings = {"sailings": [{"name": "Iona", "pier": "North", "day": "20261103"}, {"name": "Mull", "day": "20261103"}]}
    task = after("Which sailings were there on 3 November 2026?", (SAILINGS, {"day": "20261103"}, sailings))
    assert told(task, engine) == "- Iona; pier: North [20261103]\n- Mull [20261103]"
    assert not engine.asked


def test_how_many_is_what_the_result_says() -> None:
    text = told(after("How many days are in the log?", (LOG, {}, {"total": 31, **DAYS})), Scripted())
    assert text.startswith("There are 31.\n")


def test_an_empty_result_is_followed_by_a_wider_look_then_by_an_honest_sentence() -> None:
    narrow = {"query": "Orde", "day_from": "20261103", "day_to": "20261103"}
    question = "What did Captain Orde say about the lightship on 3 November?"
    assert called(after(question, (SEARCH, narrow, NOTHING)), Scripted()) == (SEARCH.name, {"query": "Orde"})
    tried = (SEARCH, narrow, NOTHING), (SEARCH, {"query": "Orde"}, NOTHING)
    assert called(after(question, *tried), Scripted()) == (SEARCH.name, {"query": "Captain Orde lightship"})
    engine = Scripted()
    text = told(after(question, *tried, (SEARCH, {"query": "Captain Orde lightship"}, NOTHING)), engine)
    assert text.startswith("I found nothing")
    assert not engine.asked


@pytest.mark.parametrize("nothing", ["", "(no output)", "[]", "{}", '{"total": 0, "items": [], "next_offset": null}'])
def test_nothing_is_not_taken_for_an_answer(nothing: str) -> None:
    other = tool("look_around", "Look around.", {})
    call = ToolCall("call_1", other.name, {})
    task = Task(QUESTION, (other,), ((call, ToolResult("call_1", other.name, (nothing,))),), 1)
    assert told(task, Scripted()).startswith("I found nothing that answers this. I looked with look_around({}).")


def test_a_tool_that_failed_is_named_with_its_reason() -> None:
    engine = Scripted()
    text = told(after(QUESTION, (SEARCH, {"query": "Orde"}, "Error: the index is locked"), failed=True), engine)
    assert text == "The tool search_log failed, so I cannot answer from it: Error: the index is locked"
    assert not engine.asked


@pytest.mark.parametrize(
    "result",
    [
        "Captain Orde sailed on 12 November with 14 men.",
        '{"text": "Captain Orde sailed on 12 November with 14 men."}\n{"text": "Fog."}',
        '[["Captain Orde sailed on 12 November with 14 men.", 7], null]',
        '{"a": {"b": {"c": [{"content": "Fog. Captain Orde sailed on 12 November with 14 men."}]}}}',
    ],
)
def test_any_result_has_passages(result: str) -> None:
    text = told(after(QUESTION, (SEARCH, {"query": "Orde"}, result)), Scripted(""))
    assert text.startswith("Captain Orde sailed on 12 November with 14 men.\n\nSource: search_log(Orde)")


KEYS = st.sampled_from(["text", "id", "day", "total", "x", "title", "time"])
SIMPLE = st.none() | st.booleans() | st.integers() | st.text()


@given(st.recursive(SIMPLE, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner)))
def test_no_result_is_too_strange_to_read(data: Any) -> None:
    result = read_result(json.dumps(data), "tool()")
    if not result.is_empty:
        assert best(result.passages, QUESTION).text


def test_an_answer_in_a_form_is_asked_for_in_that_form() -> None:
    form = {"type": "json_object"}
    engine = Scripted('{"day": "12 November"}')
    text = told(after(QUESTION, (SEARCH, {"query": "Orde"}, FOUND), form=form), engine)
    assert json.loads(text) == {"day": "12 November"}
    ((op, body),) = engine.asked
    assert (op, body["response_format"]) == ("chat", form)


def test_a_turned_round_sentence_is_not_backed() -> None:
    passage = "Holiday 21 December to 1 January: granted."
    assert is_backed("From 21 December to 1 January.", passage, "When is my holiday?")
    assert not is_backed("From 1 January to 21 December.", passage, "When is my holiday?")


# The conversation


def test_the_task_is_the_last_question_with_the_calls_made_for_it() -> None:
    call, result = ToolCall("call_1", SEARCH.name, {"query": "fog"}), ToolResult("call_1", SEARCH.name, ("[]",))
    again, found = ToolCall("call_2", SEARCH.name, {"query": "Orde"}), ToolResult("call_2", SEARCH.name, ("{}",))
    turns = (
        User(("This is the log of the ferry.",)),
        User(("Was there fog?",)),
        Assistant("", (call,)),
        ToolResults((result,)),
        Assistant("No."),
        User((f"Thank you. {QUESTION} Be brief.",)),
        Assistant("", (again,)),
        ToolResults((found,)),
    )
    task = task_of(Request("m", turns, tools=FERRY))
    assert task.question == QUESTION
    assert task.past == ((again, found),)
    assert called(Task(QUESTION, FERRY, (), task.calls_before), Scripted("Orde")) is not None
    closing = task_of(Request("m", (*turns, User(("Answer now, from what you have.",)))))
    assert (closing.question, closing.past) == (QUESTION, ((again, found),))


@every_way
def test_every_way_of_asking_walks_the_same_plan(way: str) -> None:
    request = Request("smollm2", (User((QUESTION,)),), tools=FERRY)
    reply = turned(way, Scripted("Captain Orde"), request)
    assert [(call.name, call.args) for call in reply["calls"]] == [(SEARCH.name, {"query": "Captain Orde"})]
    assert (reply["finish"], reply["usage"].total_tokens) == ("tools", 13)
    turns = (
        *request.turns,
        Assistant("", reply["calls"]),
        ToolResults((ToolResult("call_1", SEARCH.name, (json.dumps(FOUND),)),)),
    )
    answer = turned(way, Scripted("Captain Orde sailed on 12 November."), Request("smollm2", turns, tools=FERRY))
    assert answer["text"].startswith("Captain Orde sailed on 12 November.\n\nSource: ")
    assert (answer["finish"], answer["calls"]) == ("stop", ())


@every_way
def test_usage_is_the_sum_over_the_engines_answers(way: str) -> None:
    berth = tool("find_berth", "Find a berth.", {"ship": TEXT, "pier": TEXT}, ["ship", "pier"])
    reply = turned(way, Scripted("Iona"), Request("smollm2", (User(("Find Iona a berth at North",)),), tools=(berth,)))
    assert (reply["usage"].input_tokens, reply["usage"].output_tokens) == (20, 6)


@every_way
def test_a_model_with_a_template_for_tools_calls_them_itself(way: str) -> None:
    function = {"name": ERASE.name, "arguments": '{"query": "all"}'}
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c", "type": "function", "function": function}],
    }
    engine = Scripted(supports_tools=True, message=message)
    reply = turned(way, engine, Request("qwen", (User((QUESTION,)),), tools=FERRY))
    assert [(call.name, call.args) for call in reply["calls"]] == [(ERASE.name, {"query": "all"})]
    ((op, body),) = engine.asked
    assert op == "chat"
    assert [offered["function"]["name"] for offered in body["tools"]] == [offered.name for offered in FERRY]


def test_tools_of_other_domains_are_told_apart() -> None:
    offered: tuple[Tool, ...] = (
        tool("get_weather", "Current weather and forecast for a city.", {"city": TEXT}, ["city"]),
        tool("read_file", "Read a file.", {"path": TEXT}, ["path"]),
        tool("get_ticket", "Show one ticket.", {"ticket_id": {**TEXT, "pattern": r"^[A-Z]+-\d+$"}}, ["ticket_id"]),
        tool("search_wiki", "Search the wiki for pages.", {"query": TEXT}, ["query"]),
    )
    expected = {
        "What is the weather in Lisbon?": "get_weather",
        "Show me the file notes/plan.md": "read_file",
        "Who opened OPS-12?": "get_ticket",
        "How do I ask for leave?": "search_wiki",
    }
    for question, name in expected.items():
        made = called(Task(question, offered), Scripted("Lisbon"))
        assert made is not None
        assert made[0] == name
