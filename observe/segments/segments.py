"""Days and segments of the journal as folders: which there are, when they began; it knows no picture and no model."""

from __future__ import annotations

import logging
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path

from msgspec import Struct

from muse.errors import ConfigError, ContentsError
from muse.journal import paths
from muse.journal.days import find_day, segment_times
from muse.journal.storage.path_containment import inside, is_inside

log = logging.getLogger(__name__)


class Segment(Struct, frozen=True):
    """A stretch of recording: `start_s` is its local start in seconds since midnight, `length_s` how long it is."""

    day: str
    name: str
    folder: Path
    start_s: int
    length_s: int

    @property
    def at(self) -> str:
        """Its local start as `HH:MM`."""
        return f"{self.start_s // 3600:02}:{self.start_s // 60 % 60:02}"


def day_with(wanted: tuple[str, ...], asked: str | None) -> str:
    """The day that is asked for, else the latest one of which a segment has a file that matches one of `wanted`.

    Raises:
        ConfigError: there is no such day; the text says which days there are.
    """
    return find_day(asked, lambda day: _has(day, wanted), what=f"a file such as {wanted[0]} in a segment")


def segments_of(day: str, only: str | None = None) -> tuple[Segment, ...]:
    """The segments of a day in order of time; `only` names one of them.

    Raises:
        ConfigError: there is none of that name.
    """
    folder = paths.journal_path() / day
    found_here = folder.iterdir() if folder.is_dir() else ()
    names = sorted(path.name for path in inside(found_here, paths.journal_path()) if path.is_dir())
    found = tuple(_segment(day, folder / name, *times) for name in names if (times := segment_times(name)))
    if only is None:
        return found
    chosen = tuple(segment for segment in found if segment.name == only)
    if not chosen:
        known = ", ".join(segment.name for segment in found) or f"none: {day} has no segment"
        raise ConfigError("--segment", f"{only!r}, which {day} does not have", f"one of {known}")
    return chosen


def require_inside(path: Path, segment: Segment) -> None:
    """See that a file of a segment is no link to somewhere else: its content is sent to a model.

    Raises:
        ContentsError: it leads out of the segment and of the journal.
    """
    if not (is_inside(path, segment.folder) or is_inside(path, paths.journal_path())):
        raise ContentsError(f"{path.name}: found a link that leads out of the journal, expected a file. Copy it there")


def _segment(day: str, folder: Path, start: timedelta, length_s: int) -> Segment:
    return Segment(day, folder.name, folder, start // timedelta(seconds=1), length_s)


def _has(day: str, wanted: tuple[str, ...]) -> bool:
    names = (path.name.lower() for segment in segments_of(day) for path in segment.folder.iterdir())
    return any(fnmatchcase(name, pattern) for name in names for pattern in wanted)
