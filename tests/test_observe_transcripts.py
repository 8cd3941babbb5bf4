"""Transcripts of common recorders: each form is read into the same utterances; what is broken is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muse.errors import ContentsError
from observe.documents.segmentation import signs_of
from observe.transcripts.chunking import chunks
from observe.transcripts.parser import Transcript, Utterance, parse_transcript, read_transcript, said_line
from observe.transcripts.ranking import phrases_of, sentences_of, telling

ANNA, TOM = "Is the roof tight?", "No, it leaks."
SPOKEN = (Utterance(1.5, "Anna", ANNA), Utterance(4.0, "Tom", TOM))
LABELLED = (Utterance(1.5, "Speaker 0", ANNA), Utterance(4.0, "Speaker 1", TOM))
LETTERED = (Utterance(1.5, "Speaker A", ANNA), Utterance(4.0, "Speaker B", TOM))
UNNAMED = (Utterance(1.5, "", ANNA), Utterance(4.0, "", TOM))

WHISPER = {
    "text": f"{ANNA} {TOM}",
    "segments": [
        {"id": 0, "start": 1.5, "end": 3.0, "text": f" {ANNA}"},
        {"id": 1, "start": 4.0, "end": 5, "text": f" {TOM}"},
    ],
    "language": "en",
}
WHISPER_CPP = {
    "transcription": [
        {"offsets": {"from": 1500, "to": 3000}, "text": ANNA},
        {"offsets": {"from": 4000, "to": 5000}, "text": TOM},
    ]
}
DEEPGRAM = {
    "metadata": {"duration": 6.0},
    "results": {
        "channels": [{"alternatives": [{"transcript": "x"}]}],
        "utterances": [
            {"start": 1.5, "end": 3.0, "transcript": ANNA, "speaker": 0},
            {"start": 4.0, "end": 5.0, "transcript": TOM, "speaker": 1},
        ],
    },
}
DEEPGRAM_PARAGRAPHS = {
    "results": {
        "channels": [
            {
                "alternatives": [
                    {
                        "transcript": "x",
                        "paragraphs": {
                            "paragraphs": [
                                {"sentences": [{"text": ANNA}], "speaker": 0, "start": 1.5},
                                {"sentences": [{"text": "No,"}, {"text": "it leaks."}], "speaker": 1, "start": 4.0},
                            ]
                        },
                    }
                ]
            }
        ]
    }
}
ASSEMBLYAI = {
    "id": "x",
    "audio_duration": 6,
    "text": "x",
    "words": [],
    "utterances": [
        {"speaker": "A", "text": ANNA, "start": 1500, "end": 3000},
        {"speaker": "B", "text": TOM, "start": 4000, "end": 5000},
    ],
}
AMAZON = {
    "jobName": "x",
    "results": {
        "transcripts": [{"transcript": "x"}],
        "audio_segments": [
            {"transcript": ANNA, "start_time": "1.5", "speaker_label": "spk_0"},
            {"transcript": TOM, "start_time": "4.0", "speaker_label": "spk_1"},
        ],
    },
}
REV = {
    "monologues": [
        {
            "speaker": 0,
            "elements": [{"type": "text", "value": "Is", "ts": 1.5}, {"type": "punct", "value": " the roof tight?"}],
        },
        {"speaker": 1, "elements": [{"type": "text", "value": TOM, "ts": 4.0}]},
    ]
}
LIST = [{"name": "Anna", "timestamp": "0:01.5", "content": ANNA}, {"name": "Tom", "timestamp": "0:04", "content": TOM}]

SRT = (
    f"1\n00:00:01,500 --> 00:00:03,000\nAnna: {ANNA}\n\n2\n00:00:04,000 --> 00:00:05,000\n<i>Tom: No,\nit leaks.</i>\n"
)
ZOOM = f"WEBVTT\n\n1\n00:00:01.500 --> 00:00:03.000\nAnna: {ANNA}\n\n2\n00:00:04.000 --> 00:00:05.000\nTom: {TOM}\n"
TEAMS = (
    f"\ufeffWEBVTT\r\n\r\nNOTE made by hand\r\n\r\nid-1\r\n"
    f"00:01.500 --> 00:03.000 align:start\r\n<v Anna>{ANNA}</v>\r\n\r\n"
    f"00:04.000 --> 00:05.000\r\n<v.loud Tom>{TOM}</v>\r\n"
)
OTTER = f"Anna  0:01\n{ANNA}\n\nTom  0:04\nNo,\nit leaks.\n\nTranscribed by a machine\n"
NAMED = f"Anna: {ANNA}\nTom: No,\nit leaks.\nAnna: Oh.\nTom: Yes.\n"
CLOCKED = f"[00:00:01.5] Anna: {ANNA}\n[00:00:04] Tom: {TOM}\n"
AFTER = f"Anna (0:01.5): {ANNA}\nTom (0:04): {TOM}\n"
OURS = "".join(json.dumps({"start_s": one.start_s, "speaker": one.speaker, "text": one.text}) + "\n" for one in SPOKEN)


@pytest.mark.parametrize(
    ("content", "form", "expected"),
    [
        (WHISPER, "json", UNNAMED),
        (WHISPER_CPP, "json", UNNAMED),
        (DEEPGRAM, "json", LABELLED),
        (DEEPGRAM_PARAGRAPHS, "json", LABELLED),
        (ASSEMBLYAI, "json", LETTERED),
        (AMAZON, "json", LABELLED),
        (REV, "json", LABELLED),
        (LIST, "json", SPOKEN),
        (OURS, "jsonl", SPOKEN),
        (SRT, "srt", SPOKEN),
        (ZOOM, "vtt", SPOKEN),
        (TEAMS, "vtt", SPOKEN),
        (CLOCKED, "named", SPOKEN),
        (AFTER, "named", SPOKEN),
        (f"0:01.5 {ANNA}\n0:04 {TOM}", "timed", UNNAMED),
        (f"{ANNA}\n\n{TOM}", "plain", (Utterance(None, "", ANNA), Utterance(None, "", TOM))),
    ],
)  # fmt: skip
def test_each_form_is_read_into_the_same_utterances(
    content: Any, form: str, expected: tuple[Utterance, ...], tmp_path: Path
) -> None:
    path = tmp_path / "transcript"
    path.write_bytes((content if isinstance(content, str) else json.dumps(content)).encode())
    assert read_transcript(path) == Transcript(form, expected)  # type: ignore[arg-type]


def test_names_above_the_words_are_speakers() -> None:
    first, second = parse_transcript(OTTER).utterances
    assert first == Utterance(1.0, "Anna", ANNA)
    assert (second.speaker, second.text) == ("Tom", f"{TOM} Transcribed by a machine")


def test_lines_go_on_with_what_was_said_before() -> None:
    found = parse_transcript(NAMED)
    assert [said_line(one) for one in found.utterances] == [f"Anna: {ANNA}", f"Tom: {TOM}", "Anna: Oh.", "Tom: Yes."]
    assert set(found.speakers) == {"Anna", "Tom"}


def test_a_word_before_a_colon_is_no_speaker_by_itself() -> None:
    text = "Three things are left to do before the winter comes.\nFirst: the roof.\nThe house is old.\n" * 1
    text += "\n".join(f"Sentence number {number} of the letter." for number in range(9))
    assert parse_transcript(text).form == "plain"


def test_captions_that_roll_are_said_once() -> None:
    cue = "00:00:0{0}.000 --> 00:00:0{1}.000\nIs the roof tight?\n\n"
    assert len(parse_transcript("WEBVTT\n\n" + cue.format(1, 2) + cue.format(2, 3)).utterances) == 1


def test_lines_that_are_torn_or_no_utterances_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "transcript.jsonl"
    path.write_bytes(OURS.encode() + b'[1]\n{"start_s": 9}\n{"start_s": 12.0, "text": "hal')
    assert read_transcript(path) == Transcript("jsonl", SPOKEN, 3)


def test_the_markup_of_captions_and_what_steers_a_terminal_do_not_get_through() -> None:
    hostile = [{"speaker": "<b>Eve\x1b[2J", "text": "<c.red>alert(1)</c> hello\u2028\x07 there", "start": "NaN"}]
    (said,) = parse_transcript(json.dumps(hostile)).utterances
    assert said == Utterance(None, "Eve[2J", "alert(1) hello there")


@pytest.mark.parametrize("content", [b"", b"  \n", b"\0\1\2\3" * 99, b"{}", b"[]", b"[" * 100_000, b"WEBVTT\n"])
def test_a_file_without_words_is_an_error_that_names_it(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "empty.txt"
    path.write_bytes(content)
    if content.startswith(b"[["):
        assert read_transcript(path).form == "plain"
        return
    with pytest.raises(ContentsError, match=r"empty\.txt: found"):
        read_transcript(path)


def test_utf_16_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(CLOCKED.encode("utf-16"))
    assert read_transcript(tmp_path / "x.txt").utterances == SPOKEN


def test_pieces_are_never_too_long_and_lose_nothing() -> None:
    said = [Utterance(None, "Anna", " ".join(f"word{number}" for number in range(size))) for size in (3, 400, 1, 90)]
    pieces = chunks(said, 300)
    assert max(sum(len(said_line(one)) + 1 for one in piece) for piece in pieces) <= 301
    words = [word for piece in pieces for one in piece for word in one.text.split()]
    assert words == [word for one in said for word in one.text.split()]


def test_a_name_without_an_end_is_cut_and_its_words_still_fit_into_pieces() -> None:
    (said,) = parse_transcript(json.dumps([{"speaker": "Eve" * 900, "text": "word " * 200}])).utterances
    assert len(said.speaker) == 80
    assert len(chunks([Utterance(None, "Eve" * 900, said.text)], 300)) > 1


_NAMES = """
    text transcript utterances segments results channels alternatives paragraphs sentences speaker start words
    elements value ts offsets from monologues name time audio_duration
