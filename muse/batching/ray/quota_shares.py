"""Equal shares of limits for workers that have no file in common. Entry points: `QuotaShares`, `one_part`.

A share that was given up counts as used for another minute, whoever gets it. So the shares together never exceed the
limit in any minute, however often workers come and go.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from muse.journal.policy_config import Limit

# The minute of the limits, and a margin for late requests.
REST_S = 61.0
# A single request could exceed a smaller share.
TOKENS_A_PART = 32_768
_SPLIT = ("requests_per_minute", "tokens_per_minute", "in_flight")


def most_parts(limits: Sequence[Limit]) -> tuple[int, str] | None:
    """Return the largest number of shares of the limits and the limit that determines it; None if unbounded."""
    bounds: list[tuple[int, str]] = []
    for limit in limits:
        calls = [amount for amount in (limit.requests_per_minute, limit.in_flight) if amount is not None]
        tokens = [] if limit.tokens_per_minute is None else [max(limit.tokens_per_minute // TOKENS_A_PART, 1)]
        bounds += [(amount, limit.where) for amount in (*calls, *tokens)]
    return min(bounds, default=None)


def is_split(limit: Limit) -> bool:
    """Return True if a limit is divided into shares.

    Daily limits are not: they hold because every worker is told the total spent.
    """
    return any(amount is not None for amount in (limit.requests_per_minute, limit.tokens_per_minute, limit.in_flight))


def one_part(providers: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Return the section `providers` of a journal.json with one of `count` shares of each limit."""
    section = copy.deepcopy(dict(providers))
    limits = section.get("limits")
    for row in limits if isinstance(limits, list) else ():
        for name in _SPLIT if isinstance(row, dict) else ():
            amount = row.get(name)
            if isinstance(amount, (int, float)) and not isinstance(amount, bool) and amount > 0:
                row[name] = max(int(amount) // count, 1)
    return section


class QuotaShares:
    """The shares and their owners; one that was given up stays unused for `rest_s` seconds."""

    def __init__(self, rest_s: float = REST_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._rest_s = rest_s
        self._clock = clock
        self._free: list[float] = []
        self._taken: set[str] = set()

    @property
    def count(self) -> int:
        """The number of shares."""
        return len(self._free) + len(self._taken)

    def begin(self, count: int) -> None:
        """Create the first shares, which no worker has used."""
        self._free += [self._clock()] * count

    def add(self, count: int) -> None:
        """Create further shares from what the others have just lost."""
        self._free += [self._clock() + self._rest_s] * count

    def take(self, worker: str) -> float | None:
        """Give `worker` a share; return the seconds until it may be used, or None if all are taken."""
        if not self._free:
            return None
        ready_s = min(self._free)
        self._free.remove(ready_s)
        self._taken.add(worker)
        return max(ready_s - self._clock(), 0.0)

    def give_up(self, worker: str) -> None:
        """Free the share of a worker that is gone."""
        if worker in self._taken:
            self._taken.remove(worker)
            self._free.append(self._clock() + self._rest_s)

    def drop_unused(self) -> bool:
        """Remove free shares whose rest is over, so that the others grow; return True if there were any."""
        if not self._taken:
            return False
        left = [ready_s for ready_s in self._free if ready_s > self._clock()]
        has_dropped = len(left) < len(self._free)
        self._free = left
        return has_dropped
