"""Running counts of a batch: requests by state, tokens and cost. Entry point: `BatchStats`."""

from __future__ import annotations

import time

from msgspec import Struct, field

from muse.batching.request import BatchRequest


class BatchStats(Struct):
    """Counts since the batch was made.

    Attributes:
        added: Requests that were added.
        announced: Requests of a feed with a known length that were not taken yet.
        done: Requests with a response.
        failed: Requests that failed.
        deferred: Requests that were put off to the next run.
        restored: Requests whose result came from the batch store and cost nothing in this run. They are part of `done`
            and `failed`.
        in_flight: Calls under way.
        tokens: Tokens used in this run.
        cost_usd: Dollars spent in this run, without `unpriced` calls.
        unpriced: Requests with tokens but no known price.
        started_s: When the batch was made (`time.monotonic`).
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
        """The number of requests that have a result."""
        return self.done + self.failed + self.deferred

    @property
    def expected(self) -> int:
        """The total number of requests, as far as it is known."""
        return self.added + self.announced

    @property
    def left_s(self) -> float | None:
        """The estimated seconds until all are done, at the average speed so far; None before the first new result."""
        made, left = self.ended - self.restored, self.expected - self.ended
        return (time.monotonic() - self.started_s) / made * left if made else None

    @property
    def elapsed_s(self) -> float:
        """The seconds since the batch was made."""
        return time.monotonic() - self.started_s

    def count(self, request: BatchRequest) -> None:
        """Count a request that has its result."""
        match request.state:
            case "done":
                self.done += 1
            case "deferred":
                self.deferred += 1
            case _:
                self.failed += 1
        if request.restored:  # it was paid for in an earlier run
            self.restored += 1
            return
        self.tokens += request.usage.total_tokens
        if request.cost_usd is not None:
            self.cost_usd += request.cost_usd
        elif request.usage.total_tokens:
            self.unpriced += 1
