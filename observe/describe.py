"""What was on the screen on a day; it names contexts, journal.json says who looks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from muse.batch import Batch
from muse.batching.store.store import path_of
from muse.cli._terminal.arguments import day_of, parsed, parser_for
from muse.errors import ConfigError
from observe.describe_segment import CONTEXT, Job, describe_segment, frame_prompt, is_current
from observe.llm.vision import require_sight
from observe.screens.categories import Category, find_categories
from observe.screens.frames import WANTED, picture_files
from observe.segments.cli import add_choice, run_day
from observe.segments.results import DayDone, OnStep, SegmentDone, ignore_step
from observe.segments.runner import MOST_AT_ONCE
from observe.segments.segments import Segment, day_with, segments_of

log = logging.getLogger(__name__)

_PATTERN = "observe.describe.*"
_EPILOG = """\
All pictures of a segment are looked through in order of time: screenshots (PNG, JPEG, WebP, ...), animated WebP and
GIF, and video if PyAV is installed. A model says of each frame that changed what it shows, and reads those that are
worth it; a line for each frame is kept as screen.jsonl in the segment. What is unchanged is not asked again, nor what
a run that was broken off had its answer for.

Who is asked says journal.json, and it has to be a model that sees pictures:
  muse route observe.describe.frame --explain

For example:
  muse describe                             the latest day with pictures
  muse describe 20261103                    another day
  muse describe 20261103 --segment 140000_2040
  muse describe 20261103 --force            everything anew
"""


class DayDescribed(DayDone, frozen=True, kw_only=True):
    """What came of describing a day."""


CATEGORIES: dict[str, dict[str, Any]]
CATEGORIZATION_PROMPT: str


def __getattr__(name: str) -> Any:
    """`CATEGORIES` (name -> metadata) and `CATEGORIZATION_PROMPT`, as files and journal.json are at that moment.

    Raises:
        ConfigError: journal.json cannot be read.
    """
    if name == "CATEGORIES":
        return {category.name: category.metadata for category in find_categories().values()}
    if name == "CATEGORIZATION_PROMPT":
        return frame_prompt(find_categories())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


async def describe_day(
    day: str,
    *,
    force: bool = False,
    segment: str | None = None,
    on_step: OnStep | None = None,
) -> DayDescribed:
    """Describe the pictures of a day's segments, or of the one that `segment` names; `force` asks everything anew.

    Raises:
        ConfigError: a context is routed to a model that sees no pictures or has no key, another run is at the same day,
            or there is no such segment. Nothing was asked.
        OSError: the result cannot be written.
    """
    step = on_step or ignore_step
    categories = find_categories()
    found = [one for one in segments_of(day, segment) if picture_files(one)]
    if not found:
        return DayDescribed.of(day, ())
    ledger = f"describe-{day}"
    is_needed = segment is not None and path_of(ledger).exists()  # by the other segments of a run that was broken off
    job = Job(categories, frame_prompt(categories), force)
    stale = [one for one in found if force or not is_current(one, job)]
    if stale:
        require_sight(_contexts(categories), pattern=_PATTERN)
    outcomes = {one.name: _unchanged(one) for one in found}
    if stale:
        outcomes |= await _describe(stale, job, ledger, step)
        if not is_needed:
            _forget(ledger)
    elif segment is None and path_of(ledger).exists():
        await _forget_unfinished(ledger)
    return DayDescribed.of(day, [outcomes[one.name] for one in found])


async def _describe(segments: Sequence[Segment], job: Job, ledger: str, step: OnStep) -> dict[str, SegmentDone]:
    """Describe segments one after the other."""
    outcomes: dict[str, SegmentDone] = {}
    async with Batch(MOST_AT_ONCE, ledger=ledger, retry_failed=True) as batch:
        for segment in segments:
            outcomes[segment.name] = await describe_segment(segment, job, batch, step)
    return outcomes


async def _forget_unfinished(ledger: str) -> None:
    """Remove what a run left that was broken off, and that nothing is asked for any more."""
    try:
        async with Batch(MOST_AT_ONCE, ledger=ledger):
            pass
    except ConfigError:
        log.info("%s: another run is writing to it, and removes it at its end", path_of(ledger))
    else:
        _forget(ledger)


def _forget(ledger: str) -> None:
    """Remove a ledger: it holds the pictures, and what it knows is kept elsewhere now."""
    path = path_of(ledger)
    for ending in ("", "-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)


def _contexts(categories: Mapping[str, Category]) -> tuple[str, ...]:
    return (CONTEXT, *(category.context for category in categories.values() if category.prompt))


def _unchanged(segment: Segment) -> SegmentDone:
    return SegmentDone(segment.name, "skipped", "unchanged since it was described", f"{segment.name}/screen.jsonl")


def main(argv: list[str] | None = None) -> int:
    """Run `muse describe`; 0 done, 1 something failed, 2 used wrongly.

    Raises:
        MuseError: nothing could be made: no such day, no model that sees, no key.
    """
    parser = parser_for("describe", "Describe what was on the screen on a day of the journal.", _EPILOG)
    add_choice(parser, "YYYYMMDD; the latest day with pictures if left out")
    args = parsed(parser, argv)
    if isinstance(args, int):
        return args
    day = day_with(WANTED, day_of(args))
    return run_day("describe", day, args, describe_day, nothing="no pictures")
