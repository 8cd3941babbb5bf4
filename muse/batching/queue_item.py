"""A request on its way through a batch; it knows no way."""

from __future__ import annotations

from msgspec import Struct

from muse.batching.request import BatchRequest


class QueueItem(Struct):
    """`turn` and `era` say of which adding the request is, `number` is its place in the ledger."""

    request: BatchRequest
    turn: int
    era: int
    number: int

    def is_current(self) -> bool:
        """Whether the request was not updated since."""
        return self.request.turn == self.turn
