"""The parts of a day of the journal: what was said and noted, by whom, when; it knows no model and writes nothing."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec import Struct

from muse.journal import paths
from muse.journal.days import find_day, is_segment, segment_times
from muse.journal.storage.path_containment import inside
from observe.transcripts.parser import TRANSCRIPTS, decode, parse_transcript
from think.entries.front_matter import body_of

log = logging.getLogger(__name__)

UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
"""A sign of a script that has no blanks between words: Thai, Chinese, Japanese and the like."""

NOTE = re.compile(r"([01]\d|2[0-3])([0-5]\d)_(.+)")
"""The name of a note that says when it was made: `HHMM_title`."""

_LIST_ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)])\s+(?:\[[ xX]\]\s+)?")
_MARKS = re.compile(r"\*\*|__|`|^>\s*")
_DATE_LINE = re.compile(r"\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d)?)?")


class Utterance(Struct, frozen=True):
    """Something said in one go: by whom ("" in a note) and when, as `HH:MM` ("" where that is not known)."""

    speaker: str
    at: str
    text: str


class Part(Struct, frozen=True):
    """A transcript or a note of a day.

    `source` is its path relative to the day, `at` its local start as `HH:MM`, `segment` its key in the token log
    ("" for a note), `heading` the title that its writer gave it ("" for a transcript).
    """

    source: str
    at: str
    utterances: tuple[Utterance, ...]
    duration_s: int = 0
    segment: str = ""
    heading: str = ""


def day_with_words(asked: str | None) -> str:
    """The day that is asked for, else the journal's latest day with a transcript (if none has: a note), as `YYYYMMDD`.

    Raises:
        ConfigError: there is no such day; the text says which days there are.
    """
    return find_day(asked, _has_transcript, _has_note, what="a transcript or a note")


def read_day(day: str, *, transcripts: bool = True, notes: bool = True) -> tuple[Part, ...]:
    """The parts of a day that have words in them, in order of time; lines that cannot be read are left out.

    Raises:
        OSError: a file cannot be read.
    """
    folder = paths.journal_path() / day
    parts = [_transcript(path, folder) for path in _transcripts(folder)] if transcripts else []
    parts += [_note(path, folder) for path in _notes(folder)] if notes else []
    return tuple(sorted((part for part in parts if part.utterances), key=lambda part: (part.at, part.source)))


def _has_transcript(day: str) -> bool:
    return any(_transcripts(paths.journal_path() / day))


def _has_note(day: str) -> bool:
    return any(_notes(paths.journal_path() / day))


def _notes(day: Path) -> Iterator[Path]:
    """The notes of a day's folder in order; none by way of a link that leads out of the journal."""
    yield from inside(sorted((day / "notes").glob("*.md")), paths.journal_path())


def _transcripts(day: Path) -> Iterator[Path]:
    for folder in sorted(path for path in day.iterdir() if is_segment(path.name)) if day.is_dir() else ():
        named = (folder / name for name in TRANSCRIPTS)
        yield from inside([path for path in named if path.is_file()][:1], paths.journal_path())


def _transcript(path: Path, day: Path) -> Part:
    segment = path.parent.name
    start, length_s = segment_times(segment) or (timedelta(), 0)
    read = _lines if path.suffix == ".jsonl" else _recorded
    said, passed_over = read(path, start)
    if passed_over:
        log.warning("%s: %d of %d lines are no utterances and are left out", path, passed_over, len(said) + passed_over)
    return Part(path.relative_to(day).as_posix(), _clock(start), tuple(said), length_s, segment)


def _lines(path: Path, start: timedelta) -> tuple[list[Utterance], int]:
    """The utterances of our own form, and how many lines are none."""
    lines = [line for line in path.read_bytes().splitlines() if line.strip()]
    said = [utterance for line in lines if (utterance := _utterance(line, start)) is not None]
    return said, len(lines) - len(said)


def _recorded(path: Path, start: timedelta) -> tuple[list[Utterance], int]:
    """The utterances of a recorder's form, and how many of its lines are none."""
    found = parse_transcript(decode(path.read_bytes()))
    said = [Utterance(plain(one.speaker), _clock_at(start, one.start_s), plain(one.text)) for one in found.utterances]
    return [one for one in said if one.text], found.passed_over


def _utterance(line: bytes, start: timedelta) -> Utterance | None:
    """One line of a transcript; None if it is not JSON, or has no text in it."""
    try:
        entry: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    text = entry.get("text") if isinstance(entry, dict) else None
    if not isinstance(text, str) or not text.strip():
        return None
    return Utterance(plain(str(entry.get("speaker") or "")), _clock_at(start, entry.get("start_s")), plain(text))


def _clock_at(start: timedelta, offset_s: object) -> str:
    if isinstance(offset_s, int | float) and 0 <= offset_s < 1e6:
        return _clock(start + timedelta(seconds=offset_s))
    return ""


def _clock(since_midnight: timedelta) -> str:
    return (datetime.min + since_midnight).strftime("%H:%M")


def _note(path: Path, day: Path) -> Part:
    """A note: its heading, then each paragraph and list item as something said in one go."""
    named = NOTE.fullmatch(path.stem)
    at = f"{named[1]}:{named[2]}" if named else ""
    return markdown_part(path.read_text(encoding="utf-8", errors="replace"), path.relative_to(day).as_posix(), at)


def markdown_part(page: str, source: str, at: str) -> Part:
    """A Markdown page as a part: its first heading, then each paragraph and list item as something said in one go."""
    heading = ""
    blocks: list[list[str]] = [[]]
    for line in body_of(page).splitlines():
        text = plain(_MARKS.sub("", line))
        if text.startswith("#"):
            heading = heading or text.lstrip("# ")
            blocks.append([])
        elif not text or _DATE_LINE.fullmatch(text):
            blocks.append([])
        elif item := _LIST_ITEM.match(line):
            blocks.append([plain(_MARKS.sub("", line[item.end() :]))])
        else:
            blocks[-1].append(text)
    said = tuple(Utterance("", at, " ".join(block)) for block in blocks if any(block))
    return Part(source, at, said, heading=heading)


def plain(text: str) -> str:
    """`text` on one line, without what cannot be encoded or printed."""
    joined = " ".join(text.encode("utf-8", errors="replace").decode("utf-8").split())
    return "".join(char for char in joined if char.isprintable())
