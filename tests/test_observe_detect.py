"""`muse detect`: the date of a document, the segments of a transcript, utterances as JSON; by rule and by models."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from muse.errors import ConfigError, ContentsError, InvalidReply
from muse.providers import local
from observe.detect import main
from observe.documents.date_candidates import candidates_of
from observe.documents.segmentation import signs_of
from observe.documents.text_extraction import read_document
from observe.llm import checked_call
from observe.transcripts.parser import parse_transcript
from tests.embedded import needs_model
from tests.journal_folder import ROOT, JournalFolder
from tests.seeing import SeeingServer

pytestmark = pytest.mark.usefixtures("engine_of_this_file")

LETTER = "Bristol, 3 November 2026\n\nDear Ruth, the boat leaves on 12 November 2026, not on November 5th, 2026.\n"
TWO_TALKS = (
    "Anna  0:05\nGood morning. The roof leaks.\n\nTom  0:21\nThe roofer comes on Friday. Bye!\n\n"
    "Ruth  45:10\nWalking home. Milk and flour.\n"
)
TOLD = (
    "The council met in the old hall. The roof is leaking again, said Anna.\n\n"
    "Tom answered that the roofer comes on Friday.\n\nNobody was happy.\n"
)


@pytest.fixture
def small(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything routed to the embedded model."""
    monkeypatch.delenv(local.MODEL_ENV, raising=False)
    journal.route(default={"provider": "local"})


def put(tmp_path: Path, name: str, content: str | bytes) -> str:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def found_in(tmp_path: Path, name: str, content: str | bytes) -> list[tuple[str, str]]:
    document = read_document(Path(put(tmp_path, name, content)))
    return [(one.date, one.where) for one in candidates_of(document)]


@pytest.mark.parametrize(
    ("text", "dates"),
    [
        ("2026-11-03 and 20261104 and 2026/11/5", ["2026-11-03", "2026-11-04", "2026-11-05"]),
        ("3 November 2026, 4th of Nov. 2026, the 5. November 2026", ["2026-11-03", "2026-11-04", "2026-11-05"]),
        ("November 3, 2026 and Dec 24th 2026", ["2026-11-03", "2026-12-24"]),
        ("am 3. März 2026, le 1er avril 2026", ["2026-03-03", "2026-04-01"]),
        ("03.11.2026 is the third of November", ["2026-11-03"]),
        ("3/4/2026 may be either", ["2026-03-04", "2026-04-03"]),
        ("13/4/2026 may not", ["2026-04-13"]),
        ("31 February 2026, 99.99.2026, version 1.2.3, 1911", []),
    ],
)
def test_dates_are_found_in_the_ways_people_write_them(text: str, dates: list[str], tmp_path: Path) -> None:
    assert sorted(when for when, _ in found_in(tmp_path, "a.txt", text)) == dates


def test_metadata_and_name_come_before_the_text(tmp_path: Path) -> None:
    mail = "From: ruth@example.com\nDate: Tue, 3 Nov 2026 10:00:00 +0000\n\nWe met on 1 May 2026.\n"
    assert found_in(tmp_path, "2026-11-04_mail.eml", mail) == [
        ("2026-11-03", "header Date"),
        ("2026-11-04", "file name"),
        ("2026-05-01", "line 4"),
    ]
    page = '<!doctype html><meta name="date" content="2026-11-03"><script>var d="2020-01-01"</script><p>1 May 2026</p>'
    assert found_in(tmp_path, "a.html", page)[0] == ("2026-11-03", "meta date")
    assert "2020-01-01" not in dict(found_in(tmp_path, "a.html", page))
    pdf = b"%PDF-1.7\n1 0 obj << /ModDate (D:20261105090000) /CreationDate (D:20261103090000Z) >> endobj\n"
    assert found_in(tmp_path, "a.pdf", pdf) == [("2026-11-03", "PDF CreationDate"), ("2026-11-05", "PDF ModDate")]


