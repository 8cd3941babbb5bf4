"""Run many model requests with bounded concurrency and yield each result as it arrives.

Entry points: `Batch` and `BatchRequest`.

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
    """A set of requests that run concurrently, at most `max_concurrent` at a time.

    With `ledger`, requests and results are saved in a batch store, `batches/<ledger>.sqlite` in the journal. After a
    crash or a stop, run the batch again: it reads finished items from the store and sends only the others.

    Args:
        max_concurrent: The largest number of calls under way. "auto" adapts it to what the provider accepts.
        client: A client that is passed to every call.
        ledger: The name of the batch store. None keeps nothing on disk.
        key: How the batch store identifies a request: the name of an attribute, or a function of the request. By
            default, requests that ask the same have the same key. The nth request of a key is the nth in every run.
        retry_failed: Send requests again that failed in an earlier run.
        progress: Draw a progress bar if standard error is a terminal.
        lane: "now" makes ordinary calls. "overnight" and "auto" (both need a ledger) send requests to the
            providers' batch services, all at once when the batch is drained.
        deadline: When the answers of the batch services are due: seconds, a time span or a point in time.
        engine: "here" makes the calls in this process. "ray" has workers on a Ray cluster make them.

    Raises:
        ValueError: `max_concurrent` is neither a whole number from 1 on nor "auto".
        ConfigError: The ledger's name or file, the lane, the deadline or the engine cannot be used.
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
        """The batch store, or None if the batch has none."""
        return self._result_writer.store if self._result_writer is not None else None

    def create(self, **options: Any) -> BatchRequest:
        """Return a request with these options; `add` or `feed` sends it.

        Raises:
            ConfigError: `json_schema` is not a usable JSON Schema.
        """
        check(options.get("json_schema"))
        return BatchRequest(**options)

    def add(self, request: BatchRequest) -> None:
        """Send a request, at once if a call slot is free.

        This needs a running event loop. It returns without waiting for anything.

        Raises:
            ConfigError: The batch store cannot be written, is closed, or another run is writing to it.
        """
        asyncio.get_running_loop()
        self._admit(request)
        self._resume()

    def update(self, request: BatchRequest, **changes: Any) -> None:
        """Change a request, discard its results and send it again.

        The result of a call for it that is still under way is ignored.
        """
        for name, value in changes.items():
            setattr(request, name, value)
        self.add(request)

    def feed(
        self, requests: Iterable[BatchRequest] | AsyncIterable[BatchRequest], *, total: int | None = None
    ) -> asyncio.Future[None]:
        """Send the requests of an iterable, which are taken from it only as workers become free.

        The iterable may therefore be endless. Nothing is taken while twice `max_concurrent` results wait to be drained.
        An exception that the iterable raises is raised by `drain_batch`, after the results.

        Args:
            requests: The iterable or async iterable to take from.
            total: The number of requests that it will yield, for the progress bar.

        Returns:
            A future that is done when all requests were taken. It need not be awaited.
        """
        done = self._source.put(requests, total)
        self._resume()
        return done

    async def drain_batch(self) -> AsyncGenerator[BatchRequest, None]:
        """Yield requests as they finish, failed ones too, until none is left.

        It may be called again. Closing the generator, or cancelling the task that iterates, cancels the calls under
        way. Cancelled and waiting requests are sent when it is called again.
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
        """Return True if every request was sent and every result was taken."""
        return not self._finished and self._is_over()

    async def wait_until_drained(self) -> None:
        """Wait until every request is finished and, while a `drain_batch` is open, every result is taken.

        If nothing drains the batch, all results stay in memory.
        """
        self._resume(is_awaited=True)
        try:
            while not self.is_drained() and (self._drains or not self._is_over()):
                await self._notifier.wait()
        finally:
            self._finished.is_open = False

    def stop(self) -> None:
        """Start no further call; the calls under way run to their end.

        With a batch store, the other requests stay in it for the next run.
        """
        self._era += 1
        for job in [*self._waiting, *(self._provider_lane.drop() if self._provider_lane is not None else ())]:
            self._drop(job)
        self._waiting.clear()
        self._source.drop()
        self._notifier.ring()

    def cancel(self) -> asyncio.Future[list[Any]]:
        """Start no further call and cancel those under way; the returned future is done when they have ended."""
        others = [*self._source.tasks(), *self._lane_tasks()]
        self.stop()
        ended = self._dismiss(others)
        ended.add_done_callback(lambda _: self._rest())
        return ended

    def close(self) -> None:
        """Close the batch store, if there is one."""
        if self._result_writer is not None:
            self._result_writer.close()

    async def __aenter__(self) -> Self:
        """Return the batch itself."""
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
        """Return the next finished request, and start more work in the room that this makes."""
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
        """Return True if results are drained fast enough to send more requests."""
        return self._finished.has_room

    def _resume(self, *, is_awaited: bool = False) -> None:
        """Start whatever has work left: workers, feeds, the provider lane and the progress bar."""
        self._worker_pool.is_halted = False
        self._finished.is_open = (is_awaited or self._finished.is_open) and not self._drains
        if self._progress_bar is not None and self._drains:
            self._progress_bar.start()
        if self._has_work():
            self._worker_pool.hire()  # each worker hires the next one while there is work
        self._source.start()
        self._source.room.ring()
        if self._provider_lane is not None and (self._drains or is_awaited):
            self._provider_lane.start(self._left)

    def _left(self, problem: BaseException | None) -> None:
        """Note that a worker ended.

        An error here is a failure of the batch itself and belongs to no request, so it ends the batch.
        """
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
        """Return the next item for a free worker, or None."""
        while not (self._waiting or self._provider_lane) and self._source.has_plain and self._has_room():
            self._source.pull()
        job = self._waiting.popleft() if self._waiting else None
        if self._waiting or (job is not None and self._source.has_plain):
            self._worker_pool.hire()
        return job

    def _may_take(self) -> bool:
        """Return True if a request that arrived now would be sent at once."""
        return self._has_room() and len(self._waiting) + self.tally.in_flight < self._concurrency.places

    def _admit(self, request: BatchRequest) -> None:
        """Accept a request; if the batch store has its result, deliver that instead of sending it."""
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
        """Discard the undelivered result of a request that is added again; return True if there was one."""
        if self._result_writer is not None and self._result_writer.withdraw(request):
            self._open -= 1
            return True
        return self._finished.withdraw(request)

    def _take_in(self, request: BatchRequest) -> None:
        """Admit a request from an async iterable and start a worker, since no free worker pulls it."""
        self._admit(request)
        if self._waiting:
            self._worker_pool.hire()

    async def _ask(self, job: QueueItem, replies: list[Reply]) -> None:
        """Make the call for one request; its outcome, a response or an error, becomes the request's result."""
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
        except BaseException:  # such as KeyboardInterrupt: it reaches `_left`, which ends the batch
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
        """Drop an item whose request was updated since; a later item has its current content."""
        self._open -= 1
        self.tally.added -= 1
        self._notifier.ring()

    def _settle(self, job: QueueItem, began_s: float) -> None:
        """Store a result and pass it on."""
        record_outcome(self._concurrency, job.request, began_s)
        self.tally.count(job.request)
        if self._result_writer is not None:
            self._result_writer.keep(job.number, job.request)
        else:
            self._finished.put([job.request])
            self._open -= 1
            self._notifier.ring()

    def _deliver(self, requests: list[BatchRequest], problem: BaseException | None = None) -> None:
        """Pass results on to `drain_batch`."""
        self._finished.put(requests)
        self._open -= len(requests)
        if problem is not None:
            self._fail(problem)
        if self._has_work():
            self._worker_pool.hire(len(requests))
        self._source.room.ring()
        self._notifier.ring()

    def _take_back(self, job: QueueItem) -> None:
        """Requeue a request whose call was cancelled, unless the batch as a whole was stopped."""
        if job.era == self._era:
            self._waiting.appendleft(job)
        else:
            self._drop(job)

    def _drop(self, job: QueueItem) -> None:
        self._open -= 1
        if job.is_current():
            job.request.cancelled()

    def _dismiss(self, others: list[asyncio.Task[None]]) -> asyncio.Future[list[Any]]:
        """Cancel all workers and `others`; the future is done when the last of them has ended."""
        for task in others:
            task.cancel()
        return asyncio.gather(*self._worker_pool.dismiss(), *others, return_exceptions=True)

    async def _halt(self) -> None:
        """Cancel what runs, so that the batch can be resumed later."""
        self._worker_pool.is_halted = True
        try:
            await self._dismiss([*self._source.halt(), *self._lane_tasks()])
        finally:
            self._rest()

    def _rest(self) -> None:
        """Release the batch store, the engine and the terminal while nothing runs."""
        if not (self._is_over() or self._worker_pool.is_halted):
            return
        if self._progress_bar is not None:
            self._progress_bar.stop()
        if self._engine is not None:
            self._engine.rest()
        if self._result_writer is not None:
            self._result_writer.release()
