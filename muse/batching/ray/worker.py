"""A worker of a batch in another process: requests in as bytes, answers and usage-log lines out.

Entry points: `Worker`, `answer`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from muse.batching.call import answer_of, calls_of
from muse.batching.notifier import Notifier
from muse.batching.ray.worker_config import SecretEnv, WorkerConfig
from muse.batching.ray.worker_journal import WorkerJournal
from muse.batching.request import BatchRequest
from muse.batching.store.serialization import unpack
from muse.models import agenerate, capture_replies
from muse.types.errors import MuseError
from muse.types.messages import Assistant, Reply

# A message to the driver costs as much as a call, so several answers share one.
_GATHER_S = 0.02

Numbered = tuple[int, bytes]


class Answer(Struct, frozen=True):
    """The outcome of one request: its text or error, and the replies received on the way, without their text."""

    text: str
    replies: tuple[Reply, ...]
    error: Exception | None
    duration_s: float

    def fill_in(self, request: BatchRequest) -> None:
        """Copy the result to `request`."""
        if self.error is None:
            request.answered(self.text)
        else:
            request.refused(self.error, deferrable=False)
        request.spent(calls_of(self.replies, self.error), self.duration_s)


async def answer(request: BatchRequest) -> Answer:
    """Make the call for one request; any error is part of the answer."""
    replies: list[Reply] = []
    text, problem, began_s = "", None, time.perf_counter()
    with capture_replies(replies):
        try:
            text = await answer_of(agenerate, request, None)
        except Exception as exc:  # noqa: BLE001 - errors of calls are results
            problem = exc
    light = tuple(replace(reply, text="", turn=Assistant(), thinking="") for reply in replies)
    return Answer(text, light, carried(problem), time.perf_counter() - began_s)


def carried(error: Exception | None) -> Exception | None:
    """Return an error that another process can unpickle.

    Errors of muse and Python are kept; others become a MuseError with their text.
    """
    if isinstance(error, MuseError) and error.others:
        error.others = tuple(other for other in map(carried, error.others) if other is not None)
    if error is None or isinstance(error, MuseError) or type(error).__module__ == "builtins":
        return error
    return MuseError(f"{type(error).__name__}: {error}")


class Worker:
    """A worker that sends all requests it is given at once; the caller limits how many that is.

    `begin` must be called first. `take` and `end` get the number of log lines that have arrived at the driver in all,
    since an answer may be lost on its way. They return every line that has not arrived.
    """

    def __init__(self) -> None:
        self._worker_journal: WorkerJournal | None = None
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self._answers: list[tuple[int, Answer]] = []
        self._notifier = Notifier()
        self._arrived = 0
        self._sent: list[bytes] = []

    async def begin(self, worker_config: WorkerConfig, given: SecretEnv) -> None:
        """Set up this worker's journal.

        Raises:
            ConfigError: Another version of muse is installed here.
        """
        self._worker_journal = WorkerJournal(worker_config, given)

    async def settle(self, worker_config: WorkerConfig) -> None:
        """Apply a new configuration from now on."""
        if self._worker_journal is not None:
            self._worker_journal.settle(worker_config)

    async def ask(self, requests: Sequence[Numbered]) -> None:
        """Start the calls for these requests."""
        for number, body in requests:
            self._under_way[number] = asyncio.get_running_loop().create_task(self._ask(number, body))

    async def forget(self, numbers: Iterable[int]) -> None:
        """Cancel these calls."""
        for number in numbers:
            task = self._under_way.get(number)
            if task is not None:
                task.cancel()

    async def take(self, arrived: int) -> tuple[list[tuple[int, Answer]], list[bytes]]:
        """Wait for answers; return all there are, with the lines of the usage log that belong to them."""
        while not self._answers:
            await self._notifier.wait()
        if self._under_way:
            await asyncio.sleep(_GATHER_S)
        answers, self._answers = self._answers, []
        return answers, self._lines(arrived)

    async def end(self, arrived: int) -> list[bytes]:
        """Cancel the calls under way and remove the journal; return the last lines of the usage log."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        lines = self._lines(arrived)
        if self._worker_journal is not None:
            self._worker_journal.close()
            self._worker_journal = None
        return lines

    async def _ask(self, number: int, body: bytes) -> None:
        try:
            found = await answer(unpack(body))
        finally:
            del self._under_way[number]
        self._answers.append((number, found))
        self._notifier.ring()

    def _lines(self, arrived: int) -> list[bytes]:
        """Return all lines that have not arrived at the driver yet."""
        del self._sent[: arrived - self._arrived]
        self._arrived = arrived
        self._sent += self._worker_journal.lines() if self._worker_journal is not None else ()
        return list(self._sent)
