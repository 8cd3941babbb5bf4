"""Schedules: when a persona's turn comes, and that each turn is carried out once, also after a missed night."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from muse import cli
from muse.cortex import due_runs, schedule_log
from muse.cortex.schedules import scheduled_times
from muse.errors import ConfigError
from muse.runs import run_files
from muse.runs.client import get_agent_end_state, read_agent_events
from tests.journal_folder import ROOT, JournalFolder

NOW = datetime(2026, 11, 4, 6, 30)  # a Wednesday


class House:
    """A journal with recorded days and personas of its own."""

    def __init__(self, journal: JournalFolder) -> None:
        self.path = journal.path
        self._personas = journal.path / "personas"
        self._personas.mkdir()
        journal.write({"descriptors": {"agents": [str(self._personas)]}})

    def add(self, name: str, **fields: Any) -> None:
        """A persona that needs no tools."""
        (self._personas / f"{name}.json").write_text(json.dumps({"tools": [], **fields}), encoding="utf-8")
        (self._personas / f"{name}.txt").write_text("Answer.", encoding="utf-8")

    def record(self, *days: str, facet: str | None = None) -> None:
        """Something happened on these days."""
        for day in days:
            place = self.path / "facets" / facet / "events" if facet else self.path / day / "notes"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{day}.jsonl").write_text("{}\n", encoding="utf-8")

    def due(self, now: datetime = NOW, day: str | None = None) -> list[tuple[str, str]]:
        """`(persona or persona/facet, day)` of what is to be carried out, the system's own personas left out."""
        own = {path.stem for path in self._personas.glob("*.json")}
        found = [one for one in due_runs.find_due_runs(now, day=day) if one.persona in own and one.state == "due"]
        return [(f"{one.persona}/{one.facet}" if one.facet else one.persona, one.occasion.day) for one in found]

    def carry_out(self, now: datetime = NOW) -> None:
        """Let every due turn have a run that finished."""
        for one in due_runs.find_due_runs(now):
            if one.state == "due":
                self.end(due_runs.request_run(one))

    def end(self, agent_id: str, event: str = "finish") -> None:
        """Let a run that waits be over."""
        recorder = run_files.claim(agent_id)
        assert recorder is not None
        recorder.write({"event": event})
        recorder.end()


