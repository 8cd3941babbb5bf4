"""What a provider's own batch service is to muse: a job is sent, looked at, fetched, cancelled; it knows no wire form.

A job's requests travel as a `BatchUpload`: lines of JSON on disk, in the service's own form, each with an id of ours.
The ids begin with the job's mark, so a job of ours is known again, whoever remembers it.
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
    """What one job may hold, and how long the service may take over it.

    `requests` and `size_bytes` are the most that the service takes; `window_s` is the time after which what is not
    finished expires.
    """

    requests: int
    size_bytes: int
    window_s: float


class Status(Struct, frozen=True):
    """A job as its service tells of it; counts are 0 where it tells none.

    `rejected` has the place of each line that a failed job was refused for, with the reason.
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
        """Whether nothing more will come of it."""
        return self.state not in ("validating", "running")


class BatchLookup(Struct, frozen=True):
    """A job that may or may not have arrived: its mark, how many requests it has, and when it was last sent."""

    mark: str
    count: int
    sent_ts: float


class BatchUpload:
    """The requests of one job on disk, until it is closed."""

    def __init__(self, mark: str, model: str) -> None:
        self.mark = mark
        self.model = model
        self.count = 0
        self.size_bytes = 0
        self.file = TemporaryFile()  # noqa: SIM115 - close() closes it

    def add(self, line: bytes) -> None:
        """Put one request in."""
        self.file.write(line)
        self.count += 1
        self.size_bytes += len(line)

    def has_room(self, line: bytes, limits: Limits) -> bool:
        """Whether one more request fits."""
        return self.count < limits.requests and self.size_bytes + len(line) <= limits.size_bytes

    def lines(self) -> Iterator[Any]:
        """The requests, one after the other."""
        self.file.seek(0)
        return (json.loads(line) for line in self.file)

    def close(self) -> None:
        """Throw the requests away."""
        self.file.close()


class BatchService(ABC):
    """One provider's batch service; `client` is what the provider's `aclient` makes.

    What its SDK and the way to it raise passes through: the provider's `fault` says what it means.
    """

    limits: ClassVar[Limits]

    @abstractmethod
    def wrap(self, custom_id: str, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        """One request in the form of the service; pure."""

    @abstractmethod
    def unwrap(self, line: bytes, model: str) -> tuple[str, Outcome]:
        """`(id of the request, the raw answer or what went wrong)` of a line of results; no id if it is unreadable."""

    @abstractmethod
    async def submit(self, client: Any, upload: BatchUpload) -> str:
        """Start a job with the requests of `parcel`; its id at the service."""

    @abstractmethod
    async def find(self, client: Any, lookup: BatchLookup) -> tuple[str, ...]:
        """The ids of the jobs that may be the one sought, likeliest first.

        A service that shows a job's mark gives that job alone. Where a mark is seen in the results only, they are
        those of the time and size sought.
        """

    @abstractmethod
    async def poll(self, client: Any, remote_id: str) -> Status:
        """How a job stands."""

    @abstractmethod
    async def fetch(self, client: Any, remote_id: str, file: IO[bytes]) -> None:
        """Write the results of a job that is over into `file`, one a line."""

    async def results(self, client: Any, remote_id: str, model: str) -> AsyncGenerator[tuple[str, Outcome], None]:
        """What `unwrap` says of each line of results; they are on disk as a whole before the first is given."""
        with TemporaryFile() as file:
            await within(self.fetch(client, remote_id, file), LONG_WAIT_S)
            file.seek(0)
            for line in file:
                if line.strip():
                    yield self.unwrap(line, model)

    @abstractmethod
    async def cancel(self, client: Any, remote_id: str) -> None:
        """Ask for the end of a job; what is done by then stays."""

    @abstractmethod
    async def discard(self, client: Any, remote_id: str) -> None:
        """Delete a finished job with its files at the service."""


def encode_line(value: Mapping[str, Any]) -> bytes:
    """A request as a line of JSON; half a surrogate pair becomes a question mark."""
    try:
        return _encoder.encode(value) + b"\n"
    except UnicodeEncodeError:
        return json.dumps(value, ensure_ascii=False).encode("utf-8", errors="replace") + b"\n"


def decode_line(line: str | bytes) -> Mapping[str, Any] | None:
    """A line of results; None if it is no JSON object."""
    try:
        value = _decode(line)
    except (msgspec.DecodeError, RecursionError):  # it is strict; json also takes half a surrogate pair
        value = _lenient(line)
    return value if isinstance(value, dict) else None


def _lenient(line: str | bytes) -> Any:
    try:
        return join_surrogates_in(json.loads(line))
    except (ValueError, RecursionError):
        return None


def expired_error(provider: str, model: str) -> ProviderTimeout:
    """The service did not come to a request within its window; that request was not charged."""
    text = "the batch service's time ran out before this request's turn"
    return ProviderTimeout(text, provider=provider, model=model, code="batch_expired", retryable=True)


def cancelled_error(provider: str, model: str) -> ProviderError:
    """The job was cancelled before a request's turn; that request was not charged."""
    text = "the batch was cancelled before this request's turn"
    return ProviderError(text, provider=provider, model=model, code=CANCELLED, retryable=True)


async def within(waiting: Awaitable[_T], timeout_s: float) -> _T:
    """Await one exchange with a service.

    Raises:
        TimeoutError: it took longer.
    """
    async with asyncio.timeout(timeout_s):
        return await waiting


def since_ts(lookup: BatchLookup, slack_s: float = 300.0) -> float:
    """The earliest time, in seconds of the epoch, at which the service's clock may say a job began."""
    return min(lookup.sent_ts, time.time()) - slack_s
