"""One deadline per logical call: what is left of it bounds every wait; it knows no clock but the monotonic one."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable
from typing import TypeVar

from msgspec import Struct

from muse.types.errors import DeadlineExceeded

DEFAULT_TIMEOUT_S = 600.0
_LONGEST_S = 1e9  # some 30 years: sockets count nanoseconds in 63 bits
_T = TypeVar("_T")


class Deadline(Struct, frozen=True):
    """A point in monotonic time by which a call must be over."""

    at_s: float
    timeout_s: float

    @classmethod
    def after(cls, timeout_s: float | None) -> Deadline:
        """The deadline `timeout_s` from now; None is ten minutes, as the vendors' SDKs have it.

        Raises:
            ValueError: the time is not a positive number, or longer than a socket can wait.
        """
        wanted = DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s
        if not 0 < wanted <= _LONGEST_S:
            raise ValueError(
                f"timeout_s: found {timeout_s!r}, expected a number of seconds above 0 (up to {_LONGEST_S:g}), or None"
            )
        return cls(time.monotonic() + wanted, wanted)

    def remaining_s(self) -> float:
        """Seconds left; 0 or less if there are none."""
        return self.at_s - time.monotonic()

    @classmethod
    def within(cls, seconds: float) -> Deadline:
        """The deadline so many seconds from now, for a part of a call; 0 or less: it is over already."""
        return cls(time.monotonic() + seconds, seconds)

    def left_s(self) -> float:
        """Seconds left.

        Raises:
            DeadlineExceeded: none are.
        """
        left = self.remaining_s()
        if left <= 0:
            raise DeadlineExceeded(f"the call's {self.timeout_s:g} s ran out")
        return left

    def keep(self) -> None:
        """See that there is time left while an answer comes in.

        Raises:
            TimeoutError: there is none.
        """
        if time.monotonic() >= self.at_s:
            raise TimeoutError(f"the call's {self.timeout_s:g} s ran out")

    async def bound(self, waiting: Awaitable[_T]) -> _T:
        """Await `waiting`, cancelled when the time runs out; it is begun in any case, so it never stays unawaited.

        Raises:
            TimeoutError: the time ran out.
        """
        import asyncio  # a coroutine runs, so it is loaded; 20 ms for whoever imports muse without one

        async with asyncio.timeout(self.remaining_s()):
            return await waiting


class _Limit(threading.local):
    """The deadline of the call that this thread is making."""

    deadline: Deadline | None = None


_limit = _Limit()


class time_limit:  # noqa: N801 - a context manager, named as a function; a class costs half of contextlib's
    """While it lasts, no wait of this thread on muse's own connections goes beyond `deadline`."""

    __slots__ = ("_before", "_deadline")

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline

    def __enter__(self) -> None:
        self._before, _limit.deadline = _limit.deadline, self._deadline

    def __exit__(self, *_: object) -> None:
        _limit.deadline = self._before


def wait_s(timeout_s: float | None) -> float | None:
    """The seconds that a single wait of this thread may take: the given ones, or what is left of its call if less.

    Raises:
        TimeoutError: none are left. A server that always has something to read would otherwise never be timed out.
    """
    deadline = _limit.deadline
    left = timeout_s
    if deadline is not None:
        call_s = deadline.at_s - time.monotonic()
        left = call_s if timeout_s is None else min(timeout_s, call_s)
    if left is not None and left <= 0:
        raise TimeoutError("the time of the call ran out")
    return left
