"""Limits in equal parts, for workers that share no file: how much each may use, and from when on; it makes no call.

A part that was given up counts as used until a minute later, whoever gets it; so the parts together never come to more
than the limit in any minute, however often workers come and go.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from muse.journal.policy_config import Limit

# The minute of the limits, and what a request may be late by.
REST_S = 61.0
# A part smaller than what one request may use at most would be overrun by it.
TOKENS_A_PART = 32_768
_SPLIT = ("requests_per_minute", "tokens_per_minute", "in_flight")


def most_parts(limits: Sequence[Limit]) -> tuple[int, str] | None:
    """Into how many parts the limits can go, and which of them says so; None if any number will do."""
    bounds: list[tuple[int, str]] = []
    for limit in limits:
        calls = [amount for amount in (limit.requests_per_minute, limit.in_flight) if amount is not None]
        tokens = [] if limit.tokens_per_minute is None else [max(limit.tokens_per_minute // TOKENS_A_PART, 1)]
        bounds += [(amount, limit.where) for amount in (*calls, *tokens)]
    return min(bounds, default=None)


def is_split(limit: Limit) -> bool:
    """Whether a limit is one that goes into parts; those of a day are kept by telling all what was spent."""
    return any(amount is not None for amount in (limit.requests_per_minute, limit.tokens_per_minute, limit.in_flight))


def one_part(providers: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The section `providers` of a journal.json with one of `count` parts of each limit."""
    section = copy.deepcopy(dict(providers))
    limits = section.get("limits")
    for row in limits if isinstance(limits, list) else ():
        for name in _SPLIT if isinstance(row, dict) else ():
            amount = row.get(name)
            if isinstance(amount, (int, float)) and not isinstance(amount, bool) and amount > 0:
                row[name] = max(int(amount) // count, 1)
    return section


class QuotaShares:
    """Who has a part; `rest_s` is how long one that was given up stays unused."""

    def __init__(self, rest_s: float = REST_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._rest_s = rest_s
        self._clock = clock
        self._free: list[float] = []
        self._taken: set[str] = set()

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._free) + len(self._taken)

    def begin(self, count: int) -> None:
        """Make the first parts, which nobody has used."""
        self._free += [self._clock()] * count

    def add(self, count: int) -> None:
        """Make further parts out of what the others have just lost."""
        self._free += [self._clock() + self._rest_s] * count

    def take(self, worker: str) -> float | None:
        """Have a part: the seconds until it may be used; None if all are taken."""
        if not self._free:
            return None
        ready_s = min(self._free)
        self._free.remove(ready_s)
        self._taken.add(worker)
        return max(ready_s - self._clock(), 0.0)

    def give_up(self, worker: str) -> None:
        """Free the part of a worker that is gone."""
        if worker in self._taken:
            self._taken.remove(worker)
            self._free.append(self._clock() + self._rest_s)

    def drop_unused(self) -> bool:
        """Let go of free parts in which nothing is left to count; whether there were any, so that the others grow."""
        if not self._taken:
            return False
        left = [ready_s for ready_s in self._free if ready_s > self._clock()]
        has_dropped = len(left) < len(self._free)
        self._free = left
        return has_dropped
