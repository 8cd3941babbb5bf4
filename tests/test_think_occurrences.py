"""Occurrences: a quotation stands in its source or is thrown away; long days are cut and put together again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reading import found
from think.entries.transcripts import Part, Utterance
from think.insights.generative import chunks_of
from think.insights.validation import Occurrence, check_reply, headline_of, merge, reply_schema, text_of

TALK = Part(
    "090000_60/transcript.jsonl",
    "09:00",
    (
        Utterance("Ada", "09:01", "The tide turns at six — we’re “sure” of it."),
        Utterance("Bo", "09:02", "Fine. Go on."),
    ),
    60,
    "090000_60",
)
NOTE = Part("notes/0930_tide.md", "09:30", (Utterance("", "09:30", "High water is at noon."),), heading="Tide")


def _checked(quote: str, source: str = TALK.source) -> list[tuple[str, str, str, str]]:
    schema = reply_schema({"properties": {"what": {"type": "string"}}}, [TALK.source, NOTE.source])
    checked = check_reply(found({"what": "x", "quote": quote, "source": source}), [TALK, NOTE], schema)
    assert len(checked.occurrences) + checked.dropped == 1
    return [(one.quote, one.source, one.time, one.speaker) for one in checked.occurrences]


@pytest.mark.parametrize(
    ("quote", "kept"),
    [
        ("The tide turns at six", "The tide turns at six"),
        ('"The tide turns  at six"', "The tide turns at six"),
        ('we\'re "sure" of it.', "we’re “sure” of it."),
        ("turns at six - we're", "turns at six — we’re"),
    ],
)
def test_a_quotation_is_found_whatever_its_marks_and_kept_as_it_stands_there(quote: str, kept: str) -> None:
    assert _checked(quote) == [(kept, TALK.source, "09:01", "Ada")]


@pytest.mark.parametrize(
    "quote",
    ["The tide turns at seven", "", "  ", "six", "the TIDE turns at six", "at six. Fine", "tide tur", "e tide turns"],
)
def test_an_invented_quotation_is_dropped_and_counted(quote: str) -> None:
    assert _checked(quote) == []


@pytest.mark.parametrize(("quote", "is_kept"), [("潮汐六点转向", True), ("潮汐", False)])
def test_a_script_without_blanks_is_quoted_by_its_signs(quote: str, is_kept: bool) -> None:
    talk = Part("notes/a.md", "09:00", (Utterance("", "09:00", "我们决定潮汐六点转向以后再出发因为水位很高。"),))
    schema = reply_schema({"properties": {"what": {"type": "string"}}}, [talk.source])
    checked = check_reply(found({"what": "x", "quote": quote, "source": talk.source}), [talk], schema)
    assert [one.quote for one in checked.occurrences] == [quote] * is_kept


def test_a_quotation_of_another_source_gets_the_source_it_stands_in() -> None:
    assert _checked("High water is at noon", TALK.source) == [("High water is at noon.", NOTE.source, "09:30", "")]


def test_what_says_the_same_first_is_one_and_the_order_is_that_of_time() -> None:
    late, early = (Occurrence({"what": what}, "q", "s", time) for what, time in (("Late", "10:00"), ("Early", "09:00")))
    again = Occurrence({"what": "LATE"}, "other", "s", "11:00")
    assert merge([late, early, again]) == (early, late)


def test_what_cannot_be_printed_is_left_out_of_pages() -> None:
    assert text_of(["a\x1b[31m\u202eb", "c\n---\nd"]) == "a[31mb, c --- d"


def test_an_occurrence_without_a_word_of_its_own_is_called_by_its_quotation() -> None:
    assert headline_of(Occurrence({"what": " "}, "It ships", "s")) == "It ships"


@given(
    st.lists(st.lists(st.text(st.sampled_from("abc é見 "), min_size=1, max_size=9_000), max_size=4), max_size=4),
    st.integers(9_000, 40_000),
)
def test_parts_are_cut_to_fit_and_nothing_is_lost(texts: list[list[str]], most_bytes: int) -> None:
    parts = [
        Part(f"notes/{number}.md", "", tuple(Utterance("", "", " ".join(text.split()) or "x") for text in said))
        for number, said in enumerate(texts)
        if said
    ]
    chunks = chunks_of(parts, most_bytes)
    for chunk in chunks:
        shown = sum(len(said.text.encode()) + 1 for part in chunk for said in part.utterances)
        assert shown <= most_bytes
    words = [(part.source, word) for part in parts for said in part.utterances for word in said.text.replace(" ", "")]
    kept = [
        (part.source, word)
        for chunk in chunks
        for part in chunk
        for said in part.utterances
        for word in said.text.replace(" ", "")
    ]
    assert kept == words
