"""What a conversation carries on: native messages to whoever made them, and runs that are resumed or continued."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from muse.errors import ConfigError
from muse.runs.history import INTERRUPTED
from muse.runs.run_files import EventWriter
from muse.types.messages import Assistant, ToolResults, User
from tests.agent_run import PROMPT, Run, is_well_formed, record, replay, results
from tests.agent_tools import Odd
from tests.desk import Desk
from tests.journal_folder import JournalFolder
from tests.loopback.behaviours import Answer
from tests.loopback.outcomes import OUTCOMES
from tests.loopback.scenarios import load
from tests.provider_cases import WIRES, Case
from tests.tool_server import ToolServer

every_wire = pytest.mark.parametrize("case", WIRES, ids=str)
ANSWER = OUTCOMES["tools_answer"].text
BOTH = ["search_journal", "list_days"]


@pytest.fixture(scope="module")
def tools() -> Iterator[ToolServer]:
    with ToolServer() as server:
        yield server


def _with(odd: Odd, **config: Any) -> dict[str, Any]:
    return {"mcp_servers": {"odd": odd.server}, **config}


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
        case _:
            assert SECRETS[-1] in json.dumps(body), "the fixture of google is signed as it is"
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
        case _:
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
        case _:
            message = body["choices"][0]["message"]
            return message["tool_calls"], message["reasoning_details"]


@every_wire
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_native_messages_go_back_untouched(desk: Desk, tools: ToolServer, case: Case, stream: bool) -> None:
    desk.use(case)
    answered = _signed(case)
    desk.play(case, Answer(answered), "tools_answer")
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
    desk.play(case, Answer(_signed(case)), "tools_answer")
    first = Run(case.name, model=case.model, mcp_server_url=tools.url, tools=BOTH)
    await first.answer()
    agent_id = record(first.events)
    for other in WIRES:
        desk.use(other)
        run = Run(other.name, model=other.model, continue_from=agent_id, prompt="And then?", disable_mcp=True)
        await run.answer()
        sent = desk.server.requests[-1].content.decode()
        assert not any(secret in sent for secret in SECRETS)
        assert sent.index(PROMPT) < sent.index("2 hits for") < sent.index("release is planned") < sent.index("And then")


# Runs that go on


def _cut_off() -> list[dict[str, Any]]:
    """The events of a run that was killed while tools were at work: `letter` is over, two are not."""
    named: tuple[tuple[str, dict[str, Any]], ...] = (("letter", {}), ("look", {"text": "tide"}), ("erase_journal", {}))
    begun = [
        {"event": "tool_start", "tool": tool, "args": args, "call_id": f"call-{number}"}
        for number, (tool, args) in enumerate(named)
    ]
    ended = {**begun[0], "event": "tool_end", "result": "a letter"}
    return [{"event": "start", "prompt": PROMPT}, *begun, ended]


async def test_a_resumed_run_repeats_what_only_reads_and_tells_of_the_rest(journal: JournalFolder) -> None:
    odd = Odd()
    earlier = record(_cut_off(), is_over=False)
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
    earlier = record(_cut_off())
    script, run = replay("Then so.", **_with(odd, continue_from=earlier, prompt="Never mind. What else?"))
    with script as played:
        await run.answer()
    _, said, given, again = played.requests[0].turns
    assert isinstance(said, Assistant)
    assert isinstance(given, ToolResults)
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
        earlier = record(run.events)
    texts = [turn.parts[0] if isinstance(turn, User) else turn.text for turn in played.requests[0].turns]  # type: ignore[union-attr]
    assert texts == ["Question 0?", "Answer 0.", "Question 1?", "Answer 1.", "Question 2?"]


async def test_runs_that_take_each_other_up_in_a_circle_end(journal: JournalFolder) -> None:
    one = record([{"event": "start", "prompt": "A?"}])
    two = record([{"event": "start", "prompt": "B?", "continue_from": one}])
    path = journal.path / "agents" / f"{one}.jsonl"
    path.write_text(json.dumps({"event": "start", "prompt": "A?", "continue_from": two}) + "\n", encoding="utf-8")
    script, run = replay("C.", prompt="C?", continue_from=two, disable_mcp=True)
    with script as played:
        await run.answer()
    assert [turn.parts for turn in played.requests[0].turns if isinstance(turn, User)] == [("A?",), ("B?",), ("C?",)]


@pytest.mark.parametrize("entry", ["continue_from", "resume_from"])
async def test_a_run_that_is_still_running_is_not_taken_up(journal: JournalFolder, entry: str) -> None:
    held = EventWriter.begin()
    held.write({"event": "start", "prompt": PROMPT})
    run = Run(disable_mcp=True, **{entry: held.agent_id})
    await run.fail(ConfigError, f"{entry}: found run {held.agent_id}, which is still running")
    held.end()
    assert run.names == ["start", "error"]


@pytest.mark.parametrize("agent_id", ["1700000000000", "../config/journal", "/etc/passwd"])
async def test_nothing_to_resume_is_an_error(journal: JournalFolder, agent_id: str) -> None:
    await Run(disable_mcp=True, resume_from=agent_id).fail(ConfigError, "resume_from: found")
