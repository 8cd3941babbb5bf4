"""Sending of requests to the providers' batch services, and collection of the answers.

Requests are grouped by provider and model into jobs as large as the service accepts. A `BatchJobRunner` sends, polls
and fetches each job. A `BatchJobTable` stores the jobs, so that the same call resumes a run that was killed.

Entry point: `ProviderBatchSubmitter`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import sqlite3
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any

from msgspec import Struct

from muse.batching.provider_batches.job_runner import Answer, BatchJobRunner
from muse.batching.provider_batches.job_table import BatchJob, BatchJobItem, BatchJobTable, RequestMetadata
from muse.batching.provider_batches.service import PollSchedule, Service
from muse.providers import backend_of, specs
from muse.providers._backend.attempt import CallMetadata
from muse.providers._backend.backend import ProviderBackend
from muse.providers._backend.batch_service import BatchUpload, Limits, cancelled_error, encode_line
from muse.types.errors import ConfigError, ContentsError, MuseError
from muse.types.messages import Request
from muse.usage_log import ledger

_READ_AHEAD = 256
_TURN = 100
DEFAULT_UPLOAD_BYTES = 100_000_000


class Item(Struct, frozen=True):
    """One request: the caller's key for it, the request itself, and its origin, the route included."""

    key: str
    request: Request
    origin: CallMetadata


def window_s(provider: str) -> float | None:
    """Return how long the provider's batch service may take, in seconds; None if it has none."""
    backend = backend_of(provider)
    native = backend.provider.native_batch() if isinstance(backend, ProviderBackend) else None
    return native.limits.window_s if native is not None else None


class _PendingUpload:
    """Requests for one provider and model that are collected for the next job."""

    def __init__(self, service: Service, model: str, limits: Limits) -> None:
        self.service = service
        self.model = model
        self.limits = limits
        self.begin()

    def begin(self) -> None:
        """Start an empty job."""
        self.mark = f"muse-{secrets.token_hex(8)}"
        self.upload = BatchUpload(self.mark, self.model)
        self.rows: list[BatchJobItem] = []


