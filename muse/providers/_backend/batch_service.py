"""The interface to a provider's own batch service: submit, find, poll, fetch, cancel and discard jobs.

Entry points: `BatchService`, `BatchUpload`.

The requests of a job are a `BatchUpload`: lines of JSON on disk in the service's own form, each with an id that muse
assigns. The ids begin with the job's mark, so that a job of muse can be recognised without any local state.
"""

from __future__ import annotations

import asyncio
import json
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Iterator, Mapping
from tempfile import TemporaryFile
from typing import IO, Any, ClassVar, Literal, TypeVar

import msgspec
from msgspec import Struct, field

from muse.types.errors import MuseError, ProviderError, ProviderTimeout
from muse.types.surrogates import join_surrogates_in

State = Literal["validating", "running", "done", "failed", "expired", "cancelled"]
Outcome = Mapping[str, Any] | MuseError
SHORT_WAIT_S = 60.0
LONG_WAIT_S = 900.0
CANCELLED = "batch_cancelled"
_T = TypeVar("_T")
_encoder = msgspec.json.Encoder()
_decode = msgspec.json.Decoder().decode


class Limits(Struct, frozen=True):
    """The limits of one job.

    Attributes:
        requests: The most requests that the service accepts.
        size_bytes: The most bytes that the service accepts.
        window_s: The time in seconds after which unfinished requests expire.
    """

    requests: int
    size_bytes: int
    window_s: float


class Status(Struct, frozen=True):
    """The state of a job as its service reports it; counts that the service does not report are 0.

    Attributes:
        rejected: For a failed job, the position of each rejected line with the reason.
    """

    state: State
    done: int = 0
    failed: int = 0
    total: int = 0
    message: str = ""
    code: str = ""
    rejected: Mapping[int, str] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Return True if the job will produce no further results."""
        return self.state not in ("validating", "running")


class BatchLookup(Struct, frozen=True):
    """A job that may or may not have reached the service: its mark, its request count, and when it was last sent."""

    mark: str
    count: int
    sent_ts: float


class BatchUpload:
    """The requests of one job, kept in a temporary file until `close`."""

    def __init__(self, mark: str, model: str) -> None:
        self.mark = mark
        self.model = model
        self.count = 0
        self.size_bytes = 0
        self.file = TemporaryFile()  # noqa: SIM115 - close() closes it

    def add(self, line: bytes) -> None:
        """Add one request."""
        self.file.write(line)
        self.count += 1
        self.size_bytes += len(line)

    def has_room(self, line: bytes, limits: Limits) -> bool:
        """Return True if one more request fits."""
        return self.count < limits.requests and self.size_bytes + len(line) <= limits.size_bytes

    def lines(self) -> Iterator[Any]:
        """Return an iterator over the requests."""
        self.file.seek(0)
        return (json.loads(line) for line in self.file)

    def close(self) -> None:
        """Delete the requests."""
        self.file.close()


class BatchService(ABC):
    """The batch service of one provider; `client` is the client that the provider's `aclient` makes.

    Exceptions of the SDK and the transport pass through; the provider's `fault` translates them.
    """

    limits: ClassVar[Limits]

    @abstractmethod
    def wrap(self, custom_id: str, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return one request in the form of the service, without side effects."""

    @abstractmethod
    def unwrap(self, line: bytes, model: str) -> tuple[str, Outcome]:
        """Return `(request id, raw answer or error)` for a line of results; an unreadable line has an empty id."""

    @abstractmethod
    async def submit(self, client: Any, upload: BatchUpload) -> str:
        """Start a job with the requests of `upload` and return its id at the service."""

    @abstractmethod
    async def find(self, client: Any, lookup: BatchLookup) -> tuple[str, ...]:
        """Return the ids of the jobs that may be the one sought, the likeliest first.

        A service that shows a job's mark returns that job only. A service that shows marks only in the results returns
        all jobs of the right time and size.
        """

    @abstractmethod
    async def poll(self, client: Any, remote_id: str) -> Status:
        """Return the status of a job."""

    @abstractmethod
    async def fetch(self, client: Any, remote_id: str, file: IO[bytes]) -> None:
        """Write the results of a finished job into `file`, one per line."""

    async def results(self, client: Any, remote_id: str, model: str) -> AsyncGenerator[tuple[str, Outcome], None]:
        """Yield what `unwrap` returns for each line of results.

        All results are downloaded to disk before the first one is yielded.
        """
        with TemporaryFile() as file:
            await within(self.fetch(client, remote_id, file), LONG_WAIT_S)
            file.seek(0)
            for line in file:
                if line.strip():
                    yield self.unwrap(line, model)

    @abstractmethod
    async def cancel(self, client: Any, remote_id: str) -> None:
        """Request the cancellation of a job; results that exist by then are kept."""

    @abstractmethod
    async def discard(self, client: Any, remote_id: str) -> None:
        """Delete a finished job and its files at the service."""


def encode_line(value: Mapping[str, Any]) -> bytes:
    """Return a request as a line of JSON; half a surrogate pair becomes a question mark."""
    try:
        return _encoder.encode(value) + b"\n"
    except UnicodeEncodeError:
        return json.dumps(value, ensure_ascii=False).encode("utf-8", errors="replace") + b"\n"


def decode_line(line: str | bytes) -> Mapping[str, Any] | None:
    """Return the JSON object in a line of results; None if the line holds no JSON object."""
    try:
        value = _decode(line)
    except (msgspec.DecodeError, RecursionError):  # msgspec is strict; json also accepts half a surrogate pair
        value = _lenient(line)
    return value if isinstance(value, dict) else None


def _lenient(line: str | bytes) -> Any:
    try:
        return join_surrogates_in(json.loads(line))
    except (ValueError, RecursionError):
        return None


def expired_error(provider: str, model: str) -> ProviderTimeout:
    """Return the error for a request that the service did not process within its window, and did not charge."""
    text = "the batch service's time ran out before this request's turn"
    return ProviderTimeout(text, provider=provider, model=model, code="batch_expired", retryable=True)


def cancelled_error(provider: str, model: str) -> ProviderError:
    """Return the error for a request whose job was cancelled before it was processed, and which was not charged."""
    text = "the batch was cancelled before this request's turn"
    return ProviderError(text, provider=provider, model=model, code=CANCELLED, retryable=True)


async def within(waiting: Awaitable[_T], timeout_s: float) -> _T:
    """Await one exchange with a service.

    Raises:
        TimeoutError: It took longer than `timeout_s`.
    """
    async with asyncio.timeout(timeout_s):
        return await waiting


def since_ts(lookup: BatchLookup, slack_s: float = 300.0) -> float:
    """Return the earliest start time, in seconds since the epoch, that the service's clock may show for a job."""
    return min(lookup.sent_ts, time.time()) - slack_s
