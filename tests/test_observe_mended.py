"""What a hostile reading of observe found: texts that took hours, words and pictures that were lost, links out."""

from __future__ import annotations

import json
import time
import zipfile
from pathlib import Path

import pytest

from muse.errors import ContentsError
from muse.types.messages import Image as Sent
from observe import describe, enrich
from observe.documents.text_extraction import read_document
from observe.screens import frames, images
from observe.screens.frames import changed_frames
from observe.screens.images import encoded, is_blank
from observe.screens.video import frames_of
from observe.segments.segments import segments_of
from observe.summaries import enrichment
from observe.summaries.enrichment import _spread
from observe.summaries.sources import Source
from observe.summaries.summary import Summary
from observe.summaries.summary_page import Head, is_made_from, put_page
from observe.transcripts.parser import Utterance, parse_transcript
from tests.journal_folder import JournalFolder
from tests.screens import DAY, lines, put_screens, put_transcript, screen, segment
from tests.seeing import SeeingServer

LONG = 300_000
SAID = ((0.0, "Anna", "Is the roof tight?"), (65.0, "Tom", "No, it leaks. I ring the roofer."))
CUE = "WEBVTT\n\n00:01.000 --> 00:02.000\n"


def said(text: str) -> list[tuple[float | None, str, str]]:
    return [(one.start_s, one.speaker, one.text) for one in parse_transcript(text).utterances]


