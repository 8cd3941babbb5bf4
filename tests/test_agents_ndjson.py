"""`muse-agents`: one request a line in, one event a line out, whatever stands on the lines."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest

from muse import testing
from muse.agent_loop.stdin_protocol import StdinProtocol
from muse.agents import builtin_tools, main_async
from muse.agents import run as run_request
from muse.runs import run_files
from muse.testing import Say
from tests.agent_process import agents
from tests.agent_tools import Odd
from tests.journal_folder import JournalFolder

GOOD = {"prompt": "Moin", "provider": "echo", "disable_mcp": True}


async def _said(
    lines: list[Any], capsys: pytest.CaptureFixture[str], **options: Any
) -> tuple[int, list[dict[str, Any]]]:
    """Exit status and events of a run through lines."""
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    status = await main_async(io.StringIO(text), **options)
    return status, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


BAD = (
    ("{torn", "Invalid JSON"),
    ("[1, 2]", "Invalid JSON"),
    ("7", "Invalid JSON"),
    ("[" * 100_000, "Invalid JSON"),
    ("{}", "Missing 'prompt'"),
    ({"prompt": ""}, "Missing 'prompt'"),
    ({"prompt": "x", "provider": "nobody"}, "Valid providers"),
    ({"prompt": "x", "persona": "nobody"}, "persona not found: 'nobody'"),
    ({"prompt": "x", "persona": {"a": 1}}, "persona not found"),
    ({**GOOD, "max_turns": "many"}, "max_turns: found 'many'"),
    ({**GOOD, "timeout_s": 0}, "timeout_s: found 0"),
    ({**GOOD, "disable_mcp": False, "tools": 5}, "tools: found 5"),
    ({**GOOD, "disable_mcp": False, "mcp_servers": ["x"]}, "mcp_servers: found"),
    ({**GOOD, "resume_from": "1700000000000"}, "resume_from: found"),
    ({**GOOD, "prompt": ["a", {"b": 1}]}, "prompt"),
)


@pytest.mark.parametrize(("line", "words"), BAD, ids=[f"{number}-{row[1]}" for number, row in enumerate(BAD)])
async def test_a_bad_line_is_one_error_and_the_next_ones_still_run(
    journal: JournalFolder, capsys: pytest.CaptureFixture[str], line: Any, words: str
) -> None:
    status, events = await _said([GOOD, line, "", GOOD], capsys)
    ends = [event for event in events if event["event"] in ("finish", "error")]
    assert [event["event"] for event in ends] == ["finish", "error", "finish"]
    assert words in ends[1]["error"]
    assert [event["result"] for event in (ends[0], ends[2])] == ["Moin", "Moin"]
    assert all(isinstance(event["ts"], int) for event in events)
    assert status == 1


def test_bytes_that_are_no_utf8_are_one_error_between_good_lines(journal: JournalFolder) -> None:
    with agents() as process:
        good = json.dumps(GOOD).encode()
        out, err = process.process.stdin, process.process
        assert out is not None
        out.buffer.write(good + b"\n\xff\xfe{\n" + good + b"\n")  # type: ignore[attr-defined]
        status, events, words = process.ends()
    assert [event["event"] for event in events if event["event"] != "start"] == ["finish", "error", "finish"], err
    assert (status, words) == (1, "")


async def test_every_run_is_recorded_with_its_request(
    journal: JournalFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    status, events = await _said([GOOD, {**GOOD, "prompt": "And again"}], capsys)
    assert status == 0
    ids = list(dict.fromkeys(event["agent_id"] for event in events))
    assert len(ids) == 2
    for agent_id in ids:
        found = run_files.find(agent_id)
        assert found is not None
        kept = list(run_files.read_events(found[0]))
        assert kept[0]["event"] == "request"
        assert kept[1:] == [event for event in events if event["agent_id"] == agent_id]


# Personas


@pytest.fixture
def personas(journal: JournalFolder, tmp_path: Path) -> Path:
    """A folder of personas that the journal names."""
    folder = tmp_path / "agents"
    folder.mkdir()
    journal.write({"providers": {"default": {"provider": "echo"}}, "descriptors": {"agents": [str(folder)]}})
    return folder


async def test_a_persona_with_bad_json_or_without_text_is_an_error_and_no_crash(
    journal: JournalFolder, personas: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (personas / "torn.json").write_text('{"title": ', encoding="utf-8")
    (personas / "torn.txt").write_text("Be kind.", encoding="utf-8")
    (personas / "mute.json").write_text('{"title": "Mute"}', encoding="utf-8")
    (personas / "odd.json").write_text('{"title": "Odd"}', encoding="utf-8")
    (personas / "odd.txt").write_text("Be $unknown.", encoding="utf-8")
    (personas / "good.json").write_text('{"title": "Good", "max_turns": 1}', encoding="utf-8")
    (personas / "good.txt").write_text("Be kind.", encoding="utf-8")
    asked = [{"prompt": "Moin", "persona": name, "disable_mcp": True} for name in ("torn", "mute", "odd", "good")]
    status, events = await _said(asked, capsys)
    ends = [event for event in events if event["event"] in ("finish", "error")]
    assert [event["event"] for event in ends] == ["error", "error", "error", "finish"]
    for words, event in zip(("torn", "mute", "unknown"), ends[:3], strict=True):
        assert words in event["error"]
    assert status == 1


# Approvals


def _asking() -> dict[str, Any]:
    return {"prompt": "Do it", "provider": "echo", "approve": ["*"], "tools": ["*"]}


class _Feed:
    """Lines that come when they are put there."""

    def __init__(self) -> None:
        self._lines: asyncio.Queue[str] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def put(self, line: Any) -> None:
        self._lines.put_nowait(json.dumps(line) + "\n" if line else "")

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        line = asyncio.run_coroutine_threadsafe(self._lines.get(), self._loop).result()
        if not line:
            raise StopIteration
        return line


class _Watch:
    """Standard output whose lines are looked at as they are written."""

    def __init__(self, look: Any) -> None:
        self.events: list[dict[str, Any]] = []
        self._look = look

    def write(self, text: str) -> None:
        event = json.loads(text)
        self.events.append(event)
        self._look(event)

    def flush(self) -> None:
        """Everything is out."""


@pytest.mark.parametrize("answer", [True, False, None, "yes"])
async def test_an_approval_is_asked_for_and_answered_by_a_line(
    journal: JournalFolder, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    feed, odd = _Feed(), Odd()

    def look(event: dict[str, Any]) -> None:
        if event["event"] == "approval":
            feed.put({"approval": event["call_id"], "approved": answer} if answer is not None else None)
        if event["event"] in ("finish", "error"):
            feed.put(None)

    out = _Watch(look)
    monkeypatch.setattr("sys.stdout", out)
    feed.put(_asking())
    with testing.script(testing.calls(("letter", {})), "Done."):
        assert await main_async(feed, hosted={"odd": odd.server}) == 0  # type: ignore[arg-type]
    asked = next(event for event in out.events if event["event"] == "approval")
    assert (asked["tool"], asked["args"], asked["call_id"]) == ("letter", {}, "call-0")
    assert asked["agent_id"] == out.events[0]["agent_id"]
    assert odd.called == (["letter"] if answer is True else [])


async def test_runs_side_by_side_with_the_same_call_id_get_their_own_answers(
    journal: JournalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed, odd = _Feed(), Odd()
    asked: list[dict[str, Any]] = []
    ended: list[str] = []

    def look(event: dict[str, Any]) -> None:
        if event["event"] == "approval":
            asked.append(event)
            if len(asked) == 2:
                for one, says in zip(reversed(asked), (True, False), strict=True):
                    feed.put({"approval": one["call_id"], "approved": says, "agent_id": one["agent_id"]})
        if event["event"] in ("finish", "error"):
            ended.append(event["agent_id"])
            if len(ended) == 2:
                feed.put(None)

    out = _Watch(look)
    monkeypatch.setattr("sys.stdout", out)
    feed.put(_asking())
    feed.put(_asking())
    say = testing.calls(("letter", {}))
    with testing.script(say, say, "Done.", "Done."):
        assert await main_async(feed, parallel=2, hosted={"odd": odd.server}) == 0  # type: ignore[arg-type]
    results = {event["agent_id"]: event["result"] for event in out.events if event["event"] == "tool_end"}
    assert "was not approved" in results[asked[0]["agent_id"]]["error"]
    assert isinstance(results[asked[1]["agent_id"]], str)


async def test_an_answer_nobody_waits_for_is_warned_of(
    journal: JournalFolder, caplog: pytest.LogCaptureFixture
) -> None:
    lines = StdinProtocol(io.StringIO('{"approval": "call-9", "approved": true}\n'))
    assert [line async for line in lines.requests()] == []
    assert "nobody waits for" in caplog.text
    assert await lines.answer("1790000000001", "call-9") is False


async def test_no_more_than_so_many_run_at_once(journal: JournalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    steps = [Say("Done.")] * 6
    with testing.script(*steps):
        status, events = await _said([GOOD] * 6, capsys, parallel=3)
    assert status == 0
    assert sum(event["event"] == "finish" for event in events) == 6
    assert len({event["agent_id"] for event in events}) == 6


@pytest.mark.parametrize("approve", ["add_todo", "todo", ["todo"], ["ADD_*"], ["journal__add_todo"]], ids=str)
async def test_approve_takes_names_packs_and_globs(approve: Any, journal: JournalFolder) -> None:
    request = {"prompt": "Add.", "provider": "echo", "approve": approve, "tools": ["todo"]}
    events: list[dict[str, Any]] = []
    with testing.script(testing.calls(("add_todo", {"text": "A"})), "Refused."):
        assert await run_request(request, events.append, hosted=builtin_tools)
    [ended] = [event for event in events if event["event"] == "tool_end"]
    assert "approval" in ended["result"]["error"]


async def test_approve_that_is_no_list_ends_the_run_before_anything_is_called(journal: JournalFolder) -> None:
    events: list[dict[str, Any]] = []
    assert not await run_request({"prompt": "Add.", "provider": "echo", "approve": {"add": 1}}, events.append)
    assert "approve" in events[-1]["error"]
