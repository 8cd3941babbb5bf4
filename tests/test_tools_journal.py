"""Shows what the journal's tools give a model, page by page, and what they say when an argument is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from muse.errors import ToolError
from tests.journal_folder import ROOT, JournalFolder
from think import tools
from think.search.index import open_index
from think.tools import get_events, list_days, read_entry, search_insights, search_journal

MEETING = "20261103/140000_2040/transcript.jsonl"


@pytest.fixture(name="example")
def _example(journal: JournalFolder) -> Path:
    """`JOURNAL_PATH` names a copy of the example journal."""
    shutil.copytree(ROOT / "fixtures" / "journal", journal.path, dirs_exist_ok=True)
    return journal.path


def _pages(call: Callable[..., Any], key: str, **arguments: Any) -> list[Any]:
    """What all pages hold; each says where the next one begins."""
    rows: list[Any] = []
    offset: int | None = 0
    while offset is not None:
        page = call(**arguments, offset=offset)
        rows += page[key]
        offset = page["next_offset"]
        assert offset is None or offset == len(rows)
        assert page["total"] >= len(rows)
    assert page["total"] == len(rows)
    return rows


def test_a_search_result_says_where_to_read_on(example: Path) -> None:
    found = search_journal('"So decided"')["results"][0]
    assert found == {
        "day": "20261103",
        "time": "14:32",
        "kind": "transcript",
        "title": "Conversation, 14:00 to 14:34",
        "speaker": "Beatriz",
        "snippet": "**So decided**, at 14:32. Maren writes it up and tells the company, Femi writes to the pilots"
        " today, Ravi fixes, Jonas builds the door test. Thank you.",
        "entry": MEETING,
        "offset": 3630,
    }
    assert read_entry(found["entry"], found["offset"])["text"].startswith("14:32 Beatriz: So decided")


def test_pages_of_a_search_hold_every_result_once(example: Path) -> None:
    rows = _pages(search_journal, "results", query="release", limit=7)
    assert len({(row["entry"], row["offset"]) for row in rows}) == len(rows) > 7


def test_insights_are_searched_alone(example: Path) -> None:
    rows = _pages(search_insights, "results", query="decided")
    assert rows
    assert {row["kind"] for row in rows} == {"insight"}


def test_days_are_listed_the_latest_first_with_their_entries(example: Path) -> None:
    rows = _pages(list_days, "days", limit=2)
    assert [row["day"] for row in rows] == ["20261106", "20261105", "20261104", "20261103", "20261102"]
    assert rows[3] == {
        "day": "20261103",
        "weekday": "Tuesday",
        "entries": {"event": 4, "insight": 1, "note": 3, "transcript": 5},
    }


def test_a_long_entry_is_read_in_pieces_that_end_after_a_line(example: Path) -> None:
    pieces = []
    offset: int | None = 0
    while offset is not None:
        piece = read_entry(MEETING, offset, limit=700)
        pieces.append(piece["text"])
        offset = piece["next_offset"]
    assert "".join(pieces) == read_entry(MEETING, limit=20_000)["text"]
    assert all(piece.endswith("\n") and len(piece) <= 700 for piece in pieces)
    assert len(pieces) > 4


@pytest.mark.parametrize(
    ("entry", "begins"),
    [
        ("20261103/notes/1715_evening.md", "# Evening\n2026-11-03 17:15"),
        ("20261103/insights/decisions.md", "---\ntitle: Decisions"),
        (
            "20261103/events.jsonl#3",
            "Release meeting: firmware 4.2\n2026-11-03 14:00 to 14:34, Room Poolish and video\n",
        ),
        (f" ./{MEETING} ", "14:00 Beatriz: It's two o'clock"),
    ],
)
def test_every_kind_of_entry_is_read_as_text(example: Path, entry: str, begins: str) -> None:
    found = read_entry(entry)
    assert found["text"].startswith(begins)
    assert found["entry"] in entry
    assert found["title"]


def test_events_come_in_order_of_time_with_who_took_part(example: Path) -> None:
    events = _pages(get_events, "events", day_from="20261102", day_to="2026-11-04", limit=3)
    assert [event["start"] for event in events] == sorted(event["start"] for event in events)
    assert {event["day"] for event in events} == {"20261102", "20261103", "20261104"}
    release = next(event for event in events if event["title"].startswith("Release meeting"))
    assert "Gareth Quill" in release["participants"]
    assert "12 November" in read_entry(release["entry"])["text"]
    assert get_events("20261103")["total"] == 4


def test_an_entry_that_was_just_written_is_found(example: Path) -> None:
    assert search_journal("pomegranate")["total"] == 0
    (example / "20261106" / "notes" / "1800_fruit.md").write_text("A pomegranate.", encoding="utf-8")
    open_index(example).refresh()
    assert search_journal("pomegranate")["results"][0]["entry"] == "20261106/notes/1800_fruit.md"


def test_an_empty_journal_has_nothing_and_says_so(journal: JournalFolder) -> None:
    assert search_journal("apple") == {"total": 0, "results": [], "next_offset": None}
    assert list_days() == {"total": 0, "days": [], "next_offset": None}
    assert get_events("20261103") == {"total": 0, "events": [], "next_offset": None}
    with pytest.raises(ToolError, match="it has no days"):
        search_journal("apple", day_from="yesterday")


@pytest.mark.parametrize(
    ("call", "arguments", "said"),
    [
        (search_journal, {"query": "???"}, 'no word in .* such as "release decision"'),
        (search_journal, {"query": "a", "day_from": "Tuesday"}, "day_from: found 'Tuesday', .* YYYYMMDD, .* 20261106"),
        (search_journal, {"query": "a", "day_to": "20261131"}, "day_to: found '20261131'"),
        (search_journal, {"query": "a", "day_to": ""}, "day_to: found ''"),
        (search_journal, {"query": "a", "day_from": "20261104", "day_to": "20261103"}, "after day_to"),
        (search_journal, {"query": "a", "limit": 51}, "limit: found 51, expected 1 to 50"),
        (search_insights, {"query": "a", "offset": -1}, "offset: found -1, expected 0 or the next_offset"),
        (list_days, {"limit": 0}, "limit: found 0"),
        (get_events, {"day_from": "03.11.2026"}, "day_from: found '03.11.2026', expected a day as YYYYMMDD"),
        (read_entry, {"entry": MEETING, "offset": 99_999}, "offset: found 99999, expected 0 to 37"),
        (read_entry, {"entry": MEETING, "limit": 0}, "limit: found 0, expected 1 to 20000"),
        (read_entry, {"entry": "20261103/events.jsonl"}, "20261103 has .*20261103/events.jsonl#1"),
        (read_entry, {"entry": "20261103/events.jsonl#9"}, "20261103 has .*20261103/events.jsonl#4"),
        (read_entry, {"entry": "20261103/notes/release.md"}, "has 20261103/notes/1440_release_decision.md"),
        (read_entry, {"entry": "the release note"}, "expected an entry as search_journal names it"),
    ],
)
def test_a_wrong_argument_is_told_what_would_be_right(
    example: Path, call: Callable[..., Any], arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(ToolError, match=said):
        call(**arguments)


@pytest.mark.parametrize(
    "entry",
    [
        "../secret.md",
        "20261103/notes/../../../secret.md",
        "20261103/../secret.md",
        "/etc/passwd",
        "20261103/notes/..\\secret.md",
        "20261103/notes/a\x00.md",
        "config/journal.json",
        "20261103/notes/" + "x" * 5_000 + ".md",
        "",
    ],
)
def test_nothing_but_entries_can_be_read(example: Path, entry: str) -> None:
    (example.parent / "secret.md").write_text("secret", encoding="utf-8")
    with pytest.raises(ToolError, match=r"^entry: "):
        read_entry(entry)


def test_every_tool_says_what_it_is_and_only_reads() -> None:
    assert tools.PACK == "journal"
    assert all(tool.read_only and tool.title and tool.function.__doc__ for tool in tools.TOOLS)
