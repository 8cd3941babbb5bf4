"""Real runs in real processes that are interrupted, killed and resumed, or whose disk is full: what is left of them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muse.runs import run_files
from muse.runs.history import INTERRUPTED
from tests.agent_process import Agents, agents, completion
from tests.agent_run import is_well_formed
from tests.agent_tools import STDIO
from tests.cortex_process import processes_of
from tests.desk import Desk
from tests.journal_folder import environment
from tests.loopback.server import Hang
from tests.provider_cases import WIRES
from tests.tool_server import ToolServer

CASE = WIRES[-1]
SEARCH = ("search_journal", {"query": "release"})


@pytest.fixture
def web() -> Iterator[ToolServer]:
    with ToolServer() as server:
        yield server


@pytest.fixture
def asked(desk: Desk, web: ToolServer) -> dict[str, Any]:
    """A request to the provider on the loopback server, with the tools of `web`."""
    desk.use(CASE)
    return {"prompt": "When is the release?", "mcp_server_url": web.url, "tools": ["*"]}


def _stop(process: Agents, how: str) -> None:
    """End a run from outside."""
    assert process.process.stdout is not None
    if how == "closed pipe":
        process.process.stdout.close()
    else:
        process.signal(getattr(signal, how))


def _left(desk: Desk) -> list[dict[str, Any]]:
    """The events that the one run has recorded; it has the name of a run that is over."""
    (path,) = (desk.journal.path / "agents").glob("*.jsonl")
    assert "_active" not in path.name
    return list(run_files.read_events(path))[1:]


HOW = ["SIGINT", "SIGTERM", "closed pipe"]


@pytest.mark.parametrize("how", HOW)
def test_a_run_stopped_while_the_model_writes_ends_once(desk: Desk, asked: dict[str, Any], how: str) -> None:
    desk.play(CASE, Hang())
    with agents() as process:
        process.tell(asked)
        assert desk.server.wait_until(lambda server: bool(server.requests), 20)
        process.hear_until("start")
        _stop(process, how)
        assert process.process.wait(180) == 130
    events = _left(desk)
    assert is_well_formed(events), events
    assert (events[-1]["event"], events[-1]["reason"]) == ("error", "cancelled")
    assert [line["error"]["class"] for line in desk.journal.lines()] == ["CancelledError"]
    assert desk.server.wait_until(lambda server: not server.is_open(server.requests[0].connection))


@pytest.mark.parametrize("how", HOW)
def test_a_run_stopped_within_a_tool_ends_once_and_leaves_no_process(
    desk: Desk, asked: dict[str, Any], how: str
) -> None:
    desk.play(CASE, completion(("hang", {}), ("wait", {})))
    with agents() as process:
        process.tell({**asked, "mcp_servers": {"odd": STDIO}})
        process.hear_until("tool_start")
        process.hear()
        children = _children_of(process.process.pid)
        _stop(process, how)
        assert process.process.wait(180) == 130
        assert process.process.stderr is not None
        assert "Traceback" not in process.process.stderr.read()
    events = _left(desk)
    assert is_well_formed(events), events
    assert [event["result"] for event in events if event["event"] == "tool_end"] == [{"error": "cancelled"}] * 2
    assert (events[-1]["event"], events[-1]["reason"]) == ("error", "cancelled")
    assert len(desk.journal.lines()) == 1
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []
    assert processes_of(desk.journal.path) == []


def _children_of(pid: int) -> list[int]:
    """The processes that a process has started (Linux; elsewhere none is found)."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text(encoding="ascii").split()]


@pytest.mark.parametrize("how", HOW)
def test_muse_agent_stopped_says_so_with_its_status(desk: Desk, asked: dict[str, Any], how: str) -> None:
    desk.play(CASE, Hang())
    command = ("agent", "default", "Hello", "--no-tools", "--json")
    with agents(*command, module="muse") as process:
        process.hear_until("start")
        assert desk.server.wait_until(lambda server: bool(server.requests), 20)
        _stop(process, how)
        assert process.process.wait(180) == 130
    assert (_left(desk)[-1]["event"], _left(desk)[-1]["reason"]) == ("error", "cancelled")


