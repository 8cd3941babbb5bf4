"""Several tool servers at once, of every kind, and what becomes of a run when one of them is gone."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from muse import testing
from muse.errors import ToolError
from tests.agent_run import Run, calls, is_well_formed, replay
from tests.agent_tools import SPOILED, STDIO, Odd
from tests.journal_folder import ROOT, JournalFolder, environment
from tests.tool_server import ToolServer

pytestmark = pytest.mark.usefixtures("journal")
LOOK = testing.calls(("look", {"text": "tide"}))
SEARCH = testing.calls(("search_journal", {"query": "tide"}))


def _children() -> set[int]:
    """The processes that this one has started and that still run (Linux; elsewhere none is found)."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(child) for task in tasks for child in task.read_text(encoding="ascii").split()}


# Kinds


async def test_http_stdio_and_memory_at_once() -> None:
    before = _children()
    odd = Odd()
    say = testing.calls(
        ("search_journal", {"query": "tide"}), ("child__look", {"text": "a"}), ("here__look", {"text": "b"})
    )
    with ToolServer() as web:
        named = {"child": STDIO, "here": odd.server}
        script, run = replay(say, "Three.", mcp_server_url=web.url, mcp_servers=named)
        with script as played:
            assert await run.answer() == "Three."
    assert [run.result(f"call-{number}") for number in range(3)] == ["2 hits for 'tide'", "seen: a", "seen: b"]
    offered = {tool.name: tool.read_only for tool in played.requests[0].tools}
    assert offered["child__look"]
    assert offered["here__look"]
    assert not offered["list_days"]
    assert _children() <= before


async def test_a_server_from_a_package_of_somebody_else() -> None:
    clock = {"command": sys.executable, "args": ["-m", "mcp_server_time", "--local-timezone", "Europe/Berlin"]}
    asked = {"source_timezone": "Asia/Tokyo", "time": "12:00", "target_timezone": "UTC"}
    wrong = {"source_timezone": "Mars/Olympus", "time": "12:00", "target_timezone": "UTC"}
    script, run = replay(
        testing.calls(("convert_time", asked), ("convert_time", wrong), ("convert_time", {"time": 12})),
        "At three.",
        mcp_servers={"clock": clock},
        tools=["clock__convert_*"],
    )
    with script as played:
        assert await run.answer() == "At three."
    assert [tool.name for tool in played.requests[0].tools] == ["convert_time"]
    assert "T03:00:00" in run.result("call-0")
    assert "Mars/Olympus" in run.result("call-1")["error"]
    assert "do not fit its schema" in run.result("call-2")["error"]


async def test_bytes_that_are_no_utf8_cost_their_own_answer_at_most() -> None:
    script, run = replay(calls("torn"), LOOK, "Read.", mcp_servers={"spoiled": SPOILED})
    with script:
        assert await run.answer() == "Read."
    torn, look = (event["result"] for event in run.said("tool_end"))
    assert torn == "\ufffd\ufffd bytes"
    assert look == "seen: tide"


# Gone


@pytest.mark.parametrize("first", ["die", "exit_once"])
async def test_a_server_that_dies_in_a_call_is_started_again_for_the_next(first: str, tmp_path: Path) -> None:
    args = {"marker": str(tmp_path / "marker")} if first == "exit_once" else {}
    script, run = replay(testing.calls((first, args)), LOOK, "It came back.", mcp_servers={"child": STDIO})
    with script:
        assert await run.answer() == "It came back."
    died, looked = (event["result"] for event in run.said("tool_end"))
    assert "lost during the call; it may or may not have run" in died["error"]
    assert looked == "seen: tide"


async def test_calls_that_lose_the_same_server_share_one_new_connection() -> None:
    say = testing.calls(("die", {}), *[("look", {"text": str(number)}) for number in range(4)])
    script, run = replay(say, LOOK, "Good.", mcp_servers={"child": STDIO})
    with script:
        assert await run.answer() == "Good."
    assert is_well_formed(run.events)
    assert run.said("tool_end")[-1]["result"] == "seen: tide"


