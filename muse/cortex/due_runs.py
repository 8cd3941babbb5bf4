"""The scheduled runs that are due, in their order, each once; it knows when and for what, not how a run is made."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from muse.cortex import schedule_log
from muse.cortex.schedule_log import RunSlot
from muse.cortex.schedules import DAILY, DAYS_BACK, WEEKLY, ScheduledTime, scheduled_times, span_of
from muse.journal import paths
from muse.journal.personas import get_agents
from muse.runs import run_files
from muse.runs.client import cortex_request, get_agent_end_state
from muse.types.errors import ConfigError

State = Literal["due", "under way", "nothing recorded", "done", "unusable"]
SCHEDULED_PROMPT = "Do your work for $day."
"""What a persona with a schedule is asked that has no prompt of its own."""

_USUAL_PRIORITY = 50
_MADE = frozenset({"insights", "daily_report.md", "daily_report.json"})


class DueRun(Struct, frozen=True):
    """One turn of one persona; `agent_id` is the run that was made for it, `note` says more of its state."""

    persona: str
    facet: str
    schedule: str
    occasion: ScheduledTime
    priority: int
    state: State
    agent_id: str | None = None
    note: str = ""

    @property
    def turn(self) -> RunSlot:
        """Its name among the stamps."""
        return RunSlot(self.persona, self.facet, self.occasion.slot)


def find_due_runs(now: datetime, *, day: str | None = None) -> list[DueRun]:
    """Every turn up to `now` that is not done, in the order they are to be carried out: by day, then by priority.

    A persona's missed turns of the last 7 days are made up for, from its first one on; if it never had one, only the
    latest is due. With `day` it is the turns of that day alone, however long ago. A lower `priority` comes first.
    """
    known = schedule_log.read()
    planned: list[DueRun] = []
    for name, persona in sorted(get_agents().items()):
        if persona.get("schedule"):
            planned += _turns_of(name, persona, known, now, day)
    wanted = [one for one in planned if one.state != "done"]
    return sorted(wanted, key=lambda one: (one.occasion.day, one.priority, one.persona, one.facet))


def _turns_of(
    name: str, persona: Mapping[str, Any], known: Mapping[RunSlot, str], now: datetime, day: str | None
) -> Iterator[DueRun]:
    schedule, priority = str(persona["schedule"]), persona.get("priority")
    order = priority if isinstance(priority, int) and not isinstance(priority, bool) else _USUAL_PRIORITY
    try:
        found = _occasions(schedule, now, day)
    except ConfigError as exc:
        today = ScheduledTime(f"{now:%Y%m%d}", "")
        yield DueRun(name, "", schedule, today, order, "unusable", note=str(exc))
        return
    for facet in _facets() if persona.get("multi_facet") else ("",):
        for occasion in found if day else _open(name, facet, found, known):
            state, agent_id = _state_of(persona, RunSlot(name, facet, occasion.slot), occasion.day, known)
            yield DueRun(name, facet, schedule, occasion, order, state, agent_id)


def _occasions(schedule: str, now: datetime, day: str | None) -> tuple[ScheduledTime, ...]:
    if day is None:
        return scheduled_times(schedule, now)
    back = (now.date() - datetime.strptime(day, "%Y%m%d").date()).days
    return tuple(one for one in scheduled_times(schedule, now, days_back=max(back, DAYS_BACK)) if one.day == day)


def _open(
    name: str, facet: str, found: tuple[ScheduledTime, ...], known: Mapping[RunSlot, str]
) -> tuple[ScheduledTime, ...]:
    """The occasions from the first that was ever carried out on; only the latest if there was none."""
    had = [turn.slot for turn in known if (turn.persona, turn.facet) == (name, facet)]
    return tuple(one for one in found if one.slot >= min(had)) if had else found[-1:]


def _state_of(
    persona: Mapping[str, Any], turn: RunSlot, day: str, known: Mapping[RunSlot, str]
) -> tuple[State, str | None]:
    agent_id = known.get(turn)
    if agent_id is not None:
        end = get_agent_end_state(agent_id)
        if end == "running":
            return "under way", agent_id
        if end == "finish" or run_files.find(agent_id) is None:  # its log may have been cleared away
            return "done", agent_id
    if not persona.get("always") and not _has_entries(persona["schedule"], turn.facet, day):
        return "nothing recorded", agent_id
    return "due", agent_id


def _has_entries(schedule: object, facet: str, day: str) -> bool:
    """Whether there is anything of the days it is about; a cron form without facet is about no recorded day."""
    if not facet and schedule not in (DAILY, WEEKLY):
        return True
    days = tuple(f"{one:%Y%m%d}" for one in span_of(schedule, day))
    if facet:
        found = (name for _, folders, files in os.walk(_facets_folder() / facet) for name in (*folders, *files))
        return any(name.startswith(days) for name in found)
    return any(_is_filled(paths.journal_path() / one) for one in days)


def _is_filled(folder: Path) -> bool:
    """Whether something was recorded, besides what was made of this day or of the week that ends with it."""
    names = (entry.name for entry in folder.iterdir()) if folder.is_dir() else iter(())
    return any(not name.startswith(".") and name not in _MADE for name in names)


def _facets() -> list[str]:
    """The facets of the journal: the folders of `<journal>/facets`."""
    place = _facets_folder()
    if not place.is_dir():
        return []
    return sorted(entry.name for entry in place.iterdir() if entry.is_dir() and entry.name[0] not in "._")


def _facets_folder() -> Path:
    return paths.journal_path() / "facets"


def request_run(planned: DueRun) -> str:
    """The id of the run for a turn: the one under way, or a new one, noted so that no other is made."""
    if planned.state == "under way" and planned.agent_id is not None:
        return planned.agent_id
    persona = get_agents()[planned.persona]
    config = {"day": planned.occasion.day, "facet": planned.facet or None, "slot": planned.occasion.slot}
    prompt = str(persona.get("prompt") or SCHEDULED_PROMPT)
    agent_id = cortex_request(prompt.replace("$day", _in_words(planned)), planned.persona, config=config)
    schedule_log.add(planned.turn, agent_id)
    return agent_id


def _in_words(planned: DueRun) -> str:
    """The days of a turn for a prompt: `Tuesday, 2026-11-03 (20261103)`, or a week from one such day to another."""
    days = span_of(planned.schedule, planned.occasion.day)
    if len(days) == 1:
        return _day_in_words(days[0])
    return f"the week from {_day_in_words(days[0])} to {_day_in_words(days[-1])}"


def _day_in_words(day: date) -> str:
    names = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    return f"{names[day.weekday()]}, {day:%Y-%m-%d} ({day:%Y%m%d})"
