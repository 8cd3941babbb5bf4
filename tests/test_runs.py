"""The files of runs: whole lines under one name each, locked while they are written, taken over when nobody writes."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muse.runs import follow, run_files
from muse.runs.run_files import EventWriter
from muse.usage_log import ledger
from tests.journal_folder import JournalFolder, run, start

pytestmark = pytest.mark.usefixtures("journal")
START = {"event": "start", "ts": 1_000, "prompt": "When?", "persona": "p", "provider": "echo", "model": "echo-1"}
FINISH = {"event": "finish", "ts": 3_500, "result": "At six.", "usage": {"requests": 2, "total_tokens": 30}}

_HOLD = """
import sys
from muse.runs.run_files import EventWriter
recorder = EventWriter.begin()
recorder.write({"event": "start", "prompt": "Hold"})
print(recorder.agent_id, flush=True)
sys.stdin.read()
"""


def _holder(journal: JournalFolder) -> tuple[subprocess.Popen[str], str]:
    """A process that is at work on a run, and the run's id."""
    child = start(_HOLD, JOURNAL_PATH=str(journal.path))
    assert child.stdout is not None
    return child, child.stdout.readline().strip()


def _end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate()


def test_a_run_is_a_file_that_is_renamed_when_it_is_over(journal: JournalFolder) -> None:
    recorder = EventWriter.begin()
    recorder.write(START)
    assert run_files.find(recorder.agent_id) == (run_files.path_of(recorder.agent_id, "active"), "active")
    recorder.end()
    found = run_files.find(recorder.agent_id)
    assert found == (journal.path / "agents" / f"{recorder.agent_id}.jsonl", "over")
    assert list(run_files.read_events(found[0])) == [{**START, "agent_id": recorder.agent_id}]
    assert found[0].stat().st_mode & 0o777 == 0o600


def test_a_run_that_ends_while_it_is_looked_for_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = EventWriter.begin()
    recorder.write(START)
    looked: list[Path] = []
    is_file = Path.is_file

    def end_meanwhile(path: Path) -> bool:
        looked.append(path)
        found = is_file(path)
        if len(looked) == 1:
            recorder.end()
        return found

    monkeypatch.setattr(Path, "is_file", end_meanwhile)
    assert run_files.find(recorder.agent_id) == (run_files.path_of(recorder.agent_id, "over"), "over")


def test_a_run_that_ends_before_its_file_is_opened_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = EventWriter.begin()
    recorder.write(START)
    recorder.write(FINISH)
    stale = [run_files.find(recorder.agent_id)]
    recorder.end()
    find = run_files.find
    monkeypatch.setattr(run_files, "find", lambda agent_id: stale.pop() if stale else find(agent_id))
    found = run_files.summarize(recorder.agent_id)
    assert found is not None
    assert found.state == "completed"


def test_ids_rise_and_are_never_given_twice() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: run_files.new_file("pending", "{}\n")[0], range(200)))
    assert len(set(made)) == 200
    assert all(run_files.is_agent_id(agent_id) for agent_id in made)
    assert run_files.ids_in("pending") == sorted(made)
    assert run_files.newest_ids() == sorted(made, reverse=True)


@pytest.mark.parametrize("text", ["", "12", "../../secret", "179000000000a", "\uff11" * 13, "1790000000000.jsonl"])
def test_what_is_no_id_finds_no_file(text: str) -> None:
    assert not run_files.is_agent_id(text)
    assert run_files.find(text) is None
    assert run_files.summarize(text) is None
    assert not run_files.is_running(text)


@pytest.mark.parametrize(
    "event",
    [{"text": "\u2028 é \udc80"}, {"text": "a\nb"}, {"odd": {1, 2}}, {"odd": float("nan")}, {"big": "x" * 300_000}],
    ids=["unicode", "newline", "set", "nan", "big"],
)
def test_every_event_is_one_whole_line(event: dict[str, Any]) -> None:
    recorder = EventWriter.begin()
    recorder.write(event)
    recorder.write(FINISH)
    recorder.end()
    lines = run_files.path_of(recorder.agent_id, "over").read_bytes().split(b"\n")
    assert len(lines) == 3
    assert lines[-1] == b""
    assert json.loads(lines[1])["event"] == "finish"


