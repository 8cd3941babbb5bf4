"""The life of one job at a batch service, from its upload to its last answer. Entry point: `BatchJobRunner`.

The process may be killed at any moment. Therefore a job is recorded before it is sent. Later it is looked up at the
service by its mark, and sent again only if the service does not know it.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections.abc import Collection
from contextlib import aclosing

from msgspec import Struct

from muse.batching.provider_batches.job_table import BatchJob, BatchJobItem, BatchJobTable, RequestMetadata
from muse.batching.provider_batches.service import MappedErrors, PollSchedule, Service
from muse.policies.deadline import DEFAULT_TIMEOUT_S, Deadline
from muse.policies.resend_guard import sent_once
from muse.providers._backend.attempt import AttemptRecorder, BatchPricing, CallMetadata
from muse.providers._backend.batch_service import (
    BatchLookup,
    BatchUpload,
    Outcome,
    Status,
    cancelled_error,
    expired_error,
)
from muse.providers._replies.errors import status_error
from muse.types.errors import MuseError, ProviderDown, ProviderError, ProviderTimeout, RateLimitError
from muse.types.messages import Reply, Request

log = logging.getLogger(__name__)

LANE = "overnight"
_MOST_SENDS = 6
_MOST_FETCHES = 5
_MOST_READS = 2
_GONE = frozenset({404, 410})


class Answer(Struct, frozen=True):
    """The outcome of one request; if it is not `is_final`, another run may still get the result."""

    mark: str
    place: int
    key: str
    outcome: Reply | MuseError
    is_final: bool = True


class BatchJobRunner:
    """A runner that sends, polls and fetches one job, and puts answers into the queue `answers` as it reads them."""

    def __init__(
        self,
        service: Service,
        jobs: BatchJobTable,
        mark: str,
        answers: asyncio.Queue[Answer],
        stop: asyncio.Event,
        rhythm: PollSchedule,
        logged: Collection[str] = (),
    ) -> None:
        self.job: BatchJob = jobs.get(mark)
        self._service = service
        self._jobs = jobs
        self._answers = answers
        self._stop = stop
        self._rhythm = rhythm
        self._logged = logged
        self._open: dict[int, BatchJobItem] | None = None

    async def send(self, upload: BatchUpload) -> MuseError | None:
        """Send the job to the service exactly once; return the error if it cannot be sent, else None.

        Raises:
            MuseError: The service cannot say whether the job has arrived.
        """
        failures = 0
        error: MuseError | None = None
        for wait_s in self._rhythm.waits():
            if self._stop.is_set():
                error = error or cancelled_error(self._service.name, self.job.model)
                break
            error = await self._try_sending(upload)
            if error is None:
                return None
            failures += not isinstance(error, RateLimitError)
            is_late = time.time() > self.job.planned_ts + self._service.native.limits.window_s
            if not _is_retryable(error) or failures >= _MOST_SENDS or is_late:
                break
            log.info("%s takes no job now (%s); asked again in %.0f s", self._service.name, error, wait_s)
            await self._pause(_asked_wait_s(error) or wait_s)
            if _may_have_arrived(error) and await self.recover():
                return None
        return None if _may_have_arrived(error) and await self.recover() else error

    async def _try_sending(self, upload: BatchUpload) -> MuseError | None:
        self.job = self._jobs.sending(self.job.mark)
        try:
            with MappedErrors(self._service, self.job.model), sent_once():
                remote_id = await self._service.native.submit(self._service.client, upload)
        except MuseError as error:
            return error
        self.job = self._jobs.sent(self.job.mark, remote_id)
        return None

    async def recover(self) -> bool:
        """Look for a job that may have arrived, until the service has had time to list it; return True if it is found.

        Raises:
            MuseError: The service cannot say.
        """
        while True:
            lookup = BatchLookup(self.job.mark, self.job.size, self.job.sent_ts)
            with MappedErrors(self._service, self.job.model):
                known = await self._service.native.find(self._service.client, lookup)
            found = next((name for name in known if name not in self.job.refused), None)
            if found is not None:
                self.job = self._jobs.sent(self.job.mark, found)
                return True
            left_s = self.job.sent_ts + self._rhythm.settle_s - time.time()
            if left_s <= 0:
                return False
            await asyncio.sleep(min(left_s, self._rhythm.first_s))

    async def attend(self) -> bool:
        """Wait until the job ends and give its answers; return True if they are all final."""
        while True:
            seen = await self._watch()
            if isinstance(seen, MuseError):
                return await self._give_up(seen)
            problem = await self._fetch(seen)
            if problem is not None:
                return await self._give_up(problem)
            if self.job.remote_id is not None:
                return True
            try:
                if not await self.recover():
                    lost = "the service never received this request's job; send it again"
                    return await self.refuse(ProviderDown(lost, code="batch_lost", retryable=True))
            except MuseError as error:
                return await self._give_up(error)

    async def refuse(self, error: MuseError, *, is_final: bool = True) -> bool:
        """Answer each open request with `error` and return `is_final`; final errors are written to the usage log."""
        rows = self._rows()
        for place in list(rows):
            row = rows.pop(place)
            if is_final:
                await self._give(row, copy.copy(error) if isinstance(error, ProviderError) else error)
            else:
                await self._answers.put(Answer(self.job.mark, place, row.key, error, is_final=False))
        return is_final

    async def discard(self) -> None:
        """Delete the job at the service; a job that the service does not know any more counts as deleted.

        Raises:
            MuseError: The service refuses.
        """
        if self.job.remote_id is None:
            return
        try:
            with MappedErrors(self._service, self.job.model):
                await self._service.native.discard(self._service.client, self.job.remote_id)
        except ProviderError as error:
            if error.status not in _GONE:
                raise

    async def _give_up(self, error: MuseError) -> bool:
        """Answer all open requests with `error`; it is final if the job is gone at the service."""
        is_gone = isinstance(error, ProviderError) and error.status in _GONE
        return await self.refuse(error, is_final=is_gone)

    async def _watch(self) -> Status | MuseError:
        """Poll until the job ends; return its status, or the error that prevents knowing it."""
        limits = self._service.native.limits
        overdue_ts = self.job.sent_ts + 1.05 * limits.window_s
        cancelled_s: float | None = None
        for wait_s in self._rhythm.waits():
            if self._stop.is_set() and cancelled_s is None:
                cancelled_s = time.monotonic()
                await self._cancel()
            seen = await self._look()
            if isinstance(seen, Status) and seen.is_over:
                return seen
            if isinstance(seen, MuseError) and not _is_retryable(seen):
                return seen
            if time.time() > overdue_ts:
                return self._timeout("the service did not end this job within its own window", "batch_overdue")
            if cancelled_s is not None and time.monotonic() - cancelled_s > self._rhythm.cancel_wait_s:
                return self._timeout("the service did not confirm the cancellation in time", "batch_cancelling")
            await self._pause(wait_s if cancelled_s is None else min(wait_s, self._rhythm.first_s))
        raise AssertionError("the waits never end")

    async def _look(self) -> Status | MuseError:
        try:
            with MappedErrors(self._service, self.job.model):
                status = await self._service.native.poll(self._service.client, self.job.remote_id or "")
        except MuseError as error:
            log.info("job %s at %s cannot be looked at now: %s", self.job.remote_id, self._service.name, error)
            return error
        self._jobs.seen(self.job.mark, status.state, status.done, status.failed, status.message)
        return status

    async def _cancel(self) -> None:
        """Request the job's cancellation; a job that has ended refuses, and the next poll shows its end."""
        try:
            with MappedErrors(self._service, self.job.model):
                await self._service.native.cancel(self._service.client, self.job.remote_id or "")
        except MuseError as error:
            log.info("job %s at %s cannot be cancelled: %s", self.job.remote_id, self._service.name, error)

    async def _pause(self, wait_s: float) -> None:
        """Wait `wait_s` seconds, or less if the run is stopped meanwhile."""
        if self._stop.is_set():
            await asyncio.sleep(min(wait_s, self._rhythm.first_s))
            return
        try:
            async with asyncio.timeout(wait_s):
                await self._stop.wait()
        except TimeoutError:
            return

    async def _fetch(self, status: Status) -> MuseError | None:
        """Give every answer, then an error for each request without one; return the error that prevented reading."""
        rows, waits = self._rows(), self._rhythm.waits()
        error: MuseError | None = None
        reads = 0
        for _ in range(_MOST_FETCHES):
            try:
                broken = await self._read(rows)
                error, reads = None, reads + 1
            except MuseError as caught:
                broken, error = 0, caught
            is_mendable = _is_retryable(error) if error is not None else broken and rows and reads < _MOST_READS
            if not is_mendable:
                break
            await self._pause(next(waits))
        if error is None and self.job.remote_id is not None:
            for place in list(rows):
                row = rows.pop(place)
                await self._give(row, self._reason(status, row))
        return error

    def _rows(self) -> dict[int, BatchJobItem]:
        """Return the requests without an answer, by place; an answer that is queued for the caller counts."""
        if self._open is None:
            self._open = {row.place: row for row in self._jobs.rows(self.job.mark)}
        return self._open

    async def _read(self, rows: dict[int, BatchJobItem]) -> int:
        """Read the results once and remove answered requests from `rows`; return the number of unreadable lines."""
        broken = foreign = 0
        prefix = f"{self.job.mark}-"
        with MappedErrors(self._service, self.job.model):
            native, remote_id = self._service.native, self.job.remote_id or ""
            async with aclosing(native.results(self._service.client, remote_id, self.job.model)) as results:
                async for custom_id, outcome in results:
                    place = custom_id.removeprefix(prefix)
                    broken += not custom_id
                    foreign += bool(custom_id) and place == custom_id
                    row = rows.pop(int(place), None) if place != custom_id and place.isdigit() else None
                    await self._give(row, outcome)
        if foreign and len(rows) == self.job.size:
            self.job = self._jobs.refuse(self.job.mark)
        return broken

    async def _give(self, row: BatchJobItem | None, outcome: Outcome) -> None:
        if row is None:
            return
        account = self._account(row.place, row.sender)
        value: Reply | MuseError
        if isinstance(outcome, MuseError):
            account.failed(outcome)
            value = outcome
        else:
            try:
                value = account.answered(outcome)
            except MuseError as error:
                value = error
        await self._answers.put(Answer(self.job.mark, row.place, row.key, value))

    def _account(self, place: int, sender: RequestMetadata) -> AttemptRecorder:
        item = f"{self.job.mark}-{place}"
        provider = self._service.provider
        price = provider.spec.batch_price
        lane = BatchPricing(LANE, 1.0 if price is None else price, item, self.job.sent_ts, item in self._logged)
        origin = CallMetadata(sender.context, sender.route, sender.segment)
        request = Request(self.job.model, ())
        return AttemptRecorder(provider, request, origin, Deadline.after(DEFAULT_TIMEOUT_S), sender.dropped, lane)

    def _reason(self, status: Status, row: BatchJobItem) -> MuseError:
        """Return why a job that has ended has no answer to a request."""
        name, model = self._service.name, self.job.model
        match status.state:
            case "expired":
                return expired_error(name, model)
            case "cancelled":
                return cancelled_error(name, model)
            case "failed" if row.place in status.rejected:
                return status_error(name, model, 400, code=status.code, message=status.rejected[row.place])
            case "failed":
                text = f"the service did not run this request's job: {status.message or 'it gives no reason'}"
                return ProviderError(text, provider=name, model=model, code=status.code or None, retryable=True)
            case _:
                text = "the service's results lack this request, or hold it unreadably"
        return ProviderDown(text, provider=name, model=model, code="batch_missing", retryable=True)

    def _timeout(self, text: str, code: str) -> ProviderTimeout:
        return ProviderTimeout(text, provider=self._service.name, model=self.job.model, code=code, retryable=False)


def _is_retryable(error: MuseError) -> bool:
    return isinstance(error, ProviderError) and error.retryable


def _may_have_arrived(error: MuseError | None) -> bool:
    """Return True if a job may be at the service although sending failed: no response, 408 or a 5xx status."""
    if not isinstance(error, ProviderError):
        return False
    return error.status is None or error.status >= 500 or error.status == 408


def _asked_wait_s(error: MuseError) -> float | None:
    return error.retry_after_s if isinstance(error, ProviderError) else None
