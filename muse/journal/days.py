"""Days and segments by their names: which there are, which one is meant, when one began; it reads none of them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from muse.journal import paths
from muse.types.errors import ConfigError

_NAMED = 8
_SEGMENT = re.compile(r"([01]\d|2[0-3])([0-5]\d)([0-5]\d)_(\d{1,6})", re.ASCII)


def every_day(root: Path | None = None) -> list[str]:
    """The days `YYYYMMDD` of a journal (the one in use if None) in order; a day may be empty.

    Raises:
        OSError: the journal's folder cannot be listed.
    """
    place = root or paths.journal_path()
    return sorted(filter(paths.is_day, os.listdir(place))) if place.is_dir() else []


def find_day(asked: str | None, *holds: Callable[[str], bool], what: str) -> str:
    """The day that is asked for; else the latest for which one of `holds` is true, the first of them that has any.

    `what` says in words what such a day holds, for the error.

    Raises:
        ConfigError: it is no date, or there is no such day; the text says which days there are.
    """
    if asked is not None and not paths.is_day(asked):
        raise ConfigError("DAY", repr(asked), "a date of the form YYYYMMDD, such as 20261106")
    days = every_day()
    if asked is None:
        found = next((day for test in holds for day in reversed(days) if test(day)), None)
        if found is None:
            allowed = "one or more (JOURNAL_PATH names another journal; `make run` in a checkout fills its example)"
            raise ConfigError(str(paths.journal_path()), f"no day with {what}", allowed)
        return found
    if asked not in days:
        known = f"one of {', '.join(days[-_NAMED:])}" if days else "a day that is there: there is none yet"
        raise ConfigError("DAY", f"{asked}, which {paths.journal_path()} does not have", known)
    return asked


def segment_times(name: str) -> tuple[timedelta, int] | None:
    """When a segment began, since midnight, and its length in seconds; None if this is no name of a segment.

    >>> segment_times("140000_2040"), segment_times("notes")
    ((datetime.timedelta(seconds=50400), 2040), None)
    """
    found = _SEGMENT.fullmatch(name)
    if found is None:
        return None
    hours, minutes, seconds, length_s = map(int, found.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds), length_s


def is_segment(name: str) -> bool:
    """Whether `name` is that of a segment: `HHMMSS_SECONDS`."""
    return _SEGMENT.fullmatch(name) is not None
