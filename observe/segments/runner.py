"""A day gone through segment by segment, a few at a time; what fails is told, the others go on. It knows no work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from muse.errors import ConfigError, MuseError
from observe.segments.results import OnStep, SegmentDone
from observe.segments.segments import Segment

MOST_AT_ONCE = 4
Work = Callable[[Segment], Awaitable[SegmentDone]]


async def go_round(segments: Sequence[Segment], work: Work, on_step: OnStep) -> list[SegmentDone]:
    """What `work` made of each segment, in their order; one that fails is a result.

    Raises:
        ConfigError: nothing can be asked at all (no such provider, no key, no model).
    """
    turns = asyncio.Semaphore(MOST_AT_ONCE)
    done = 0

    async def take(segment: Segment) -> SegmentDone:
        nonlocal done
        async with turns:
            found = await _outcome(segment, work)
        done += 1
        on_step(f"{segment.day} {segment.at}", done, len(segments))
        return found

    on_step("", 0, len(segments))
    return list(await asyncio.gather(*map(take, segments)))


async def _outcome(segment: Segment, work: Work) -> SegmentDone:
    try:
        return await work(segment)
    except ConfigError:
        raise
    except (MuseError, OSError) as exc:
        text = f"{type(exc).__name__}: {exc}"
        return SegmentDone(segment.name, "failed", "not done", "", problems=(text,))