def test_lines_after_an_interrupted_one_are_not_run(desk: Desk, asked: dict[str, Any]) -> None:
    desk.play(CASE, Hang())
    with agents() as process:
        process.tell(asked, {"prompt": "Never", "provider": "echo", "disable_mcp": True})
        assert desk.server.wait_until(lambda server: bool(server.requests), 20)
        process.signal(signal.SIGTERM)
        status, events, words = process.ends()
    assert (status, words) == (130, "")
    assert [event["event"] for event in events] == ["start", "error"]


# Killed, then resumed


@pytest.fixture
def killed(desk: Desk, asked: dict[str, Any], web: ToolServer) -> str:
    """The id of a run that was killed while one of its two tools was at work; the other one has ended."""
    desk.play(CASE, completion(SEARCH, ("wait", {})))
    with agents() as process:
        process.tell(asked)
        process.hear_until("tool_end")
        process.killed()
    assert web.called.count("search_journal") == 1
    (path,) = (desk.journal.path / "agents").glob("*_active.jsonl")
    return path.name.removesuffix("_active.jsonl")


def test_a_killed_run_goes_on_from_its_log(desk: Desk, killed: str, web: ToolServer) -> None:
    desk.play(CASE, "tools_answer")
    done = _muse("run", "--resume", killed)
    assert done.returncode == 0, done.stderr
    assert "The release is planned for Thursday" in done.stdout
    assert web.called.count("search_journal") == 1
    assert web.called.count("wait") <= 1
    results = {
        message["tool_call_id"]: message["content"]
        for message in desk.server.requests[-1].body["messages"]
        if message["role"] == "tool"
    }
    assert results == {"call_0": "2 hits for 'release'", "call_1": f"Error: {INTERRUPTED}"}
    found = run_files.summarize(killed)
    assert found is not None
    assert found.state == "completed"
    again = _muse("run", "--resume", killed)
    assert again.returncode != 0
    assert "finished" in again.stderr


def test_a_run_under_way_is_not_resumed(desk: Desk, asked: dict[str, Any]) -> None:
    desk.play(CASE, Hang())
    with agents() as process:
        process.tell(asked)
        (start,) = process.hear_until("start")
        done = _muse("run", "--resume", start["agent_id"])
    assert done.returncode != 0
    assert "under way" in done.stderr
    assert len(desk.server.requests) <= 1


def _muse(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "muse", *arguments]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)


# A full disk

_FULL = """
import asyncio, resource, sys
from muse.runs import run_files
from muse.agents import main_async
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.exit(asyncio.run(main_async()))
"""


@pytest.mark.parametrize("size", [0, 500, 900])
def test_a_full_disk_costs_the_log_and_not_the_run(desk: Desk, size: int) -> None:
    request = json.dumps({"prompt": "x" * 300, "provider": "echo", "disable_mcp": True}) + "\n"
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(size)],
        env=environment(),
        input=request * 2,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events] == ["start", "finish"] * 2, done.stderr
    assert done.returncode == 0
    assert done.stderr.count("cannot be recorded") == 2
    for path in (desk.journal.path / "agents").glob("*.jsonl"):
        assert path.stat().st_size <= size
        assert all(line.endswith(b"\n") and json.loads(line) for line in path.read_bytes().splitlines(keepends=True))


def test_agents_in_the_way_of_a_folder_cost_the_log_and_not_the_run(desk: Desk) -> None:
    (desk.journal.path / "agents").write_text("not a folder", encoding="utf-8")
    with agents() as process:
        process.tell({"prompt": "Moin", "provider": "echo", "disable_mcp": True})
        status, events, words = process.ends()
    assert (status, [event["event"] for event in events]) == (0, ["start", "finish"])
    assert "cannot be recorded" in words


# Many at once


def test_fifty_runs_at_once_against_one_server(desk: Desk, asked: dict[str, Any], web: ToolServer) -> None:
    desk.play(CASE, *[completion(SEARCH)] * 50, *["tools_answer"] * 50)
    with agents("--parallel", "50") as process:
        feeding = threading.Thread(target=process.tell, args=[asked] * 50)
        feeding.start()
        feeding.join()
        status, events, _ = process.ends()
    assert status == 0
    by_run: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        by_run.setdefault(event["agent_id"], []).append(event)
    assert len(by_run) == 50
    assert all(is_well_formed(own) and own[-1]["event"] == "finish" for own in by_run.values())
    assert len(desk.journal.lines()) == sum(own[-1]["usage"]["requests"] for own in by_run.values())
    assert len(web.called) == 50
