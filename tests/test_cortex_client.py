"""Asking for runs and reading them, by files alone: no cortex is up in these tests."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from muse.errors import ConfigError
from muse.runs import client, run_files
from muse.runs.client import (
    cortex_agents,
    cortex_request,
    get_agent_end_state,
    get_agent_status,
    get_agent_thread,
    read_agent_events,
)
from muse.runs.run_files import EventWriter
from tests.journal_folder import JournalFolder, run

pytestmark = pytest.mark.usefixtures("journal")


def _put(agent_id: str, *events: dict[str, Any], state: run_files.State = "over") -> str:
    run_files.folder().mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(event) + "\n" for event in events)
    run_files.path_of(agent_id, state).write_text(text, encoding="utf-8")
    return agent_id


# Asking


def test_a_request_is_one_line_in_a_file_that_waits() -> None:
    agent_id = cortex_request("When?", "librarian", provider="echo", config={"day": "20261103", "facet": None})
    (line,) = run_files.path_of(agent_id, "pending").read_text(encoding="utf-8").splitlines()
    request = json.loads(line)
    assert request.pop("ts") == pytest.approx(time.time() * 1000, abs=5_000)
    assert request == {
        "event": "request",
        "prompt": "When?",
        "persona": "librarian",
        "provider": "echo",
        "day": "20261103",
    }


def test_nothing_is_left_beside_the_request() -> None:
    agent_id = cortex_request("When?")
    assert [path.name for path in run_files.folder().iterdir()] == [f"{agent_id}_pending.jsonl"]


def test_ids_rise_and_are_milliseconds() -> None:
    ids = [cortex_request("When?") for _ in range(50)]
    assert ids == sorted(set(ids))
    assert all(run_files.is_agent_id(agent_id) for agent_id in ids)
    assert int(ids[0]) == pytest.approx(time.time() * 1000, abs=5_000)


def test_many_threads_and_processes_get_ids_of_their_own() -> None:
    code = "from muse.runs.client import cortex_request\nfor _ in range(100): cortex_request('When?')"
    with ThreadPoolExecutor(4) as pool:
        processes = [pool.submit(run, code) for _ in range(2)]
        own = list(pool.map(lambda _: cortex_request("When?"), range(100)))
        assert [process.result() for process in processes] == ["", ""]
    assert len(set(own)) == 100
    assert len(run_files.ids_in("pending")) == 300


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_a_request_needs_a_prompt(prompt: str) -> None:
    with pytest.raises(ConfigError, match="prompt"):
        cortex_request(prompt)


@pytest.mark.parametrize(
    "save", ["../x.md", "/etc/x", "a/../../x", "", "notes/", "C:\\x", "\\\\host\\x", "a\0b", "link/x.md"]
)
def test_a_result_stays_in_the_folder_of_its_day(save: str, journal: JournalFolder, tmp_path: Path) -> None:
    day = journal.path / "20261103"
    day.mkdir()
    (day / "link").symlink_to(tmp_path)
    if save:
        with pytest.raises(ConfigError, match="save"):
            cortex_request("When?", config={"day": "20261103"}, save=save)
        assert run_files.newest_ids() == []


def test_a_day_is_a_day() -> None:
    with pytest.raises(ConfigError, match="day"):
        cortex_request("When?", config={"day": "20261341"}, save="x.md")


def test_only_a_completed_run_is_continued() -> None:
    waiting = cortex_request("When?")
    running = EventWriter.begin()
    _put("1700000000001", {"event": "finish", "result": "At six."})
    for agent_id, words in ((waiting, "pending"), (running.agent_id, "active"), ("1700000000009", "does not exist")):
        with pytest.raises(ConfigError, match=words):
            cortex_request("And then?", config={"continue_from": agent_id})
    running.end()
    assert cortex_request("And then?", config={"continue_from": "1700000000001"})


# Reading


def test_states_of_a_run() -> None:
    assert (get_agent_status("1700000000001"), get_agent_end_state("1700000000001")) == ("not_found", "unknown")
    waiting = cortex_request("When?")
    assert (get_agent_status(waiting), get_agent_end_state(waiting)) == ("running", "running")
    recorder = run_files.claim(waiting)
    assert recorder is not None
    assert (get_agent_status(waiting), get_agent_end_state(waiting)) == ("running", "running")
    recorder.write({"event": "error", "error": "no"})
    recorder.end()
    assert (get_agent_status(waiting), get_agent_end_state(waiting)) == ("completed", "error")
    _put("1700000000002", {"event": "start"})
    assert (get_agent_status("1700000000002"), get_agent_end_state("1700000000002")) == ("completed", "unknown")


def test_a_run_with_a_finished_log_is_completed_even_if_an_active_one_is_left_beside_it() -> None:
    _put("1700000000003", {"event": "start"})
    run_files.path_of("1700000000003", "active").write_text("{}\n", encoding="utf-8")
    assert get_agent_status("1700000000003") == "completed"


@pytest.mark.parametrize("agent_id", ["", "../../etc/passwd", "17", "x" * 13, "\u0661" * 13])
def test_what_is_no_id_is_not_found(agent_id: str) -> None:
    assert get_agent_status(agent_id) == "not_found"
    with pytest.raises(FileNotFoundError):
        read_agent_events(agent_id)
    with pytest.raises(FileNotFoundError):
        get_agent_thread(agent_id)


def test_bad_lines_of_a_log_are_passed_over() -> None:
    path = run_files.path_of(_put("1700000000001", {"event": "start"}), "over")
    path.write_bytes(path.read_bytes() + b'not json\n[1]\n\xff\xfe\n{"event": "finish"}\n{"torn')
    assert [event["event"] for event in read_agent_events("1700000000001")] == ["start", "finish"]


def test_a_thread_is_the_whole_chain_oldest_first() -> None:
    _put("1700000000001", {"event": "request"})
    _put("1700000000002", {"event": "request"})
    _put("1700000000003", {"event": "request", "continue_from": "1700000000001"})
    _put("1700000000004", {"event": "request", "handoff_from": "1700000000003"}, state="pending")
    chain = ["1700000000001", "1700000000003", "1700000000004"]
    assert [get_agent_thread(agent_id) for agent_id in chain] == [chain] * 3
    assert get_agent_thread("1700000000002") == ["1700000000002"]


def test_a_thread_that_bites_its_tail_ends() -> None:
    _put("1700000000001", {"event": "request", "continue_from": "1700000000002"})
    _put("1700000000002", {"event": "request", "continue_from": "1700000000001"})
    assert get_agent_thread("1700000000001") == ["1700000000001", "1700000000002"]


# Listing


def test_runs_are_listed_newest_first_in_pages() -> None:
    for number in range(12):
        _put(
            f"17000000000{number:02d}",
            {"event": "request", "prompt": f"{number}", "facet": "work" if number % 2 else ""},
        )
    waiting = cortex_request("When?")
    page = cortex_agents(limit=5)
    assert [row["id"] for row in page["agents"]] == [
        waiting,
        "1700000000011",
        "1700000000010",
        "1700000000009",
        "1700000000008",
    ]
    assert page["pagination"] == {"limit": 5, "offset": 0, "total": 13, "has_more": True}
    assert (page["live_count"], page["historical_count"]) == (1, 12)
    end = cortex_agents(limit=5, offset=10)
    assert [row["prompt"] for row in end["agents"]] == ["2", "1", "0"]
    assert end["pagination"]["has_more"] is False
    assert [row["status"] for row in cortex_agents(agent_type="live")["agents"]] == ["running"]
    assert cortex_agents(agent_type="historical")["pagination"]["total"] == 12
    assert cortex_agents(facet="work")["pagination"]["total"] == 6


@pytest.mark.parametrize(("asked", "given"), [(0, 1), (-5, 1), (100, 100), (5_000, 100)])
def test_a_page_has_1_to_100_runs(asked: int, given: int) -> None:
    assert cortex_agents(limit=asked)["pagination"]["limit"] == given


def test_another_kind_of_runs_is_refused() -> None:
    with pytest.raises(ConfigError, match="agent_type"):
        cortex_agents(agent_type="lost")


def test_an_empty_journal_has_no_runs() -> None:
    assert cortex_agents()["agents"] == []
    assert client.handoff_child("1700000000001") is None


# The files


def test_an_active_file_is_locked_from_its_first_moment_to_its_last() -> None:
    recorder = EventWriter.begin()
    assert run_files.adopt(recorder.agent_id) is None
    assert run_files.claim(recorder.agent_id) is None
    recorder.end()
    assert run_files.adopt(recorder.agent_id) is None


def test_a_run_is_claimed_once() -> None:
    agent_id = cortex_request("When?")
    recorder = run_files.claim(agent_id)
    assert recorder is not None
    assert run_files.claim(agent_id) is None
    recorder.release()
    adopted = run_files.adopt(agent_id)
    assert adopted is not None
    adopted.end()