@contextmanager
def _web(port: int = 0) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A tool server over HTTP as a process of its own: its address, and itself."""
    command = [sys.executable, "-m", "tests.tool_server", str(port)]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip(), process
        finally:
            process.kill()


async def _answer_without(process: subprocess.Popen[str], run: Run, then: Callable[[], object]) -> str:
    """The answer of a run whose server is killed when its first call is over; `then` is called after."""

    def hear(event: dict[str, Any]) -> None:
        if event["event"] == "tool_end" and process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            then()

    return await run.answer(also=hear)


async def test_a_server_that_restarts_is_connected_to_again() -> None:
    with _web() as (url, process), testing.script(SEARCH, SEARCH, "Found twice."):
        run = Run(mcp_server_url=url)
        again = _web(int(url.rpartition(":")[2].removesuffix("/mcp")))
        try:
            assert await _answer_without(process, run, again.__enter__) == "Found twice."
        finally:
            again.__exit__(None, None, None)
    assert [event["result"] for event in run.said("tool_end")] == ["2 hits for 'tide'"] * 2


async def test_a_server_that_stays_away_ends_its_calls_and_not_the_run() -> None:
    with _web() as (url, process), testing.script(SEARCH, SEARCH, SEARCH, "No more of it."):
        run = Run(mcp_server_url=url)
        assert await _answer_without(process, run, process.poll) == "No more of it."
    first, *others = (event["result"] for event in run.said("tool_end"))
    assert first == "2 hits for 'tide'"
    assert all("cannot be reached" in result["error"] for result in others)


async def test_a_server_killed_within_a_call_ends_the_call_and_not_the_run() -> None:
    with _web() as (url, process), testing.script(calls("wait"), "It went away."):
        assert process.stdout is not None
        run = Run(mcp_server_url=url, timeout_s=20)
        answer = asyncio.create_task(run.answer())
        assert await asyncio.to_thread(process.stdout.readline) == "wait\n"
        os.kill(process.pid, signal.SIGKILL)
        assert await answer == "It went away."
    assert "cannot be reached" in run.result()["error"]


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"


async def test_a_server_that_never_answers_holds_a_run_no_longer_than_its_time(silent: str) -> None:
    loop = asyncio.get_running_loop()
    run = Run(mcp_server_url=silent, timeout_s=0.4)
    began_s = loop.time()
    await run.fail(TimeoutError)
    assert loop.time() - began_s < 2.0
    assert (run.names, run.last["reason"]) == (["start", "error"], "timeout")
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("mcp")] == []


async def test_a_run_cancelled_while_it_connects_leaves_nothing(silent: str) -> None:
    run = Run(mcp_server_url=silent, mcp_servers={"child": STDIO})
    before = _children()
    begun = asyncio.Event()
    task = asyncio.create_task(run.answer(also=lambda _: begun.set()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (run.names, run.last["reason"]) == (["start", "error"], "cancelled")
    assert [left for left in asyncio.all_tasks() if left.get_name().startswith("mcp")] == []
    assert _children() <= before


@pytest.mark.parametrize(
    "entry",
    [{"command": "no-such-program-anywhere"}, {"command": sys.executable, "args": ["-c", "raise SystemExit(3)"]}],
    ids=["missing", "ends"],
)
async def test_a_server_that_cannot_be_started_is_named(entry: dict[str, Any], journal: JournalFolder) -> None:
    run = Run(mcp_servers={"broken": entry})
    await run.fail(ToolError, "MCP server 'broken'.* cannot be reached")
    assert run.names == ["start", "error"]


async def test_of_several_servers_one_that_cannot_be_reached_ends_no_run(caplog: pytest.LogCaptureFixture) -> None:
    odd = Odd()
    servers = {"gone": {"url": "http://127.0.0.1:9/mcp"}, "odd": odd.server}
    script, run = replay(testing.calls(("look", {"text": "tide"})), "Seen.", mcp_servers=servers)
    with script:
        assert await run.answer() == "Seen."
    assert run.result() == "seen: tide"
    [said] = [record.getMessage() for record in caplog.records if "cannot be reached" in record.getMessage()]
    assert "'gone'" in said
    assert "goes on without its tools" in said
