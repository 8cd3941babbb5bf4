"""A Python process at a terminal of its own: what it shows is read, what a person types is sent; it knows no test."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from typing import Self

from tests.journal_folder import environment

# What colours, moves and hides the cursor, and is no text.
STYLE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r")
# The terminal becomes the process's own, so that Ctrl-C at it interrupts the process.
_OWN = "import fcntl, termios\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
_LONGEST_S = 60.0


class Terminal:
    """A process that runs `code`; `piped` has its standard output go elsewhere, to `output`."""

    def __init__(self, code: str, *arguments: str, columns: int = 100, piped: bool = False, **changes: str) -> None:
        self._ours, theirs = pty.openpty()
        self.shown = ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", _OWN + code, *arguments],
            env=environment(COLUMNS=str(columns), TERM="xterm-256color", **changes),
            stdin=theirs,
            stdout=subprocess.PIPE if piped else theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)

    def read_until(self, text: str) -> str:
        """Read until `text` is shown; all that was."""
        until_s = time.monotonic() + _LONGEST_S
        while text not in self.shown:
            assert time.monotonic() < until_s, f"{text!r} is not shown:\n{self.shown}"
            assert self._read(until_s - time.monotonic()), f"the process ended without {text!r}:\n{self.shown}"
        return self.shown

    def type(self, keys: str) -> None:
        """Type at the terminal."""
        os.write(self._ours, keys.encode())

    def end(self) -> int:
        """Read to the end: the exit status."""
        while self._read(_LONGEST_S):
            continue
        return self.process.wait(timeout=_LONGEST_S)

    def output(self) -> str:
        """What went to the pipe."""
        assert self.process.stdout is not None
        return self.process.stdout.read().decode()

    def _read(self, wait_s: float) -> bool:
        ready, _, _ = select.select([self._ours], [], [], max(wait_s, 0))
        if not ready:
            return False
        try:
            piece = os.read(self._ours, 65_536)
        except OSError:  # its other side is closed
            return False
        self.shown += piece.decode("utf-8", errors="replace").replace("\r\n", "\n")
        return bool(piece)

    def __enter__(self) -> Self:
        """The terminal itself."""
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        os.close(self._ours)