@pytest.fixture
def house(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setenv("MUSE_PROVIDER", "echo")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return House(journal)


# Occasions


def _days(schedule: object, now: datetime = NOW, days_back: int = 7) -> list[str]:
    return [one.day for one in scheduled_times(schedule, now, days_back=days_back)]


def test_daily_is_each_day_that_is_over() -> None:
    assert _days("daily", days_back=3) == ["20261101", "20261102", "20261103"]
    assert _days("daily", datetime(2026, 11, 4, 0, 0), 1) == ["20261103"]


def test_weekly_is_the_week_that_ended_on_sunday() -> None:
    assert _days("weekly") == ["20261101"]
    assert _days("weekly", datetime(2026, 11, 1, 23, 59)) == ["20261025"]
    assert _days("weekly", datetime(2026, 11, 2, 0, 0)) == ["20261101"]


@pytest.mark.parametrize(
    ("schedule", "slots"),
    [
        ("30 7 * * 1-5", ["20261102T0730", "20261103T0730"]),
        ("30 6 * * *", ["20261101T0630", "20261102T0630", "20261103T0630", "20261104T0630"]),
        ("*/10 5 * * wed", ["20261104T0550"]),
        ("0 0 29 2 *", []),
    ],
)
def test_a_cron_form_has_the_last_occasion_of_each_day(schedule: str, slots: list[str]) -> None:
    assert [one.slot for one in scheduled_times(schedule, NOW, days_back=3)] == slots


@pytest.mark.parametrize("schedule", ["hourly", "* * * *", "61 * * * *", 7, "0 0 31 2 *"])
def test_another_schedule_says_what_is_allowed(schedule: object) -> None:
    with pytest.raises(ConfigError, match="'daily', 'weekly' or a cron form"):
        scheduled_times(schedule, NOW)


# The plan


def test_what_is_due_is_in_order_of_day_priority_and_name(house: House) -> None:
    house.record("20261103")
    house.add("late", schedule="daily", priority=90)
    house.add("early", schedule="daily", priority=1)
    house.add("usual", schedule="daily")
    house.add("never")
    assert house.due() == [("early", "20261103"), ("usual", "20261103"), ("late", "20261103")]


def test_a_turn_is_carried_out_once(house: House) -> None:
    house.record("20261103")
    house.add("review", schedule="daily")
    house.carry_out()
    assert house.due() == []
    assert house.due(datetime(2026, 11, 4, 23, 0)) == []


def test_missed_nights_are_made_up_for_up_to_a_week_back(house: House) -> None:
    house.record(*(f"202611{day:02d}" for day in range(1, 30)))
    house.add("review", schedule="daily")
    house.carry_out()
    assert house.due(datetime(2026, 11, 7, 6, 0)) == [("review", f"202611{day:02d}") for day in (4, 5, 6)]
    assert len(house.due(datetime(2026, 11, 29, 6, 0))) == 7


def test_a_failed_run_is_due_again_and_a_waiting_one_is_not(house: House) -> None:
    house.record("20261103")
    house.add("review", schedule="daily")
    (one,) = (one for one in due_runs.find_due_runs(NOW) if one.persona == "review")
    agent_id = due_runs.request_run(one)
    (again,) = (one for one in due_runs.find_due_runs(NOW) if one.persona == "review")
    assert (again.state, due_runs.request_run(again)) == ("under way", agent_id)
    house.end(agent_id, "error")
    assert house.due() == [("review", "20261103")]


def test_a_run_whose_log_was_cleared_away_is_done(house: House) -> None:
    house.record("20261103")
    house.add("review", schedule="daily")
    house.carry_out()
    for path in run_files.folder().iterdir():
        path.unlink()
    assert house.due() == []


def test_a_day_without_entries_is_passed_over_unless_always(house: House) -> None:
    house.add("review", schedule="daily")
    house.add("watch", schedule="daily", always=True)
    house.add("alarm", schedule="0 6 * * *")
    assert house.due() == [("watch", "20261103"), ("alarm", "20261104")]
    house.record("20261103")
    assert ("review", "20261103") in house.due()


def test_a_week_counts_as_recorded_if_one_of_its_days_is(house: House) -> None:
    house.add("digest", schedule="weekly")
    assert house.due() == []
    house.record("20261027")
    assert house.due() == [("digest", "20261101")]


def test_each_facet_with_entries_has_a_turn(house: House) -> None:
    house.add("news", schedule="daily", multi_facet=True)
    house.add("rounds", schedule="daily", multi_facet=True, always=True, priority=1)
    house.record("20261103", facet="work")
    house.record("20261001", facet="garden")
    assert house.due() == [
        ("rounds/garden", "20261103"),
        ("rounds/work", "20261103"),
        ("news/work", "20261103"),
    ]


def test_one_day_can_be_asked_for_however_long_ago(house: House) -> None:
    house.record("20260105", "20261103")
    house.add("review", schedule="daily")
    assert house.due(day="20260105") == [("review", "20260105")]
    assert house.due(day="20261104") == []  # it is not over


def test_an_unusable_schedule_does_not_keep_the_others_from_their_turn(house: House) -> None:
    house.record("20261103")
    house.add("broken", schedule="sometimes")
    house.add("review", schedule="daily")
    assert house.due() == [("review", "20261103")]
    (broken,) = (one for one in due_runs.find_due_runs(NOW) if one.persona == "broken")
    assert broken.state == "unusable"
    assert "sometimes" in broken.note


def test_the_prompt_names_the_days(house: House) -> None:
    house.record("20261101")
    house.add("digest", schedule="weekly", prompt="Sum up $day.")
    (one,) = (one for one in due_runs.find_due_runs(NOW) if one.persona == "digest")
    request = read_agent_events(due_runs.request_run(one))[0]
    week = "the week from Monday, 2026-10-26 (20261026) to Sunday, 2026-11-01 (20261101)"
    assert request["prompt"] == f"Sum up {week}."
    assert request["day"] == "20261101"


# The command


def test_a_dry_run_prints_the_plan_and_runs_nothing(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    house.record("20200105")
    house.add("review", schedule="daily", priority=3)
    assert cli.main(["daily", "--only", "agents", "--dry-run", "--day", "20200105"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["DAY", "PRIORITY", "PERSONA", "FACET", "SCHEDULE", "STATE"]
    assert lines[1].split() == ["20200105", "3", "review", "-", "daily", "due"]
    assert run_files.newest_ids() == []


def test_muse_daily_runs_in_order_with_handoffs_and_a_second_time_nothing(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    house.record("20200104")
    for system in ("daily_review", "meeting_prep", "todo_keeper"):
        house.add(system)  # its place is taken by one without a schedule
    house.add("second", schedule="daily", priority=2)
    house.add("first", schedule="daily", priority=1, handoff={"persona": "editor", "prompt": "Edit: $result"})
    house.add("editor")
    assert cli.main(["daily", "--only", "agents", "--day", "20200104"]) == 0
    made = [read_agent_events(agent_id)[0]["persona"] for agent_id in reversed(run_files.newest_ids())]
    assert made == ["first", "editor", "second"]
    assert {get_agent_end_state(agent_id) for agent_id in run_files.newest_ids()} == {"finish"}
    assert capsys.readouterr().out.count("✓") == 3
    assert cli.main(["daily", "--only", "agents", "--day", "20200104"]) == 0
    assert "Nothing is due." in capsys.readouterr().out


def test_a_failed_run_makes_the_command_fail_and_the_next_still_run(
    house: House, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    house.record("20200104")
    for system in ("daily_review", "meeting_prep", "todo_keeper"):
        house.add(system)
    house.add("broken", schedule="daily", priority=1, save="../out.md")
    house.add("review", schedule="daily", priority=2, save="review.md")
    assert cli.main(["daily", "--only", "agents", "--day", "20200104"]) == 1
    assert [line[0] for line in capsys.readouterr().out.splitlines()] == ["✗", "✓"]
    assert (house.path / "20200104" / "review.md").exists()


def test_two_at_once_are_refused(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    with schedule_log.exclusive_lock():
        assert cli.main(["daily", "--only", "agents"]) == 1
    assert "another `muse daily` is at work" in capsys.readouterr().err
