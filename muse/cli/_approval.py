"""A person at the terminal who is asked whether a tool may be called; it knows no tool and no run."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from muse.cli._live import named
from muse.messages import ToolCall
from muse.tools import PreviewedCall

_LINE_BYTES = 4_096
_YES = ("y", "yes")

try:
    import termios
except ImportError:  # Windows

    def _forget_typed(handle: int) -> None:
        """Nothing to forget it with: what was typed before the question counts as its answer."""
else:

    def _forget_typed(handle: int) -> None:
        """Drop what was typed before the question was there: it is no answer to it."""
        if os.isatty(handle):
            termios.tcflush(handle, termios.TCIFLUSH)


class Person:
    """Answers by a line typed; one question at a time. `show` is told of each question before it is put."""

    def __init__(self, show: Callable[[Mapping[str, Any]], None]) -> None:
        self._show = show
        self._one_at_a_time = asyncio.Lock()

    async def approve(self, call: ToolCall) -> bool:
        """Whether the call may be made: only a yes is one; the end of the input is none."""
        event = {"event": "approval", "tool": call.name, "args": dict(call.args), "call_id": call.call_id}
        preview = {"preview": call.preview} if isinstance(call, PreviewedCall) else {}
        async with self._one_at_a_time:
            self._show({**event, **preview})
            _forget_typed(sys.stdin.fileno())
            sys.stderr.write(f"allow {named(event)}? [y/N] ")
            sys.stderr.flush()
            answer = await _typed_line(sys.stdin.fileno())
        return answer.strip().lower() in _YES


async def _typed_line(handle: int) -> str:
    """The next line typed. Waiting for it ends with the task: the thread that reads holds up no end of the process."""
    loop = asyncio.get_running_loop()
    line: asyncio.Future[bytes] = loop.create_future()

    def tell(piece: bytes) -> None:
        if not line.done():
            line.set_result(piece)

    def read() -> None:
        piece = os.read(handle, _LINE_BYTES)
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, piece)

    threading.Thread(target=read, name="approval", daemon=True).start()
    return (await line).decode("utf-8", errors="replace")
