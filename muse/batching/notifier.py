"""A bell that wakes whoever waits for something to change, and who ended a wait; it knows not what for."""

from __future__ import annotations

import asyncio


def is_being_cancelled() -> bool:
    """Whether the running task was asked to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Notifier:
    """Unlike an `asyncio.Event` it keeps no state and belongs to no loop: who waits looks again when it rings."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Sleep until the next ring."""
        woken = asyncio.get_running_loop().create_future()
        self._waiting.append(woken)
        await woken

    def ring(self) -> None:
        """Wake all who wait now."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for woken in waiting:
            if not woken.done() and not woken.get_loop().is_closed():
                woken.set_result(None)
