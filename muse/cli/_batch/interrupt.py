"""What Ctrl-C and SIGTERM do to a batch while it runs; it knows no row and no file."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from muse.batch import Batch
from muse.cli._terminal.terminal import print_error

_AGAIN = "Ctrl-C again stops at once"


class Interrupt:
    """The first Ctrl-C lets calls under way finish, a second (or SIGTERM) cancels them, further ones do nothing.

    Where the loop cannot hear them, since it waits for whoever reads the output, a second one breaks that off.
    """

    def __init__(self, batch: Batch) -> None:
        self.times = 0
        self._batch = batch
        self._loop: asyncio.AbstractEventLoop | None = None
        self._done = 0
        self._is_writing = False

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Listen meanwhile, also before and after the loop runs, so that a batch ends with its table."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the loop: have the batch do what was heard, now and from now on."""
        self._loop = asyncio.get_running_loop()
        self._act()
        try:
            yield
        finally:
            self._loop = None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """While a row is written.

        Raises:
            KeyboardInterrupt: a second Ctrl-C came.
        """
        self._is_writing = True
        try:
            yield
        finally:
            self._is_writing = False

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        self.times += 2 if number == signal.SIGTERM else 1
        if self._loop is None:
            return
        self._loop.call_soon_threadsafe(self._act)
        if self._is_writing and self.times > 1:
            raise KeyboardInterrupt
        if self._is_writing:
            os.write(2, f"muse: finishing; {_AGAIN}\n".encode())  # print may be at work in the very call

    def _act(self) -> None:
        before, self._done = self._done, self.times
        if self.times > 1 >= before:
            self._batch.cancel()
        elif self.times > before == 0:
            under_way = self._batch.tally.in_flight
            print_error(f"muse: finishing {under_way} calls under way; {_AGAIN}")
            self._batch.stop()
