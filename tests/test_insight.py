"""`muse insight`: what it makes of a day, what it keeps, what it asks again, and how it fails."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from muse import testing
from muse.errors import ConfigError, MissingKeyError, ProviderDown
from muse.providers._local import process
from muse.providers._local.weights import WeightsMissing, find_weights
from tests.journal_folder import ROOT, JournalFolder
from think.daily_summary.build import CONTEXT, TITLE_CONTEXT
from think.entries.transcripts import Part, read_day
from think.insight import main
from think.llm.multiple_choice import MOST_CHOICES
from think.llm.sentence_ranking import Sentence, Weights, sentences_of, words_of

EXAMPLE = ROOT / "fixtures" / "journal"
DAY = "20261106"
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")
PROMPT_TOKENS = 4096 - 200


def copy_day(journal: JournalFolder, day: str = DAY, *, only: Sequence[str] = ()) -> Path:
    """Put a day of the example into the journal, or only some of its segments and notes; route everything to echo."""
    journal.route(default={"provider": "echo"})
    target = journal.path / day
    for source in only or [path.name for path in (EXAMPLE / day).iterdir()]:
        path = EXAMPLE / day / source
        if path.is_dir():
            shutil.copytree(path, target / source)
        else:
            (target / source).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target / source)
    return target


def shortlists(day: str = DAY) -> list[tuple[Part, tuple[Sentence, ...]]]:
    """The parts of a day, each with the sentences that a model is to choose from."""
    parts = read_day(day)
    weights = Weights(sentence for part in parts for sentence in sentences_of(part))
    return [(part, weights.shortlist(sentences_of(part), MOST_CHOICES)) for part in parts]


def answers(day: str = DAY) -> list[testing.Say | str | BaseException]:
    """What a model would say, in order: the last of each shortlist, then titles, then the first as headline."""
    listed = shortlists(day)
    steps: list[testing.Say | str | BaseException] = [say(pool[-1].text) for _, pool in listed]
    steps += [f"Title of {part.at}" for part, _ in listed if not part.heading]
    return [*steps, say(listed[0][1][-1].text)]


def say(sentence: str) -> str:
    return json.dumps({"sentence": sentence})


def state(day: Path) -> dict[str, Any]:
    """What is kept for the next run."""
    kept: dict[str, Any] = json.loads((day / "insights" / "daily.json").read_text())
    return kept


def findings(day: Path) -> list[Mapping[str, Any]]:
    kept: list[Mapping[str, Any]] = state(day)["digest"]["findings"]
    return kept


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_each_part_gets_a_title_and_a_sentence_and_the_day_a_headline(journal: JournalFolder) -> None:
    day = copy_day(journal)
    with testing.script(*answers()):
        assert main([DAY]) == 0
    listed = shortlists()
    assert [finding["source"] for finding in findings(day)] == [part.source for part, _ in listed]
    assert [finding["sentence"] for finding in findings(day)] == [pool[-1].text for _, pool in listed]
    titles = [part.heading or f"Title of {part.at}" for part, _ in listed]
    assert [finding["title"] for finding in findings(day)] == titles
    assert state(day)["digest"]["headline"] == listed[0][0].source


def test_what_stands_in_quotation_marks_stands_in_the_source_and_was_said_by_the_one_named(
    journal: JournalFolder,
) -> None:
    day = copy_day(journal)
    with testing.script(*answers()):
        main([DAY])
    for finding in findings(day):
        text = (day / finding["source"]).read_text()
        if finding["source"].endswith(".md"):
            assert finding["sentence"] in one_line(text)
            continue
        lines = [json.loads(line) for line in text.splitlines()]
        assert any(finding["sentence"] in line["text"] and line["speaker"] == finding["speaker"] for line in lines)


def test_the_page_has_front_matter_and_names_its_sources(journal: JournalFolder) -> None:
    day = copy_day(journal)
    with testing.script(*answers()):
        main([DAY])
    page = (day / "insights" / "daily.md").read_text()
    assert page.startswith(f"---\ntitle: Friday 6 November 2026\ntopic: daily\nday: {DAY}\nsources: [")
    assert all((day / "insights" / link).is_file() for link in re.findall(r"\]\((\.\./[^)]+)\)", page))
    assert page.count("\n> – ") == len(findings(day)) + 1


def test_the_output_is_plain_and_has_the_route_the_counts_and_what_to_type_next(
    journal: JournalFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_day(journal)
    with testing.script(*answers()):
        main([DAY])
    printed = capsys.readouterr()
    assert not CONTROL.search(printed.out)
    assert printed.err == ""
    rows = {line.split()[0]: line for line in printed.out.splitlines() if line.startswith("insight.daily")}
    assert "echo echo-1" in rows[CONTEXT]
    assert "providers.default" in rows[CONTEXT] or "context 'insight.*'" in rows[CONTEXT]
    assert rows[TITLE_CONTEXT].rstrip().endswith("$0")
    assert printed.out.splitlines()[-3].startswith("muse usage")
    assert "muse route insight.daily --explain" in printed.out.splitlines()[-2]


def test_each_call_is_logged_with_its_context_and_segment(journal: JournalFolder) -> None:
    copy_day(journal)
    with testing.script(*answers()):
        main([DAY])
    lines = journal.lines()
    assert len(lines) == len(answers())
    assert {line["context"] for line in lines} == {CONTEXT, TITLE_CONTEXT}
    segments = {part.segment for part, _ in shortlists() if part.segment}
    assert {line["segment"] for line in lines if "segment" in line} == segments


def test_nothing_is_asked_again_where_nothing_has_changed(
    journal: JournalFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    day = copy_day(journal)
    with testing.script(*answers()):
        main([DAY])
    first = capsys.readouterr().out
    before = [path.stat().st_mtime_ns for path in sorted((day / "insights").iterdir())]
    with testing.script():
        assert main([DAY]) == 0
    again = capsys.readouterr().out
    assert "Nothing has changed since" in again
    assert again.startswith(first[: first.index("Kept as")])
    assert [path.stat().st_mtime_ns for path in sorted((day / "insights").iterdir())] == before


def test_force_asks_everything_again(journal: JournalFolder) -> None:
    copy_day(journal)
    for options in ([], ["--force"]):
        with testing.script(*answers()):
            assert main([DAY, *options]) == 0


def test_another_route_asks_again(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_day(journal)
    with testing.script(*answers()):
        main([DAY])
    monkeypatch.setenv("ECHO_MODEL", "echo-2")
    with testing.script(*answers()) as script:
        main([DAY])
    assert {request.model for request in script.requests} == {"echo-2"}


def test_a_failing_part_is_shown_and_the_others_go_on_and_only_it_is_asked_again(
    journal: JournalFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    day = copy_day(journal)
    steps = answers()
    listed = shortlists()
    failing = ProviderDown("out to lunch", provider="echo")
    titles = [part for part, _ in listed if not part.heading]
    broken = [say(listed[0][1][-1].text), failing, *steps[2 : len(listed)]]
    broken += [f"Title of {part.at}" for part in titles if part is not listed[1][0]]
    with testing.script(*broken, say(listed[0][1][-1].text)):
        assert main([DAY]) == 1
    printed = capsys.readouterr().out
    assert "out to lunch" in one_line(printed)
    assert [("error" in finding) for finding in findings(day)] == [part is listed[1][0] for part, _ in listed]
    assert "out to lunch" in (day / "insights" / "daily.md").read_text()
    with testing.script(steps[1], f"Title of {listed[1][0].at}", say(listed[0][1][-1].text)):
        assert main([DAY]) == 0
    assert not any("error" in finding for finding in findings(day))


@pytest.mark.parametrize(
    ("step", "named"),
    [
        (testing.Say("{", finish="length"), "TruncatedReply"),
        (say("Nobody ever said this."), "InvalidReply"),
        ("   ", "EmptyReply"),
    ],
)
def test_an_answer_that_cannot_be_used_is_an_error_of_its_part(
    journal: JournalFolder, step: testing.Say | str, named: str
) -> None:
    only = ["090500_600", "123000_900"]
    day = copy_day(journal, only=only)
    listed = shortlists()
    second = listed[1][1][-1].text
    with testing.script(step, say(second), "A title"):
        assert main([DAY]) == 1
    assert findings(day)[0]["error"].startswith(named)
    assert findings(day)[1]["sentence"] == second


def test_where_every_part_fails_one_error_is_said_and_no_page_written(
    journal: JournalFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    day = copy_day(journal)
    journal.route(default={"provider": "echo"}, breaker={"failures": 0})
    failures = [ProviderDown("out to lunch") for _ in shortlists()]
    with testing.script(*failures):
        assert main([DAY]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("out to lunch") == 1
    assert not (day / "insights" / "daily.md").exists()


def test_a_missing_key_is_one_error_that_names_it(journal: JournalFolder) -> None:
    day = copy_day(journal)
    journal.route(default={"provider": "local"}, contexts={"insight.*": {"provider": "anthropic"}})
    with pytest.raises(MissingKeyError, match="ANTHROPIC_API_KEY"):
        main([DAY])
    assert not (day / "insights").exists()


def test_answers_are_kept_as_they_come(journal: JournalFolder) -> None:
    day = copy_day(journal)
    with pytest.raises(RuntimeError, match="power cut"), testing.script(*answers()[:2], RuntimeError("power cut")):
        main([DAY])
    assert len(state(day)["answers"]) == 2
    assert not (day / "insights" / "daily.md").exists()


@pytest.mark.parametrize("kept", [b"", b"{", b'{"day": 7}', b'{"day": "20261106", "answers": []}', b"\xff\xfe"])
def test_a_broken_state_file_is_made_anew(
    journal: JournalFolder, kept: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    day = copy_day(journal, only=["090500_600"])
    (day / "insights").mkdir()
    (day / "insights" / "daily.json").write_bytes(kept)
    with testing.script(*answers()[:2]):
        assert main([DAY]) == 0
    assert "made anew" in caplog.text
    assert len(findings(day)) == 1


def test_a_page_that_somebody_else_wrote_is_set_aside(journal: JournalFolder) -> None:
    day = copy_day(journal, only=["090500_600"])
    page = day / "insights" / "daily.md"
    page.parent.mkdir()
    page.write_text("mine")
    with testing.script(*answers()[:2]):
        main([DAY])
    assert (page.parent / "daily_before_1.md").read_text() == "mine"
    page.write_text("changed by hand")
    with testing.script():
        main([DAY])
    assert (page.parent / "daily_before_2.md").read_text() == "changed by hand"
    assert page.read_text().startswith("---\n")


def test_json_is_all_that_is_printed_with_json(journal: JournalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    copy_day(journal)
    with testing.script(*answers()):
        main(["--json", "--day", DAY])
    printed = json.loads(capsys.readouterr().out)
    assert printed["complete"] is True
    assert printed["made_by"] == "echo echo-1"
    assert len(printed["calls"]) == len(answers())
    assert printed["findings"][0]["sentence"]


def test_the_latest_day_with_a_transcript_is_taken(journal: JournalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    copy_day(journal, "20261104")
    copy_day(journal, "20261105", only=["090500_600"])
    (journal.path / "20261109" / "notes").mkdir(parents=True)
    with testing.script(*answers("20261105")[:2]):
        main([])
    assert capsys.readouterr().out.startswith("Thursday 5 November 2026")


def test_a_day_that_is_not_there_is_refused_with_those_that_are(journal: JournalFolder) -> None:
    copy_day(journal, only=["090500_600"])
    with pytest.raises(ConfigError, match="20261106"):
        main(["20261120"])


@pytest.mark.parametrize("asked", ["20261301", "../x", "2026-11-06"])
def test_what_is_no_day_is_wrong_usage(asked: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([asked]) == 2
    assert f"found '{asked}', expected a date of the form YYYYMMDD" in capsys.readouterr().err


def test_a_journal_without_days_says_how_to_get_some(journal: JournalFolder) -> None:
    with pytest.raises(ConfigError, match="make run"):
        main([])


def test_help_and_wrong_use_have_their_exit_status(journal: JournalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "insights/daily.md" in capsys.readouterr().out
    assert main(["--colour"]) == 2
    assert main(["20261105", "--day", "20261106"]) == 2


def test_prompts_fit_the_smallest_context_however_long_the_sentences(journal: JournalFolder) -> None:
    journal.route(default={"provider": "echo"})
    segment = journal.path / DAY / "090000_60"
    segment.mkdir(parents=True)
    said = ["ein " * 5000, "見" * 5000, "🫖" * 5000, "a b " * 5000, "x" * 5000, "short one that is here too"]
    lines = [json.dumps({"start_s": 1, "speaker": "Ada", "text": text}) for text in said]
    (segment / "transcript.jsonl").write_text("\n".join(lines))
    with testing.script(*answers()[:2]) as script:
        assert main([DAY]) == 0
    assert all(request.text_chars * 4 and _bytes(request) < PROMPT_TOKENS for request in script.requests)


def _bytes(request: Any) -> int:
    return sum(len(str(part).encode()) for turn in request.turns for part in turn.parts)


def _has_model() -> bool:
    try:
        find_weights(None)
    except WeightsMissing:
        return False
    return importlib.util.find_spec(process.PACKAGE) is not None


@pytest.mark.skipif(not _has_model(), reason="needs xllamacpp and the weights: muse local fetch")
def test_the_embedded_model_makes_an_insight_without_any_key(
    journal: JournalFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    day = copy_day(journal, only=["090500_600", "123000_900", "notes"])
    journal.route(default={"provider": "local"})
    assert main([DAY]) == 0
    for finding in findings(day):
        assert finding["sentence"]
        if not finding["source"].startswith("notes/"):
            said = {word.lower() for word in words_of(finding["sentence"])}
            assert {word.lower() for word in words_of(finding["title"])} <= said
    assert {line["provider"] for line in journal.lines()} == {"local"}
    assert not CONTROL.search(capsys.readouterr().out)
    assert main([DAY]) == 0
    assert "Nothing has changed" in capsys.readouterr().out
