"""An earlier run's events become turns again, whatever else stands in its log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from muse.runs.history import format_tool_summary, load_history, parse_agent_events_to_turns
from muse.types.messages import Assistant, ToolCall, ToolResult, ToolResults, User
from tests.journal_folder import JournalFolder


def put(journal: JournalFolder, events: list[Any], name: str = "1762160000000") -> str:
    path = journal.path / "agents" / f"{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    lines = [event if isinstance(event, str) else json.dumps(event, ensure_ascii=False) for event in events]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return name


START = {"event": "start", "ts": 1, "prompt": "When does the tide turn?"}


def test_a_run_becomes_a_question_and_an_answer_with_its_tools(journal: JournalFolder) -> None:
    run = put(
        journal,
        [
            START,
            {"event": "thinking", "ts": 2, "summary": "hm"},
            {"event": "tool_start", "ts": 3, "tool": "find", "args": {"q": "tide", "n": 2}},
            {"event": "tool_end", "ts": 4, "tool": "find", "result": "at six"},
            {"event": "tool_start", "ts": 5, "tool": "clock", "args": None},
            {"event": "finish", "ts": 6, "result": "  At six.\n"},
        ],
    )
    assert parse_agent_events_to_turns(run) == [
        {"role": "user", "content": "When does the tide turn?"},
        {"role": "assistant", "content": "At six.\n\nTools used: find(q='tide', n=2), clock()"},
    ]


def test_a_run_becomes_turns_with_its_calls_and_results(journal: JournalFolder) -> None:
    calls = [{"event": "tool_start", "tool": tool, "args": {"n": 1}, "call_id": tool} for tool in ("find", "clock")]
    ends = [
        {"event": "tool_end", "tool": "clock", "result": {"error": "stopped"}, "call_id": "clock"},
        {"event": "tool_end", "tool": "find", "result": ["at", {"hour": 6}], "call_id": "find"},
    ]
    run = put(journal, [START, *calls, *ends, {"event": "finish", "result": " At six. "}])
    past = load_history(run)
    assert past.turns == (
        User(("When does the tide turn?",)),
        Assistant("", (ToolCall("find", "find", {"n": 1}), ToolCall("clock", "clock", {"n": 1}))),
        ToolResults(
            (
                ToolResult("find", "find", ("at", '{"hour": 6}')),
                ToolResult("clock", "clock", ("Error: stopped",), failed=True),
            )
        ),
        Assistant("At six."),
    )
    assert (past.ended, past.pending) == ((), ())


def test_a_run_that_was_cut_off_says_which_calls_are_open(journal: JournalFolder) -> None:
    calls = [{"event": "tool_start", "tool": tool, "call_id": tool} for tool in ("find", "clock")]
    run = put(journal, [START, *calls, {"event": "tool_end", "tool": "find", "result": "at six", "call_id": "find"}])
    past = load_history(run)
    assert past.turns[-1] == Assistant("", (ToolCall("find", "find", {}), ToolCall("clock", "clock", {})))
    assert past.ended == (ToolResult("find", "find", ("at six",)),)
    assert past.pending == (ToolCall("clock", "clock", {}),)


def test_tools_belong_to_the_answer_they_led_to(journal: JournalFolder) -> None:
    call = {"event": "tool_start", "tool": "find", "args": {}}
    run = put(journal, [START, call, {"event": "finish", "result": "a"}, START, {"event": "finish", "result": "b"}])
    assert [turn["content"] for turn in parse_agent_events_to_turns(run)][1::2] == ["a\n\nTools used: find()", "b"]


def test_an_unknown_run_has_no_turns_and_one_warning(journal: JournalFolder, caplog: pytest.LogCaptureFixture) -> None:
    assert parse_agent_events_to_turns("42") == []
    assert [record.getMessage() for record in caplog.records] == ["Cannot continue from 42: log not found"]


def test_damaged_lines_are_passed_over(journal: JournalFolder) -> None:
    run = put(journal, ["{torn", "[1]", "", "7", {"event": "start"}, {"event": None}, {"other": 1}, START])
    assert parse_agent_events_to_turns(run) == [{"role": "user", "content": START["prompt"]}]


def test_bytes_that_are_not_utf8_cost_their_own_line_at_most(journal: JournalFolder) -> None:
    run = put(journal, [START])
    path = journal.path / "agents" / f"{run}.jsonl"
    path.write_bytes(b"\xff\xfe\n" + path.read_bytes())
    assert len(parse_agent_events_to_turns(run)) == 1


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c"], ids=ascii)
def test_a_line_is_what_ends_with_a_newline_and_nothing_else(journal: JournalFolder, mark: str) -> None:
    line = (
        f'{{"event": "start", "prompt": "a{mark}b"}}'
        if ord(mark) > 31
        else json.dumps({**START, "prompt": f"a{mark}b"})
    )
    run = put(journal, [line])
    assert parse_agent_events_to_turns(run) == [{"role": "user", "content": f"a{mark}b"}]


def test_an_answer_without_text_is_no_turn_to_send(journal: JournalFolder) -> None:
    run = put(journal, [START, {"event": "finish", "result": None}])
    assert parse_agent_events_to_turns(run)[1] == {"role": "assistant", "content": ""}
    assert load_history(run).turns == (User(("When does the tide turn?",)),)


@pytest.mark.parametrize("images", [7, "tide.png", {"tide.png": 1}, None])
def test_pictures_that_are_no_list_are_no_pictures(journal: JournalFolder, images: object) -> None:
    run = put(journal, [{**START, "images": images}])
    assert load_history(run).turns == (User(("When does the tide turn?",)),)


def test_a_summary_without_calls_is_empty() -> None:
    assert format_tool_summary([]) == ""


def test_a_summary_shows_reprs_cut_at_fifty_characters() -> None:
    calls: list[Mapping[str, Any]] = [{"tool": "a", "args": {"k": "v"}}, {"tool": "b", "args": {"id": 1}}]
    assert format_tool_summary(calls) == "\n\nTools used: a(k='v'), b(id=1)"
    assert format_tool_summary([{"name": "a", "args": {}}, {"tool": "b", "name": "c"}]) == "\n\nTools used: a(), b()"
    long = format_tool_summary([{"tool": "a", "args": {"k": "x" * 200}}])
    assert long.startswith("\n\nTools used: a(k='xxx")
    assert len(long) <= len("\n\nTools used: a(k=)") + 53


@pytest.mark.parametrize(
    "call", [{}, {"tool": "a"}, {"tool": "a", "args": "text"}, {"tool": "a", "args": [1]}], ids=str
)
def test_a_call_of_odd_shape_is_summarised_all_the_same(call: dict[str, Any]) -> None:
    assert format_tool_summary([call]).startswith("\n\nTools used: ")
