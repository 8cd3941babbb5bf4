"""What a batch has done so far, in numbers; it draws nothing."""

from __future__ import annotations

import time

from msgspec import Struct, field

from muse.batching.request import BatchRequest


class BatchStats(Struct):
    """Counts since the batch was made: requests by how they stand, tokens and dollars of this run.

    `announced` are those of a feed that says how many it has and which have not been taken yet. `restored` (a part of
    `done` and `failed`) came from the ledger and cost nothing now. `unpriced` calls are not in `cost_usd`.
    """

    added: int = 0
    announced: int = 0
    done: int = 0
    failed: int = 0
    deferred: int = 0
    restored: int = 0
    in_flight: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0
    started_s: float = field(default_factory=time.monotonic)

    @property
    def ended(self) -> int:
        """How many have their result."""
        return self.done + self.failed + self.deferred

    @property
    def expected(self) -> int:
        """How many there are to be, as far as is known."""
        return self.added + self.announced

    @property
    def left_s(self) -> float | None:
        """Seconds until all are done, if they go on as they went; None while there is nothing to judge by."""
        made, left = self.ended - self.restored, self.expected - self.ended
        return (time.monotonic() - self.started_s) / made * left if made else None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the batch was made."""
        return time.monotonic() - self.started_s

    def count(self, request: BatchRequest) -> None:
        """Count a request that has its result; what came from the ledger was paid for in an earlier run."""
        match request.state:
            case "done":
                self.done += 1
            case "deferred":
                self.deferred += 1
            case _:
                self.failed += 1
        if request.restored:
            self.restored += 1
            return
        self.tokens += request.usage.total_tokens
        if request.cost_usd is not None:
            self.cost_usd += request.cost_usd
        elif request.usage.total_tokens:
            self.unpriced += 1
