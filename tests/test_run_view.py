"""A run's events as blocks of a page: joined, paired, settled at the end; no file and no site."""

from __future__ import annotations

import time
from typing import Any

from apps.host.runs.rendering import RunView
from muse.runs.follow import NumberedEvent


def test_deltas_are_joined_and_give_way_to_the_answer() -> None:
    view = RunView()
    events: list[dict[str, Any]] = [
        {"event": "start", "prompt": "x", "provider": "echo", "model": "echo-1"},
        {"event": "delta", "text": "Let me "},
        {"event": "delta", "text": "look."},
        {"event": "tool_start", "tool": "list_todos", "args": {"state": "open"}, "call_id": "a"},
        {"event": "tool_end", "tool": "list_todos", "call_id": "a", "result": '{"total": 0}'},
        {"event": "delta", "text": "None"},
        {"event": "finish", "result": "None."},
    ]
    view.take_all(NumberedEvent(number, event) for number, event in enumerate(events, 1))
    shown = [(block.kind, block.text or block.state) for block in view.blocks.values()]
    assert shown == [("started", "echo echo-1"), ("said", "Let me look."), ("tool", "done"), ("answer", "None.")]
    assert view.blocks["call-a"].result == '{\n  "total": 0\n}'


def test_a_call_that_never_ended_is_shown_as_failed_when_the_run_is_over() -> None:
    view = RunView()
    view.take(NumberedEvent(1, {"event": "tool_start", "tool": "t", "call_id": "a"}))
    view.take(NumberedEvent(2, {"event": "approval", "tool": "t", "call_id": "a"}))
    view.take(NumberedEvent(3, {"event": "error", "error": "cancelled", "reason": "cancelled"}))
    assert [block.state for block in view.blocks.values()] == ["failed", "refused", ""]


def test_a_run_of_very_many_calls_takes_no_longer_for_each() -> None:
    view = RunView()
    began_s = time.process_time()
    for number in range(1, 20_000):
        view.take(NumberedEvent(2 * number, {"event": "tool_start", "tool": "t", "call_id": f"c{number}"}))
        view.take(
            NumberedEvent(2 * number + 1, {"event": "tool_end", "tool": "t", "call_id": f"c{number}", "result": "r"})
        )
    assert time.process_time() - began_s < 10  # 20 s and more, if each end looked through all blocks
    assert {block.state for block in view.blocks.values()} == {"done"}


def test_calls_of_one_id_end_in_the_order_in_which_they_began() -> None:
    view = RunView()
    for number, args in enumerate(("first", "second"), 1):
        view.take(NumberedEvent(number, {"event": "tool_start", "tool": "t", "call_id": "a", "args": {"x": args}}))
    view.take(NumberedEvent(3, {"event": "tool_end", "tool": "t", "call_id": "a", "result": "1"}))
    assert [(block.short, block.state) for block in view.blocks.values()] == [
        ("x: first", "done"),
        ("x: second", "open"),
    ]


def test_an_approval_shows_all_of_what_is_approved_and_hides_nothing() -> None:
    view = RunView()
    args = {"command": "ls " * 20_000 + "; rm -rf ~", "hidden\u202e": ["\x1b[2K", "a\nb"]}
    view.take(
        NumberedEvent(
            1, {"event": "approval", "tool": "run\u202e", "server": "shell", "args": args, "preview": "\x1b[2K\nx"}
        )
    )
    [block] = view.blocks.values()
    assert block.tool == "run\\u202e of server shell"
    assert "; rm -rf ~" in block.args
    assert len(block.args) > 60_000
    assert block.text == "\\x1b[2K\nx"
    assert not set(block.args + block.tool + block.text) & {"\x1b", "\u202e"}
