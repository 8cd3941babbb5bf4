"""What an insight is made of: utterances, sentences and their ranking, choices, titles; no model is asked."""

from __future__ import annotations

import json

import pytest

from muse.errors import InvalidReply
from muse.models import get_context_registry
from muse.routing.router import PatternIndex
from tests.journal_folder import JournalFolder
from think.daily_summary.build import CONTEXT, TITLE_CONTEXT
from think.entries.transcripts import Part, Utterance, day_with_words, read_day
from think.llm.multiple_choice import read_choice
from think.llm.sentence_ranking import Sentence, Weights, sentences_of, words_of
from think.llm.title_prompt import read_title, title_grammar, title_pieces
from think.search.query import Query, search

DAY = "20261106"


def test_lines_that_are_no_utterances_are_left_out(journal: JournalFolder, caplog: pytest.LogCaptureFixture) -> None:
    segment = journal.path / DAY / "090000_60"
    segment.mkdir(parents=True)
    good = json.dumps({"start_s": 61.0, "speaker": "Ada", "text": "The kettle was mended on Tuesday by Olu."}).encode()
    lines = [b"{", b"[]", b'{"speaker": "Ada"}', b"\xff", good, b'{"start_s": NaN, "text": "It leaks."}', b""]
    (segment / "transcript.jsonl").write_bytes(b"\n".join(lines))
    (part,) = read_day(DAY)
    assert [(said.at, said.speaker, said.text) for said in part.utterances] == [
        ("09:01", "Ada", "The kettle was mended on Tuesday by Olu."),
        ("", "", "It leaks."),
    ]
    assert "4 of 6 lines" in caplog.text


def test_a_note_is_read_without_its_markup_and_its_heading_is_its_title(journal: JournalFolder) -> None:
    notes = journal.path / DAY / "notes"
    notes.mkdir(parents=True)
    text = "# A **bold** plan\n2026-11-06 15:45\n\nTwo lines\nof one thought.\n\n- [x] First\n  goes on\n2. `Second`\n"
    (notes / "1545_plan.md").write_text(text)
    (part,) = read_day(DAY)
    assert (part.at, part.heading, part.segment) == ("15:45", "A bold plan", "")
    assert [said.text for said in part.utterances] == ["Two lines of one thought.", "First goes on", "Second"]


def test_rare_words_and_figures_weigh_more_than_small_talk_and_questions() -> None:
    texts = [
        "Well, that is what it is like here.",
        "Shall we meet on Tuesday at nine?",
        "Olu mended 14 kettles on Tuesday.",
    ]
    said = [Sentence(text, "Ada", "") for text in [*texts, "Well, that is what it is.", "Oh."]]
    assert Weights(said).shortlist(said, 2)[0].text == texts[2]
    assert len(Weights(said).shortlist(said, 2)) == 2
    assert Weights(said[-1:]).shortlist(said[-1:], 5) == (said[-1],)


@pytest.mark.parametrize(
    "reply",
    [
        '{"sentence": "The soak ends."}',
        '```json\n{"line": "The soak ends."}\n```',
        '"The soak ends."',
        "the soak ends.",
    ],
)
def test_a_choice_is_read_in_whatever_form_it_is_said(reply: str) -> None:
    assert read_choice(reply, ["Two of three.", "The soak ends."]) == "The soak ends."


def test_a_choice_of_nothing_on_the_list_is_refused() -> None:
    with pytest.raises(InvalidReply, match="expected one of the 2 sentences"):
        read_choice('{"sentence": "The soak has ended."}', ["Two of three.", "The soak ends."])


@pytest.mark.parametrize(
    "sentence", ["It ships on Thursday the twelfth of November.", "Ja.", "…", "so it is", "x " * 300]
)
def test_a_title_may_only_be_made_of_the_words_of_its_sentence(sentence: str) -> None:
    pieces = title_pieces(sentence)
    said = [word.lower() for word in words_of(sentence)] or [sentence]
    assert pieces
    assert all(word.lower() in said for piece in pieces for word in piece.split())
    assert title_grammar(sentence).count('"') == 2 * len(pieces)


@pytest.mark.parametrize("reply", ["Title: Fix is in.", ' "Fix is in" ', "**Fix is in**\nmore", "\n Fix is in\n"])
def test_a_title_is_read_without_its_wrapping(reply: str) -> None:
    assert read_title(reply) == "Fix is in"


def test_sentences_are_split_at_their_ends_and_not_in_figures() -> None:
    part = Part("x", "09:00", (Utterance("Ada", "", '4.2 waits. "Why?" It is No. 7, at 18.30! ok then… Yes.'),))
    assert [sentence.text for sentence in sentences_of(part)] == [
        "4.2 waits.",
        '"Why?"',
        "It is No.",
        "7, at 18.30! ok then…",
        "Yes.",
    ]


def test_the_contexts_are_known_ones() -> None:
    globs = PatternIndex(name for name in get_context_registry() if "*" in name)
    assert [next(globs.matches(context)) for context in (CONTEXT, TITLE_CONTEXT)] == ["insight.*", "insight.*"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("transcript.vtt", "WEBVTT\n\n00:01:10.000 --> 00:01:14.000\n<v Maren>Low water is at six.\n"),
        ("transcript.srt", "1\n00:01:10,000 --> 00:01:14,000\nMaren: Low water is at six.\n"),
        ("transcript.txt", "[01:10] Maren: Low water is at six.\n"),
        ("transcript.json", '{"segments": [{"start": 70, "speaker": "Maren", "text": "Low water is at six."}]}'),
    ],
)
def test_a_transcript_of_any_recorder_is_read_and_found(journal: JournalFolder, name: str, text: str) -> None:
    folder = journal.path / "20261103" / "140000_2040"
    folder.mkdir(parents=True)
    (folder / name).write_text(text, encoding="utf-8")
    (part,) = read_day("20261103")
    assert (part.at, part.segment, part.source) == ("14:00", "140000_2040", f"140000_2040/{name}")
    assert [(one.speaker, one.at, one.text) for one in part.utterances] == [("Maren", "14:01", "Low water is at six.")]
    assert day_with_words(None) == "20261103"
    (found,) = search(Query("low water")).hits
    assert (found.kind, found.time) == ("transcript", "14:01")


def test_of_two_transcripts_the_first_form_counts(journal: JournalFolder) -> None:
    folder = journal.path / "20261103" / "140000_2040"
    folder.mkdir(parents=True)
    (folder / "transcript.txt").write_text("Maren: High water.\n", encoding="utf-8")
    (folder / "transcript.jsonl").write_text('{"start_s": 1, "text": "Low water."}\n', encoding="utf-8")
    assert [part.source for part in read_day("20261103")] == ["140000_2040/transcript.jsonl"]
    assert search(Query("high")).hits == ()
