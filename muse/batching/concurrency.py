"""A limit on concurrent calls, fixed or adaptive. Entry point: `ConcurrencyLimit`."""

from __future__ import annotations

import time
from typing import Literal

_FIRST, _MOST = 4, 512


class ConcurrencyLimit:
    """A limit on calls under way.

    A finished call whose result is not committed yet also counts as under way; `held` is the number of these.

    "auto" starts with 4 and adds one for each call that succeeds, up to 512. After the provider's first rate limit it
    adds one for each full round of calls instead. A rate limit halves the limit, once for all the calls that were
    under way at the time.
    """

    __slots__ = ("_is_careful", "_share", "_slowed_s", "held", "is_auto", "limit")

    def __init__(self, limit: int | Literal["auto"]) -> None:
        self.is_auto = limit == "auto"
        given: object = limit
        if limit != "auto" and (type(given) is not int or limit < 1):
            raise ValueError(f"max_concurrent: found {limit!r}, expected a whole number from 1 on, or 'auto'")
        self.limit = _FIRST if limit == "auto" else limit
        self.held = 0
        self._is_careful = False
        self._share = 0
        self._slowed_s = 0.0

    @property
    def places(self) -> int:
        """The number of calls that may be under way now."""
        return self.limit - self.held

    def succeeded(self) -> None:
        """Record that a call succeeded."""
        self._share += 1
        if self._share >= (self.limit if self._is_careful else 1):
            self._share = 0
            self.limit = min(self.limit + 1, _MOST)

    def limited(self, began_s: float) -> None:
        """Record that the provider rate-limited a call that began at `began_s` (`time.perf_counter`)."""
        if began_s < self._slowed_s:
            return
        self._slowed_s = time.perf_counter()
        self._is_careful = True
        self._share = 0
        self.limit = max(1, self.limit // 2)
