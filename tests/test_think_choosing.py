"""Topics on a model that reads little at a time: rules point sentences out, it chooses, nothing is made up."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from muse.journal import config_loader as journals
from muse.journal import paths
from muse.types.json_schema.validation import validate
from tests.embedded import needs_model
from tests.journal_folder import JournalFolder
from tests.reading import DAY, add_topic, config, copy_day, kept
from think.entries.entries import read_events
from think.entries.people import people_of
from think.entries.sources import read_sources
from think.insight import main
from think.insights.definition import find_topics
from think.insights.extractive import cue_pattern, pools_of

NAMES = ("decisions", "commitments", "questions", "people", "meetings")


@pytest.fixture(name="day")
def _day(journal: JournalFolder) -> Path:
    journal.write(config(default={"provider": "local"}))
    return copy_day(journal)


def _pools(name: str) -> list[list[str]]:
    topic = find_topics().named(name)
    assert topic.choose is not None
    parts = read_sources(DAY, topic.sources)
    pools = pools_of(topic, topic.choose, parts, read_events(paths.journal_path(), DAY))
    return [list(pool.choices) for pool in pools]


def test_cues_are_whole_words_and_signs() -> None:
    cue = cue_pattern(["I'll", "agree", "?"])
    assert [bool(cue.search(text)) for text in ("I’ll go", "why?", "agreed", "We AGREE.", "nothing")] == [
        True,
        True,
        False,
        True,
        False,
    ]
    assert cue_pattern([]).search("anything")


def test_each_pool_has_few_sentences_that_have_a_cue(day: Path) -> None:
    assert all(text.endswith("?") for pool in _pools("questions") for text in pool)
    assert any("We decided: firmware 4.2 does not ship on Thursday the fifth." in pool for pool in _pools("decisions"))
    for name in NAMES:
        assert _pools(name)
        assert all(1 <= len(pool) <= 5 for pool in _pools(name))


def test_people_have_their_fullest_names_and_the_owner_is_none_of_them(day: Path) -> None:
    identity = journals.load().config.identity
    found = people_of(read_sources(DAY, ("transcripts",)), read_events(paths.journal_path(), DAY), identity)
    assert {"Ravi Shenoy", "Ottilie Brandt"} <= {person.name for person in found}
    assert not any(person.name.startswith("Maren") for person in found)
    assert len({person.name for person in found}) == len(found)


def _check(day: Path, name: str) -> None:
    """See that all that is kept of a topic fits its schema and stands in its sources."""
    topic = find_topics().named(name)
    state = kept(day, name)
    assert state["occurrences"]
    for one in state["occurrences"]:
        validate(one["fields"], topic.schema)
        text = (day / one["source"]).read_text()
        lines = [json.loads(line)["text"] for line in text.splitlines()] if one["source"].endswith("l") else [text]
        assert any(one["quote"] in " ".join(line.replace("**", "").split()) for line in lines)


@needs_model
def test_the_embedded_model_serves_every_topic_and_the_week_without_a_key(
    day: Path, journal: JournalFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    for segment in ("090500_720", "101500_2100", "123000_720", "153000_900", "170000_600", "notes"):
        shutil.rmtree(day / segment)
    assert main([DAY, "--all"]) == 0
    for name in NAMES:
        _check(day, name)
    assert {line["provider"] for line in journal.lines()} == {"local"}
    week: dict[str, Any] = kept(journal.path / "20261108", "week")
    assert {one["source"].split("/")[1] for one in week["occurrences"]} == {DAY}
    capsys.readouterr()
    before = journal.log_bytes()
    assert main([DAY, "--all"]) == 0
    assert journal.log_bytes() == before
    assert capsys.readouterr().out.count("Nothing has changed") == len(NAMES) + 2


@needs_model
def test_a_topic_of_ones_own_with_cues_works_on_the_embedded_model(day: Path, journal: JournalFolder) -> None:
    add_topic(
        journal,
        "---\ntitle: Money\nschedule: daily\nsources: [transcripts]\n"
        "schema: {type: object, properties: {what: {type: string}, who: {type: string}}, required: [what]}\n"
        "choose:\n  question: Quote the sentence that names a price.\n  cues: [pounds, euros]\n"
        "  fields: {what: title, who: speaker}\n---\nFind the sums of money of $day.\n",
        name="money",
    )
    assert main([DAY, "--topic", "money"]) == 0
    _check(day, "money")
    assert "pounds" in kept(day, "money")["occurrences"][0]["quote"]
