"""`muse daily`: observe, think, agents in order; what fails keeps none from its turn, what is killed goes on."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from muse import cli
from muse.cortex import schedule_log
from muse.errors import ConfigError
from muse.runs import run_files
from tests.embedded import needs_model
from tests.journal_folder import ROOT, JournalFolder, start
from tests.loopback.behaviours import Hang, Step
from tests.provider_cases import FAMILY
from tests.reading import DAY, EXAMPLE, ReadingServer, copy_day, found, one
from think.daily import main
from think.daily_report.run_state import DayRun
from think.entries.sources import is_end_of_week
from think.pipeline import OBSERVING, days_to_do, due_topics

OPENAI = FAMILY[0]
DAILY = "import sys; from muse.cli import main; sys.exit(main(['daily', *sys.argv[1:]]))"
TOPICS = ("decisions", "commitments", "questions", "people", "meetings", "week")
STEPS = ("describe", "enrich", "summarize", "daily", *TOPICS)
PERSONAS = ("daily_review", "meeting_prep", "todo_keeper")


def answer(prompt: str) -> str:
    """What a model says: occurrences for topics, a sentence for the digest, nothing usable for anything else."""
    if "The journal (" in prompt:
        return found()
    if "Quote the one sentence" in prompt:
        return json.dumps({"sentence": prompt.split("- ")[1].partition("\n")[0]})
    return "A title"


@pytest.fixture(name="routed")
def _routed(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> JournalFolder:
    """A journal whose personas of the system have no schedule, all routed to a server that `reach` starts."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    own = journal.path / "own"
    own.mkdir()
    for name in PERSONAS:
        (own / f"{name}.json").write_text(json.dumps({"tools": []}))
        (own / f"{name}.txt").write_text("Answer.")
    return journal


def reach(journal: JournalFolder, server: ReadingServer, monkeypatch: pytest.MonkeyPatch, **contexts: Any) -> None:
    """Route everything to the server, agents to echo."""
    for name, value in OPENAI.environment(server.url).items():
        monkeypatch.setenv(name, value)
    providers = OPENAI.providers(server.url)
    providers["contexts"] = {"agent.*": {"provider": "echo"}, **contexts}
    journal.write({"descriptors": {"agents": ["../own"]}, "providers": providers})


def persona(journal: JournalFolder, name: str, **fields: Any) -> None:
    """A persona with a schedule; it needs no tools unless `fields` say so."""
    (journal.path / "own" / f"{name}.json").write_text(json.dumps({"tools": [], "schedule": "daily", **fields}))
    (journal.path / "own" / f"{name}.txt").write_text("Answer.")


def only_notes(journal: JournalFolder) -> Path:
    """A day that has notes and nothing that observe looks at."""
    folder = journal.path / DAY / "notes"
    folder.mkdir(parents=True)
    for note in sorted((EXAMPLE / DAY / "notes").iterdir()):
        (folder / note.name).write_bytes(note.read_bytes())
    return journal.path / DAY


def report(day: Path) -> dict[str, Any]:
    """The data of the page that was kept."""
    data: dict[str, Any] = json.loads((day / "daily_report.json").read_text())
    return data


def states(day: Path) -> dict[str, str]:
    return {step["name"]: step["state"] for step in report(day)["steps"]}


