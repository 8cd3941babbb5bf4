"""The journal's own tools for a model: search, days, entries and events; it knows no MCP and no model."""

from __future__ import annotations

import re
from datetime import date
from difflib import get_close_matches
from typing import Annotated, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # pydantic takes the standard one from Python 3.12 on

from muse.agent_loop.tool_registry import LocalTool
from muse.errors import ToolError
from muse.journal import paths
from muse.journal.days import every_day
from think.entries.entries import WEEKDAYS, Entry, Kind, files_of_day, kind_of, read_entries, read_events
from think.search.index import open_index
from think.search.query import Hit, Query, QueryError, search

PACK = "journal"
MOST_RESULTS = 50
MOST_CHARS = 20_000

_DASHED = re.compile(r"(\d{4})-(\d\d)-(\d\d)")
_SHOWN_DAYS = 8
_SHOWN_ENTRIES = 12
_COUNTS = "SELECT day, kind, count(*) FROM entries GROUP BY day, kind ORDER BY day DESC"

DayFrom = Annotated[str | None, Field(description="First day, YYYYMMDD such as 20261103; null for no limit.")]
DayTo = Annotated[str | None, Field(description="Last day, included, YYYYMMDD; null for no limit.")]
Words = Annotated[str, Field(description='A few telling words; those in "double quotes" must stand together.')]
Limit = Annotated[int, Field(ge=1, le=MOST_RESULTS, description=f"How many to return, 1 to {MOST_RESULTS}.")]
Offset = Annotated[int, Field(ge=0, description="Where to go on: next_offset of the page before.")]


class SearchResult(TypedDict):
    """A passage that was found; read on with read_entry(entry, offset)."""

    day: str
    time: str
    kind: Kind
    title: str
    speaker: NotRequired[str]
    snippet: str
    entry: str
    offset: int


class SearchResults(TypedDict):
    """A page of what was found, best first."""

    total: int
    results: list[SearchResult]
    next_offset: int | None


class Day(TypedDict):
    """A day and how many entries of each kind it has."""

    day: str
    weekday: str
    entries: dict[str, int]


class Days(TypedDict):
    """A page of days, the latest first."""

    total: int
    days: list[Day]
    next_offset: int | None


class EntryText(TypedDict):
    """A piece of an entry's text; next_offset is null at its end."""

    entry: str
    title: str
    text: str
    next_offset: int | None


class CalendarEvent(TypedDict):
    """An appointment; start and end are local, YYYY-MM-DDTHH:MM:SS."""

    day: str
    start: str
    end: str
    title: str
    participants: list[str]
    location: str
    notes: str
    entry: str


class Events(TypedDict):
    """A page of appointments in order of time."""

    total: int
    events: list[CalendarEvent]
    next_offset: int | None


def search_journal(
    query: Words,
    day_from: DayFrom = None,
    day_to: DayTo = None,
    kind: Annotated[Kind | None, Field(description="Only entries of this kind; null for all.")] = None,
    limit: Limit = 5,
    offset: Offset = 0,
) -> SearchResults:
    """Search everything that was said, noted, concluded or scheduled: transcripts, notes, insights and events.

    Passages with all the words come first, then those with any of them. Words match in all their forms. Names of days
    count as words: "Tuesday", "3 November". The words that were found stand between ** in the snippet; a snippet is not
    the whole passage, so read the entry before relying on it.
    """
    first, last = _span(day_from, day_to)
    _check_page(limit, offset)
    try:
        found = search(Query(query, first, last, kind, limit, offset))
    except QueryError as exc:
        raise ToolError(str(exc)) from exc
    results = [_result(hit) for hit in found.hits]
    return {"total": found.total, "results": results, "next_offset": _next(offset, len(results), found.total)}


def search_insights(query: Words, limit: Limit = 5, offset: Offset = 0) -> SearchResults:
    """Search the insights only: summaries, decisions and people that were worked out of a day, with their sources.

    A good first look for what was decided or what a day was about; search_journal finds the original words.
    """
    return search_journal(query, kind="insight", limit=limit, offset=offset)


def list_days(limit: Limit = 10, offset: Offset = 0) -> Days:
    """List the days of the journal, the latest first, with their weekday and the number of entries of each kind."""
    _check_page(limit, offset)
    days: dict[str, dict[str, int]] = {}
    for day, kind, count in open_index(paths.journal_path()).rows(_COUNTS, {}):
        days.setdefault(f"{day:08d}", {})[kind] = count
    page = list(days.items())[offset : offset + limit]
    rows: list[Day] = [{"day": day, "weekday": _weekday(day), "entries": entries} for day, entries in page]
    return {"total": len(days), "days": rows, "next_offset": _next(offset, len(rows), len(days))}


def read_entry(
    entry: Annotated[str, Field(description="An entry as search_journal names it: 20261103/notes/1715_evening.md")],
    offset: Annotated[int, Field(ge=0, description="First character to read: offset of a search result.")] = 0,
    limit: Annotated[int, Field(ge=1, le=MOST_CHARS, description="How many characters to return at most.")] = 4000,
) -> EntryText:
    """Read an entry: a transcript with times and speakers, a note, an insight or an event.

    Long entries come in pieces: call again with offset set to next_offset until it is null.
    """
    found = _find(entry)
    if not 0 <= offset <= len(found.text):
        raise ToolError(f"offset: found {offset}, expected 0 to {len(found.text)}, the length of {found.name}")
    if not 1 <= limit <= MOST_CHARS:
        raise ToolError(f"limit: found {limit}, expected 1 to {MOST_CHARS} characters")
    end = _cut(found.text, offset, offset + limit)
    more = end if end < len(found.text) else None
    return {"entry": found.name, "title": found.title, "text": found.text[offset:end], "next_offset": more}


