"""The loop itself: limits and the closing turn, unusable replies, streaming, what is replayed to whom, resuming."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from muse import testing
from muse.errors import BlockedReply, ConfigError, EmptyReply, InterruptedReply, TruncatedReply, TurnLimitError
from muse.history import INTERRUPTED
from muse.messages import Assistant, Results, User
from muse.runs import Recorder
from muse.testing import Say
from muse.usage import Usage
from tests.agent_run import PROMPT, Run, calls, is_well_formed, replay, results
from tests.agent_tools import PNG_TEXT, Odd
from tests.desk import Desk
from tests.journal_folder import JournalFolder
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
        desk.play(case, _answer(body))
        await Run(case.name, **unpriced).answer()
    assert "max_cost_usd" in caplog.text


def _answer(body: dict[str, Any]) -> Any:
    from tests.loopback.behaviours import Answer

    return Answer(body)


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
def tools() -> Any:
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


# What is replayed to whom


def _signed(case: Case) -> dict[str, Any]:
    """The wire's `tools` answer, with what its provider signs: reasoning items, thinking blocks."""
    body: dict[str, Any] = json.loads(json.dumps(load(case.wire, "tools")["body"]))
    match case.wire:
        case "openai":
            reasoning = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "gAAA-secret"}
            body["output"].insert(0, reasoning)
        case "anthropic":
            thought = {"type": "thinking", "thinking": "Let me look.", "signature": "EqQB-signed"}
            body["content"].insert(0, thought)
        case "compatible":
            body["choices"][0]["message"]["reasoning_details"] = [{"type": "reasoning.encrypted", "data": "sealed"}]
    return body


def _replayed(case: Case, body: dict[str, Any]) -> Any:
    """The assistant's message as the second request repeats it."""
    match case.wire:
        case "openai":
            return [item for item in body["input"] if item.get("type") in ("reasoning", "function_call")]
        case "anthropic":
            return next(message["content"] for message in body["messages"] if message["role"] == "assistant")
        case "google":
            return next(content for content in body["contents"] if content["role"] == "model")
    message = next(message for message in body["messages"] if message["role"] == "assistant")
    return message["tool_calls"], message["reasoning_details"]


def _original(case: Case, body: dict[str, Any]) -> Any:
    match case.wire:
        case "openai":
            return body["output"]
        case "anthropic":
            return body["content"]
        case "google":
            return body["candidates"][0]["content"]
    message = body["choices"][0]["message"]
    return message["tool_calls"], message["reasoning_details"]


@every_wire
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_native_messages_go_back_untouched(desk: Desk, tools: ToolServer, case: Case, stream: bool) -> None:
    desk.use(case)
    answered = _signed(case)
    desk.play(case, _answer(answered), "tools_answer")
    run = Run(case.name, model=case.model, mcp_server_url=tools.url, tools=BOTH, stream=stream)
    assert await run.answer() == ANSWER
    replayed = _replayed(case, desk.server.requests[1].body)
    assert json.loads(json.dumps(replayed)) == json.loads(json.dumps(_original(case, answered)))


SECRETS = ("gAAA-secret", "EqQB-signed", "sealed", "bG9vcGJhY2sgdGhvdWdodCBzaWduYXR1cmU=")


@every_wire
async def test_native_messages_are_dropped_for_another_provider(
    desk: Desk, tools: ToolServer, case: Case, tmp_path: Any
) -> None:
    desk.use(case)
    desk.play(case, _answer(_signed(case)), "tools_answer")
    first = Run(case.name, model=case.model, mcp_server_url=tools.url, tools=BOTH)
    await first.answer()
    agent_id = _record(first.events)
    for other in WIRES:
        desk.use(other)
        run = Run(other.name, model=other.model, continue_from=agent_id, prompt="And then?", disable_mcp=True)
        await run.answer()
        sent = desk.server.requests[-1].content.decode()
        assert not any(secret in sent for secret in SECRETS)
        assert sent.index(PROMPT) < sent.index("2 hits for") < sent.index("release is planned") < sent.index("And then")


def _record(events: list[dict[str, Any]], *, is_over: bool = True) -> str:
    """Put events where runs are kept; the run's id."""
    recorder = Recorder.begin()
    for event in events:
        recorder.write(event)
    (recorder.end if is_over else recorder.let_go)()
    return recorder.agent_id


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
    desk.play(case, _answer(json.loads(arguments.replace('{"query": "release"}', "{}"))), "tools_answer")
    run = Run(case.name, model=case.model, **_with(Odd()))
    assert await run.answer() == ANSWER
    assert PNG_TEXT in desk.server.requests[1].content.decode()