def test_all_is_done_in_order_and_one_page_says_so(
    routed: JournalFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    day = only_notes(routed)
    with ReadingServer(answer) as server:
        reach(routed, server, monkeypatch)
        persona(routed, "second", priority=2)
        persona(routed, "first", priority=1)
        assert main(["--day", DAY]) == 0
        asked = len(server.prompts)
        assert [step["name"] for step in report(day)["steps"]] == [*STEPS, "first", "second"]
        assert states(day)["describe"] == "nothing"
        assert states(day)["decisions"] == "done"
        assert sum(step["calls"] for step in report(day)["steps"]) == len(routed.lines())
        assert report(day)["cost_usd"] == pytest.approx(sum(line["cost_usd"] for line in routed.lines()))
        assert report(day)["cost_usd"] > 0
        assert main(["--day", DAY]) == 0
        assert len(server.prompts) == asked
    assert set(states(day).values()) <= {"nothing", "unchanged"}
    page = (day / "daily_report.md").read_text()
    assert page.startswith("# What ran for Tuesday 3 November 2026\n")
    assert "| think | decisions | unchanged |" in page
    assert "daily_report.md" in capsys.readouterr().out


def test_a_failing_step_is_said_with_how_to_run_it_again_and_the_others_go_on(
    routed: JournalFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    day = copy_day(routed)
    for picture in day.glob("*/*.png"):
        picture.unlink()
    with ReadingServer(answer) as server:
        reach(routed, server, monkeypatch, **{"insight.people": {"provider": "anthropic"}})
        persona(routed, "broken", save="../out.md")
        assert main(["--day", DAY]) == 1
    found_states = states(day)
    assert found_states["enrich"] == found_states["people"] == found_states["broken"] == "failed"
    assert found_states["daily"] == found_states["decisions"] == found_states["week"] == "done"
    printed = capsys.readouterr().out
    assert "ANTHROPIC_API_KEY not found" in printed
    assert f"Again: muse enrich {DAY}" in printed
    assert f"Again: muse insight {DAY} --topic people" in printed
    assert f"Again: muse daily --only agents --day {DAY}" in printed
    assert f"Again: `muse enrich {DAY}`" in (day / "daily_report.md").read_text()


def test_what_a_model_cannot_do_is_not_done_and_no_failure(
    routed: JournalFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    day = copy_day(routed)
    for transcript in day.glob("*/transcript.jsonl"):
        transcript.unlink()
    with ReadingServer(answer) as server:
        blind = {"provider": "local"}
        reach(routed, server, monkeypatch, **{"observe.describe.*": blind, "observe.describe.frame": blind})
        assert main(["--day", DAY]) == 0
    assert states(day)["describe"] == "not done"
    assert "observe.describe" in capsys.readouterr().out


def test_a_broken_topic_file_is_said_and_the_others_are_made(
    routed: JournalFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    day = only_notes(routed)
    (routed.path / "topics").mkdir()
    (routed.path / "topics" / "bad.md").write_text("no front matter")
    with ReadingServer(answer) as server:
        reach(routed, server, monkeypatch)
        config = json.loads(routed.config.read_text())
        routed.write({**config, "descriptors": {**config["descriptors"], "insights": ["../topics"]}})
        assert main(["--day", DAY, "--only", "think"]) == 1
    assert states(day)["decisions"] == "done"
    assert "bad.md" in capsys.readouterr().out


def test_a_run_that_is_killed_goes_on_and_pays_nothing_twice(
    routed: JournalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = only_notes(routed)
    held = ["List the meetings"]

    def slow(prompt: str) -> str | Step:
        return Hang() if any(words in prompt for words in held) else answer(prompt)

    with ReadingServer(slow) as server:
        reach(routed, server, monkeypatch)
        transcript = day / "090000_60" / "transcript.jsonl"
        transcript.parent.mkdir()
        transcript.write_text('{"start_s": 1, "speaker": "Ada", "text": "High tide at six."}')
        words = ("--day", DAY, "--only", "think")
        with start(DAILY, *words) as child:
            is_there = server.wait_until(lambda _: any(held[0] in prompt for prompt in server.prompts), 60)
            child.send_signal(signal.SIGKILL)
            child.communicate()
        assert is_there
        assert DayRun(DAY).resumed
        kept_topics = _kept(day)
        before = list(server.prompts)
        held.clear()
        assert main(list(words)) == 0
        again = server.prompts[len(before) :]
    assert "daily" in kept_topics
    assert sorted(_kept(day)) == sorted({*TOPICS, "daily"} - {"week"})
    assert len(again) == len(_kept(day)) - len(kept_topics) + 1  # and the week, in the folder of its last day
    assert not any("Quote the one sentence" in prompt for prompt in again)
    assert report(day)["resumed"] is True
    assert states(day)["daily"] == "done"
    assert report(day)["calls"] == len(routed.lines())
    assert not DayRun(DAY).resumed


def _kept(day: Path) -> list[str]:
    """The topics of a day that something is kept of."""
    return [path.stem for path in (day / "insights").glob("*.json")]


def test_one_process_at_a_time(routed: JournalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    only_notes(routed)
    with schedule_log.exclusive_lock():
        assert cli.main(["daily", "--only", "think"]) == 1
    assert "another `muse daily` is at work" in capsys.readouterr().err


def test_a_dry_run_asks_nothing_and_writes_nothing(routed: JournalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    day = copy_day(routed)
    routed.write({"descriptors": {"agents": ["../own"]}, "providers": {"default": {"provider": "anthropic"}}})
    persona(routed, "first")
    assert main(["--dry-run", "--day", DAY]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[2] for line in printed.splitlines()[1 : len(STEPS) + 1]] == list(STEPS)
    assert "first" in printed
    assert main(["--dry-run", "--day", DAY, "--json"]) == 0
    assert [step["step"] for step in json.loads(capsys.readouterr().out)["steps"]] == [*STEPS, "first"]
    assert not (day / "insights").exists()
    assert not (day / "daily_report.md").exists()
    assert run_files.newest_ids() == []


def test_without_a_day_the_latest_is_gone_through_where_the_last_week_has_none(routed: JournalFolder) -> None:
    assert days_to_do(None) == []
    only_notes(routed)
    (routed.path / "20200101" / "events.jsonl").parent.mkdir()
    (routed.path / "20200101" / "events.jsonl").write_text("")
    (routed.path / "20991231").mkdir()
    assert days_to_do(None) == [DAY]
    assert days_to_do("20200101") == ["20200101"]


def test_the_week_is_due_after_its_last_recorded_day(routed: JournalFolder) -> None:
    only_notes(routed)
    assert is_end_of_week(DAY)
    assert "week" in [topic.name for topic in due_topics(DAY)[0]]
    copy_day(routed, "20261105")
    assert not is_end_of_week(DAY)
    assert "week" not in [topic.name for topic in due_topics(DAY)[0]]
    assert not is_end_of_week("20991228")


def test_an_empty_journal_has_nothing_to_do(routed: JournalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "think"]) == 0
    shown = capsys.readouterr().out
    assert "no day is recorded" in shown
    assert "JOURNAL_PATH names another" in shown


def test_a_day_without_records_has_only_the_agents_turns(
    routed: JournalFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSE_PROVIDER", "echo")
    routed.write({"descriptors": {"agents": ["../own"]}, "providers": {}})
    persona(routed, "watch", always=True)
    persona(routed, "review")
    made = routed.path / "20200105" / "insights"
    made.mkdir(parents=True)
    (made / "week.md").write_text("What was made of a week is no record of its last day.")
    assert main(["--day", "20200105", "--only", "agents"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["watch"]
    assert main(["--day", "20200104"]) == 0
    assert "watch" in capsys.readouterr().out
    assert not (routed.path / "20200104").exists()


def test_wrong_words_are_refused(routed: JournalFolder) -> None:
    assert main(["--help"]) == 0
    assert main(["--day", "20261340"]) == 2
    assert main(["--only", "dream"]) == 2
    with pytest.raises(ConfigError, match="20260101"):
        main(["--day", "20260101", "--only", "think"])


def test_json_is_all_that_is_printed_with_json(
    routed: JournalFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    only_notes(routed)
    with ReadingServer(lambda _: found(one())) as server:
        reach(routed, server, monkeypatch)
        assert main(["--day", DAY, "--only", "think", "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["complete"] is False
    assert [step["name"] for step in printed["days"][0]["steps"]] == ["daily", *TOPICS]


def test_the_contexts_of_observe_are_those_its_steps_ask_under() -> None:
    assert [step.name for step in OBSERVING] == ["describe", "enrich", "summarize"]
    assert all(context.startswith("observe.") for step in OBSERVING for context in step.contexts)


@needs_model
def test_a_day_goes_through_on_the_embedded_model_without_a_key(routed: JournalFolder) -> None:
    day = routed.path / DAY
    segment = day / "090500_720"
    segment.mkdir(parents=True)
    said = (EXAMPLE / DAY / "090500_720" / "transcript.jsonl").read_text().splitlines()
    (segment / "transcript.jsonl").write_text("\n".join(said[:5]))
    routed.write({"descriptors": {"agents": ["../own"]}, "providers": {"default": {"provider": "local"}}})
    persona(routed, "first", tools=["journal"])  # without tools the small model talks on and on
    assert main(["--day", DAY]) == 0
    assert states(day)["enrich"] == states(day)["summarize"] == states(day)["daily"] == states(day)["first"] == "done"
    assert states(day)["decisions"] in ("done", "nothing")
    assert {line["provider"] for line in routed.lines()} == {"local"}
