"""The agents' scheduled runs as `muse daily` shows them: the plan as a table, how each ended; it decides nothing."""

from __future__ import annotations

from collections.abc import Sequence

from muse.cli._terminal.terminal import Column, draw, say
from muse.cortex.due_runs import DueRun
from muse.cortex.scheduled_runs import RunResult

_COLUMNS = (
    Column("day"),
    Column("priority", numbers=True),
    Column("persona", style="bold"),
    Column("facet"),
    Column("schedule"),
    Column("state"),
)


def show_plan(planned: Sequence[DueRun]) -> bool:
    """Print what is due; whether all of it can be used."""
    if not planned:
        say("Nothing is due.")
        return True
    draw(_COLUMNS, [_row(one) for one in planned])
    for one in planned:
        if one.state == "unusable":
            say(f"{one.persona}: {one.note}", "red")
    return not has_unusable(planned)


def has_unusable(planned: Sequence[DueRun]) -> bool:
    """Whether a persona's schedule cannot be read."""
    return any(one.state == "unusable" for one in planned)


def show_end(ended: RunResult) -> None:
    """Say how a run ended."""
    about = f"{name_of(ended)} for {ended.day}, run {ended.agent_id}"
    seconds = "" if ended.duration_s is None else f" in {ended.duration_s:.1f} s"
    if ended.failed:
        say(f"✗ {about}: {ended.error}", "red")
    else:
        say(f"✓ {about}{seconds}")


def name_of(ended: RunResult) -> str:
    """The persona, with the facet it was about."""
    return f"{ended.persona} ({ended.facet})" if ended.facet else ended.persona


def _row(one: DueRun) -> list[str]:
    return [one.occasion.day, str(one.priority), one.persona, one.facet or "-", one.schedule, one.state]
