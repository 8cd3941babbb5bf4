"""The loop itself: limits and the closing turn, unusable replies, streaming, pictures, and one end of every run."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from muse import testing
from muse.errors import BlockedReply, ConfigError, EmptyReply, InterruptedReply, TruncatedReply, TurnLimitError
from muse.testing import Say
from muse.types.messages import User
from muse.types.usage import Usage
from tests.agent_run import Run, calls, is_well_formed, replay
from tests.agent_tools import PNG_TEXT, Odd
from tests.desk import Desk
from tests.journal_folder import JournalFolder
from tests.loopback.behaviours import Answer
from tests.loopback.outcomes import OUTCOMES
from tests.loopback.scenarios import load
from tests.provider_cases import WIRES, Case
from tests.tool_server import DAYS, ToolServer

every_wire = pytest.mark.parametrize("case", WIRES, ids=str)
ANSWER = OUTCOMES["tools_answer"].text
BOTH = ["search_journal", "list_days"]


def _with(odd: Odd, **config: Any) -> dict[str, Any]:
    return {"mcp_servers": {"odd": odd.server}, **config}


# Limits


SPENT = testing.calls(("look", {"text": "tide"}))
DEAR = Say(calls=SPENT.calls, usage=Usage(900, 100))


@pytest.mark.parametrize(
    "limit", [{"max_turns": 1}, {"max_tool_calls": 1}, {"max_total_tokens": 1_000}], ids=lambda limit: next(iter(limit))
)
async def test_at_each_limit_one_closing_turn_gives_an_answer(journal: JournalFolder, limit: dict[str, Any]) -> None:
    script, run = replay(DEAR, "As far as I got.", **_with(Odd(), **limit))
    with script as played:
        assert await run.answer() == "As far as I got."
    assert (run.last["event"], run.last["reason"]) == ("finish", "limit")
    assert [request.may_call_tools for request in played.requests] == [True, False]
    assert played.requests[1].tools
    closing = played.requests[1].turns[-1]
    assert isinstance(closing, User)
    assert "limit" in str(closing.parts)


async def test_a_model_that_calls_the_same_tool_for_ever_is_ended(journal: JournalFolder) -> None:
    odd = Odd()
    script, run = replay(*[SPENT] * 6, **_with(odd, max_turns=5))
    with script:
        await run.fail(TurnLimitError, "limit was reached after 6 replies")
    assert odd.called == ["look"] * 5
    assert (run.last["event"], run.last["reason"]) == ("error", "limit")


async def test_a_limit_in_dollars_ends_a_run_that_costs_them(desk: Desk) -> None:
    case = WIRES[0]
    desk.use(case)
    desk.play(case, "tools", "tools_answer")
    run = Run(case.name, model=case.model, max_cost_usd=1e-9, **_with(Odd()))
    assert await run.answer() == ANSWER
    assert run.last["reason"] == "limit"
    assert sum(line["cost_usd"] for line in desk.journal.lines()) > 1e-9


async def test_a_limit_in_dollars_without_a_price_is_warned_of(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    case = WIRES[-1]
    desk.use(case)
    with caplog.at_level(logging.WARNING):
        unpriced = {"model": "nobody/knows", "max_cost_usd": 1.0, "disable_mcp": True}
        body = load("compatible", "text")["body"] | {"model": "nobody/knows"}
        desk.play(case, Answer(body))
        await Run(case.name, **unpriced).answer()
    assert "max_cost_usd" in caplog.text


@pytest.mark.parametrize("name", ["max_turns", "max_tool_calls", "timeout_s", "tool_timeout_s", "max_cost_usd"])
@pytest.mark.parametrize("found", [0, -1, "many", True])
async def test_a_limit_that_is_none_is_said_with_its_name(journal: JournalFolder, name: str, found: Any) -> None:
    run = Run(disable_mcp=True, **{name: found})
    await run.fail(ConfigError, f"^{name}: found")
    assert run.names == ["error"]


# Replies that are none


UNUSABLE = (
    (Say("Half of", finish="length"), TruncatedReply, "truncated"),
    (Say(finish="blocked"), BlockedReply, "blocked"),
    (Say(" "), EmptyReply, "empty"),
)


@pytest.mark.parametrize(("said", "kind", "reason"), UNUSABLE, ids=[row[2] for row in UNUSABLE])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_an_unusable_last_reply_is_an_error_with_its_reason(
    journal: JournalFolder, said: Say, kind: type[Exception], reason: str, stream: bool
) -> None:
    script, run = replay(SPENT, said, **_with(Odd(), stream=stream))
    with script:
        await run.fail(kind)
    assert (run.last["event"], run.last["reason"]) == ("error", reason)
    assert is_well_formed(run.events)
    assert len(journal.lines()) == 2


@every_wire
@pytest.mark.parametrize("scenario", ["truncated", "blocked", "empty"])
async def test_an_unusable_reply_has_its_reason_on_every_wire(desk: Desk, case: Case, scenario: str) -> None:
    desk.use(case)
    desk.play(case, scenario)
    run = Run(case.name, model=case.model, disable_mcp=True)
    await run.fail(Exception)
    assert (run.names, run.last["reason"]) == (["start", "error"], scenario)


# Streaming


@pytest.fixture(scope="module")
def tools() -> Iterator[ToolServer]:
    with ToolServer() as server:
        yield server


@every_wire
async def test_a_streamed_run_says_what_the_model_writes(desk: Desk, tools: ToolServer, case: Case) -> None:
    desk.use(case)
    desk.play(case, "tools", "tools_answer")
    run = Run(case.name, model=case.model, mcp_server_url=tools.url, tools=BOTH, stream=True)
    assert await run.answer() == ANSWER
    assert "".join(event["text"] for event in run.said("delta")) == ANSWER
    assert len(run.said("delta")) > 1
    assert {event["tool"]: event["result"] for event in run.said("tool_end")} == {
        "search_journal": "2 hits for 'release'",
        "list_days": DAYS,
    }
    assert is_well_formed(run.events)
    sums = [line["usage"] for line in desk.journal.lines()]
    assert run.last["usage"]["total_tokens"] == sum(usage["total_tokens"] for usage in sums)
    assert all(request.body.get("stream", True) for request in desk.server.requests)


@every_wire
async def test_a_stream_that_breaks_off_is_an_error_after_its_deltas(desk: Desk, case: Case) -> None:
    desk.use(case)
    desk.play(case, "stream_cut")
    run = Run(case.name, model=case.model, disable_mcp=True, stream=True)
    await run.fail(InterruptedReply)
    assert run.said("delta")
    assert (run.last["event"], run.last["reason"]) == ("error", "interrupted")


@every_wire
async def test_the_closing_turn_names_the_tools_and_allows_none(desk: Desk, tools: ToolServer, case: Case) -> None:
    desk.use(case)
    desk.play(case, "tools", "tools_answer")
    run = Run(case.name, model=case.model, mcp_server_url=tools.url, tools=BOTH, max_turns=1)
    assert await run.answer() == ANSWER
    closing = desk.server.requests[1].body
    assert closing["tools"] == desk.server.requests[0].body["tools"]
    forbidden = {
        "openai": closing.get("tool_choice") == "none",
        "anthropic": closing.get("tool_choice") == {"type": "none"},
        "google": closing.get("toolConfig") == {"functionCallingConfig": {"mode": "NONE"}},
        "compatible": closing.get("tool_choice") == "none",
    }
    assert forbidden[case.wire]


@pytest.mark.parametrize("case", WIRES[:3], ids=str)
async def test_pictures_in_results_reach_the_providers_that_take_them(desk: Desk, case: Case) -> None:
    body = json.dumps(load(case.wire, "tools")["body"]).replace("search_journal", "pictures")
    arguments = body.replace('{\\"query\\": \\"release\\"}', "{}").replace('{\\"query\\":\\"release\\"}', "{}")
    desk.use(case)
    desk.play(case, Answer(json.loads(arguments.replace('{"query": "release"}', "{}"))), "tools_answer")
    run = Run(case.name, model=case.model, **_with(Odd()))
    assert await run.answer() == ANSWER
    assert PNG_TEXT in desk.server.requests[1].content.decode()


# Ends


async def test_a_run_that_is_cancelled_ends_all_its_calls_first(journal: JournalFolder) -> None:
    odd = Odd()
    script, run = replay(calls("hang", "hang", "hang"), **_with(odd))
    loop = asyncio.get_running_loop()
    with script:
        task = loop.create_task(run.answer())
        for _ in range(3):
            await odd.hanging.acquire()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert is_well_formed(run.events)
    assert (run.last["error"], run.last["reason"]) == ("cancelled", "cancelled")
    assert len(run.said("tool_end")) == 3
    assert odd.cancelled == ["hang"] * 3


async def test_at_the_end_of_its_time_every_call_ends_before_the_run(journal: JournalFolder) -> None:
    odd = Odd()
    script, run = replay(calls("hang", "hang", "hang"), **_with(odd, timeout_s=0.3))
    with script:
        await run.fail(TimeoutError)
    assert is_well_formed(run.events)
    assert (run.last["reason"], len(run.said("tool_end"))) == ("timeout", 3)


async def test_a_run_cancelled_as_its_calls_begin_ends_them_all_the_same(journal: JournalFolder) -> None:
    odd = Odd()
    script, run = replay(calls("look", "hang"), **_with(odd))

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "tool_start" and event["tool"] == "hang":
            task.cancel()

    with script:
        task = asyncio.create_task(run.answer(also=stop))
        with pytest.raises(asyncio.CancelledError):
            await task
    assert is_well_formed(run.events), run.names
    assert len(run.said("tool_end")) == 2
    assert odd.called == []
