"""`muse-agents` as a process that is fed lines and heard event by event; it knows no test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.journal_folder import environment
from tests.loopback.behaviours import Answer
from tests.loopback.scenarios import load

Event = dict[str, Any]


class Agents:
    """The process; `says` yields its events, `ends` waits for its end."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def tell(self, *requests: Mapping[str, Any] | str) -> None:
        """Write requests, one a line; text goes as it is."""
        assert self.process.stdin is not None
        for request in requests:
            self.process.stdin.write((request if isinstance(request, str) else json.dumps(request)) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Event:
        """The next event."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it ended: {self._words()}"
        event: Event = json.loads(line)
        return event

    def hear_until(self, name: str) -> list[Event]:
        """The events up to and with the first of one kind."""
        events = [self.hear()]
        while events[-1]["event"] != name:
            events.append(self.hear())
        return events

    def signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.process.pid, number)

    def ends(self) -> tuple[int, list[Event], str]:
        """Let its input end and wait: exit status, the events left, standard error."""
        assert self.process.stdin is not None
        out, err = self.process.communicate(timeout=180)
        return self.process.returncode, [json.loads(line) for line in out.splitlines()], err

    def killed(self) -> None:
        """End it without warning."""
        self.signal(signal.SIGKILL)
        self.process.wait()

    def _words(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()


@contextmanager
def agents(*arguments: str, module: str = "muse.agents", **changes: str) -> Iterator[Agents]:
    """`python -m muse.agents ARGUMENTS`; killed at the end if it still runs."""
    command = [sys.executable, "-m", module, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=environment(**changes), stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            yield Agents(process)
        finally:
            process.kill()


def completion(*named: tuple[str, Mapping[str, Any]]) -> Answer:
    """An answer in the form of Chat Completions that calls tools."""
    body: dict[str, Any] = json.loads(json.dumps(load("compatible", "tools")["body"]))
    body["choices"][0]["message"]["tool_calls"] = [
        {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": json.dumps(args)}}
        for number, (name, args) in enumerate(named)
    ]
    return Answer(body)
