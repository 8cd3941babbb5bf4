"""A provider's batch service, its polling schedule and its errors. Entry points: `Service`, `PollSchedule`."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any

from msgspec import Struct

from muse.providers._backend.attempt import translate
from muse.providers._backend.batch_service import LONG_WAIT_S, BatchService
from muse.providers._backend.provider import Provider


class PollSchedule(Struct, frozen=True):
    """How often a job is polled: first after `first_s` seconds, then at growing intervals of at most `most_s`.

    Attributes:
        first_s: The first interval in seconds.
        growth: The factor from one interval to the next.
        most_s: The longest interval in seconds.
        settle_s: How long the service may take to list a job that may have been sent just before a kill.
        cancel_wait_s: How long the service may take to confirm a cancellation.
    """

    first_s: float = 10.0
    growth: float = 1.5
    most_s: float = 300.0
    settle_s: float = 30.0
    cancel_wait_s: float = 900.0

    def waits(self) -> Iterator[float]:
        """Yield the intervals in seconds, without end."""
        wait_s = self.first_s
        while True:
            yield wait_s
            wait_s = min(wait_s * self.growth, self.most_s)


class Service(Struct, frozen=True):
    """A provider with its batch service and a client for it."""

    provider: Provider
    native: BatchService
    client: Any

    @property
    def name(self) -> str:
        """The provider's name."""
        return self.provider.spec.name


class MappedErrors:
    """A context manager that converts exceptions of a service's SDK to muse's errors."""

    def __init__(self, service: Service, model: str) -> None:
        self._service = service
        self._model = model

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if exc is None:
            return
        error = translate(self._service.provider, self._model, LONG_WAIT_S, exc)
        if error is not exc:
            raise error from exc
