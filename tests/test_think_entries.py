"""What observe and think make of a day is found by the tools of agents: screens, summaries, enrichments, topics."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from muse import testing
from muse.errors import ToolError
from tests.journal_folder import JournalFolder
from tests.reading import DAY, QUOTE, add_topic, config, copy_day, found, one
from think import tools
from think.entries.entries import files_of_day, kind_of, read_entries
from think.insight import main
from think.search import index

SEGMENT = f"{DAY}/140000_2040"


@pytest.fixture(name="day")
def _day(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(index, "LOOK_AGAIN_S", 0.0)
    journal.write(config())
    add_topic(journal)
    return copy_day(journal)


def _write(day: Path, name: str, text: str) -> None:
    (day / "140000_2040" / name).write_text(text, encoding="utf-8")


def _found(words: str, **options: str) -> list[tuple[str, str, str]]:
    hits = tools.search_journal(words, **options)["results"]  # type: ignore[arg-type]
    return [(hit["entry"], hit["kind"], hit["time"]) for hit in hits]


def test_what_was_on_the_screen_is_found(day: Path) -> None:
    frames = [
        {"file": "a.png", "at_s": 60, "category": "code", "description": "An editor.", "extracted": "valve_limit_s"},
        {"file": "b.png", "at_s": 180.5, "category": "calendar", "extracted": {"event": "Quokka review"}},
        {"file": "c.png", "at_s": None, "error": "no picture"},
    ]
    _write(day, "screen.jsonl", "\n".join([*map(json.dumps, frames), "[7]", "{torn"]))
    assert _found("valve_limit_s") == [(f"{SEGMENT}/screen.jsonl", "screen", "14:01")]
    assert _found("quokka", kind="screen") == [(f"{SEGMENT}/screen.jsonl", "screen", "14:03")]
    assert "An editor." in tools.read_entry(f"{SEGMENT}/screen.jsonl")["text"]


def test_summaries_and_enrichments_are_found(day: Path) -> None:
    _write(day, "summary.md", "---\ntitle: Release meeting\n---\n# Release meeting\n\nAn axolotl was named.\n")
    _write(
        day, "enrichment.json", json.dumps({"topics": ["narwhals", "tides"], "setting": "meeting", "emotion": "calm"})
    )
    assert _found("axolotl") == [(f"{SEGMENT}/summary.md", "summary", "14:00")]
    assert _found("narwhals") == [(f"{SEGMENT}/enrichment.json", "enrichment", "14:00")]
    counted = next(row for row in tools.list_days()["days"] if row["day"] == DAY)["entries"]
    assert (counted["summary"], counted["enrichment"]) == (1, 1)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"topics": 7}', '{"topics": [null, {}]}'])
def test_a_half_written_enrichment_harms_nothing(day: Path, content: str) -> None:
    _write(day, "enrichment.json", content)
    assert _found("CW-318")


def test_a_topics_page_is_found_among_the_insights(day: Path) -> None:
    with testing.script(found(one("The pangolin waits"))):
        assert main([DAY, "--topic", "tides"]) == 0
    (hit,) = tools.search_insights("pangolin")["results"]
    assert (hit["entry"], hit["title"]) == (
        f"{DAY}/insights/tides.md",
        "Tides of Tuesday 3 November 2026: The pangolin waits",
    )
    assert QUOTE in tools.read_entry(hit["entry"])["text"]


@pytest.mark.parametrize(
    "path", [f"{DAY}/140000_2040/screen.json", f"{DAY}/250000_1/screen.jsonl", f"{DAY}/x/summary.md", "summary.md"]
)
def test_other_files_are_no_entries(day: Path, path: str) -> None:
    assert kind_of(path) is None
    with pytest.raises(ToolError):
        tools.read_entry(path)
    with pytest.raises(ValueError, match="expected the path"):
        read_entries(day.parent, path)


def test_a_days_files_are_those_that_are_there(day: Path) -> None:
    _write(day, "screen.jsonl", "")
    names = [path for path, _ in files_of_day(day.parent, DAY)]
    assert f"{SEGMENT}/screen.jsonl" in names
    assert f"{SEGMENT}/summary.md" not in names