"""
_KEYS = st.sampled_from(sorted(set(_NAMES.split())))
_LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(["0:05", "A"])
)
_ANY_JSON = st.recursive(
    _LEAVES, lambda part: st.lists(part, max_size=4) | st.dictionaries(_KEYS, part, max_size=5), max_leaves=25
)
_LINES = st.lists(
    st.sampled_from(
        ["Anna: hi", "WEBVTT", "", "00:01 --> 00:02", "<v Bob>x</v>", "Tom  0:01", "[0:01] Ann: x", "\0", "{"]
    )
)


@settings(max_examples=150, deadline=None)
@given(_ANY_JSON.map(json.dumps) | st.text(max_size=300) | _LINES.map("\n".join))
def test_whatever_is_pasted_is_read_without_failing(text: str) -> None:
    found = parse_transcript(text)
    assert all(one.text and one.text.isprintable() and one.speaker.isprintable() for one in found.utterances)
    signs_of(found.utterances)
    assert len(phrases_of(found.utterances, 8)) <= 8
    every = sentences_of(found.utterances)
    assert set(telling(every, every, 3)) <= set(every)


def test_a_name_keeps_its_capitals_where_a_sentence_begins_with_it() -> None:
    found = parse_transcript("Femi: Copper Lane waits.\nOttilie: The demo at Copper Lane is on Monday.")
    assert "Copper Lane" in phrases_of(found.utterances, 8)
