"""A pool of tasks that work off a queue, as many as the concurrency limit allows. Entry point: `WorkerPool`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from muse.batching.concurrency import ConcurrencyLimit
from muse.models import capture_replies
from muse.types.messages import Reply

_Job = TypeVar("_Job")

_IN_A_ROW = 32


class WorkerPool(Generic[_Job]):
    """A pool of workers, each of which ends when `take` returns None, so that none is left when all is done.

    After `is_halted` is set, or when the event loop ends, no worker starts until it is cleared.

    Args:
        concurrency: The limit on workers.
        take: Returns the next job, or None.
        work: Does a job. Replies that are received meanwhile are appended to its second argument.
        left: Called for each worker that ended, with its error or None.
    """

    def __init__(
        self,
        concurrency: ConcurrencyLimit,
        take: Callable[[], _Job | None],
        work: Callable[[_Job, list[Reply]], Awaitable[None]],
        left: Callable[[BaseException | None], None],
    ) -> None:
        self.is_halted = False
        self._concurrency = concurrency
        self._take = take
        self._work = work
        self._left = left
        self._workers: set[asyncio.Task[None]] = set()

    def hire(self, count: int = 1) -> None:
        """Start up to `count` workers, as far as the limit allows."""
        if self.is_halted:
            return
        for _ in range(min(count, self._concurrency.places - len(self._workers))):
            worker = asyncio.get_running_loop().create_task(self._run())
            self._workers.add(worker)
            worker.add_done_callback(self._ended)

    def dismiss(self) -> list[asyncio.Task[None]]:
        """Cancel all workers and return their tasks; workers started later are not affected."""
        workers = list(self._workers)
        self._workers.clear()
        for worker in workers:
            worker.cancel()
        return workers

    async def _run(self) -> None:
        me = _current_task()
        try:
            await self._work_on(me)
        except asyncio.CancelledError:
            self.is_halted |= me in self._workers  # cancelled but not dismissed: the event loop is ending
            raise
        finally:
            self._workers.discard(me)

    async def _work_on(self, me: asyncio.Task[None]) -> None:
        replies: list[Reply] = []
        done = 0
        with capture_replies(replies):
            while not me.cancelling() and (job := self._next()) is not None:
                await self._work(job, replies)
                replies.clear()
                done += 1
                if not done % _IN_A_ROW:
                    await asyncio.sleep(0)  # let other tasks run even if calls never wait

    def _next(self) -> _Job | None:
        return self._take() if len(self._workers) <= self._concurrency.places else None

    def _ended(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        self._left(None if worker.cancelled() else worker.exception())


def _current_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a worker runs as a task of a loop")
    return task
