"""`muse enrich` and `muse summarize`: what a model that writes is asked, what is kept, what a small one chooses."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from muse.errors import ConfigError, MissingKeyError
from muse.providers import local
from muse.usage_log import prices
from observe import enrich, summarize
from observe.enrich import enrich_day
from observe.llm import checked_call
from observe.summaries.enrichment import EMOTIONS, SETTINGS
from observe.summarize import summarize_day
from tests.embedded import needs_model
from tests.journal_folder import ROOT, JournalFolder
from tests.screens import DAY, SEGMENT, put_screens, put_transcript, segment
from tests.seeing import KEY, SeeingServer

pytestmark = pytest.mark.usefixtures("engine_of_this_file")

EXAMPLE = ROOT / "fixtures" / "journal"
ENRICHED = json.dumps({"topics": ["roof", "roofer"], "setting": "meeting", "emotion": "worried"})
SUMMARY = {
    "title": "The roof leaks",
    "summary": "Anna and Tom spoke about the roof.",
    "points": ["It leaks since 3 May."],
    "decisions": ["Tom rings the roofer."],
    "todos": [{"who": "Tom", "what": "ring the roofer", "due": "Friday"}],
}
SAID = ((0.0, "Anna", "Is the roof tight?"), (65.0, "Tom", "No, it leaks. I ring the roofer."))


@pytest.fixture
def folder(journal: JournalFolder, seeing: SeeingServer) -> Path:
    """A segment with a transcript."""
    found = segment(journal.path)
    put_transcript(found, *SAID)
    return found


def kept(folder: Path, name: str = "enrichment.json") -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / name).read_text())
    return found


def test_an_enrichment_says_topics_setting_mood_and_who_spoke(folder: Path, seeing: SeeingServer) -> None:
    seeing.answer = lambda _kind, _prompt: ENRICHED
    assert enrich.main([DAY]) == 0
    found = kept(folder)
    assert (found["topics"], found["setting"], found["emotion"]) == (["roof", "roofer"], "meeting", "worried")
    assert [one["name"] for one in found["speakers"]] == ["Tom", "Anna"]  # type: ignore[attr-defined]
    assert found["sources"] == ["transcript.jsonl"]
    assert "Tom: No, it leaks." in seeing.prompts[0]
    assert enrich.main([DAY]) == 0
    assert len(seeing.prompts) == 1
    put_transcript(folder, *SAID, (80.0, "Anna", "Thanks."))
    assert enrich.main([DAY]) == 0
    assert len(seeing.prompts) == 2


def test_a_long_transcript_is_read_in_pages_that_are_counted(
    folder: Path, seeing: SeeingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checked_call, "_LARGE_CHARS", 300)
    put_transcript(folder, *((float(number), "Anna", f"Sentence number {number}, and more.") for number in range(30)))
    moods = iter(["calm", "worried", "worried", "worried"])
    seeing.answer = lambda _kind, _prompt: json.dumps(
        {"topics": [f"topic {len(seeing.prompts)}", "roof"], "setting": "call", "emotion": next(moods)}
    )
    assert enrich.main([DAY]) == 0
    found = kept(folder)
    assert (found["pages"], found["emotion"], found["emotions"]) == (4, "worried", {"worried": 3, "calm": 1})
    assert found["topics"][0] == "roof"  # type: ignore[index]


def test_a_reply_that_fails_its_schema_twice_is_kept_as_failed_and_asked_again(
    folder: Path, seeing: SeeingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    seeing.answer = lambda _kind, _prompt: '{"topics": [], "setting": "party"}'
    assert enrich.main([DAY]) == 1
    assert len(seeing.prompts) == 2
    assert "party" in seeing.prompts[1], "the reply went back with what is wrong with it"
    failed = kept(folder, "enrichment.failed.json")
    assert (failed["context"], failed["reply"]) == ("observe.enrich", '{"topics": [], "setting": "party"}')
    assert "enrichment.failed.json" in capsys.readouterr().err
    assert not (folder / "enrichment.json").exists()
    seeing.answer = lambda _kind, _prompt: ENRICHED
    assert enrich.main([DAY]) == 0
    assert not (folder / "enrichment.failed.json").exists()


def test_a_failure_keeps_what_was_there(folder: Path, seeing: SeeingServer) -> None:
    seeing.answer = lambda _kind, _prompt: ENRICHED
    enrich.main([DAY])
    put_transcript(folder, (0.0, "Anna", "Something else."))
    seeing.answer = lambda _kind, _prompt: "error_500"
    assert enrich.main([DAY]) == 1
    assert kept(folder)["topics"] == ["roof", "roofer"]


def test_the_others_go_on_where_one_segment_fails(folder: Path, journal: JournalFolder, seeing: SeeingServer) -> None:
    other = segment(journal.path, name="160000_60")
    put_transcript(other, (0.0, "Ruth", "Milk and flour."))
    seeing.answer = lambda _kind, prompt: "error_400" if "Ruth" in prompt else ENRICHED
    assert enrich.main([DAY]) == 1
    assert (folder / "enrichment.json").exists()
    assert not (other / "enrichment.json").exists()


def test_a_torn_transcript_is_read_as_far_as_it_goes_and_that_is_said(
    folder: Path, seeing: SeeingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    with (folder / "transcript.jsonl").open("a") as file:
        file.write('{"start_s": 70, "tex')
    seeing.answer = lambda _kind, _prompt: ENRICHED
    assert enrich.main([DAY]) == 1
    assert "left out: 1" in capsys.readouterr().err
    assert kept(folder)["words"] == 11


@pytest.mark.parametrize(
    ("name", "text"), [("transcript.vtt", "WEBVTT\n"), ("transcript.json", '{"text": ""}'), ("transcript.jsonl", "")]
)
def test_a_transcript_in_which_nobody_speaks_is_no_failure(
    folder: Path, seeing: SeeingServer, name: str, text: str
) -> None:
    (folder / "transcript.jsonl").unlink()
    (folder / name).write_text(text, encoding="utf-8")
    assert enrich.main([DAY]) == 0
    assert summarize.main([DAY]) == 0
    assert seeing.prompts == []


def test_a_cost_that_is_not_known_is_not_said_to_be_nothing(
    folder: Path, seeing: SeeingServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prices, "cost_of", lambda *_model, **_calls: None)
    seeing.answer = lambda _kind, _prompt: ENRICHED
    assert enrich.main([DAY, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["cost_usd"], told["unpriced"], told["segments"][0]["cost_usd"]) == (0.0, 1, None)
    assert enrich.main([DAY, "--force"]) == 0
    assert "0 failed, $0+." in capsys.readouterr().out


async def test_who_calls_them_gets_counts(folder: Path, seeing: SeeingServer) -> None:
    seeing.answer = lambda _kind, prompt: ENRICHED if "emotion" in prompt else json.dumps(SUMMARY)
    heard: list[tuple[str, int, int]] = []
    enriched = await enrich_day(DAY, on_step=lambda *step: heard.append(step))
    summed = await summarize_day(DAY)
    assert (enriched.done, summed.done, enriched.failed, summed.problems) == (1, 1, 0, ())
    assert enriched.cost_usd > 0
    assert heard[-1][1:] == (1, 1)
    assert (await summarize_day(DAY)).skipped == 1


def test_a_summary_is_a_page_with_front_matter_and_sources(folder: Path, seeing: SeeingServer) -> None:
    seeing.answer = lambda _kind, _prompt: json.dumps(SUMMARY)
    assert summarize.main([DAY]) == 0
    page = (folder / "summary.md").read_text()
    assert page.startswith(f'---\ntitle: The roof leaks\nday: "{DAY}"\nsegment: "{SEGMENT}"\n')
    assert 'sources: ["transcript.jsonl"]' in page
    assert "# The roof leaks\n\nAnna and Tom spoke about the roof.\n\n## Points\n\n- It leaks since 3 May." in page
    assert "- Tom: ring the roofer (Friday)" in page


def test_what_was_seen_is_summed_up_with_what_was_said(folder: Path, seeing: SeeingServer) -> None:
    (folder / "screen.jsonl").write_text(
        '{"file":"a.png","at_s":30.0,"category":"code","description":"A plan.","key":"k"}\n'
    )
    seeing.answer = lambda _kind, _prompt: json.dumps(SUMMARY)
    assert summarize.main([DAY]) == 0
    assert "tight?\nOn the screen: A plan.\nTom: No" in seeing.prompts[0]
    assert '["transcript.jsonl", "screen.jsonl"]' in (folder / "summary.md").read_text()


def test_what_is_long_is_summed_up_in_pieces_and_these_once_more(
    folder: Path, seeing: SeeingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checked_call, "_LARGE_CHARS", 300)
    put_transcript(folder, *((float(number), "Anna", f"Sentence number {number}, and more.") for number in range(30)))
    seeing.answer = lambda _kind, _prompt: json.dumps(SUMMARY)
    assert summarize.main([DAY]) == 0
    pieces = [prompt for prompt in seeing.prompts if "Sentence number" in prompt]
    joined = [prompt for prompt in seeing.prompts if "in pieces" in prompt]
    assert len(pieces) == 4
    assert joined
    assert all("The roof leaks. Anna and Tom" in prompt for prompt in joined)


def test_markup_in_a_reply_stays_text(folder: Path, seeing: SeeingServer) -> None:
    evil = {**SUMMARY, "title": "<script>alert(1)</script>", "points": ["[x](javascript:alert(1))\n# Heading"]}
    seeing.answer = lambda _kind, _prompt: json.dumps(evil)
    assert summarize.main([DAY]) == 0
    body = (folder / "summary.md").read_text().partition("\n---\n\n")[2]
    assert "<" not in body
    assert "](" not in re.sub(r"\\.", "", body)
    assert body.count("\n# ") == 0


def test_a_page_that_somebody_changed_is_set_aside(folder: Path, seeing: SeeingServer) -> None:
    seeing.answer = lambda _kind, _prompt: json.dumps(SUMMARY)
    summarize.main([DAY])
    page = folder / "summary.md"
    page.write_text(page.read_text() + "\nMy own remark.\n")
    assert summarize.main([DAY]) == 0
    assert "My own remark." in page.read_text(), "nothing has changed, so nothing is made"
    assert summarize.main([DAY, "--force"]) == 0
    assert "My own remark." in (folder / "summary_before_1.md").read_text()
    assert "My own remark." not in page.read_text()
    summarize.main([DAY, "--force"])
    assert not (folder / "summary_before_2.md").exists(), "our own page is written over"


def test_a_file_is_summed_up_and_nothing_is_kept(
    folder: Path, tmp_path: Path, seeing: SeeingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "talk.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\n<v Anna>It leaks.</v>\n")
    seeing.answer = lambda _kind, _prompt: json.dumps(SUMMARY)
    before = sorted(tmp_path.rglob("*.md"))
    assert summarize.main([str(tmp_path / "talk.vtt")]) == 0
    assert "The roof leaks" in capsys.readouterr().out
    assert summarize.main([str(tmp_path / "talk.vtt"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["decisions"] == ["Tom rings the roofer."]
    assert sorted(tmp_path.rglob("*.md")) == before
    assert enrich.main([str(tmp_path / "talk.vtt"), "--segment", "x"]) == 2
    with pytest.raises(ConfigError, match=r"DAY\|FILE: found 'nothing'"):
        enrich.main(["nothing"])


@pytest.mark.parametrize("command", [enrich.main, summarize.main], ids=["enrich", "summarize"])
def test_a_day_without_words_is_nothing_to_do(
    command: Callable[[list[str]], int],
    journal: JournalFolder,
    seeing: SeeingServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put_screens(segment(journal.path), [1])
    assert command([DAY]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert not seeing.prompts


@pytest.mark.parametrize("command", [enrich.main, summarize.main], ids=["enrich", "summarize"])
def test_a_missing_key_ends_the_run_unless_nothing_is_to_be_asked(
    command: Callable[[list[str]], int], folder: Path, seeing: SeeingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(MissingKeyError):
        command([DAY])
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    seeing.answer = lambda _kind, prompt: ENRICHED if "emotion" in prompt else json.dumps(SUMMARY)
    assert command([DAY]) == 0
    monkeypatch.delenv("OPENAI_API_KEY")
    assert command([DAY]) == 0


@pytest.fixture
def example(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A segment of the example journal, everything routed to the embedded model."""
    monkeypatch.delenv(local.MODEL_ENV, raising=False)
    journal.route(default={"provider": "local"})
    shutil.copytree(EXAMPLE / DAY / "123000_720", folder := journal.path / DAY / "123000_720")
    return folder


@needs_model
def test_the_embedded_model_enriches_with_what_was_offered_to_it(example: Path) -> None:
    assert enrich.main([DAY]) == 0
    found = kept(example)
    said = (example / "transcript.jsonl").read_text().casefold()
    assert found["setting"] in SETTINGS
    assert found["emotion"] in EMOTIONS
    assert found["topics"]
    assert all(topic.casefold() in said for topic in found["topics"])  # type: ignore[attr-defined]
    assert found["cost_usd"] == 0.0


@needs_model
def test_the_embedded_model_sums_up_in_sentences_of_the_source(example: Path) -> None:
    assert summarize.main([DAY]) == 0
    page = (example / "summary.md").read_text()
    quotes = re.findall(r"^> (?!–)(.+)$", page, re.MULTILINE)
    said = (example / "transcript.jsonl").read_text()
    assert quotes
    assert all(quote in said for quote in quotes)
    assert page.count("> – Maren, 12:") == len(quotes)
    assert summarize.main([DAY, "--json"]) == 0
