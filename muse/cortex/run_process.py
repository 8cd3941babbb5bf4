"""One agent run as a process group of its own: started, listened to, kept to its time, ended; it knows no event.

The process is `python -m muse.agents --tied`: its standard input stays open as long as this process lives, so that none
outlives a cortex that was killed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import IO, Any

from msgspec import Struct

log = logging.getLogger(__name__)

# Between asking a process to end and killing its group.
_GRACE_S = 3.0
# A run keeps to its limit by itself; beyond it, it has so long until it is ended from outside.
_BEYOND_S = 2.0
# What a group's leftovers have to close their pipes after the run itself is over.
_LEFTOVER_S = 1.0
_LONGEST_LINE_BYTES = 32 << 20
_TAIL_BYTES = 4_000
# -P: no module is taken from the working folder, whose files may be those of a stranger.
_COMMAND = (sys.executable, "-P", "-m", "muse.agents", "--tied")


class ProcessEnd(Struct, frozen=True):
    """How a process ended: its exit status (negative: by that signal) and its last words on standard error."""

    exit_code: int
    words: str


class _Lines(asyncio.Protocol):
    """Cuts what comes out of a pipe into lines."""

    def __init__(self, on_line: Callable[[bytes], None]) -> None:
        self._on_line = on_line
        self._rest = bytearray()
        self.is_over = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        """Pass whole lines on; one without end is given up in pieces."""
        self._rest += data
        if b"\n" in data:
            *lines, rest = self._rest.split(b"\n")
            self._rest = bytearray(rest)
            for line in lines:
                self._on_line(bytes(line))
        elif len(self._rest) > _LONGEST_LINE_BYTES:
            self._on_line(bytes(self._rest[:_TAIL_BYTES]) + b" ... (a line too long to record)")
            self._rest.clear()

    def connection_lost(self, _: Exception | None) -> None:
        """The pipe is closed; what has no line end is a line too."""
        if self._rest:
            self._on_line(bytes(self._rest))
            self._rest.clear()
        self.is_over.set()


class RunProcess:
    """A run under way; `start` makes one, `ended` waits for its end and leaves nothing of it behind."""

    def __init__(self, process: asyncio.subprocess.Process, pipes: list[tuple[asyncio.BaseTransport, _Lines]]) -> None:
        self._process = process
        self._pipes = pipes
        self._input: asyncio.WriteTransport | None = None
        self._tail = bytearray()

    @classmethod
    async def start(cls, request: Mapping[str, Any], on_line: Callable[[bytes], None]) -> RunProcess:
        """Start a run with its request; `on_line` gets each line of its standard output.

        Raises:
            OSError: the process cannot be started.
        """
        with ExitStack() as opened:
            (own_in, own_out, own_err), (theirs_in, theirs_out, theirs_err) = _pipes(opened)
            process = await asyncio.create_subprocess_exec(
                *_COMMAND, stdin=theirs_in, stdout=theirs_out, stderr=theirs_err, start_new_session=True
            )
            run = cls(process, [])
            for pipe, take in ((own_out, on_line), (own_err, run._keep_tail)):
                await run._listen(pipe, take)
            await run._tie(own_in, request)
            opened.pop_all()
        for pipe in (theirs_in, theirs_out, theirs_err):
            pipe.close()
        return run

    async def ended(self, limit_s: float, *, on_timeout: Callable[[], None]) -> ProcessEnd:
        """Wait for the end; a run that is not over after `limit_s` and a little is made to end, which is said first."""
        try:
            async with asyncio.timeout(limit_s + _BEYOND_S):
                await self._process.wait()
        except TimeoutError:
            on_timeout()
            await self.end()
        finally:
            await self._clear()
        code = self._process.returncode
        words = self._tail.decode("utf-8", errors="replace").strip()
        return ProcessEnd(-1 if code is None else code, words)

    async def end(self) -> None:
        """Ask the run to end, and kill its group if it does not within the grace time."""
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_GRACE_S):
                await self._process.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self._process.wait()

    def tell(self, line: Mapping[str, Any]) -> None:
        """Write one more line to the run's standard input, such as the answer to an approval."""
        if self._input is not None and not self._input.is_closing():
            self._input.write(json.dumps(line, ensure_ascii=False).encode("utf-8", errors="replace") + b"\n")

    async def _listen(self, pipe: IO[bytes], take: Callable[[bytes], None]) -> None:
        lines = _Lines(take)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: lines, pipe)
        self._pipes.append((transport, lines))

    async def _tie(self, pipe: IO[bytes], request: Mapping[str, Any]) -> None:
        """Send the request; the pipe stays open until the run is over."""
        transport, _ = await asyncio.get_running_loop().connect_write_pipe(asyncio.BaseProtocol, pipe)
        transport.write(json.dumps(request, ensure_ascii=False, default=str).encode("utf-8", errors="replace") + b"\n")
        self._input = transport
        idle = _Lines(log.debug)
        idle.is_over.set()
        self._pipes.append((transport, idle))

    async def _clear(self) -> None:
        """Kill what the run left behind in its group, and close its pipes when they have been read to their end."""
        self._signal(signal.SIGKILL)
        try:
            async with asyncio.timeout(_LEFTOVER_S):
                for _, lines in self._pipes:
                    await lines.is_over.wait()
        except TimeoutError:
            log.warning("a process that run %s started has left its group and holds its output", self._process.pid)
        finally:
            for transport, _ in self._pipes:
                transport.close()

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            log.debug("process group %s is gone", self._process.pid)

    def _keep_tail(self, line: bytes) -> None:
        self._tail += line + b"\n"
        del self._tail[:-_TAIL_BYTES]


def _pipes(opened: ExitStack) -> tuple[list[IO[bytes]], list[IO[bytes]]]:
    """Pipes for standard input, output and error: `(our ends, the run's ends)`; closed with `opened`."""
    ours: list[IO[bytes]] = []
    theirs: list[IO[bytes]] = []
    for is_input in (True, False, False):
        reading, writing = os.pipe()
        reader = opened.enter_context(os.fdopen(reading, "rb", buffering=0))
        writer = opened.enter_context(os.fdopen(writing, "wb", buffering=0))
        ours.append(writer if is_input else reader)
        theirs.append(reader if is_input else writer)
    return ours, theirs
