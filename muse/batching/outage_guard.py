"""Whether calls fail in a row for reasons that pass, so that the run had better end; it makes no call."""

from __future__ import annotations

from muse.batching.concurrency import ConcurrencyLimit
from muse.batching.request import BatchRequest
from muse.types.errors import BudgetExceeded, LimitReached

_IN_A_ROW = 50


class OutageGuard:
    """Counts requests that were put off, one after the other; those of a budget are not counted."""

    def __init__(self, concurrency: ConcurrencyLimit) -> None:
        self._concurrency = concurrency
        self._count = 0

    def note(self, request: BatchRequest) -> LimitReached | None:
        """Note a result; the error that ends the run, where there were too many: 50, or twice the calls at once."""
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
