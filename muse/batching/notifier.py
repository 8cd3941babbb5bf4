"""A wake-up signal for tasks that wait for a change. Entry point: `Notifier`."""

from __future__ import annotations

import asyncio


def is_being_cancelled() -> bool:
    """Return True if the running task was asked to cancel."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Notifier:
    """A wake-up signal without state: a task that was woken checks its condition again.

    Unlike an `asyncio.Event` it is bound to no event loop.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Wait until the next `ring`."""
        woken = asyncio.get_running_loop().create_future()
        self._waiting.append(woken)
        await woken

    def ring(self) -> None:
        """Wake all tasks that wait now."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for woken in waiting:
            if not woken.done() and not woken.get_loop().is_closed():
                woken.set_result(None)
