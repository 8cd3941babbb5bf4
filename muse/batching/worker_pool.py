"""Tasks that take one job after the other, as many as the pace allows and as there is work for; it knows no job."""

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
    """A worker goes when `take` has no job for it, so that none is left when all is done.

    `work` does a job; the replies that are heard meanwhile are in its second argument. `left` is told of each worker
    that ended, with the error of one that failed. After `halt`, or when the loop ends, nobody is hired until `resume`.
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
        """Have so many more workers, if they are allowed."""
        if self.is_halted:
            return
        for _ in range(min(count, self._concurrency.places - len(self._workers))):
            worker = asyncio.get_running_loop().create_task(self._run())
            self._workers.add(worker)
            worker.add_done_callback(self._ended)

    def dismiss(self) -> list[asyncio.Task[None]]:
        """Cancel all workers; those hired from now on are others."""
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
            self.is_halted |= me in self._workers  # the loop ends: nobody dismissed this one
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
                    await asyncio.sleep(0)  # others have their turn even if calls never wait

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
