"""What `muse insight` and `muse daily` once did wrong: pages, segments, errors, who made what."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from muse import testing
from muse.errors import ProviderDown
from tests.at_terminal import Terminal
from tests.embedded import needs_model
from tests.journal_folder import JournalFolder
from tests.reading import DAY, QUOTE, SOURCE, TOPIC, add_topic, config, copy_day, found, kept, one
from think import daily
from think.agent_generator.command import main as plan
from think.agent_generator.generate import make_plan
from think.daily_report.report import show_report
from think.daily_report.run_state import StepDone
from think.entries.transcripts import read_day
from think.insight import main
from think.insights.definition import find_topics
from think.output.formatting import brief
from think.output.store import Kept, Shelf


@pytest.fixture(name="day")
def _day(journal: JournalFolder) -> Path:
    journal.write(config())
    add_topic(journal)
    return copy_day(journal)


def _pages(day: Path) -> list[str]:
    return sorted(path.name for path in (day / "insights").glob("*.md"))


def test_a_run_that_was_killed_after_its_page_does_not_take_it_for_somebody_elses(journal: JournalFolder) -> None:
    truncated_results = Shelf(DAY, "tides", Kept(day=DAY))
    truncated_results.put_page(Kept(day=DAY), "the page")  # and the state is not written any more
    assert truncated_results.put_page(Kept(day=DAY), "the page") is None
    assert _pages(journal.path / DAY) == ["tides.md"]


def test_a_page_that_another_process_made_meanwhile_is_nobodys_own(journal: JournalFolder) -> None:
    truncated_results, other = (Shelf(DAY, "tides", Kept(day=DAY)) for _ in range(2))
    mine, theirs = truncated_results.load(), other.load()
    other.put_page(theirs, "their page")
    other.save(theirs)
    assert truncated_results.put_page(mine, "my page") is None
    assert _pages(journal.path / DAY) == ["tides.md"]


def test_a_page_that_a_person_changed_is_set_aside(journal: JournalFolder) -> None:
    truncated_results = Shelf(DAY, "tides", Kept(day=DAY))
    state = truncated_results.load()
    truncated_results.put_page(state, "the page")
    truncated_results.save(state)
    truncated_results.page_path.write_text("mine")
    aside = truncated_results.put_page(state, "another page")
    assert aside is not None
    assert aside.read_text() == "mine"


@pytest.mark.parametrize("words", [["--topic", "tides"], ["--all"], ["--week"], ["--force"]])
def test_no_option_is_taken_and_ignored_beside_list(
    day: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--list", *words]) == 2
    assert "--list goes with DAY and --json alone" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["999999_60", "100000_99999999999999999999", "1000_60"])
def test_a_folder_that_is_no_segment_is_left_alone(day: Path, name: str) -> None:
    before = read_day(DAY)
    (day / name).mkdir()
    (day / name / "transcript.jsonl").write_text('{"text": "We decided it, yes."}\n')
    assert read_day(DAY) == before


def test_a_line_too_deep_to_be_read_is_left_out(day: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = read_day(DAY)
    with (day / SOURCE).open("a") as file:
        file.write("[" * 100_000 + "\n")
    assert read_day(DAY) == before
    assert "are no utterances" in caplog.text


def test_an_error_that_lists_everything_is_cut_on_screen_and_kept_whole(
    day: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(30):
        (day / "notes" / f"0900_{'long_' * 8}{number}.md").write_text("One more thing to say.")
    bad = found(one(source="made/up"))
    with testing.script(bad, bad):
        assert main([DAY, "--topic", "tides"]) == 1
    assert len(capsys.readouterr().err) < 600
    problem = json.loads((day / "insights" / "tides.failed.json").read_text())["problem"]
    assert len(problem) > 1_000
    assert brief(problem).endswith(" …")
    main(["--list", DAY])
    assert problem not in capsys.readouterr().out


@pytest.mark.parametrize("topic", ["tides", "daily"])
def test_a_page_says_who_answered_where_a_fallback_took_over(journal: JournalFolder, topic: str) -> None:
    second = {"provider": "echo", "model": "echo-2"}
    journal.write(config(default={"provider": "echo", "fallbacks": [second], "retries": 0}))
    add_topic(journal)
    (journal.path / DAY / "notes").mkdir(parents=True)
    (journal.path / DAY / "notes" / "0900_a.md").write_text(
        f"# A\n\n{QUOTE} It waits for Jonas and his long tests. It waits for Ravi too and his sensors."
    )
    answer = found(one(source="notes/0900_a.md")) if topic == "tides" else json.dumps({"sentence": QUOTE})
    with testing.script(ProviderDown("away"), answer):
        assert main([DAY, "--topic", topic]) == 0
    day = journal.path / DAY
    assert kept(day, topic)["made_by"] == "echo echo-2"
    assert "by echo echo-2." in (day / "insights" / f"{topic}.md").read_text()


def test_a_day_that_was_asked_for_and_is_not_there_is_named(
    journal: JournalFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    journal.write(config())
    assert daily.main(["--day", "20261103"]) == 0
    assert "Nothing is due, and 20261103 is not recorded." in capsys.readouterr().out


def test_markdown_in_what_a_model_says_stays_on_its_line(day: Path) -> None:
    with testing.script(found(one("<script>x</script>\n---\ntitle: evil\n---", when="# a\n\n> b\x1b[31m"))):
        assert main([DAY, "--topic", "tides"]) == 0
    page = (day / "insights" / "tides.md").read_text()
    assert page.count("\n---\n") == 1
    assert "## <script>x</script> --- title: evil ---\n" in page
    assert "\x1b" not in page
    assert f"> {QUOTE}\n" in page


@needs_model
def test_an_agent_that_was_put_together_is_no_pattern_for_the_next(journal: JournalFolder) -> None:
    journal.write({"providers": {"default": {"provider": "local"}}})
    assert plan(["Watch the humidity figures in the lab", "--save", "watch"]) == 0
    made = make_plan("Watch the humidity figures in the lab")
    assert made.template != "watch"
    assert made.instruction.count("Your task, in") == 1
    assert os.path.exists(journal.path / "personas" / "watch.txt")


def test_a_state_that_cannot_be_read_is_the_failure_of_its_topic_alone(
    day: Path, journal: JournalFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    add_topic(journal, name="winds")
    (day / "insights" / "tides.json").mkdir(parents=True)
    with testing.script(found(one())):
        assert main([DAY, "--topic", "tides", "--topic", "winds"]) == 1
    assert "tides.json" in capsys.readouterr().err
    assert (day / "insights" / "winds.md").exists()


@pytest.mark.parametrize("asked", [[], ["--day", DAY]])
def test_a_journal_of_notes_alone_has_days_too(journal: JournalFolder, asked: list[str]) -> None:
    journal.write(config())
    add_topic(journal)
    notes = journal.path / DAY / "notes"
    notes.mkdir(parents=True)
    (notes / "0900_a.md").write_text(f"# A\n\n{QUOTE}")
    with testing.script(found(one(source="notes/0900_a.md"))):
        assert main([*asked, "--topic", "tides"]) == 0
    assert len(kept(notes.parent)["occurrences"]) == 1


def test_a_topic_that_found_nothing_says_so_in_the_report(day: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for topic in find_topics().found:
        if topic.name != "tides":
            (day.parent / "topics" / f"{topic.name}.md").write_text(TOPIC)
    for segment in [*day.glob("*_*"), day / "notes"]:
        if (segment / "transcript.jsonl").exists() or segment.name == "notes":
            shutil.rmtree(segment)
    (day / "notes").mkdir()
    (day / "notes" / "0900_a.md").write_text(f"# A\n\n{QUOTE}")
    with testing.script(*[found()] * len(find_topics().found)):
        assert daily.main(["--day", DAY, "--only", "think"]) == 0
    assert "none found" in capsys.readouterr().out


CODE = "import sys; from muse.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.parametrize(("columns", "last"), [(80, "A wider window shows"), (160, "insight.weekly")])
def test_the_list_folds_no_name_in_a_narrow_window(day: Path, columns: int, last: str) -> None:
    with Terminal(CODE, "insight", "--list", DAY, columns=columns) as terminal:
        shown = terminal.read_until(last)
        assert ("Open questions" in shown) == (columns > 100)
        assert "commitments" in shown


@pytest.mark.parametrize(("columns", "has_stages"), [(80, False), (160, True)])
def test_the_report_leaves_columns_out_in_a_narrow_window(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int, has_stages: bool
) -> None:
    monkeypatch.setattr("think.daily_report.report.fits", lambda *_: columns > 100)
    show_report([StepDone("think", "commitments", DAY, "done", "12 found, 3 left out", calls=12)], resumed=False)
    shown = capsys.readouterr().out
    assert ("think" in shown) == has_stages
    assert "12 found, 3 left out" in shown
