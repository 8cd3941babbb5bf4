"""Topics: a file is one, a bad file says where and what, and the ones that come with muse can be asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from muse.errors import ConfigError
from tests.journal_folder import ROOT, JournalFolder
from tests.reading import TOPIC, add_topic, config
from think.entries import front_matter
from think.insights.definition import find_topics, is_due, read_topic
from think.insights.validation import reply_schema


@pytest.fixture(name="house")
def _house(journal: JournalFolder) -> JournalFolder:
    journal.write(config())
    return journal


def test_a_new_file_is_a_new_topic(house: JournalFolder) -> None:
    before = {topic.name for topic in find_topics().found}
    add_topic(house)
    assert {topic.name for topic in find_topics().found} - before == {"tides"}
    tides = find_topics().named("tides")
    assert (tides.title, tides.context, tides.sources) == ("Tides", "insight.tides", ("transcripts", "notes"))


def test_a_later_folder_wins_a_name(house: JournalFolder) -> None:
    add_topic(house, name="decisions")
    assert find_topics().named("decisions").title == "Tides"


def test_a_broken_file_keeps_its_name_from_the_topic_that_it_was_to_replace(house: JournalFolder) -> None:
    add_topic(house, "broken", name="decisions")
    assert "decisions" not in {topic.name for topic in find_topics().found}
    with pytest.raises(ConfigError, match="no front matter"):
        find_topics().named("decisions")


def test_the_topics_that_come_with_muse_can_all_be_used(house: JournalFolder) -> None:
    known = find_topics()
    assert known.problems == ()
    assert {"decisions", "people", "commitments", "questions", "meetings", "week"} <= {one.name for one in known.found}
    assert [one.name for one in known.found if one.is_weekly] == ["week"]
    assert all(one.choose is not None for one in known.found)


def test_a_schema_may_stand_in_a_file_beside(house: JournalFolder) -> None:
    path = add_topic(house, TOPIC.replace(TOPIC[TOPIC.index("schema:") : TOPIC.index("---\nWhat")], "schema: t.json\n"))
    schema = {"type": "object", "properties": {"height_m": {"type": "number"}}}
    path.with_name("t.json").write_text(json.dumps(schema))
    assert read_topic(path).schema == schema


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("title: Tides\n", "", "title: found nothing"),
        ("title: Tides", "title: 7", "title: found 7"),
        ("schedule: daily", "schedule: hourly", "schedule: found 'hourly'"),
        ("sources: [transcripts, notes]", "sources: [transcripts, mails]", "sources: found 'mails'"),
        ("sources: [transcripts, notes]", "sources: []", "sources"),
        ("context: insight.tides", "context: tides", "context: found 'tides'"),
        ("context: insight.tides", "contexts: insight.tides", "contexts: found an unknown key"),
        ("  type: object\n", "  type: array\n", "schema: found none of an object"),
        ("what: {type: string}", "what: {type: text}", "schema: found none that can be used"),
        ("what: {type: string}", "quote: {type: string}", "a property 'quote'"),
        ("what: {type: string}", "what: {$ref: '#/$defs/none'}", "defs/none', which is not in it"),
        ("when: {type: string}", "when: {$ref: '#/properties/what'}", "has to stand in"),
        ("what: {type: string}", "what: {$ref: '#'}", "what is referred to has to stand in"),
        ("what: {type: string}", "what: {type: number, minimum: .nan}", "none that can be used"),
        ("required: [what]", "required: [waht]", "required names 'waht'"),
        ("title: Tides\n", "title: Tides\ntitle: Waves\n", r"title stands there twice"),
        ("title: Tides\n", "title: Tides\n7: seven\n", "7 as the name of a field"),
        ("$preferred", "$favourite", r"tides.md: found the field \$favourite"),
        ("title: Tides", "title: [Tides", "found no YAML"),
        ("title: Tides\n", "title: Tides\norder: &a [1]\nchoose: *a\n", "references"),
        ("What $preferred heard about the tide on $day.\n", "", "no text below the front matter"),
        ("title: Tides\n", "title: Tides\nchoose: {question: Q, fields: {where: title}}\n", "choose.fields.where"),
        ("title: Tides\n", "title: Tides\nchoose: {question: Q, fields: {what: guess}}\n", "found 'guess'"),
        ("title: Tides\n", "title: Tides\nchoose: {question: Q, by: week, fields: {what: title}}\n", "choose.by"),
        ("title: Tides\n", "title: Tides\nchoose: {fields: {what: title}}\n", "choose.question"),
    ],
)
def test_a_bad_file_says_where_and_what_and_the_others_stay(
    house: JournalFolder, old: str, new: str, said: str
) -> None:
    assert old in TOPIC
    path = add_topic(house, TOPIC.replace(old, new))
    with pytest.raises(ConfigError, match=said) as caught:
        read_topic(path)
    assert "tides.md" in str(caught.value)
    known = find_topics()
    assert [str(problem) for problem in known.problems] == [str(caught.value)]
    assert known.named("decisions").title == "Decisions"
    with pytest.raises(ConfigError, match=said):
        known.named("tides")


@pytest.mark.parametrize("content", [b"", b"no front matter", b"---\ntitle: x\n", b"---\n- a\n---\nx", b"\xff\xfe---"])
def test_a_file_without_front_matter_is_none(house: JournalFolder, content: bytes) -> None:
    path = add_topic(house)
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"tides\.md"):
        read_topic(path)


@pytest.mark.parametrize("name", ["daily", "Tides", "7tides", "a b", "tides_before_1", "t" * 61])
def test_a_name_that_is_taken_or_odd_is_refused(house: JournalFolder, name: str) -> None:
    with pytest.raises(ConfigError, match="the name"):
        read_topic(add_topic(house, name=name))


def test_a_topic_is_due_by_its_schedule(house: JournalFolder) -> None:
    daily = read_topic(add_topic(house))
    weekly = read_topic(add_topic(house, TOPIC.replace("daily", "weekly")))
    mondays = read_topic(add_topic(house, TOPIC.replace("schedule: daily", "schedule: '0 7 * * 1'")))
    assert [is_due(daily, "20261103", is_end_of_week=end) for end in (True, False)] == [True, True]
    assert [is_due(weekly, "20261103", is_end_of_week=end) for end in (True, False)] == [True, False]
    assert [is_due(mondays, day, is_end_of_week=False) for day in ("20261102", "20261103")] == [True, False]


def test_front_matter_is_apart_from_the_body() -> None:
    assert front_matter.split("---\na: 1\nb: [x, y]\n---\nBody\n---\nmore", where="t") == (
        {"a": 1, "b": ["x", "y"]},
        "Body\n---\nmore",
    )
    assert front_matter.body_of("no front") == "no front"


def test_what_is_asked_for_has_the_quotation_and_one_of_the_sources() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/a"}},
        "required": ["a"],
        "$defs": {"a": {"type": "string"}},
    }
    asked = reply_schema(schema, ["x", "y", "x"])
    item = asked["properties"]["occurrences"]["items"]
    assert item["required"] == ["a", "quote", "source"]
    assert item["properties"]["source"]["enum"] == ["x", "y"]
    assert asked["$defs"] == {"a": {"type": "string"}}
    assert "$defs" not in item


def test_an_unreadable_file_is_said(house: JournalFolder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unreadable"):
        read_topic(tmp_path / "none.md")


def test_the_topic_of_the_documentation_is_one(house: JournalFolder) -> None:
    page = (ROOT / "docs" / "INSIGHTS.md").read_text(encoding="utf-8")
    example = page.partition("```markdown\n")[2].partition("```")[0]
    topic = read_topic(add_topic(house, example, name="money"))
    assert topic.context == "insight.money"
    assert topic.choose is not None


@pytest.mark.parametrize("name", ["../other.json", "none.json", "/etc/hostname", ""])
def test_a_schema_that_is_not_beside_is_refused(house: JournalFolder, name: str) -> None:
    (house.path / "other.json").write_text('{"type": "object", "properties": {"a": {}}}')
    text = TOPIC.replace(TOPIC[TOPIC.index("schema:") : TOPIC.index("---\nWhat")], f"schema: '{name}'\n")
    with pytest.raises(ConfigError, match="schema"):
        read_topic(add_topic(house, text))
