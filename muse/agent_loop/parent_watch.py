"""The tie of a process to the one that started it: its standard input, held open; it knows no run.

The starter writes a line, later perhaps further ones, and keeps the pipe open. When it is gone, however that happened,
the system closes the pipe. The tied process then asks itself to end (SIGTERM), and a few seconds later its whole
process group is killed.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator

GRACE_S = 3.0
_PIECE_BYTES = 65_536


def read_line(handle: int) -> str:
    """The first line of a pipe, without a buffer that a thread could hold while the interpreter ends."""
    line = bytearray()
    while not line.endswith(b"\n") and (piece := os.read(handle, _PIECE_BYTES)):
        line += piece
    return line.decode("utf-8", errors="replace")


def read_lines_until_parent_exit(handle: int) -> Iterator[str]:
    """The lines of a pipe to which this process is tied from its first line on; they go on as long as the process."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    lines.put(read_line(handle))
    exit_with_parent(handle, on_line=lines.put)
    return iter(lines.get, None)


def exit_with_parent(handle: int, *, grace_s: float = GRACE_S, on_line: Callable[[str], None] | None = None) -> None:
    """End this process, and its group if it leads one, when the pipe `handle` is closed at the other end.

    Until then `on_line` gets (in a thread of its own) each further line that comes through the pipe.
    """
    threading.Thread(target=_wait_for_end, args=(handle, grace_s, on_line), name="tether", daemon=True).start()


def _wait_for_end(handle: int, grace_s: float, on_line: Callable[[str], None] | None) -> None:
    while lines := read_line(handle):
        if on_line is not None:
            for line in lines.split("\n"):
                on_line(line)
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(grace_s)
    if os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