def get_events(
    day_from: Annotated[str, Field(description="First day, YYYYMMDD such as 20261103.")],
    day_to: Annotated[str | None, Field(description="Last day, included; null for day_from alone.")] = None,
    limit: Limit = 50,
    offset: Offset = 0,
) -> Events:
    """List the meetings and other appointments of a day, or from day to day, in order of time, with who took part."""
    first, last = _span(day_from, day_to or day_from)
    _check_page(limit, offset)
    root = paths.journal_path()
    events: list[CalendarEvent] = [
        {
            "day": day,
            "start": event.start,
            "end": event.end,
            "title": event.title,
            "participants": list(event.participants),
            "location": event.location,
            "notes": event.notes,
            "entry": f"{day}/events.jsonl#{event.number}",
        }
        for day in every_day(root)
        if (first or "") <= day <= (last or "")
        for event in read_events(root, day)
    ]
    page = events[offset : offset + limit]
    return {"total": len(events), "events": page, "next_offset": _next(offset, len(page), len(events))}


TOOLS = (
    LocalTool(search_journal, "Search the journal", read_only=True),
    LocalTool(list_days, "List the days", read_only=True),
    LocalTool(read_entry, "Read an entry", read_only=True),
    LocalTool(get_events, "List appointments", read_only=True),
    LocalTool(search_insights, "Search the insights", read_only=True),
)


def _result(hit: Hit) -> SearchResult:
    result: SearchResult = {
        "day": hit.day,
        "time": hit.time,
        "kind": hit.kind,
        "title": hit.title,
        "snippet": hit.snippet,
        "entry": hit.entry,
        "offset": hit.offset,
    }
    if hit.speaker:
        result["speaker"] = hit.speaker
    return result


def _next(offset: int, shown: int, total: int) -> int | None:
    """Where the next page begins; None if this is the last one."""
    return offset + shown if shown and offset + shown < total else None


def _check_page(limit: int, offset: int) -> None:
    if not 1 <= limit <= MOST_RESULTS:
        raise ToolError(f"limit: found {limit}, expected 1 to {MOST_RESULTS}; offset leads to the further ones")
    if offset < 0:
        raise ToolError(f"offset: found {offset}, expected 0 or the next_offset of the page before")


def _span(day_from: str | None, day_to: str | None) -> tuple[str | None, str | None]:
    """Both days in the form YYYYMMDD."""
    first, last = _day("day_from", day_from), _day("day_to", day_to)
    if first and last and first > last:
        raise ToolError(f"day_from: found {first}, which is after day_to, {last}; expected the earlier day first")
    return first, last


def _day(name: str, value: str | None) -> str | None:
    """A day in the form YYYYMMDD; one written 2026-11-03 is taken too."""
    if value is None:
        return None
    day = _DASHED.sub(r"\1\2\3", value.strip())
    if paths.is_day(day):
        return day
    days = every_day()
    there = (
        f"the latest days of the journal are {', '.join(days[: -_SHOWN_DAYS - 1 : -1])}" if days else "it has no days"
    )
    raise ToolError(
        f"{name}: found {value[:40]!r}, expected a day as YYYYMMDD, such as 20261103; {there} (see list_days)"
    )


def _weekday(day: str) -> str:
    return WEEKDAYS[date(int(day[:4]), int(day[4:6]), int(day[6:])).weekday()]


def _find(name: str) -> Entry:
    """The entry of that name, read from its file."""
    path, _, number = name.strip().removeprefix("./").partition("#")
    if kind_of(path) is not None:
        wanted = f"{path}#{number}" if number else path
        for entry in _entries(path):
            if entry.name == wanted:
                return entry
    raise ToolError(_unknown_entry(name.strip()))


def _entries(path: str) -> tuple[Entry, ...]:
    """The entries of a file; none if there is no such file."""
    try:
        return read_entries(paths.journal_path(), path)
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as exc:
        raise ToolError(f"entry: {path} cannot be read ({exc.strerror})") from exc


def _unknown_entry(name: str) -> str:
    """What to say of a name that no entry has: the entries of its day, the most similar first."""
    shown = f"entry: found {name[:80]!r}, which the journal does not have"
    root = paths.journal_path()
    day = name[:8]
    if day not in every_day(root):
        return f"{shown}; expected an entry as search_journal names it, such as 20261103/notes/1715_evening.md"
    names = [entry.name for path, _ in files_of_day(root, day) for entry in _entries(path)]
    near = get_close_matches(name, names, n=_SHOWN_ENTRIES, cutoff=0.5)
    ordered = [*near, *(other for other in names if other not in near)]
    more = f" and {len(ordered) - _SHOWN_ENTRIES} more" if len(ordered) > _SHOWN_ENTRIES else ""
    return f"{shown}; {day} has {', '.join(ordered[:_SHOWN_ENTRIES]) or 'no entries'}{more}"


def _cut(text: str, begin: int, end: int) -> int:
    """Where to end a piece: after a line or a word if one ends in its second half."""
    if end >= len(text):
        return len(text)
    middle = (begin + end) // 2
    for mark in ("\n", " "):
        found = text.rfind(mark, middle, end)
        if found >= 0:
            return found + 1
    return end