# Runs that go on


def _cut_off(*extra: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a run that was killed while tools were at work: `letter` is over, two are not."""
    named = (("letter", {}), ("look", {"text": "tide"}), ("erase_journal", {}))
    begun = [
        {"event": "tool_start", "tool": tool, "args": args, "call_id": f"call-{number}"}
        for number, (tool, args) in enumerate(named)
    ]
    ended = {**begun[0], "event": "tool_end", "result": "a letter"}
    return [{"event": "start", "prompt": PROMPT}, *begun, ended, *extra]


async def test_a_resumed_run_repeats_what_only_reads_and_tells_of_the_rest(journal: JournalFolder) -> None:
    odd = Odd()
    earlier = _record(_cut_off(), is_over=False)
    script, run = replay("On Thursday.", **_with(odd, resume_from=earlier))
    with script as played:
        assert await run.answer() == "On Thursday."
    assert odd.called == ["look"]
    letter, look, erase = results(played, 0)
    assert (letter.parts, look.parts) == (("a letter",), ("seen: tide",))
    assert erase.parts == (f"Error: {INTERRUPTED}",)
    assert is_well_formed(run.events)
    assert run.said("start")[0]["resume_from"] == earlier
    first, said, _ = played.requests[0].turns
    assert isinstance(first, User)
    assert isinstance(said, Assistant)
    assert first.parts == (PROMPT,)


async def test_a_cut_off_run_can_be_continued_without_running_anything(journal: JournalFolder) -> None:
    odd = Odd()
    earlier = _record(_cut_off())
    script, run = replay("Then so.", **_with(odd, continue_from=earlier, prompt="Never mind. What else?"))
    with script as played:
        await run.answer()
    asked, said, given, again = played.requests[0].turns
    assert isinstance(said, Assistant)
    assert isinstance(given, Results)
    assert isinstance(again, User)
    assert [result.failed for result in given.results] == [False, True, True]
    assert again.parts == ("Never mind. What else?",)
    assert odd.called == []


async def test_a_continued_run_can_be_continued_and_knows_the_first(journal: JournalFolder) -> None:
    earlier: str | None = None
    for number in range(3):
        script, run = replay(f"Answer {number}.", prompt=f"Question {number}?", continue_from=earlier, disable_mcp=True)
        with script as played:
            await run.answer()
        earlier = _record(run.events)
    texts = [turn.parts[0] if isinstance(turn, User) else turn.text for turn in played.requests[0].turns]  # type: ignore[union-attr]
    assert texts == ["Question 0?", "Answer 0.", "Question 1?", "Answer 1.", "Question 2?"]


async def test_runs_that_take_each_other_up_in_a_circle_end(journal: JournalFolder) -> None:
    one = _record([{"event": "start", "prompt": "A?"}])
    two = _record([{"event": "start", "prompt": "B?", "continue_from": one}])
    path = journal.path / "agents" / f"{one}.jsonl"
    path.write_text(json.dumps({"event": "start", "prompt": "A?", "continue_from": two}) + "\n", encoding="utf-8")
    script, run = replay("C.", prompt="C?", continue_from=two, disable_mcp=True)
    with script as played:
        await run.answer()
    assert [turn.parts for turn in played.requests[0].turns if isinstance(turn, User)] == [("A?",), ("B?",), ("C?",)]


@pytest.mark.parametrize("entry", ["continue_from", "resume_from"])
async def test_a_run_that_is_still_running_is_not_taken_up(journal: JournalFolder, entry: str) -> None:
    held = Recorder.begin()
    held.write({"event": "start", "prompt": PROMPT})
    run = Run(disable_mcp=True, **{entry: held.agent_id})
    await run.fail(ConfigError, f"{entry}: found run {held.agent_id}, which is still running")
    held.end()
    assert run.names == ["start", "error"]


@pytest.mark.parametrize("agent_id", ["1700000000000", "../config/journal", "/etc/passwd"])
async def test_nothing_to_resume_is_an_error(journal: JournalFolder, agent_id: str) -> None:
    await Run(disable_mcp=True, resume_from=agent_id).fail(ConfigError, "resume_from: found")


# Ends


async def test_a_run_that_is_cancelled_while_its_tools_close_has_one_end(journal: JournalFolder) -> None:
    odd = Odd()
    script, run = replay(calls("hang", "hang", "hang"), **_with(odd))
    loop = asyncio.get_running_loop()
    with script:
        task = loop.create_task(run.answer())
        while len(odd.called) < 3:
            await asyncio.sleep(0)
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
