"""Cortex as a process, runs that hang, and what is left of them; it knows no test."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from muse.cortex.supervisor import Cortex
from muse.runs import client, run_files
from tests.journal_folder import environment

CHEAP: Mapping[str, Any] = {"disable_mcp": True}


@contextmanager
def cortex(*arguments: str, **changes: str) -> Iterator[subprocess.Popen[str]]:
    """`muse cortex` as a process; killed at the end if it still runs."""
    command = [sys.executable, "-m", "muse", "cortex", *arguments]
    with subprocess.Popen(
        command, env=environment(**changes), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def once(*arguments: str, **changes: str) -> str:
    """`muse cortex --once` to its end; what it said on standard error."""
    with cortex("--once", *arguments, **changes) as process:
        _, err = process.communicate(timeout=180)
        assert process.returncode == 0, err
    return err


def drain(**options: Any) -> None:
    """Carry out in this process what waits."""
    asyncio.run(Cortex(**options).drain())


def ask(prompt: str = "Hello.", persona: str = "default", **config: Any) -> str:
    """Ask for a run on the echo provider without tools."""
    return client.cortex_request(prompt, persona, config={**CHEAP, **config})


def wait_until(is_true: Callable[[], bool], *, timeout_s: float = 180) -> None:
    """Wait until a condition on the files of the runs holds; it looks often, as nothing tells of a file's end."""
    give_up_s = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < give_up_s, f"not so in {timeout_s} s: {sorted(os.listdir(run_files.folder()))}"
        time.sleep(0.01)


def names(agent_id: str) -> list[str]:
    """The kinds of the events of a run."""
    return [str(event.get("event")) for event in client.read_agent_events(agent_id)]


def last(agent_id: str) -> dict[str, Any]:
    """The last event of a run."""
    return client.read_agent_events(agent_id)[-1]


class Hanging:
    """A tool server that takes connections and never answers: a run that needs it hangs."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(180)
        self._taken: list[socket.socket] = []

    def ask(self, **config: Any) -> str:
        """Ask for a run that will hang."""
        url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/mcp"
        return client.cortex_request("Wait.", config={"mcp_server_url": url, **config})

    def wait_for_run(self) -> None:
        """Wait until a run hangs."""
        self._taken.append(self._listener.accept()[0])

    def close(self) -> None:
        """Let go of all connections."""
        for connection in (*self._taken, self._listener):
            connection.close()


def threads() -> int:
    """The threads of this process; those that only wait for a process that is over are let end first (Python 3.11)."""
    for thread in threading.enumerate():
        if thread.name.startswith("waitpid-"):
            thread.join(180)
    return threading.active_count()


def processes_of(journal: Path) -> list[int]:
    """The processes whose journal this is, this one left out (Linux; elsewhere none is found)."""
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            variables = (entry / "environ").read_bytes()
        except OSError:
            continue
        if f"JOURNAL_PATH={journal}".encode() in variables.split(b"\0") and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def agents_of(process: subprocess.Popen[str]) -> list[int]:
    """The processes of the runs that a cortex has under way (Linux)."""
    tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text(encoding="ascii").split()]


def kill(pid: int) -> None:
    """End a process without warning."""
    os.kill(pid, signal.SIGKILL)
