"""How many calls may be under way: a fixed number, or one that feels its way; it makes no call."""

from __future__ import annotations

import time
from typing import Literal

_FIRST, _MOST = 4, 512


class ConcurrencyLimit:
    """A limit on calls under way; a call whose result is not safe yet (`held` of them) counts as one.

    "auto" starts with 4, adds one for each call that succeeds until the provider first says that it is too much, from
    then on one for each round of calls. A rate limit halves it, once for all the calls that were under way then.
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
        """How many calls may be under way now."""
        return self.limit - self.held

    def succeeded(self) -> None:
        """A call went well."""
        self._share += 1
        if self._share >= (self.limit if self._is_careful else 1):
            self._share = 0
            self.limit = min(self.limit + 1, _MOST)

    def limited(self, began_s: float) -> None:
        """The provider limited a call that began at `began_s` (`time.perf_counter`)."""
        if began_s < self._slowed_s:
            return
        self._slowed_s = time.perf_counter()
        self._is_careful = True
        self._share = 0
        self.limit = max(1, self.limit // 2)
