"""Cortex: runs asked for by files are carried out once, to an end, by real processes."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muse.cortex import run_process
from muse.cortex.supervisor import Cortex
from muse.errors import ConfigError
from muse.runs import client, run_files
from muse.runs.client import get_agent_end_state, get_agent_status, read_agent_events
from muse.runs.history import load_history
from muse.types.messages import Assistant, ToolResults, User
from tests.cortex_process import (
    Hanging,
    agents_of,
    ask,
    cortex,
    drain,
    kill,
    last,
    names,
    once,
    processes_of,
    threads,
    wait_until,
)
from tests.journal_folder import ROOT, JournalFolder, run

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture(autouse=True)
def _echo(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSE_PROVIDER", "echo")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    server = Hanging()
    yield server
    server.close()


def _play(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let runs be a Python program of the test's instead of `muse.agents`."""
    monkeypatch.setattr(run_process, "_COMMAND", (sys.executable, "-c", code))


def _put_active(agent_id: str, *events: dict[str, Any], tail: str = "") -> str:
    """The log of a run whose owner is gone."""
    run_files.folder().mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(event) + "\n" for event in events)
    run_files.path_of(agent_id, "active").write_text(text + tail, encoding="utf-8")
    return agent_id


# One run


def test_a_run_is_recorded_from_its_request_to_its_end() -> None:
    agent_id = ask("Low water?")
    assert get_agent_status(agent_id) == "running"
    drain()
    events = read_agent_events(agent_id)
    assert names(agent_id) == ["request", "start", "finish"]
    assert events[0]["prompt"] == "Low water?"
    assert {event["agent_id"] for event in events[1:]} == {agent_id}
    assert all(isinstance(event["ts"], int) for event in events)
    assert last(agent_id)["result"] == "Low water?"
    assert get_agent_status(agent_id) == "completed"


def test_output_that_is_no_event_is_kept_as_info(monkeypatch: pytest.MonkeyPatch) -> None:
    _play(monkeypatch, 'print(\'Loading.\'); print(\'[1, 2]\'); print(\'{"event": "finish", "result": "Yes."}\')')
    agent_id = ask()
    drain()
    assert names(agent_id) == ["request", "info", "info", "finish"]
    assert [event["message"] for event in read_agent_events(agent_id)[1:3]] == ["Loading.", "[1, 2]"]


def test_a_run_that_ends_without_a_word_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    _play(monkeypatch, "import sys; sys.stdin.readline(); sys.exit('out of cheese')")
    agent_id = ask()
    drain()
    assert last(agent_id)["event"] == "error"
    assert last(agent_id)["exit_code"] == 1
    assert "out of cheese" in last(agent_id)["trace"]


def test_a_run_has_one_end(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import json\nfor name in ('finish', 'error', 'finish'): print(json.dumps({'event': name, 'result': name}))"
    _play(monkeypatch, code)
    agent_id = ask()
    drain()
    assert names(agent_id) == ["request", "finish"]


def test_a_line_of_megabytes_is_recorded_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    _play(
        monkeypatch,
        "import json; print(json.dumps({'event': 'finish', 'result': 'é' * 3_000_000}, ensure_ascii=False))",
    )
    agent_id = ask()
    drain()
    assert len(last(agent_id)["result"]) == 3_000_000


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"persona": "nobody"}, "nobody"),
        ({"timeout_s": -1}, "timeout_s"),
        ({"continue_from": "1700000000000"}, "does not exist"),
        ({"save": "../../escape.md"}, "save"),
        ({"handoff": 7}, "handoff"),
        ({"prompt": ""}, "prompt"),
    ],
)
def test_a_request_that_cannot_be_carried_out_is_one_error(config: dict[str, Any], words: str) -> None:
    request = {"event": "request", "prompt": "Hello.", "disable_mcp": True, **config}
    agent_id, _ = run_files.new_file("pending", json.dumps(request) + "\n")
    drain()
    assert names(agent_id) == ["request", "error"]
    assert words in last(agent_id)["error"]


def test_a_request_is_not_taken_before_it_is_whole() -> None:
    agent_id, path = run_files.new_file("pending", '{"event": "request", ')
    drain()
    assert path.exists()
    with path.open("a", encoding="utf-8") as file:
        file.write('"prompt": "Hello.", "disable_mcp": true}\n')
    drain()
    assert get_agent_end_state(agent_id) == "finish"


# Many runs


