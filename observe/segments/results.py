"""What came of work on a day or its segments, in counts, for commands and for who calls them; it does no work."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol, Self

from msgspec import Struct

OnStep = Callable[[str, int, int], object]
"""Hears of each step: what it was about, how many are done, of how many (0 where that is not known)."""


class SegmentDone(Struct, frozen=True):
    """One segment: `state` is "done", "skipped" (unchanged, nothing was asked) or "failed": something is asked again.

    `problems` are failures, and also what cannot be read and would not be read the next time either.
    `about` says in a few words what came out, `file` where it is, relative to the day.
    """

    segment: str
    state: str
    about: str
    file: str
    cost_usd: float | None = 0.0
    problems: tuple[str, ...] = ()


class DayDone(Struct, frozen=True, kw_only=True):
    """One day: how many segments were done, skipped and failed, and what it cost.

    `unpriced` counts the segments of which the cost is not known; they are in no sum.
    """

    day: str
    done: int
    skipped: int
    failed: int
    cost_usd: float
    unpriced: int = 0
    problems: tuple[str, ...] = ()
    segments: tuple[SegmentDone, ...] = ()

    @classmethod
    def of(cls, day: str, segments: Iterable[SegmentDone]) -> Self:
        """The counts over a day's segments."""
        every = tuple(segments)
        states = [one.state for one in every]
        return cls(
            day=day,
            done=states.count("done"),
            skipped=states.count("skipped"),
            failed=states.count("failed"),
            cost_usd=sum(one.cost_usd or 0.0 for one in every),
            unpriced=sum(one.cost_usd is None for one in every),
            problems=tuple(f"{one.segment}: {problem}" for one in every for problem in one.problems),
            segments=every,
        )


def ignore_step(_what: str, _done: int, _of: int) -> None:
    """Hear of a step and do nothing."""


class Work(Protocol):
    """Works on a day's segments, or on the one that is named."""

    def __call__(  # noqa: D102 - the class says it
        self, day: str, *, force: bool = False, segment: str | None = None, on_step: OnStep | None = None
    ) -> Coroutine[Any, Any, DayDone]: ...