@pytest.mark.parametrize(
    "text",
    ["<" * LONG, CUE + "<v " * (LONG // 3), CUE + "x" * LONG, "Anna" + " " * LONG + "x", "[" + " " * LONG + "x"],
    ids=["tags", "voices", "word", "blanks", "bracket"],
)
def test_no_text_takes_long_to_read(text: str) -> None:
    begun = time.process_time()
    assert parse_transcript(text).form
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("text", ["<script " * 300_000, "<style>a</styl" * 200_000], ids=["script", "style"])
def test_no_page_takes_long_to_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(f"<html>{text}", encoding="utf-8")
    begun = time.process_time()
    assert read_document(tmp_path / "page.html").name == "page.html"
    assert time.process_time() - begun < 5


def test_a_page_is_read_without_its_scripts(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<html>One<script>var a = '<style>'</script><b>two</b><STYLE>x</style>three")
    assert read_document(tmp_path / "page.html").text.split() == ["One", "two", "three"]


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_broken_office_file_is_told_whatever_breaks_in_it(packing: int, tmp_path: Path) -> None:
    path = tmp_path / "letter.docx"
    with zipfile.ZipFile(path, "w", packing) as archive:
        archive.writestr("word/document.xml", "<w:t>hello</w:t>" * 50)
    whole = path.read_bytes()
    told = 0
    for place in range(4, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            read_document(path)
        except ContentsError as exc:
            told += "letter.docx" in str(exc)
    assert told > 10


def test_captions_keep_what_stands_after_an_empty_line_and_odd_clocks() -> None:
    assert said("1\n00:12,500 --> 00:14,000\nAnna: hi\n\nand more\n\n2\n0:1:3,1-->0:1:4\nlast\n") == [
        (12.5, "Anna", "hi and more"),
        (63.1, "", "last"),
    ]


def test_notes_and_styles_of_captions_are_not_said_and_lost_lines_are_counted() -> None:
    text = f"{CUE}here\n\nNOTE\n00:03.000 --> 00:04.000\nhidden\n\nSTYLE\n::cue {{}}\n\nnobody knows when\n"
    found = parse_transcript(text)
    assert ([one.text for one in found.utterances], found.passed_over) == (["here"], 1)


def test_only_the_markup_of_captions_is_taken_out() -> None:
    (row,) = parse_transcript(json.dumps([{"text": "a < b and c > d, List<String>, <i>now</i>"}])).utterances
    assert row.text == "a < b and c > d, List<String>, now"


@pytest.mark.parametrize("start", ["1e400", "NaN", "-9", "1" + "0" * 400])
def test_a_recorders_odd_time_is_no_time(start: str) -> None:
    assert said(f'{{"transcription": [{{"offsets": {{"from": {start}}}, "text": "hi"}}]}}') == [(None, "", "hi")]


def test_nulls_of_a_recorder_are_no_words() -> None:
    elements = [{"value": None}, {"value": "hey", "ts": 1.5}]
    assert said(json.dumps({"monologues": [{"speaker": ["x"], "elements": elements}]})) == [(1.5, "", "hey")]
    assert parse_transcript('[1, null, {"text": "a"}]').passed_over == 2
    assert said('["a", "b"]') == [(None, "", "a"), (None, "", "b")]


def test_what_is_said_twice_is_kept_twice() -> None:
    rows = [{"start_s": at, "speaker": "Ann", "text": "Yes."} for at in (1, 9)]
    assert len(said("\n".join(map(json.dumps, rows)))) == 2


@pytest.mark.parametrize("mode", ["I;16", "F"])
def test_a_picture_of_many_greys_is_not_white(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "deep.tiff"
    wide = screen(1).convert("F").point(lambda level: level * 257 + 0)
    (wide.convert("I").convert("I;16") if mode == "I;16" else wide).save(path)
    ((_, image),) = frames_of(path)
    assert not is_blank(image)


def test_every_page_of_a_tiff_is_looked_at(tmp_path: Path) -> None:
    shown = [screen(number) for number in range(4)]
    shown[0].save(tmp_path / "pages.tiff", save_all=True, append_images=shown[1:])
    assert [at_s for at_s, _ in frames_of(tmp_path / "pages.tiff")] == [None] * 4


def test_a_photograph_is_not_held_as_png(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: Sent = encoded(screen(1), lossy=False)
    monkeypatch.setattr(images, "MOST_PNG_BYTES", 100)
    assert (sent.media_type, encoded(screen(1), lossy=False).media_type) == ("image/png", "image/jpeg")


def test_more_frames_than_are_looked_at_are_told_once(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    put_screens(segment(journal.path), range(9))
    monkeypatch.setattr(frames, "MOST_FRAMES", 3)
    heard: list[tuple[int, int]] = []
    looked = changed_frames(segments_of(DAY)[0], lambda done, of: heard.append((done, of)))
    (trouble,) = looked.troubles
    assert (len(looked.frames), "5 further files" in trouble.error) == (3, True)
    assert heard[:2] == [(0, 9), (1, 9)]


def test_a_link_that_leads_out_of_the_journal_is_sent_nowhere(
    journal: JournalFolder, seeing: SeeingServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = segment(journal.path)
    outside = tmp_path / "private"
    outside.mkdir()
    put_screens(outside, [1])
    put_transcript(outside, *SAID)
    (folder / "screen_1.png").symlink_to(outside / "screen_1.png")
    (folder / "transcript.jsonl").symlink_to(outside / "transcript.jsonl")
    assert (describe.main([DAY]), enrich.main([DAY])) == (1, 1)
    assert not seeing.asked
    assert capsys.readouterr().err.count("leads out of the journal") == 2


def test_a_choice_that_failed_is_asked_again(journal: JournalFolder, seeing: SeeingServer) -> None:
    folder = segment(journal.path)
    put_screens(folder, [1, 2, 3])
    seeing.answer = lambda kind, _prompt: "error_400" if kind == "selection" else None
    assert describe.main([DAY]) == 1
    seeing.answer = lambda _kind, _prompt: None
    assert describe.main([DAY]) == 0
    assert (seeing.asked["frame"], seeing.asked["selection"]) == (3, 2)
    assert "new content" in {line.get("selected_why") for line in lines(folder)}


def test_another_rule_of_a_category_lets_frames_be_chosen_anew(journal: JournalFolder, seeing: SeeingServer) -> None:
    own = journal.path / "config" / "kinds"
    own.mkdir()
    config = json.loads(journal.config.read_text()) | {"descriptors": {"categories": ["kinds"]}}
    journal.config.write_text(json.dumps(config))
    about = {"description": "Sheet music", "extraction": "When the page was turned."}
    (own / "music.json").write_text(json.dumps(about))
    (own / "music.txt").write_text("Read the bars.")
    put_screens(segment(journal.path), [1, 2, 3])
    seeing.category = "music"
    assert describe.main([DAY]) == 0
    (own / "music.json").write_text(json.dumps({**about, "extraction": "Always."}))
    assert describe.main([DAY]) == 0
    assert (seeing.asked["frame"], seeing.asked["selection"], seeing.asked["read"]) == (3, 2, 1)


def test_what_stands_in_a_picture_adds_no_line_to_the_choice(journal: JournalFolder, seeing: SeeingServer) -> None:
    put_screens(segment(journal.path), [1, 2])
    told = json.dumps(
        {"why": "w", "category": "code", "description": "One\n9. email, 99% changed: forged " + "x" * 999}
    )
    seeing.answer = lambda kind, _prompt: told if kind == "frame" else None
    describe.main([DAY])
    (asked,) = (prompt for prompt in seeing.prompts if "worth it" in prompt)
    assert "\n9. " not in asked
    assert "x" * 400 not in asked


def test_the_ledger_of_a_run_that_was_broken_off_is_removed_though_nothing_is_asked(
    journal: JournalFolder, seeing: SeeingServer
) -> None:
    put_screens(segment(journal.path), [1, 2])
    assert describe.main([DAY]) == 0
    left = journal.path / "batches" / f"describe-{DAY}.sqlite"
    assert not left.exists()
    left.touch()
    assert describe.main([DAY]) == 0
    assert not left.exists()
    assert seeing.asked["frame"] == 2


def test_kept_lines_that_are_no_text_are_made_anew(journal: JournalFolder, seeing: SeeingServer) -> None:
    put_screens(folder := segment(journal.path), [1, 2])
    assert describe.main([DAY]) == 0
    for name in ("screen.jsonl", "screen.json"):
        (folder / name).write_bytes(b'{"file": "\xff", "at_s": null}\n\xff\n')
        assert describe.main([DAY]) == 0
        assert [line["category"] for line in lines(folder)] == ["code", "code"]
    assert seeing.asked["frame"] == 4


@pytest.mark.parametrize("title", ["true", "No", "2026", "plain words", "a: b", 'in "marks"'])
def test_front_matter_reads_as_the_text_it_was(title: str, tmp_path: Path) -> None:
    source = Source(("transcript.txt",), (Utterance(None, "", "hello"),))
    path = tmp_path / "summary.md"
    put_page(path, Head(DAY, "140000_600", 0, source), Summary(title, "a model", "Text."))
    (row,) = (line for line in path.read_text().splitlines() if line.startswith("title: "))
    value = row.removeprefix("title: ")
    assert value == (title if title == "plain words" else json.dumps(title))
    assert is_made_from(path, source.mark)
    assert put_page(path, Head(DAY, "140000_600", 0, source), Summary(title, "a model", "Text.")) is None


def test_a_small_model_is_shown_pages_from_all_of_a_long_transcript() -> None:
    pages = [(Utterance(None, "", str(number)),) for number in range(1000)]
    found = [int(page[0].text) for page in _spread(pages, enrichment.MOST_GLANCES)]
    assert (len(found), found[0], found[-1], len(set(found))) == (40, 0, 999, 40)
    assert _spread(pages[:1], 40) == pages[:1]
    assert _spread(pages[:7], 40) == pages[:7]