class ProviderBatchSubmitter:
    """The submitter of the overnight lane.

    Args:
        where: The SQLite file, or an open connection, that stores the jobs.
        rhythm: How often jobs are polled.
        upload_bytes: The most bytes of requests in a job, or less if the service accepts less. A job is in memory
            while it is sent.
    """

    def __init__(
        self,
        where: str | os.PathLike[str] | sqlite3.Connection,
        *,
        rhythm: PollSchedule | None = None,
        upload_bytes: int = DEFAULT_UPLOAD_BYTES,
    ) -> None:
        self._jobs = BatchJobTable(where)
        self._rhythm = rhythm or PollSchedule()
        self._upload_bytes = upload_bytes
        self._stop = asyncio.Event()
        self._services: dict[str, Service] = {}
        self._logged: set[str] = set()
        # Jobs of earlier runs, and the digests (by key) of their answers that were given while requests are still read.
        self._remembered: set[str] = set()
        self._just_given: dict[str, str] = {}

    def close(self) -> None:
        """Close the file; jobs under way continue at the services."""
        self._jobs.close()

    @property
    def jobs(self) -> list[BatchJob]:
        """Every stored job, oldest first."""
        return self._jobs.all()

    def cancel(self) -> None:
        """Cancel the jobs at the services; `run` then yields what is finished, and errors for the rest."""
        self._stop.set()

    async def run(self, items: Iterable[Item], *, deadline_s: float | None = None) -> AsyncGenerator[Answer, None]:
        """Send the requests that are not under way yet, and yield each answer as it arrives.

        Stored jobs are resumed, including requests that are not among `items`. An answer counts as taken when the next
        one is requested. Closing the generator leaves the jobs at the services.

        Args:
            items: The requests. A key names one request.
            deadline_s: Seconds until the rest is cancelled.

        Yields:
            Answers. If an error is `retryable`, a live call may succeed. If an answer is not final, another run may
            still get the result.

        Raises:
            ConfigError: Another run is working on these jobs.
        """
        self._services.clear()  # their clients belong to the running loop
        with self._jobs.alone():
            async with aclosing(self._answers(items, deadline_s)) as answers:
                async for answer in answers:
                    yield answer
                    self._note(answer)
            for job in self._jobs.all(closed=False):
                if not self._jobs.is_waiting(job.mark):
                    self._jobs.closed(job.mark)

    def _note(self, answer: Answer) -> None:
        """Record that the caller has taken an answer."""
        if answer.is_final:
            if answer.mark in self._remembered:
                self._just_given[answer.key] = self._jobs.digest_of(answer.mark, answer.place)
            self._jobs.given(answer.mark, answer.place)

    async def discard(self) -> int:
        """Delete completed jobs at their services and in the table; return how many there were.

        A job is completed when the caller has all its answers.

        Raises:
            MuseError: A service refuses. The jobs before that one are deleted.
        """
        closed = [job for job in self._jobs.all() if job.state == "closed"]
        for job in closed:
            job_runner = BatchJobRunner(
                await self._service(job.provider), self._jobs, job.mark, asyncio.Queue(), self._stop, self._rhythm
            )
            await job_runner.discard()
            self._jobs.forget(job.mark)
        return len(closed)

    async def _answers(self, items: Iterable[Item], deadline_s: float | None) -> AsyncGenerator[Answer, None]:
        """Yield the answers of a concurrent task that does the work; closing the generator ends the task."""
        answers: asyncio.Queue[Answer] = asyncio.Queue(_READ_AHEAD)
        timer = asyncio.get_running_loop().call_later(deadline_s, self._stop.set) if deadline_s is not None else None
        work = asyncio.create_task(self._work(items, answers))
        try:
            while (answer := await _next(answers, work)) is not None:
                yield answer
        finally:
            if timer is not None:
                timer.cancel()
            work.cancel()
            await asyncio.wait({work})
            self._stop = asyncio.Event()
        if (problem := work.exception()) is not None:
            raise _unwrap_single(problem)

    async def _work(self, items: Iterable[Item], answers: asyncio.Queue[Answer]) -> None:
        """Resume stored jobs, send new ones, and attend to all of them until they end."""
        async with asyncio.TaskGroup() as group:
            remembered = self._jobs.all(closed=False)
            self._logged = _logged_items(remembered)
            self._remembered, self._just_given = {job.mark for job in remembered}, {}
            async with asyncio.TaskGroup() as recovery:
                for job in remembered:
                    recovery.create_task(self._take_up(job, answers, group))
            await self._send_all(items, answers, group)
            self._remembered, self._just_given = set(), {}

    async def _take_up(self, job: BatchJob, answers: asyncio.Queue[Answer], group: asyncio.TaskGroup) -> None:
        """Resume a job of an earlier run; one that never arrived is deleted, so that its requests are sent again."""
        if job.remote_id is None and job.tries == 0:
            self._jobs.forget(job.mark)
            return
        try:
            service = await self._service(job.provider)
            job_runner = self._job_runner(service, job.mark, answers)
            if job.remote_id is None and not await job_runner.recover():
                self._jobs.forget(job.mark)
                return
        except MuseError as error:
            group.create_task(_refuse_all(self._jobs, job.mark, answers, error))
            return
        group.create_task(job_runner.attend())

    async def _send_all(self, items: Iterable[Item], answers: asyncio.Queue[Answer], group: asyncio.TaskGroup) -> None:
        """Collect the requests into jobs, and send each job when it is full and the rest at the end."""
        groups: dict[tuple[str, str], _PendingUpload] = {}
        try:
            for number, item in enumerate(items):
                if number % _TURN == 0:
                    await asyncio.sleep(0)
                try:
                    await self._put(item, groups, answers, group)
                except MuseError as error:
                    await answers.put(Answer("", 0, item.key, error))
            for waiting in groups.values():
                await self._send(waiting, answers, group)
        finally:
            for waiting in groups.values():
                waiting.upload.close()

    async def _put(
        self,
        item: Item,
        groups: dict[tuple[str, str], _PendingUpload],
        answers: asyncio.Queue[Answer],
        group: asyncio.TaskGroup,
    ) -> None:
        """Add one request to its group.

        Raises:
            MuseError: It cannot be sent to a batch service.
        """
        name, model = _route_of(item), item.request.model
        waiting = groups.get((name, model))
        if waiting is None:
            service = await self._service(name)
            limits = service.native.limits
            limits = Limits(limits.requests, min(limits.size_bytes, self._upload_bytes), limits.window_s)
            waiting = groups[name, model] = _PendingUpload(service, model, limits)
        provider = waiting.service.provider
        encoded = provider.encode_fitted(item.request)
        digest = hashlib.blake2b(encode_line(encoded.payload), digest_size=16).hexdigest()
        if self._jobs.holds(item.key, digest) or self._just_given.get(item.key) == digest:
            return
        if self._stop.is_set():
            raise cancelled_error(name, model)
        line = _line(waiting, encoded.payload)
        if not waiting.upload.has_room(line, waiting.limits):
            await self._send(waiting, answers, group)
            line = _line(waiting, encoded.payload)
        unknown = tuple(option for option in item.request.extras if option not in provider.spec.options)
        sender = RequestMetadata(item.origin.context, item.origin.route, item.origin.segment, encoded.dropped + unknown)
        waiting.upload.add(line)
        waiting.rows.append(BatchJobItem(len(waiting.rows), item.key, digest, sender))

    async def _send(self, waiting: _PendingUpload, answers: asyncio.Queue[Answer], group: asyncio.TaskGroup) -> None:
        """Send the collected requests as a job, and start an empty one."""
        if not waiting.rows:
            return
        self._jobs.plan(waiting.mark, waiting.service.name, waiting.model, waiting.rows)
        job_runner = self._job_runner(waiting.service, waiting.mark, answers)
        try:
            error = await job_runner.send(waiting.upload)
            if error is None:
                group.create_task(job_runner.attend())
            else:
                await job_runner.refuse(error)
                self._jobs.forget(waiting.mark)
        except MuseError as unknown:
            await job_runner.refuse(unknown, is_final=False)
        finally:
            waiting.upload.close()
        waiting.begin()

    def _job_runner(self, service: Service, mark: str, answers: asyncio.Queue[Answer]) -> BatchJobRunner:
        return BatchJobRunner(service, self._jobs, mark, answers, self._stop, self._rhythm, self._logged)

    async def _service(self, name: str) -> Service:
        """Return a provider's batch service with a client.

        Raises:
            ConfigError: The provider has no batch service, or there is no key for it.
        """
        if name not in self._services:
            backend = backend_of(name)
            native = backend.provider.native_batch() if isinstance(backend, ProviderBackend) else None
            if native is None or not isinstance(backend, ProviderBackend):
                able = ", ".join(spec.name for spec in specs().values() if spec.batch_price is not None)
                raise ConfigError("lane", f"'overnight' for provider {name!r}", f"lane='now', or one of {able}")
            self._services[name] = Service(backend.provider, native, await backend.aclient())
        return self._services[name]


