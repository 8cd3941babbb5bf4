"""The overnight lane of a batch: requests go to batch services, and results come back to the batch.

The lane collects the requests of a batch first. They are sent when the feeds have ended and the batch is drained.
Results are delivered like those of live calls, at the price of the batch service.

Entry points: `lane_for`, `ProviderBatchLane`, `cancel`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

from msgspec.structs import replace

from muse.batching.call import FailedCall, calls_of, check, coercer_for
from muse.batching.notifier import Notifier
from muse.batching.provider_batches.job_runner import Answer
from muse.batching.provider_batches.service import PollSchedule
from muse.batching.provider_batches.submitter import Item, ProviderBatchSubmitter, window_s
from muse.batching.queue_item import QueueItem
from muse.batching.request import BatchRequest
from muse.batching.source import RequestSource
from muse.batching.store.serialization import unpack
from muse.batching.store.store import Store
from muse.models import capture_replies, prepare_call
from muse.providers import specs
from muse.providers._backend.attempt import CallMetadata
from muse.providers._backend.batch_service import CANCELLED
from muse.types.errors import ConfigError, MuseError, ProviderError
from muse.types.messages import Attempt, Reply

Lane = Literal["now", "overnight", "auto"]
Deadline = float | timedelta | datetime
LANES: tuple[Lane, ...] = ("now", "overnight", "auto")
# All services aim to answer within a day. In lane "auto", what is left before the deadline is sent live: in the last
# tenth of the time, two hours at most.
LEAST_S = 86_400.0
_LIVE_SHARE, _MOST_LIVE_S = 0.1, 7_200.0
_LONGEST_S = 3_600.0 * 24 * 366 * 100
_DEADLINE = "a number of seconds above 0 (100 years at most), a timedelta, or a datetime to come"
_TURN = 100
RHYTHM = PollSchedule()


class LaneOwner(Protocol):
    """The part of a batch that its lane uses."""

    def _settle(self, job: QueueItem, began_s: float) -> None:
        """Accept an item whose request has its result."""

    def _forget(self) -> None:
        """Drop an item whose request was updated since."""

    def _take_back(self, job: QueueItem) -> None:
        """Queue an item for a live call."""

    def _resume(self) -> None:
        """Start whatever has work left."""

    def _has_room(self) -> bool:
        """Return True if results are drained fast enough."""

    def _may_take(self) -> bool:
        """Return True if a live request would be sent at once."""

    async def _fit(self, request: BatchRequest, text: str) -> str:
        """Return the JSON of an answer that fits the request's schema."""


