"""One entry of a batch's queue. Entry point: `QueueItem`."""

from __future__ import annotations

from msgspec import Struct

from muse.batching.request import BatchRequest


class QueueItem(Struct):
    """A queued request.

    Attributes:
        request: The request.
        turn: The request's `turn` when it was queued.
        era: The batch's era when it was queued; `Batch.stop` starts a new one.
        number: The item's number in the batch store.
    """

    request: BatchRequest
    turn: int
    era: int
    number: int

    def is_current(self) -> bool:
        """Return True if the request was not added again since."""
        return self.request.turn == self.turn