async def _next(answers: asyncio.Queue[Answer], work: asyncio.Task[None]) -> Answer | None:
    """Return the next answer; None when the work is done and all answers were given."""
    while not (work.done() and answers.empty()):
        if not answers.empty():
            return answers.get_nowait()
        getting = asyncio.ensure_future(answers.get())
        try:
            await asyncio.wait({getting, work}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            got = getting.done()
            getting.cancel()
        if got:
            return getting.result()
    return None


def _unwrap_single(problem: BaseException) -> BaseException:
    """Return the exception inside nested groups of one; a group of several stays a group."""
    while isinstance(problem, BaseExceptionGroup) and len(problem.exceptions) == 1:
        problem = problem.exceptions[0]
    return problem


async def _refuse_all(jobs: BatchJobTable, mark: str, answers: asyncio.Queue[Answer], error: MuseError) -> None:
    """Answer each request of a job with an error that is not final."""
    for row in jobs.rows(mark):
        await answers.put(Answer(mark, row.place, row.key, error, is_final=False))


def _route_of(item: Item) -> str:
    """Return the provider that an item is routed to.

    Raises:
        ContentsError: The item has no route.
    """
    if item.origin.route is None:
        raise ContentsError(f"batch item {item.key!r}: found no route, expected one (muse.models.route(context))")
    return item.origin.route.provider


def _line(waiting: _PendingUpload, payload: dict[str, Any]) -> bytes:
    """Return a request as the next line of its group's upload.

    Raises:
        ContentsError: The request alone exceeds the size limit of a job.
    """
    place = f"{waiting.mark}-{len(waiting.rows)}"
    line = encode_line(waiting.service.native.wrap(place, payload))
    most = waiting.limits.size_bytes
    if len(line) > most:
        found = f"a request of {len(line):,} bytes"
        raise ContentsError(f"{waiting.service.name} batch: found {found}, expected at most {most:,}; send it live")
    return line


def _logged_items(jobs: list[BatchJob]) -> set[str]:
    """Return the requests of these jobs that are in the usage log already.

    They were logged just before the process was killed and must not be logged twice.
    """
    begun = [job for job in jobs if job.tries]
    if not begun:
        return set()
    first = time.strftime("%Y%m%d", time.localtime(min(job.sent_ts for job in begun)))
    marks = {job.mark for job in begun}
    lines = ledger.read((first, time.strftime("%Y%m%d")))
    items = (str(line["batch_item"]) for line in lines if "batch_item" in line)
    return {item for item in items if item.rpartition("-")[0] in marks}