def test_the_date_of_office_files_and_photographs_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.docx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("docProps/core.xml", "<dcterms:created xsi:type='x'>2026-11-03T10:00:00Z</dcterms:created>")
        archive.writestr("word/document.xml", "<w:t>Written for</w:t><w:t>1 May 2026</w:t>")
    assert [one.date for one in candidates_of(read_document(path))] == ["2026-11-03", "2026-05-01"]
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2026:11:03 14:02:30"
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=exif)
    assert [one.where for one in candidates_of(read_document(tmp_path / "a.jpg"))] == ["EXIF DateTimeOriginal"]
    with pytest.raises(ContentsError, match=r"b\.docx: found no whole Office file"):
        read_document(Path(put(tmp_path, "b.docx", path.read_bytes()[:90])))


def test_a_bomb_in_an_office_file_is_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.docx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b"<w:t>" + b" " * 60_000_000)
    assert len(read_document(tmp_path / "bomb.docx").text) < 60_000


def test_where_there_is_one_date_nobody_is_asked(
    tmp_path: Path, seeing: SeeingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["created", put(tmp_path, "2026-11-03.txt", "A letter."), "--json"]) == 0
    assert (found := printed(capsys))["date"] == "2026-11-03"
    assert (found["by"], found["where"]) == ("rule", "file name")
    assert main(["created", put(tmp_path, "letter.txt", "A letter without any."), "--json"]) == 0
    assert printed(capsys)["date"] is None
    assert not seeing.prompts