@linux
def test_fifty_queued_runs_finish_and_leave_nothing_behind(journal: JournalFolder) -> None:
    for number in range(4):
        ask(f"Ebb {number}.")
    drain(max_concurrent=3)  # what first runs make and keep, such as the loop's own pipes, is not counted
    files, running = len(os.listdir("/proc/self/fd")), threads()
    ids = [ask(f"Tide {number}.") for number in range(50)]
    drain(max_concurrent=3)
    assert [last(agent_id)["result"] for agent_id in ids] == [f"Tide {number}." for number in range(50)]
    assert {get_agent_end_state(agent_id) for agent_id in ids} == {"finish"}
    assert len(os.listdir("/proc/self/fd")) <= files  # fewer if what an earlier test left behind ends meanwhile
    assert threads() <= running
    assert processes_of(journal.path) == []


def test_no_more_runs_than_allowed_are_under_way_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = (
        "import os, sys, threading, json\n"
        f"mark = {str(tmp_path)!r} + '/running-' + str(os.getpid())\n"
        "open(mark, 'w').close()\n"
        f"count = len([name for name in os.listdir({str(tmp_path)!r}) if name.startswith('running-')])\n"
        "threading.Event().wait(0.05)\n"
        "os.unlink(mark)\n"
        "print(json.dumps({'event': 'finish', 'result': str(count)}))"
    )
    _play(monkeypatch, code)
    ids = [ask() for _ in range(12)]
    drain(max_concurrent=3)
    counts = [int(last(agent_id)["result"]) for agent_id in ids]
    assert max(counts) <= 3


def test_two_cortexes_share_a_folder_and_run_nothing_twice() -> None:
    ids = [ask(f"Tide {number}.") for number in range(12)]
    with cortex("--once", "-n", "2") as one, cortex("--once", "-n", "2") as other:
        assert [process.wait(180) for process in (one, other)] == [0, 0]
    once()  # what the other had under way when one was done
    for agent_id in ids:
        assert names(agent_id) == ["request", "start", "finish"]


def test_what_is_asked_for_while_it_is_up_runs_at_once_and_sigterm_ends_it() -> None:
    with cortex() as process:
        for _ in range(3):
            agent_id = ask()
            wait_until(run_files.path_of(agent_id, "over").exists)
            assert last(agent_id)["event"] == "finish"
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=180)
        assert (process.returncode, err) == (0, "")


# Time, signals, deaths


@linux
def test_a_run_over_its_time_is_ended_with_its_group(hanging: Hanging, journal: JournalFolder) -> None:
    agent_id = hanging.ask(timeout_s=0.5)
    drain()
    assert last(agent_id)["event"] == "error"
    assert processes_of(journal.path) == []


@linux
def test_a_run_that_does_not_listen_is_killed(monkeypatch: pytest.MonkeyPatch, journal: JournalFolder) -> None:
    monkeypatch.setattr(run_process, "_GRACE_S", 0.1)
    monkeypatch.setattr(run_process, "_BEYOND_S", 0.1)
    code = "import signal, subprocess, sys, threading\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    _play(monkeypatch, code + "subprocess.Popen([sys.executable, '-c', 'input()']); threading.Event().wait()")
    agent_id = ask(timeout_s=0.5)
    drain()
    assert last(agent_id)["reason"] == "timeout"
    assert "0.5 s" in last(agent_id)["error"]
    assert processes_of(journal.path) == []


@linux
def test_a_killed_run_is_an_error_with_its_signal(hanging: Hanging) -> None:
    agent_id = hanging.ask()
    with cortex("--once") as process:
        hanging.wait_for_run()
        (pid,) = agents_of(process)
        kill(pid)
        assert process.wait(180) == 0
    assert last(agent_id)["exit_code"] == -signal.SIGKILL


@linux
def test_stopped_it_ends_what_is_under_way_after_the_grace_time(hanging: Hanging, journal: JournalFolder) -> None:
    agent_id = hanging.ask()
    with cortex("--grace", "0.2", "-n", "1") as process:  # so that nobody takes the second one
        hanging.wait_for_run()
        waiting = ask()
        process.send_signal(signal.SIGINT)
        assert process.wait(180) == 0
    assert last(agent_id)["event"] == "error"
    assert last(agent_id)["reason"] == "stopped"
    assert run_files.ids_in("pending") == [waiting]
    assert processes_of(journal.path) == []
    once()
    assert last(waiting)["event"] == "finish"


