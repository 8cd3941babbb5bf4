"""What is read of a day or week: transcripts, notes, events, screens, summaries, insights; it knows no topic."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from muse.journal import paths
from muse.journal.days import every_day, is_segment
from muse.journal.storage.backups import is_backup
from muse.journal.storage.path_containment import inside
from think.entries.entries import read_events
from think.entries.transcripts import Part, Utterance, markdown_part, plain, read_day

log = logging.getLogger(__name__)

EVENTS = "events.jsonl"
FOOT = "Each quotation stands word for word in its source."
"""How the last line of a page of insights begins; it is none of what the page tells."""

_DAY_S = 86_400
_WHO_SAID = re.compile(r"\s*> – ")


def read_sources(day: str, kinds: Collection[str]) -> tuple[Part, ...]:
    """The parts of a day of these kinds that have words in them, in order of time."""
    folder = paths.journal_path() / day
    found = list(read_day(day, transcripts="transcripts" in kinds, notes="notes" in kinds))
    if "events" in kinds:
        found += _events(day)
    for kind, name, read in _IN_SEGMENTS:
        if kind in kinds:
            found += _in_segments(folder, name, read)
    return tuple(sorted((part for part in found if part.utterances), key=lambda part: (part.at, part.source)))


def read_insights(last: str, *, without: Collection[str] = ()) -> tuple[Part, ...]:
    """The pages of insights of the week that ends on `last`, but for the topics in `without`; `at` is the date."""
    end = datetime.strptime(last, "%Y%m%d")
    days = [f"{end - timedelta(days=back):%Y%m%d}" for back in range(6, -1, -1)]
    return tuple(part for day in days for part in _pages(day, without))


def recorded_days() -> list[str]:
    """The days of the journal with a segment, notes or appointments, in order."""
    return [day for day in every_day() if is_recorded(day)]


def is_recorded(day: str) -> bool:
    """Whether anything was recorded on a day; what stands in it is not looked at."""
    folder = paths.journal_path() / day
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return any(name in (EVENTS, "notes") or is_segment(name) for name in names)


def is_end_of_week(day: str) -> bool:
    """Whether a day is the one after which its week is to be looked back on: over, and nothing recorded later in it."""
    week = week_of(day)
    is_over = week[-1] < f"{datetime.now():%Y%m%d}" or day == week[-1]
    return is_over and not any(is_recorded(later) for later in week if later > day)


def week_of(day: str) -> tuple[str, ...]:
    """The days of the week (Monday to Sunday) that a day lies in."""
    date = datetime.strptime(day, "%Y%m%d")
    monday = date - timedelta(days=date.weekday())
    return tuple(f"{monday + timedelta(days=number):%Y%m%d}" for number in range(7))


def _pages(day: str, without: Collection[str]) -> Iterator[Part]:
    for path in inside(sorted((paths.journal_path() / day / "insights").glob("*.md")), paths.journal_path()):
        if path.stem in without or is_backup(path.stem):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        lines = (line for line in text.splitlines() if not _WHO_SAID.match(line) and not line.startswith(FOOT))
        date = f"{day[:4]}-{day[4:6]}-{day[6:]}"
        part = markdown_part("\n".join(lines), f"../{day}/insights/{path.name}", date)
        if part.utterances:
            yield part


def _events(day: str) -> Iterator[Part]:
    """All events of a day as one part; every field is something said in one go, so that it can be quoted."""
    said: list[Utterance] = []
    for event in read_events(paths.journal_path(), day):
        at = event.start[11:16]
        said.append(Utterance("appointment", at, event.title or "(no title)"))
        said += (Utterance("with", at, name) for name in event.participants)
        said += (Utterance("about it", at, words) for words in (event.location, event.notes) if words)
    if said:
        yield Part(EVENTS, said[0].at, tuple(said))


def _in_segments(folder: Path, name: str, read: Callable[[Path, str, str], Part]) -> Iterator[Part]:
    for path in inside(sorted(folder.glob(f"*/{name}")), paths.journal_path()):
        segment = path.parent.name
        if is_segment(segment) and path.is_file():
            yield read(path, f"{segment}/{name}", f"{segment[:2]}:{segment[2:4]}")


def _screen(path: Path, source: str, at: str) -> Part:
    """What was seen in a segment: of each frame the texts that a describer wrote down."""
    said: list[Utterance] = []
    bad = 0
    for line in path.read_bytes().splitlines():
        frame = _object(line)
        if frame is None:
            bad += bool(line.strip())
            continue
        category = plain(str(frame.get("category") or "screen"))
        said += (Utterance(category, _later(at, frame.get("at_s")), text) for text in _texts(frame))
    if bad:
        log.warning("%s: %d lines are no JSON objects and are left out", path, bad)
    return Part(source, at, tuple(said))


def _texts(frame: Mapping[str, Any]) -> Iterator[str]:
    """The texts of a frame: what it shows, and what was read off it, line by line."""
    for key in ("description", "extracted"):
        value = frame.get(key)
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) if value else ""
        yield from filter(None, map(plain, text.splitlines()))


def _later(at: str, seconds: object) -> str:
    """The clock `at`, so many seconds later; as it is if that is no sensible number."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < _DAY_S:
        return at
    return f"{datetime.strptime(at, '%H:%M') + timedelta(seconds=seconds):%H:%M}"


def _object(line: bytes) -> Mapping[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _summary(path: Path, source: str, at: str) -> Part:
    return markdown_part(path.read_text(encoding="utf-8", errors="replace"), source, at)


_IN_SEGMENTS = (("screens", "screen.jsonl", _screen), ("summaries", "summary.md", _summary))