def test_a_model_chooses_among_the_dates_that_stand_there(
    tmp_path: Path, seeing: SeeingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    seeing.answer = lambda _kind, _prompt: '{"date": "2026-11-12"}'
    assert main(["created", put(tmp_path, "letter.md", LETTER), "--json"]) == 0
    assert (found := printed(capsys))["date"] == "2026-11-12"
    assert (found["where"], len(found["candidates"])) == ("line 3", 3)
    seeing.answer = lambda _kind, _prompt: '{"date": "unknown"}'
    assert main(["created", put(tmp_path, "letter.md", LETTER)]) == 0
    assert "does not say" in capsys.readouterr().out
    seeing.answer = lambda _kind, _prompt: '{"date": "1999-01-01"}'
    with pytest.raises(InvalidReply):
        main(["created", put(tmp_path, "letter.md", LETTER)])


def test_signs_of_another_conversation_are_found_by_rule() -> None:
    signs = signs_of(parse_transcript(TWO_TALKS).utterances)
    assert [(sign.place, sign.is_sure) for sign in signs] == [(2, True)]
    back = parse_transcript("[0:10] Anna: One.\n[0:20] Anna: Two.\n[0:05] Anna: Three.\n[0:09] Anna: Four.\n")
    assert [(sign.place, sign.why) for sign in signs_of(back.utterances)] == [(2, "the clock goes back")]
    greeting = parse_transcript(
        "Anna: So that is all.\nTom: Good morning, this is the dentist.\nAnna: Hm.\nTom: Yes.\n"
    )
    assert [sign.why for sign in signs_of(greeting.utterances)] == ["an opening"]


def test_a_model_divides_a_transcript_and_titles_it(
    tmp_path: Path, seeing: SeeingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    seeing.answer = lambda _kind, _prompt: json.dumps(
        {
            "segments": [
                {"first": 1, "title": "The roof", "goes_on": False},
                {"first": 3, "title": "Walk", "goes_on": False},
            ]
        }
    )
    assert main(["segment", put(tmp_path, "talks.txt", TWO_TALKS), "--json"]) == 0
    parts = printed(capsys)["parts"]
    assert [(part["first"], part["last"], part["title"]) for part in parts] == [(1, 2, "The roof"), (3, 3, "Walk")]
    assert "line 3 (a pause of 45 minutes)" in seeing.prompts[0]


def test_a_division_that_cannot_be_is_sent_back(tmp_path: Path, seeing: SeeingServer) -> None:
    seeing.answer = lambda _kind, _prompt: '{"segments": [{"first": 2, "title": "x", "goes_on": false}]}'
    with pytest.raises(InvalidReply, match="expected 1"):
        main(["segment", put(tmp_path, "talks.txt", TWO_TALKS)])
    assert len(seeing.prompts) == 2


def test_a_long_transcript_is_divided_in_stretches_that_go_on(
    tmp_path: Path, seeing: SeeingServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checked_call, "_LARGE_CHARS", 400)
    begins: list[int] = []

    def answer(kind: str, prompt: str) -> str:
        begins.append(int(prompt.partition("begins with line ")[2].partition(".")[0]))
        row = {"first": begins[-1], "title": f"from {begins[-1]}", "goes_on": len(begins) == 2}
        return json.dumps({"segments": [row]})

    seeing.answer = answer
    text = "".join(f"{'Anna' if number % 2 else 'Tom'}: The sentence number {number}.\n" for number in range(30))
    assert main(["segment", put(tmp_path, "talks.txt", text), "--json"]) == 0
    assert len(begins) > 2
    assert [part["first"] for part in printed(capsys)["parts"]] == [begins[0], *begins[2:]]


def test_a_transcript_in_a_known_form_needs_no_model(
    tmp_path: Path, seeing: SeeingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["json", put(tmp_path, "talks.txt", TWO_TALKS)]) == 0
    rows = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    assert rows[1] == {"start_s": 21.0, "speaker": "Tom", "text": "The roofer comes on Friday. Bye!"}
    assert not seeing.prompts


def test_a_transcript_of_no_form_is_taken_apart_by_a_model_in_its_own_words(
    tmp_path: Path, seeing: SeeingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"speaker": "", "start": "", "text": "The council met in the old hall."},
        {"speaker": "Anna", "start": "14:05", "text": "The roof is leaking again, said Anna."},
        {"speaker": "Tom", "start": "", "text": "Tom answered that the roofer comes on Friday."},
    ]
    seeing.answer = lambda _kind, _prompt: json.dumps({"utterances": rows})
    assert main(["json", put(tmp_path, "told.txt", TOLD), "--json"]) == 0
    found = printed(capsys)
    assert [one["speaker"] for one in found["utterances"]] == ["", "Anna", "Tom"]
    assert found["utterances"][1]["start_s"] == 845.0


@pytest.mark.parametrize("made_up", ["The roof is fine.", "The council met in the old hall."])
def test_words_that_a_model_made_up_or_left_out_are_refused(made_up: str, tmp_path: Path, seeing: SeeingServer) -> None:
    seeing.answer = lambda _kind, _prompt: json.dumps({"utterances": [{"speaker": "", "start": "", "text": made_up}]})
    with pytest.raises(InvalidReply, match="utterances"):
        main(["json", put(tmp_path, "told.txt", TOLD)])
    assert len(seeing.prompts) == 2


def test_wrong_usage_and_files_that_are_not_there_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["colour", "x"]) == 2
    assert main(["created"]) == 2
    assert main(["--help"]) == 0
    assert "muse detect created letter.md" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="FILE: found 'nothing'"):
        main(["created", "nothing"])
    with pytest.raises(ContentsError):
        main(["json", put(tmp_path, "a.bin", b"\0\1" * 90)])


@needs_model
def test_the_embedded_model_chooses_a_date_that_stands_there(
    small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "We met on 3 November 2026 and will meet again, all of us together, on 12 November 2026 at the harbour.\n"
    assert main(["created", put(tmp_path, "letter.md", text), "--json"]) == 0
    found = printed(capsys)
    assert found["date"] in {None, "2026-11-03", "2026-11-12"}
    assert found["by"].startswith("local ")


@needs_model
def test_the_embedded_model_divides_and_attributes_within_what_is_there(
    small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example = ROOT / "fixtures" / "journal" / "20261103" / "140000_2040" / "transcript.jsonl"
    assert main(["segment", str(example), "--json"]) == 0
    parts = printed(capsys)["parts"]
    assert (parts[0]["first"], parts[-1]["last"]) == (1, 35)
    assert main(["segment", put(tmp_path, "talks.txt", TWO_TALKS), "--json"]) == 0
    assert [part["first"] for part in printed(capsys)["parts"]][-1] == 3
    assert main(["json", put(tmp_path, "told.txt", TOLD), "--json"]) == 0
    found = printed(capsys)
    assert {one["speaker"] for one in found["utterances"]} <= {"", "Anna", "Tom"}
    assert found["by"].startswith("local ")
