"""Many requests, a few at a time, each result as it is there; it knows no provider and no file.

batch = Batch(max_concurrent=20)
batch.feed(batch.create(contents=page, context="insight.page") for page in pages)
async for request in batch.drain_batch():
    print(request.response or request.error)
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Literal, Self

from muse.batching.call import answer_of, calls_of, check, coerce_to_schema, note_model, record_outcome, run_call
from muse.batching.completed_queue import CompletedQueue
from muse.batching.concurrency import ConcurrencyLimit
from muse.batching.engine import Engine, Name, engine_of
from muse.batching.notifier import Notifier
from muse.batching.outage_guard import OutageGuard
from muse.batching.progress_bar import ProgressBar, drawn
from muse.batching.provider_batches.lane import ProviderBatchLane, lane_for
from muse.batching.queue_item import QueueItem
from muse.batching.request import BatchRequest
from muse.batching.source import RequestSource
from muse.batching.stats import BatchStats
from muse.batching.store.store import Store
from muse.batching.store.writer import Key, ResultWriter
from muse.batching.worker_pool import WorkerPool
from muse.models import agenerate
from muse.types.messages import Reply

__all__ = ["Batch", "BatchRequest"]


class Batch:
    """Requests that are asked side by side, never more than `max_concurrent` ("auto": as many as the provider bears).

    `client` goes along with every call. With a `ledger` (a name) requests and results are kept in the journal, in
    `batches/<ledger>.sqlite`: run again after whatever happened, finished items come from there and the others are
    asked. There `key` says what a request is called, an attribute's name or a function; by default two that ask the
    same have the same name, and the nth of a name is the nth in every run. `retry_failed` asks failed ones again.
    `progress` draws a bar where standard error is a terminal.

    In the lanes "overnight" and "auto" (which need a ledger) requests go by way of the providers' batch services, all
    at once when they are drained, to be answered by `deadline`: seconds, a span or a moment. With `engine="ray"` the
    calls are made by workers on a Ray cluster.

    Raises:
        ValueError: `max_concurrent` is no number from 1 on.
        ConfigError: the ledger's name or its file, the lane, the deadline or the engine is not to be had.
    """

    def __init__(
        self,
        max_concurrent: int | Literal["auto"] = 5,
        client: Any = None,
        *,
        ledger: str | None = None,
        key: Key | None = None,
        retry_failed: bool = False,
        progress: bool = False,
        lane: Literal["now", "overnight", "auto"] = "now",
        deadline: float | timedelta | datetime | None = None,
        engine: Name = "here",
    ) -> None:
        self.max_concurrent = max_concurrent
        self.client = client
        self.tally = BatchStats()
        self._concurrency = ConcurrencyLimit(max_concurrent)
        self._engine: Engine | None = engine_of(engine, self._concurrency, lane, client)
        self._waiting: deque[QueueItem] = deque()
        self._finished = CompletedQueue(self._concurrency)
        self._outage_guard = OutageGuard(self._concurrency)
        self._worker_pool = WorkerPool(self._concurrency, self._next, self._ask, self._left)
        self._source = RequestSource(self.tally, self._take_in, self._may_take, self._source_ended)
        self._notifier = Notifier()
        self._open = self._drains = self._era = 0
        self._trouble: BaseException | None = None
        self._progress_bar: ProgressBar | None = drawn(self.tally) if progress else None
        self._result_writer: ResultWriter | None = None
        if ledger is not None:
            self._result_writer = ResultWriter(
                Store(ledger), key, self._concurrency, self._deliver, retry_failed=retry_failed
            )
            weakref.finalize(self, self._result_writer.store.close)
        self._provider_lane: ProviderBatchLane | None = lane_for(
            self, self.ledger, self._source, self._notifier, lane, deadline
        )

    @property
    def ledger(self) -> Store | None:
        """Where requests and results are kept, if they are."""
        return self._result_writer.store if self._result_writer is not None else None

    def create(self, **options: Any) -> BatchRequest:
        """A request with these options; `add` or `feed` has it asked.

        Raises:
            ConfigError: `json_schema` is none.
        """
        check(options.get("json_schema"))
        return BatchRequest(**options)

    def add(self, request: BatchRequest) -> None:
        """Have a request asked, at once if there is room; a running loop is needed, and nothing is waited for.

        Raises:
            ConfigError: the ledger cannot be written, is closed, or another run is writing to it.
        """
        asyncio.get_running_loop()
        self._admit(request)
        self._resume()

    def update(self, request: BatchRequest, **changes: Any) -> None:
        """Change a request, forget its results and have it asked again; one under way counts no more."""
        for name, value in changes.items():
            setattr(request, name, value)
        self.add(request)

    def feed(
        self, requests: Iterable[BatchRequest] | AsyncIterable[BatchRequest], *, total: int | None = None
    ) -> asyncio.Future[None]:
        """Have requests asked that are taken from an iterable as workers are free, so that it may be endless.

        Nothing is taken while twice `max_concurrent` results wait to be drained. `total` says how many there will be,
        for the bar. The future that is returned need not be awaited: it is done when all were taken. What the iterable
        raises comes out of `drain_batch`, after the results.
        """
        done = self._source.put(requests, total)
        self._resume()
        return done

    async def drain_batch(self) -> AsyncGenerator[BatchRequest, None]:
        """The requests as they are finished, failed ones too, until there is none left; it may be called again.

        Closing it (or cancelling who iterates) cancels the calls under way; they and those that wait are asked when it
        is called again.
        """
        self._drains += 1
        is_whole = False
        try:
            self._resume()
            while not self.is_drained():
                while self._finished:
                    yield self._take()
                if not self._is_over():
                    await self._notifier.wait()
            is_whole = True
        finally:
            self._drains -= 1
            if not is_whole and not self._drains:
                await self._halt()
        self._rest()
        trouble, self._trouble = self._trouble, None
        if trouble is not None:
            raise trouble

    def is_drained(self) -> bool:
        """Whether every request was asked and every result taken."""
        return not self._finished and self._is_over()

    async def wait_until_drained(self) -> None:
        """Wait until all is asked and, as long as somebody drains, taken; if nobody does, memory holds all results."""
        self._resume(is_awaited=True)
        try:
            while not self.is_drained() and (self._drains or not self._is_over()):
                await self._notifier.wait()
        finally:
            self._finished.is_open = False

    def stop(self) -> None:
        """Begin no further call; those under way are finished. With a ledger the others wait there for the next run."""
        self._era += 1
        for job in [*self._waiting, *(self._provider_lane.drop() if self._provider_lane is not None else ())]:
            self._drop(job)
        self._waiting.clear()
        self._source.drop()
        self._notifier.ring()

    def cancel(self) -> asyncio.Future[list[Any]]:
        """Begin no further call and cancel those under way; await what is returned to see them end."""
        others = [*self._source.tasks(), *self._lane_tasks()]
        self.stop()
        ended = self._dismiss(others)
        ended.add_done_callback(lambda _: self._rest())
        return ended

    def close(self) -> None:
        """Close the ledger; without one there is nothing to close."""
        if self._result_writer is not None:
            self._result_writer.close()

    async def __aenter__(self) -> Self:
        """The batch itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cancel()
        self.close()

    def _is_over(self) -> bool:
        return not self._open and self._source.is_over and not self._lane_tasks()

    def _lane_tasks(self) -> list[asyncio.Task[None]]:
        return self._provider_lane.tasks() if self._provider_lane is not None else []

    def _take(self) -> BatchRequest:
        """The next finished request; that makes room for others."""
        request = self._finished.take()
        if self._has_work():
            self._worker_pool.hire()
        self._source.room.ring()
        if not self._finished:
            self._notifier.ring()
        return request

    def _has_work(self) -> bool:
        return bool(self._waiting) or (self._source.has_plain and self._has_room())

    def _has_room(self) -> bool:
        """Whether results are drained fast enough for more to be asked."""
        return self._finished.has_room

    def _resume(self, *, is_awaited: bool = False) -> None:
        """Have what is left to do done."""
        self._worker_pool.is_halted = False
        self._finished.is_open = (is_awaited or self._finished.is_open) and not self._drains
        if self._progress_bar is not None and self._drains:
            self._progress_bar.start()
        if self._has_work():
            self._worker_pool.hire()  # each finds the next as long as there is work
        self._source.start()
        self._source.room.ring()
        if self._provider_lane is not None and (self._drains or is_awaited):
            self._provider_lane.start(self._left)

    def _left(self, problem: BaseException | None) -> None:
        """Note the end of a worker; a failure in the batch itself is nobody's result."""
        if problem is not None:
            self._fail(problem)
        self._notifier.ring()

    def _source_ended(self, problem: BaseException | None) -> None:
        self._trouble = self._trouble or problem
        self._notifier.ring()

    def _fail(self, trouble: BaseException) -> None:
        self._trouble = self._trouble or trouble
        self.stop()

    def _next(self) -> QueueItem | None:
        """The job for a worker that is free."""
        while not (self._waiting or self._provider_lane) and self._source.has_plain and self._has_room():
            self._source.pull()
        job = self._waiting.popleft() if self._waiting else None
        if self._waiting or (job is not None and self._source.has_plain):
            self._worker_pool.hire()
        return job

    def _may_take(self) -> bool:
        """Whether a request that came now would be asked at once."""
        return self._has_room() and len(self._waiting) + self.tally.in_flight < self._concurrency.places

    def _admit(self, request: BatchRequest) -> None:
        """Take a request in; one whose result is in the ledger is finished."""
        if not isinstance(request, BatchRequest):
            raise TypeError(f"batch: found {type(request).__name__}, expected a BatchRequest (batch.create makes one)")
        is_unseen = self._withdraw(request) and request.restored
        request.clear()
        request.turn += 1
        number = self._result_writer.claim(request, is_unseen=is_unseen) if self._result_writer is not None else 0
        self._open += 1
        self.tally.added += 1
        if number is not None:
            job = QueueItem(request, request.turn, self._era, number)
            if self._provider_lane is None or not self._provider_lane.takes(job):
                self._waiting.append(job)
        else:
            self.tally.count(request)
            self._deliver([request])

    def _withdraw(self, request: BatchRequest) -> bool:
        """Do not hand on the result that a request has, since it is added again; whether it was still here."""
        if self._result_writer is not None and self._result_writer.withdraw(request):
            self._open -= 1
            return True
        return self._finished.withdraw(request)

    def _take_in(self, request: BatchRequest) -> None:
        """As `_admit`, for what a stream brings: nobody waits to pull it."""
        self._admit(request)
        if self._waiting:
            self._worker_pool.hire()

    async def _ask(self, job: QueueItem, replies: list[Reply]) -> None:
        """Make the call of one request; what comes of it is its result, whatever it is."""
        if not job.is_current():
            self._forget()
            return
        request, began_s = job.request, time.perf_counter()
        self.tally.in_flight += 1
        try:
            response, problem = await run_call(self._answer(request, replies))
        except asyncio.CancelledError:
            self._take_back(job)
            raise
        except BaseException:  # it is for the whole process: `_left` is told, and the batch ends
            self._drop(job)
            raise
        finally:
            self.tally.in_flight -= 1
            self._source.room.ring()
        if not job.is_current():
            self._forget()
            return
        if problem is None:
            request.answered(response)
        else:
            request.refused(problem, deferrable=self._result_writer is not None)
        request.spent(calls_of(replies, problem), time.perf_counter() - began_s)
        note_model(request)
        self._settle(job, began_s)
        if (outage := self._outage_guard.note(request)) is not None:
            self._fail(outage)

    async def _answer(self, request: BatchRequest, replies: list[Reply]) -> str:
        if self._engine is not None:
            return await self._engine.ask(request, replies)
        return await answer_of(agenerate, request, self.client)

    async def _fit(self, request: BatchRequest, text: str) -> str:
        return await coerce_to_schema(agenerate, request, self.client, text)

    def _forget(self) -> None:
        """Leave a request out that was updated since: a later job has what it is now."""
        self._open -= 1
        self.tally.added -= 1
        self._notifier.ring()

    def _settle(self, job: QueueItem, began_s: float) -> None:
        """Keep a result and hand it on."""
        record_outcome(self._concurrency, job.request, began_s)
        self.tally.count(job.request)
        if self._result_writer is not None:
            self._result_writer.keep(job.number, job.request)
        else:
            self._finished.put([job.request])
            self._open -= 1
            self._notifier.ring()

    def _deliver(self, requests: list[BatchRequest], problem: BaseException | None = None) -> None:
        """Hand results on to whoever drains."""
        self._finished.put(requests)
        self._open -= len(requests)
        if problem is not None:
            self._fail(problem)
        if self._has_work():
            self._worker_pool.hire(len(requests))
        self._source.room.ring()
        self._notifier.ring()

    def _take_back(self, job: QueueItem) -> None:
        """Put a request whose call was cancelled back in the row, if the batch as a whole was not."""
        if job.era == self._era:
            self._waiting.appendleft(job)
        else:
            self._drop(job)

    def _drop(self, job: QueueItem) -> None:
        self._open -= 1
        if job.is_current():
            job.request.cancelled()

    def _dismiss(self, others: list[asyncio.Task[None]]) -> asyncio.Future[list[Any]]:
        """Cancel all workers and `others`; the future ends with the last of them."""
        for task in others:
            task.cancel()
        return asyncio.gather(*self._worker_pool.dismiss(), *others, return_exceptions=True)

    async def _halt(self) -> None:
        """End what runs, so that it can be taken up again."""
        self._worker_pool.is_halted = True
        try:
            await self._dismiss([*self._source.halt(), *self._lane_tasks()])
        finally:
            self._rest()

    def _rest(self) -> None:
        """Let go of ledger and terminal while nothing runs."""
        if not (self._is_over() or self._worker_pool.is_halted):
            return
        if self._progress_bar is not None:
            self._progress_bar.stop()
        if self._engine is not None:
            self._engine.rest()
        if self._result_writer is not None:
            self._result_writer.release()
