"""Several targets of one call asked at the same time, the next one whenever those before keep silent; no wire form.

The first answer wins. The others are cancelled, and their attempts have lines in the usage log like any other.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import copy_context
from typing import Any, Protocol, TypeVar

from msgspec.structs import replace

from muse.types.errors import MuseError
from muse.types.messages import Reply

_T = TypeVar("_T")
# How long the end of a call waits until the requests that lost are closed.
_CLOSING_S = 0.25


class Race(Protocol):
    """The targets of a call, and what is decided about them."""

    def ask(self, place: int) -> Coroutine[Any, Any, Reply]:
        """Ask the target at a place."""

    def goes_on(self, error: Exception) -> bool:
        """Return whether another target may do what this one could not."""

    def say(self, failed: int, error: Exception | None, following: int) -> None:
        """Tell that the next target is asked, as the one before failed; None: as it has not answered yet."""

    def raised(self, errors: Sequence[Exception]) -> Exception:
        """Return the error of the call, out of those of its targets in their order."""


async def first_answer(race: Race, count: int, hedge_s: float) -> Reply:
    """Ask the first of `count` targets; another one each time nothing came for `hedge_s` seconds, or one failed.

    Raises:
        Exception: that of the call, when no target is left or one failed for good.
    """
    waiting = deque(range(count))
    errors: dict[int, Exception] = {}
    running: dict[asyncio.Task[Reply], int] = {}
    try:
        while waiting or running:
            if waiting:
                place = waiting.popleft()
                running[asyncio.get_running_loop().create_task(race.ask(place))] = place
            done, _ = await asyncio.wait(
                running, timeout=hedge_s if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            last = max(running.values(), default=0)
            reply = _reply_in(sorted(done, key=running.__getitem__), running, errors)
            if reply is not None:
                return _with_attempts(reply, errors)
            failed = [running.pop(task) for task in done]
            if not all(race.goes_on(errors[place]) for place in failed):
                break
            if waiting:
                last = max(failed, default=last)
                race.say(last, errors.get(last), waiting[0])
        raise race.raised([errors[place] for place in sorted(errors)])
    finally:
        await _closed(running)


def _reply_in(
    done: Sequence[asyncio.Task[Reply]], places: Mapping[asyncio.Task[Reply], int], errors: dict[int, Exception]
) -> Reply | None:
    """The first reply among tasks that are over; the errors of those before it are entered."""
    for task in done:
        try:
            return task.result()
        except Exception as exc:  # noqa: BLE001 - another target may answer; raised when none does
            errors[places[task]] = exc
    return None


async def _closed(running: Mapping[asyncio.Task[Reply], int]) -> None:
    """Cancel the requests that lost, and see their connections closed."""
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running, timeout=_CLOSING_S)


def _with_attempts(reply: Reply, errors: Mapping[int, Exception]) -> Reply:
    """The reply with the attempts that failed before it."""
    failed = [
        attempt
        for place in sorted(errors)
        if isinstance(error := errors[place], MuseError)
        for attempt in error.attempts
    ]
    return replace(reply, attempts=(*failed, *reply.attempts)) if failed else reply


class _Background:
    """An event loop in a thread, for calls of threads that ask several targets at once: tasks can be cancelled."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="muse-hedging", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())  # which close the clients of the loop
            self.loop.close()

    def stop(self) -> None:
        """Close the loop and what belongs to it."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_STOPPING_S)


_STOPPING_S = 2.0
_lock = threading.Lock()
_background: _Background | None = None


def run_in_background(make: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Run a coroutine in the background loop of this process, with this thread's context variables; its result.

    It is cancelled if this thread is interrupted.
    """
    global _background
    with _lock:
        if _background is None or _background.process != os.getpid():
            _background = _Background()
        loop = _background.loop
    context = copy_context()

    async def whole() -> _T:
        return await loop.create_task(make(), context=context)

    future = asyncio.run_coroutine_threadsafe(whole(), loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


@atexit.register
def stop_background() -> None:
    """Stop the background loop, if this process has one."""
    global _background
    with _lock:
        found, _background = _background, None
    if found is not None and found.process == os.getpid():
        found.stop()


if hasattr(os, "register_at_fork"):  # no child inherits a held lock
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