class ProviderBatchLane:
    """The link between a batch and the batch services.

    The batch rings `notifier` when a feed ends and when its own state changes.
    """

    def __init__(
        self,
        owner: LaneOwner,
        store: Store,
        feed: RequestSource,
        notifier: Notifier,
        *,
        is_auto: bool,
        deadline_s: float | None,
    ) -> None:
        self._owner = owner
        self._store = store
        self._source = feed
        self._notifier = notifier
        self._is_auto = is_auto
        self._end_s = None if deadline_s is None else time.monotonic() + deadline_s
        self._jobs: dict[int, QueueItem] = {}
        self._task: asyncio.Task[None] | None = None
        self._may_be_left = store.jobs_under_way() > 0  # after a run that was killed near its end

    def takes(self, job: QueueItem) -> bool:
        """Accept an item if it can go to a batch service; return True if it was accepted.

        A request that cannot be sent at all is refused here, so that the live call reports why.
        """
        is_near = self._end_s is not None and self._end_s - time.monotonic() < LEAST_S
        if self._is_auto and is_near and not self._store.jobs_under_way(job.number):
            return False
        try:
            route = _item(job).origin.route
        except (MuseError, ValueError, TypeError):
            return False
        if self._is_auto and (route is None or window_s(route.provider) is None):
            return False
        before = self._jobs.get(job.number)
        if before is not None:  # the same request, added again
            self._owner._forget()
        self._jobs[job.number] = job
        return True

    def start(self, ended: Callable[[BaseException | None], None]) -> None:
        """Send the collected requests once the feeds have ended.

        `ended` is called when there is nothing left to do, with the error of a failure or None.
        """
        if self._task is not None and not self._task.done():
            return
        if not self._jobs and self._source.is_over and not self._may_be_left:
            return
        task = self._task = asyncio.get_running_loop().create_task(self._run())
        task.add_done_callback(lambda done: ended(None if done.cancelled() else done.exception()))

    def tasks(self) -> list[asyncio.Task[None]]:
        """Return the running task, if any; cancelling it leaves the jobs at the services, and `start` resumes them."""
        return [self._task] if self._task is not None and not self._task.done() else []

    def drop(self) -> list[QueueItem]:
        """Stop collecting answers in this run; return the items that were under way."""
        dropped = list(self._jobs.values())
        self._jobs.clear()
        for task in self.tasks():
            task.cancel()
        return dropped

    async def _run(self) -> None:
        while True:
            await self._gather()
            if not self._jobs and not (self._may_be_left and self._store.jobs_under_way()):
                return
            self._may_be_left = False
            lane = ProviderBatchSubmitter(self._store.connection, rhythm=RHYTHM)
            async with aclosing(lane.run(self._items(), deadline_s=self._left_s())) as answers:
                async for answer in answers:
                    await self._conclude(answer)

    async def _gather(self) -> None:
        """Take everything from the feeds; each request passes through `takes`."""
        taken = 0
        while not self._source.is_over:
            if self._source.has_plain and self._owner._may_take():
                self._source.pull()
                taken += 1
            else:
                await self._notifier.wait()
            if not taken % _TURN:
                await asyncio.sleep(0)

    def _items(self) -> Iterator[Item]:
        for job in list(self._jobs.values()):
            try:
                item = _item(job)
            except (MuseError, ValueError, TypeError):  # journal.json changed meanwhile
                del self._jobs[job.number]
                self._go_live(job)
            else:
                yield item

    def _left_s(self) -> float | None:
        """Return the seconds until unfinished requests are cancelled."""
        if self._end_s is None:
            return None
        left_s = max(self._end_s - time.monotonic(), 0.0)
        return left_s - min(left_s * _LIVE_SHARE, _MOST_LIVE_S) if self._is_auto else left_s

    async def _conclude(self, answer: Answer) -> None:
        """Deliver a result or queue a live call, and wait while too many results are not drained."""
        while not self._owner._has_room():
            await self._source.room.wait()
        job = self._jobs.pop(int(answer.key), None)
        if job is None:
            keep(self._store, answer)
            return
        if not job.is_current():
            self._owner._forget()
            return
        error = answer.outcome if isinstance(answer.outcome, MuseError) else None
        if self._is_auto and answer.is_final and isinstance(error, ProviderError) and error.retryable:
            self._go_live(job)
            return
        began_s = time.perf_counter()
        await self._note(job.request, answer)
        self._owner._settle(job, began_s)

    def _go_live(self, job: QueueItem) -> None:
        self._owner._take_back(job)
        self._owner._resume()

    async def _note(self, request: BatchRequest, answer: Answer) -> None:
        outcome = answer.outcome
        if isinstance(outcome, Reply):
            replies = [outcome]
            try:
                with capture_replies(replies):
                    is_free = request.json_schema is None
                    request.answered(outcome.text if is_free else await self._owner._fit(request, outcome.text))
            except MuseError as error:
                request.refused(error, deferrable=True)
            request.spent(replies, _duration_s(outcome))
            return
        request.refused(outcome, deferrable=False)
        if not answer.is_final:
            request.state = "deferred"
        request.spent(_lost(outcome), _duration_s(outcome))