def test_who_is_at_work_is_known_by_the_lock_and_not_by_the_file(journal: JournalFolder) -> None:
    child, agent_id = _holder(journal)
    try:
        assert run_files.is_running(agent_id)
        assert run_files.adopt(agent_id) is None
    finally:
        _end(child)
    assert run_files.find(agent_id) == (run_files.path_of(agent_id, "active"), "active")
    assert not run_files.is_running(agent_id)
    adopted = run_files.adopt(agent_id)
    assert adopted is not None
    assert run_files.is_running(agent_id)
    assert [event["event"] for event in adopted.events()] == ["start"]
    adopted.write(FINISH)
    adopted.end()
    assert not run_files.is_running(agent_id)


def test_a_line_that_was_torn_by_a_kill_costs_itself(journal: JournalFolder) -> None:
    child, agent_id = _holder(journal)
    _end(child)
    with run_files.path_of(agent_id, "active").open("ab") as file:
        file.write(b'{"event": "tool_st')
    adopted = run_files.adopt(agent_id)
    assert adopted is not None
    adopted.write(FINISH)
    adopted.end()
    events = list(run_files.read_events(run_files.path_of(agent_id, "over")))
    assert [event["event"] for event in events] == ["start", "finish"]


def test_a_waiting_run_is_taken_once(journal: JournalFolder) -> None:
    agent_id, _ = run_files.new_file("pending", '{"event": "request"}\n')
    taken = [run_files.claim(agent_id), run_files.claim(agent_id)]
    assert [one is not None for one in taken] == [True, False]
    code = "import sys\nfrom muse.runs import run_files\n"
    code += "print(run_files.claim(sys.argv[1]), run_files.adopt(sys.argv[1]))"
    assert run(code, agent_id, JOURNAL_PATH=str(journal.path)).split() == ["None", "None"]


def test_a_request_that_is_still_being_written_is_left(journal: JournalFolder) -> None:
    agent_id, path = run_files.new_file("pending", '{"event": "requ')
    assert run_files.claim(agent_id) is None
    assert path.exists()


def test_a_run_at_a_glance() -> None:
    recorder = EventWriter.begin()
    recorder.write({"event": "request", "ts": 1, "handoff_from": "1790000000001"})
    call = {"event": "tool_start", "ts": 2_000, "tool": "find", "call_id": "a"}
    for event in (START, call, {**call, "event": "tool_end"}, FINISH):
        recorder.write(event)
    found = run_files.summarize(recorder.agent_id)
    assert found is not None
    assert (found.persona, found.provider, found.model, found.prompt) == ("p", "echo", "echo-1", "When?")
    assert (found.state, found.turns, found.tool_calls, found.tokens) == ("completed", 2, 1, 30)
    assert (found.duration_s, found.handoff_from) == (2.5, "1790000000001")
    recorder.end()


@pytest.mark.parametrize(
    ("events", "state", "reason"),
    [
        ([], "failed", "no end"),
        ([START], "failed", "no end"),
        ([START, {"event": "error", "error": "x"}], "failed", ""),
        ([START, {"event": "error", "error": "x", "reason": "timeout"}], "failed", "timeout"),
        ([START, {"event": "error", "error": "x", "reason": "cancelled"}], "cancelled", "cancelled"),
        ([START, {**FINISH, "reason": "limit"}], "completed", "limit"),
        ([START, FINISH], "completed", ""),
    ],
)
def test_the_state_of_a_run_that_is_over(events: list[dict[str, Any]], state: str, reason: str) -> None:
    recorder = EventWriter.begin()
    for event in events:
        recorder.write(event)
    recorder.end()
    found = run_files.summarize(recorder.agent_id)
    assert found is not None
    assert (found.state, found.reason) == (state, reason)
    seen = follow.read_from(recorder.agent_id)
    assert (seen.state, seen.reason, seen.is_over) == (state, reason, True)


