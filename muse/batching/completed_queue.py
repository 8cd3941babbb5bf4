"""Results that wait to be taken, and whether there is room for more; it makes none."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from muse.batching.concurrency import ConcurrencyLimit
from muse.batching.request import BatchRequest

_UNDRAINED_EACH = 2


class CompletedQueue:
    """Finished requests in the order in which they were finished; `is_open` has room for any number of them."""

    def __init__(self, concurrency: ConcurrencyLimit) -> None:
        self.is_open = False
        self._concurrency = concurrency
        self._requests: deque[BatchRequest] = deque()

    def __bool__(self) -> bool:
        """Whether there is something in it."""
        return bool(self._requests)

    @property
    def has_room(self) -> bool:
        """Whether results are taken fast enough for more to be asked."""
        return self.is_open or len(self._requests) + self._concurrency.held < _UNDRAINED_EACH * self._concurrency.limit

    def put(self, requests: Iterable[BatchRequest]) -> None:
        """Add results."""
        self._requests.extend(requests)

    def take(self) -> BatchRequest:
        """The next one; a response that was handed over stands in the ledger for good."""
        request = self._requests.popleft()
        if request.place is not None and request.state == "done":
            request.place = None
        return request

    def withdraw(self, request: BatchRequest) -> bool:
        """Take one out that is to be asked again; whether it was in."""
        if request.state == "waiting":
            return False
        count = len(self._requests)
        self._requests = deque(other for other in self._requests if other is not request)
        return len(self._requests) < count
