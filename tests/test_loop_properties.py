"""Whatever a model says and its tools do: the events of a run have their grammar, and its books agree."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muse import testing
from muse.errors import BlockedReply, EmptyReply, ProviderDown, TruncatedReply, TurnLimitError
from muse.testing import Say
from muse.types.messages import Assistant, ToolCall, ToolResults
from muse.types.usage import Usage
from muse.usage_log import ledger
from tests.agent_run import Run, is_well_formed
from tests.agent_tools import Odd
from tests.journal_folder import JournalFolder

_NAMES = st.sampled_from(["look", "letter", "explode", "half", "erase_journal", "no_such_tool", "read_more"])
_ARGS: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{}, {"text": "tide"}, {"text": 5}, {"_invalid": "{"}, {"handle": "x"}]
)
_USAGE = st.builds(Usage, input_tokens=st.integers(0, 500), output_tokens=st.integers(0, 500), cached_tokens=st.just(0))
_THINKING = st.sampled_from(["", "Hm.", "Let me see."])


@st.composite
def _turns(draw: st.DrawFn) -> Say:
    """A reply that calls tools, sometimes with text beside."""
    made = draw(st.lists(st.tuples(_NAMES, _ARGS), min_size=1, max_size=4))
    calls = tuple(ToolCall(f"call-{number}", name, args) for number, (name, args) in enumerate(made))
    return Say(draw(st.sampled_from(["", "One moment."])), calls, draw(_THINKING), usage=draw(_USAGE))


_ENDS = st.one_of(
    st.builds(Say, st.sampled_from(["Done.", "At six.\nSharp.", "é\u2028"]), thinking=_THINKING, usage=_USAGE),
    st.builds(Say, st.just("Half of"), finish=st.just("length"), usage=_USAGE),
    st.builds(Say, finish=st.just("blocked"), usage=_USAGE),
    st.builds(Say, st.just("  "), usage=_USAGE),
    st.builds(ProviderDown, st.just("out for lunch")),
)
_LIMITS = st.fixed_dictionaries(
    {},
    optional={
        "max_turns": st.integers(1, 4),
        "max_tool_calls": st.integers(1, 6),
        "max_total_tokens": st.integers(1, 2_000),
        "tools": st.sampled_from([[], ["l*"], ["look", "explode"]]),
        "approve": st.just(["erase_*"]),
    },
)
_FAILURES = (ProviderDown, BlockedReply, TruncatedReply, EmptyReply, TurnLimitError)


def _plays(steps: Sequence[Any], limits: dict[str, Any], *, stream: bool) -> tuple[Run, testing.Script]:
    """A run through the steps; what its limits leave over is not asked for."""
    odd = Odd()
    run = Run(mcp_servers={"odd": odd.server}, stream=stream, **limits)
    with suppress(*_FAILURES, AssertionError), testing.script(*steps) as script:
        asyncio.run(run.answer())
    return run, script


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=st.lists(_turns(), max_size=4), end=_ENDS, limits=_LIMITS, stream=st.booleans())
def test_events_have_their_grammar_and_agree_with_the_books(
    journal: JournalFolder, tmp_path: Path, turns: list[Say], end: Any, limits: dict[str, Any], stream: bool
) -> None:
    lines_before = len(journal.lines())
    run, script = _plays([*turns, end], limits, stream=stream)
    assert is_well_formed(run.events), run.names
    assert sum(name in ("finish", "error") for name in run.names) == 1
    lines = journal.lines()[lines_before:]
    assert len(lines) == len(script.requests)
    if run.last["event"] == "finish":
        usage = run.last["usage"]
        assert usage["requests"] == len(lines)
        for name in ("input_tokens", "output_tokens", "total_tokens"):
            assert usage.get(name, 0) == sum(line["usage"].get(name, 0) for line in lines)
        assert run.last["result"].strip()
    asked = [(call.name, dict(call.args)) for turn in _played(turns, script) for call in turn.calls]
    assert [(event["tool"], event["args"]) for event in run.said("tool_start")][: len(asked)] == asked
    assert all(_is_answered(request.turns) for request in script.requests)
    ledger._drop(str(journal.tokens))


def _played(turns: list[Say], script: testing.Script) -> list[Say]:
    """The tool-calling replies whose results went back to the model."""
    return turns[: max(len(script.requests) - 1, 0)]


def _is_answered(turns: Sequence[Any]) -> bool:
    """Whether the calls of each assistant turn have their results right behind, in the same order."""
    for number, turn in enumerate(turns):
        if isinstance(turn, Assistant) and turn.calls:
            after = turns[number + 1]
            if not isinstance(after, ToolResults):
                return False
            if [one.call_id for one in after.results] != [call.call_id for call in turn.calls]:
                return False
    return True


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=st.lists(_turns(), min_size=3, max_size=3), limit=st.integers(1, 3))
def test_no_run_asks_more_often_than_its_limit_and_once_to_close(
    journal: JournalFolder, turns: list[Say], limit: int
) -> None:
    run, script = _plays([*turns[:limit], "That is all."], {"max_turns": limit}, stream=False)
    assert len(script.requests) == limit + 1
    assert script.requests[-1].may_call_tools is False
    assert (run.last["event"], run.last["reason"], run.last["result"]) == ("finish", "limit", "That is all.")


def test_the_grammar_knows_what_is_wrong() -> None:
    def events(*names: str) -> list[dict[str, Any]]:
        return [{"event": name, "call_id": "a"} for name in names]

    assert is_well_formed(events("start", "delta", "tool_start", "tool_end", "delta", "finish"))
    for wrong in (
        ["start"],
        ["finish"],
        ["start", "finish", "error"],
        ["start", "finish", "tool_end"],
        ["start", "tool_start", "finish"],
        ["start", "tool_end", "tool_start", "finish"],
        ["start", "odd", "finish"],
    ):
        assert not is_well_formed(events(*wrong)), wrong