def lane_for(
    owner: LaneOwner,
    store: Store | None,
    feed: RequestSource,
    notifier: Notifier,
    lane: object,
    deadline: Deadline | None,
) -> ProviderBatchLane | None:
    """Return the overnight lane of a batch; None if all its calls are live.

    Raises:
        ConfigError: The lane or the deadline is invalid, there is no batch store to keep the jobs in, or live calls
            would send requests again that are at a batch service.
    """
    if lane not in LANES:
        raise ConfigError("lane", repr(lane), "'now', 'overnight' or 'auto'")
    if lane == "now":
        if deadline is not None:
            raise ConfigError("deadline", "one for live calls", "lane='overnight' or 'auto' with it")
        if store is not None and store.jobs_under_way():
            found = f"'now', while ledger {store.name!r} has jobs at batch services ({store.jobs_under_way()})"
            raise ConfigError("lane", found, f"'overnight' or 'auto'; muse batch cancel {store.name} ends them")
        return None
    if store is None:
        raise ConfigError("lane", f"{lane!r} without a ledger", "ledger=NAME: the services' jobs are kept in it")
    deadline_s = None if deadline is None else seconds_until(deadline)
    is_near = deadline_s is not None and deadline_s < LEAST_S
    if lane == "auto" and is_near and not store.jobs_under_way():
        return None
    return ProviderBatchLane(owner, store, feed, notifier, is_auto=lane == "auto", deadline_s=deadline_s)


def keep(store: Store, answer: Answer) -> None:
    """Save the result of a request that another run sent; cancelled and deferred ones stay open.

    No call is made here, so an answer that does not fit its schema is a failure.
    """
    outcome, body = answer.outcome, store.asked(int(answer.key))
    if body is None or not answer.is_final or (isinstance(outcome, ProviderError) and outcome.code == CANCELLED):
        return
    request = BatchRequest("", "")
    if isinstance(outcome, Reply):
        schema = unpack(body).json_schema
        try:
            request.answered(outcome.text if schema is None else coercer_for(outcome.text, schema))
        except MuseError as error:
            request.refused(error, deferrable=False)
        request.spent([outcome], _duration_s(outcome))
    else:
        request.refused(outcome, deferrable=False)
        request.spent(_lost(outcome), _duration_s(outcome))
    store.finish(int(answer.key), request)


async def cancel(store: Store) -> int:
    """Cancel the jobs of a batch store at the services, and save finished answers; return how many there were."""
    store.hold()
    lane = ProviderBatchSubmitter(store.connection, rhythm=RHYTHM)
    lane.cancel()
    kept = 0
    async with aclosing(lane.run(())) as answers:
        async for answer in answers:
            keep(store, answer)
            kept += isinstance(answer.outcome, Reply)
    store.commit()
    return kept


def seconds_until(deadline: Deadline) -> float:
    """Return the seconds from now until a deadline: a number of seconds, a time span or a point in time.

    Raises:
        ConfigError: It is not in the future.
    """
    if isinstance(deadline, datetime):
        seconds = (deadline - datetime.now(deadline.tzinfo)).total_seconds()
    elif isinstance(deadline, timedelta):
        seconds = deadline.total_seconds()
    elif type(given := deadline) in (int, float):  # not isinstance: True is no number of seconds
        seconds = given
    else:
        raise ConfigError("deadline", f"{deadline!r}", _DEADLINE)
    if not 0 < seconds < _LONGEST_S:
        raise ConfigError("deadline", "100 years or more" if seconds >= _LONGEST_S else repr(deadline), _DEADLINE)
    return float(seconds)


def _item(job: QueueItem) -> Item:
    """Return a request as a live call would send it: routed, and checked against its budgets.

    Raises:
        MuseError, ValueError, TypeError: It cannot be sent.
    """
    check(job.request.json_schema)
    options = job.request.options()
    ready = prepare_call(options.pop("contents"), options.pop("context"), options, needs_text=True)
    route = ready.stack.targets(ready.chain, ready.model_at)[0]
    request = ready.request if route.model == ready.request.model else replace(ready.request, model=route.model)
    return Item(str(job.number), request, CallMetadata(route.context or None, route, ready.segment))


def _duration_s(outcome: Reply | MuseError) -> float:
    attempts: tuple[Attempt, ...] = outcome.attempts
    return attempts[-1].duration_s if attempts else 0.0


def _lost(error: MuseError) -> list[Any]:
    """Return the usage of a failed request, at the price of the batch service."""
    whole = list(calls_of((), error))
    for place, call in enumerate(whole):
        spec = specs().get(call.provider)
        if (
            isinstance(call, FailedCall)
            and call.cost_usd is not None
            and spec is not None
            and spec.batch_price is not None
        ):
            whole[place] = replace(call, cost_usd=call.cost_usd * spec.batch_price)
    return whole
