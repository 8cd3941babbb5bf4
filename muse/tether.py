"""The tie of a process to the one that started it: its standard input, held open; it knows no run.

The starter writes one line and keeps the pipe open. When it is gone, however that happened, the system closes the pipe.
The tied process then asks itself to end (SIGTERM), and a few seconds later its whole process group is killed.
"""

from __future__ import annotations

import os
import signal
import threading

GRACE_S = 3.0
_PIECE_BYTES = 65_536


def read_line(handle: int) -> str:
    """The first line of a pipe, without a buffer that a thread could hold while the interpreter ends."""
    line = bytearray()
    while not line.endswith(b"\n") and (piece := os.read(handle, _PIECE_BYTES)):
        line += piece
    return line.decode("utf-8", errors="replace")


def tie(handle: int, *, grace_s: float = GRACE_S) -> None:
    """End this process, and its group if it leads one, when the pipe `handle` is closed at the other end."""
    threading.Thread(target=_wait_for_end, args=(handle, grace_s), name="tether", daemon=True).start()


def _wait_for_end(handle: int, grace_s: float) -> None:
    while os.read(handle, _PIECE_BYTES):
        continue
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(grace_s)
    if os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
