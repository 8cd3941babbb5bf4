"""What an entry of the journal is (transcript, note, insight, event, ...), as text and passages; it knows no query."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

from msgspec import Struct

from muse.journal import paths as journal_paths
from muse.journal.days import every_day, is_segment, segment_times
from muse.journal.storage.path_containment import is_inside, warn_escaping_link
from observe.transcripts.parser import TRANSCRIPTS, decode, parse_transcript
from think.entries.passages import Line, Passage, compose, gather, passages_of, pieces, plain, title_of
from think.entries.transcripts import NOTE

log = logging.getLogger(__name__)

Kind = Literal["transcript", "note", "insight", "event", "screen", "summary", "enrichment"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MOST_BYTES = 8_000_000
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

_PATH = re.compile(
    r"(\d{8})/(?:(\d{6}_\d{1,6})/(transcript\.(?:jsonl|json|vtt|srt|txt)|screen\.jsonl|summary\.md|enrichment\.json)"
    r"|(notes|insights)/([^/\\\x00]+)\.md|events\.jsonl)"
)
_FOLDERS: dict[str, Kind] = {"notes": "note", "insights": "insight"}
_MADE: dict[str, Kind] = {"screen.jsonl": "screen", "summary.md": "summary", "enrichment.json": "enrichment"}


class Entry(Struct, frozen=True):
    """Something the journal holds; `name` is its path relative to the journal, for an event with `#` and its line.

    `time` is the local start as `HH:MM` ("" where it is not known); offsets into `text` count characters.
    """

    name: str
    day: str
    time: str
    kind: Kind
    title: str
    text: str
    passages: tuple[Passage, ...]


class Event(Struct, frozen=True):
    """A line of a day's events.jsonl; `number` is that line's, from 1."""

    number: int
    start: str
    end: str
    title: str
    participants: tuple[str, ...] = ()
    location: str = ""
    notes: str = ""


class Stamp(Struct, frozen=True, array_like=True):
    """What tells whether a file changed."""

    mtime_ns: int
    size: int


def find_files(root: Path) -> Iterator[tuple[str, Stamp]]:
    """Each file of the journal that holds entries, as its path relative to `root` (with `/`), and its stamp."""
    for day in every_day(root):
        yield from files_of_day(root, day)


def files_of_day(root: Path, day: str) -> Iterator[tuple[str, Stamp]]:
    """The files of one day that hold entries: one stat each, as those of a segment have fixed names."""
    for name in _names(root, day):
        within = f"{day}/{name}"
        if is_segment(name):
            if is_inside(f"{root}/{within}", root):
                yield from islice(_stamped(root, (f"{within}/{file}" for file in TRANSCRIPTS)), 1)
                yield from _stamped(root, (f"{within}/{file}" for file in _MADE))
            else:
                warn_escaping_link(f"{root}/{within}")
        elif name in _FOLDERS:
            files = _names(root, within)
            yield from _stamped(root, (f"{within}/{file}" for file in files if file.endswith(".md")))
        elif name == "events.jsonl":
            yield from _stamped(root, (within,))


def _stamped(root: Path, paths: Iterable[str]) -> Iterator[tuple[str, Stamp]]:
    """Those of the paths that are there, with their stamps."""
    for path in paths:
        stamp = _stamp_of(f"{root}/{path}", str(root))
        if stamp is not None:
            yield path, stamp


def _stamp_of(path: str, root: str) -> Stamp | None:
    """The stamp of a file; None if there is none that can be looked at, or it is a link that leads out of the journal.

    The folder it stands in has been looked at already.
    """
    try:
        info = os.lstat(path)
        if stat.S_ISLNK(info.st_mode):
            info = os.stat(path)
            if not is_inside(path, root):
                warn_escaping_link(path)
                return None
    except OSError:
        return None
    return Stamp(info.st_mtime_ns, info.st_size)


def _names(root: Path, within: str) -> list[str]:
    """The names in a folder of the journal that are text, in order.

    One that cannot be listed, or is a link that leads out of the journal, is said to be empty.
    """
    folder = f"{root}/{within}"
    if not is_inside(folder, root):
        warn_escaping_link(folder)
        return []
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as exc:
        log.warning("%s cannot be listed (%s); what is in it is not found", folder, exc.strerror)
        return []
    return sorted(name for name in names if name.isprintable())


def kind_of(path: str) -> Kind | None:
    """The kind of the entries in a file, by its path relative to the journal; None if it holds none.

    >>> kind_of("20261103/notes/1715_evening.md"), kind_of("20261103/todos.md"), kind_of("../20261103/events.jsonl")
    ('note', None, None)
    """
    found = _PATH.fullmatch(path)
    if found is None or not journal_paths.is_day(found[1]) or (found[2] and not is_segment(found[2])):
        return None
    if found[2]:
        return _MADE.get(found[3], "transcript")
    return _FOLDERS[found[4]] if found[4] else "event"


def read_entries(root: Path, path: str) -> tuple[Entry, ...]:
    """The entries in a file of the journal: one, or of events.jsonl one for each event.

    Lines that cannot be read are left out, and a warning counts them.

    Raises:
        OSError: the file cannot be read.
        ValueError: no file at this path holds entries.
    """
    kind = kind_of(path)
    if kind is None:
        raise ValueError(f"{path!r}: expected the path of a transcript, note, insight, events.jsonl and the like")
    content = _read(root, path)
    match kind:
        case "event":
            return tuple(_event_entry(path, event) for event in _events(path, content))
        case "transcript":
            return (_transcript(path, content),)
        case "screen":
            return (_screen(path, content),)
        case "enrichment":
            return _enrichment(path, content)
        case "note" | "insight" | "summary":
            return (_markdown(path, kind, content),)


def read_events(root: Path, day: str) -> tuple[Event, ...]:
    """The events of a day in order of time; none if the day has no events.jsonl."""
    path = f"{day}/events.jsonl"
    try:
        content = _read(root, path)
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return tuple(sorted(_events(path, content), key=lambda event: (event.start, event.number)))


def _read(root: Path, within: str) -> bytes:
    """The first bytes of a file of the journal.

    Raises:
        FileNotFoundError: there is none, or it leads out of the journal.
        OSError: it cannot be read.
    """
    path = root / within
    if not is_inside(path, root):
        warn_escaping_link(path)
        raise FileNotFoundError(errno.ENOENT, "leads out of the journal", str(path))
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        log.warning("%s: only the first %d of more bytes are read", path, MOST_BYTES)
    return content[:MOST_BYTES]


def _objects(path: str, content: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """`(line number, object)` of each line of a .jsonl file that is a JSON object."""
    bad = 0
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if isinstance(entry, dict):
            yield number, entry
        else:
            bad += 1
    if bad:
        log.warning("%s: %d lines are no JSON objects and are left out", path, bad)


def _transcript(path: str, content: bytes) -> Entry:
    start, length_s = _times_of(path)
    lines: list[Line] = []
    text: list[str] = []
    offset = 0
    for said_s, name, said in _said(path, content):
        words = plain(said)
        if words:
            time, speaker = _clock(start, said_s), plain(name)
            spoken = f"{speaker}: {words}" if speaker else words
            lines += (Line(offset, time, speaker, piece) for _, piece in pieces(spoken))
            text.append(f"{time or '--:--'} {spoken}\n")
            offset += len(text[-1])
    end = _clock(start, length_s)
    title = f"Conversation, {start:%H:%M} to {end}" if length_s else f"Conversation at {start:%H:%M}"
    return Entry(path, path[:8], f"{start:%H:%M}", "transcript", title, "".join(text), tuple(gather("", lines)))


def _screen(path: str, content: bytes) -> Entry:
    """What was seen in a segment: of each frame what it shows, then what was read off it."""
    rows: list[tuple[str, str]] = []
    start = _start_of(path)
    for _, frame in _objects(path, content):
        time = _clock(start, frame.get("at_s")) or f"{start:%H:%M}"
        shown = " ".join(filter(None, (plain(frame.get("category")), plain(frame.get("description")))))
        read = frame.get("extracted")
        text = read if isinstance(read, str) else json.dumps(read, ensure_ascii=False) if read else ""
        rows += ((time, words) for words in (shown, *map(plain, text.splitlines())) if words)
    return _listed(path, "screen", f"Screen at {start:%H:%M}", rows)


def _enrichment(path: str, content: bytes) -> tuple[Entry, ...]:
    """What a transcript was about; nothing, with a warning, of a file that is no object."""
    start = _start_of(path)
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        log.warning("%s: no JSON object; it is not found", path)
        return ()
    topics = data.get("topics")
    about = ", ".join(filter(None, map(plain, topics))) if isinstance(topics, list) else ""
    mood = ", ".join(filter(None, (plain(data.get("setting")), plain(data.get("emotion")))))
    rows = [(f"{start:%H:%M}", words) for words in (f"Topics: {about}" if about else "", mood) if words]
    return (_listed(path, "enrichment", f"About the conversation at {start:%H:%M}", rows),)


def _start_of(path: str) -> datetime:
    """When the segment of a file began; only the clock counts."""
    return _times_of(path)[0]


def _times_of(path: str) -> tuple[datetime, int]:
    """When the segment of a file began (only the clock counts), and its length in seconds."""
    start, length_s = segment_times(path.split("/")[1]) or (timedelta(), 0)
    return datetime.min + start, length_s


def _said(path: str, content: bytes) -> Iterator[tuple[object, object, object]]:
    """Start, speaker and words of each utterance of a transcript, in whatever form it is."""
    if path.endswith(".jsonl"):
        yield from ((line.get("start_s"), line.get("speaker"), line.get("text")) for _, line in _objects(path, content))
        return
    found = parse_transcript(decode(content))
    yield from ((one.start_s, one.speaker, one.text) for one in found.utterances)


def _listed(path: str, kind: Kind, title: str, rows: list[tuple[str, str]]) -> Entry:
    """An entry of `(time, words)` rows, one line each."""
    lines: list[Line] = []
    text = ""
    for time, words in rows:
        lines += (Line(len(text) + at, time, "", piece) for at, piece in pieces(words))
        text += f"{words}\n"
    return Entry(path, path[:8], f"{_start_of(path):%H:%M}", kind, title, text, tuple(gather("", lines)))


def _clock(start: datetime, offset_s: object) -> str:
    """The local time `offset_s` seconds later; "" if that is no sensible number."""
    if isinstance(offset_s, bool) or not isinstance(offset_s, int | float) or not 0 <= offset_s < 1e6:
        return ""
    return f"{start + timedelta(seconds=offset_s):%H:%M}"


def _markdown(path: str, kind: Kind, content: bytes) -> Entry:
    day, folder, file = path.split("/")
    text = compose(content.decode("utf-8", errors="replace"))
    stem = file.removesuffix(".md")
    named = NOTE.fullmatch(stem) if kind == "note" else None
    time = f"{named[1]}:{named[2]}" if named else f"{_start_of(path):%H:%M}" if is_segment(folder) else ""
    title = title_of(text) or plain((named[3] if named else stem).replace("_", " "))
    return Entry(path, day, time, kind, title, text, passages_of(text, title, time))


def _events(path: str, content: bytes) -> Iterator[Event]:
    for number, row in _objects(path, content):
        start, end, title = (plain(row.get(name)) for name in ("start", "end", "title"))
        people = row.get("participants")
        names = tuple(filter(None, map(plain, people))) if isinstance(people, list) else ()
        yield Event(number, start, end, title, names, plain(row.get("location")), plain(row.get("notes")))


def _event_entry(path: str, event: Event) -> Entry:
    until = event.end[11:16] if event.end[:10] == event.start[:10] else event.end.replace("T", " ")[:16]
    when = event.start.replace("T", " ")[:16] + (f" to {until}" if until else "")
    where = ", ".join(part for part in (when, event.location) if part)
    who = f"With {', '.join(event.participants)}" if event.participants else ""
    time = event.start[11:16]
    lines: list[Line] = []
    offset = 0
    for words in (event.title, where, who, event.notes):
        if words:
            lines += (Line(offset + at, time, "", piece) for at, piece in pieces(words))
            offset += len(words) + 1
    text = "".join(f"{words}\n" for words in (event.title, where, who, event.notes) if words)
    name, day = f"{path}#{event.number}", path[:8]
    return Entry(name, day, time, "event", event.title or "Event", text, tuple(gather("", lines)))
