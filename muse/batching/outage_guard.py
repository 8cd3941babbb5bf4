"""Detection of outages that should end a batch run. Entry point: `OutageGuard`."""

from __future__ import annotations

from muse.batching.concurrency import ConcurrencyLimit
from muse.batching.request import BatchRequest
from muse.types.errors import BudgetExceeded, LimitReached

_IN_A_ROW = 50


class OutageGuard:
    """A count of consecutive requests that were deferred, without those that a budget stopped."""

    def __init__(self, concurrency: ConcurrencyLimit) -> None:
        self._concurrency = concurrency
        self._count = 0

    def note(self, request: BatchRequest) -> LimitReached | None:
        """Record a result; return the error that ends the run if too many requests in a row were deferred.

        The limit is 50, or twice the concurrency limit if that is more.
        """
        if request.state != "deferred":
            self._count = 0
            return None
        if isinstance(request.exception, BudgetExceeded):
            return None
        self._count += 1
        if self._count < max(_IN_A_ROW, 2 * self._concurrency.limit):
            return None
        count, self._count = self._count, 0
        error = LimitReached(
            f"stopped after {count} requests in a row that failed for a reason that may pass; they are open in the"
            f" ledger and are asked when it is run again. The last one: {request.error}"
        )
        error.__cause__ = request.exception
        return error