def test_a_run_whose_file_is_taken_away_ends_without_a_crash(caplog: pytest.LogCaptureFixture) -> None:
    recorder = EventWriter.begin()
    run_files.path_of(recorder.agent_id, "active").unlink()
    recorder.write(START)
    recorder.end()
    assert "is gone" in caplog.text


def test_a_journal_without_runs_has_none() -> None:
    assert (run_files.newest_ids(), run_files.ids_in("active"), run_files.find("1790000000000")) == ([], [], None)


APPROVAL = {"event": "approval", "ts": 1_500, "tool": "add", "call_id": "a"}


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([START], "running"),
        ([START, APPROVAL], "waiting"),
        ([START, APPROVAL, {"event": "answer", "call_id": "a", "approved": True}], "running"),
        ([START, APPROVAL, {"event": "tool_end", "call_id": "a"}], "running"),
        ([START, APPROVAL, {**APPROVAL, "call_id": "b"}, {"event": "answer", "call_id": "a"}], "waiting"),
        ([START, APPROVAL, START], "running"),
        ([START, APPROVAL, FINISH], "completed"),
    ],
)
def test_a_run_waits_while_somebody_is_asked(events: list[dict[str, Any]], state: str) -> None:
    recorder = EventWriter.begin()
    for event in events:
        recorder.write(event)
    found = run_files.summarize(recorder.agent_id)
    assert found is not None
    assert (found.state, follow.read_from(recorder.agent_id).state) == (state, state)
    pieces = follow.read_from(recorder.agent_id, follow.TailChunk())
    assert pieces.state == state
    recorder.end()


def test_a_run_that_has_not_begun_is_queued() -> None:
    agent_id, _ = run_files.new_file("pending", '{"event": "request"}\n')
    found = run_files.summarize(agent_id)
    assert found is not None
    assert (found.state, follow.read_from(agent_id).state, follow.read_from(agent_id).is_over) == (
        "queued",
        "queued",
        False,
    )


def _line(agent_id: str, tokens: int, cost: float | None, **more: Any) -> None:
    token = ledger.RUN.set(agent_id)
    ledger.append({"model": "m", "usage": {"input_tokens": tokens, "output_tokens": 1}, "cost_usd": cost, **more})
    ledger.RUN.reset(token)


@pytest.mark.parametrize("end", [None, FINISH, {"event": "error", "ts": 3_000, "error": "x"}])
def test_what_a_run_used_is_the_sum_of_its_lines(end: dict[str, Any] | None) -> None:
    recorder = EventWriter.begin()
    recorder.write(START)
    _line(recorder.agent_id, 100, 0.25)
    _line("1790000000001", 5_000, 9.0)
    _line(recorder.agent_id, 200, 0.5, error={"class": "Cancelled"})
    if end is not None:
        recorder.write(end)
        recorder.end()
    found = run_files.summarize(recorder.agent_id)
    assert found is not None
    assert (found.tokens, found.turns, found.cost_usd) == (302, 1, 0.75)
    assert found.usage["input_tokens"] == 300


def test_the_cost_of_a_run_is_unknown_if_that_of_one_line_is() -> None:
    recorder = EventWriter.begin()
    _line(recorder.agent_id, 100, 0.25)
    _line(recorder.agent_id, 100, None)
    found = run_files.summarize(recorder.agent_id)
    assert found is not None
    assert (found.tokens, found.cost_usd) == (202, None)
    recorder.end()


@given(st.lists(st.sampled_from(["1790000000001", "1790000000002", "179000000000", "x" * 70]), max_size=30))
def test_the_lines_of_a_run_are_found_whatever_stands_between_them(ids: list[str]) -> None:
    with TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patched:
        patched.setenv("JOURNAL_PATH", place)
        patched.setattr(ledger, "_BLOCK_BYTES", 64)
        for number, agent_id in enumerate(ids):
            _line(agent_id, number, 0.0)
        found = [line["usage"]["input_tokens"] for line in run_files.read_lines("1790000000001")]
    assert found == [number for number, agent_id in enumerate(ids) if agent_id == "1790000000001"]
