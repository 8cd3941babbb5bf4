"""The queue of finished requests that wait to be drained. Entry point: `CompletedQueue`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from muse.batching.concurrency import ConcurrencyLimit
from muse.batching.request import BatchRequest

_UNDRAINED_EACH = 2


class CompletedQueue:
    """Finished requests in the order in which they finished; while `is_open` is True, any number of them fits."""

    def __init__(self, concurrency: ConcurrencyLimit) -> None:
        self.is_open = False
        self._concurrency = concurrency
        self._requests: deque[BatchRequest] = deque()

    def __bool__(self) -> bool:
        """Return True if the queue is not empty."""
        return bool(self._requests)

    @property
    def has_room(self) -> bool:
        """True if results are taken fast enough to send more requests."""
        return self.is_open or len(self._requests) + self._concurrency.held < _UNDRAINED_EACH * self._concurrency.limit

    def put(self, requests: Iterable[BatchRequest]) -> None:
        """Append results."""
        self._requests.extend(requests)

    def take(self) -> BatchRequest:
        """Remove and return the next request."""
        request = self._requests.popleft()
        if request.place is not None and request.state == "done":
            # A response that was delivered stays in the batch store: adding the request again claims a new item.
            request.place = None
        return request

    def withdraw(self, request: BatchRequest) -> bool:
        """Remove a request that is to be sent again; return True if it was in the queue."""
        if request.state == "waiting":
            return False
        count = len(self._requests)
        self._requests = deque(other for other in self._requests if other is not request)
        return len(self._requests) < count