@linux
def test_after_kill_9_nothing_runs_on_and_the_next_cortex_ends_the_orphan(
    hanging: Hanging, journal: JournalFolder
) -> None:
    agent_id = hanging.ask()
    with cortex() as process:
        hanging.wait_for_run()
        (pid,) = agents_of(process)
        handle = os.pidfd_open(pid)
        kill(process.pid)
        _wait_for_exit(handle)
    assert processes_of(journal.path) == []
    assert run_files.path_of(agent_id, "active").exists()
    once()
    assert last(agent_id)["reason"] == "orphaned"


def _wait_for_exit(handle: int) -> None:
    ready, _, _ = select.select([handle], [], [], 180)
    os.close(handle)
    assert ready


def test_killed_at_random_moments_every_run_has_one_end() -> None:
    ids = [ask(f"Tide {number}.") for number in range(10)]
    chance = random.Random(1795)
    for _ in range(3):
        with cortex("-n", "3") as process:
            threading.Event().wait(chance.uniform(0.2, 1.5))
            kill(process.pid)
    once()
    assert run_files.ids_in("pending") == run_files.ids_in("active") == []
    for agent_id in ids:
        kinds = names(agent_id)
        assert [kinds.count(kind) for kind in ("request", "start")] in ([1, 0], [1, 1])
        assert kinds.count("finish") + kinds.count("error") == 1
        assert kinds[-1] in ("finish", "error")


def test_a_run_whose_owner_lives_is_let_alone() -> None:
    recorder = run_files.EventWriter.begin()
    once()
    assert run_files.find(recorder.agent_id) == (run_files.path_of(recorder.agent_id, "active"), "active")
    recorder.end()


def test_an_orphan_with_a_torn_last_line_gets_whole_lines() -> None:
    agent_id = _put_active("1700000000001", {"event": "request", "prompt": "Hello."}, tail='{"event": "thin')
    drain()
    lines = run_files.path_of(agent_id, "over").read_text(encoding="utf-8").splitlines()
    assert lines[1] == '{"event": "thin'
    assert json.loads(lines[2])["event"] == "error"


def test_an_orphan_that_had_finished_keeps_its_answer_and_is_handed_on() -> None:
    request = {
        "event": "request",
        "prompt": "Hello.",
        "disable_mcp": True,
        "handoff": {"persona": "librarian", "disable_mcp": True},
    }
    agent_id = _put_active("1700000000002", request, {"event": "finish", "result": "Done."})
    drain()
    assert names(agent_id) == ["request", "finish"]
    following = client.handoff_child(agent_id)
    assert following is not None
    assert last(following)["result"] == "Done."


def test_a_run_that_may_be_resumed_goes_on_where_it_was_cut_off() -> None:
    call = {"tool": "add_todo", "args": {"text": "Buy rope"}, "call_id": "c1"}
    agent_id = _put_active(
        "1700000000003",
        {"event": "request", "prompt": "Note the rope.", "disable_mcp": True, "resume": True},
        {"event": "start", "prompt": "Note the rope.", "agent_id": "1700000000003"},
        {"event": "tool_start", **call},
        {"event": "tool_end", **call, "result": "T-1 added"},
    )
    drain()
    assert names(agent_id) == ["request", "start", "tool_start", "tool_end", "start", "finish"]
    assert last(agent_id)["result"] == "T-1 added"  # echo says the last thing that it was told
    assert read_agent_events(agent_id)[4]["resume_from"] == agent_id
    assert [type(turn) for turn in load_history(agent_id).turns] == [User, Assistant, ToolResults, Assistant]


def test_a_run_that_was_cut_off_three_times_is_given_up() -> None:
    start = {"event": "start", "prompt": "Hello."}
    request = {"event": "request", "prompt": "Hello.", "disable_mcp": True, "resume": True}
    agent_id = _put_active("1700000000004", request, start, start, start)
    drain()
    assert last(agent_id)["reason"] == "orphaned"


def test_a_full_disk_neither_hangs_nor_tears_a_line() -> None:
    agent_id = ask("x" * 3_000)
    code = (
        "import resource, sys; from muse.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000)); sys.exit(main(['cortex', '--once']))"
    )
    run(code, timeout_s=30)
    assert get_agent_status(agent_id) == "completed"
    assert [json.loads(line)["event"] for line in run_files.path_of(agent_id, "over").read_text().splitlines()] == [
        "request"
    ]


def test_the_number_of_runs_at_once_is_checked() -> None:
    with pytest.raises(ConfigError, match="max_concurrent"):
        Cortex(max_concurrent=0)
