"""`muse daily`: carries out the scheduled runs that are due, in order; whoever calls it decides when."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Sequence
from datetime import datetime

from muse import journal, runs
from muse.cli import _terminal
from muse.cli._terminal import Column
from muse.cortex import daily, stamps
from muse.cortex.daily import Planned
from muse.cortex.supervisor import Cortex
from muse.cortex_client import get_agent_end_state, get_agent_thread, read_agent_events

HELP = "Carry out the agents' scheduled runs that are due, in order of their priority, each once; missed ones too."
_COLUMNS = (
    Column("day"),
    Column("priority", numbers=True),
    Column("persona", style="bold"),
    Column("facet"),
    Column("schedule"),
    Column("state"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which day, or only the plan."""
    parser.add_argument("--day", metavar="YYYYMMDD", type=_day, help="only what is scheduled for this day")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and run nothing")


def run(args: argparse.Namespace) -> int:
    """Print the plan, or carry it out: 0 if all of it finished, else 1."""
    if args.dry_run:
        return _show(daily.plan(datetime.now(), day=args.day))
    with stamps.held():
        planned = daily.plan(datetime.now(), day=args.day)
        wanted = [one for one in planned if one.state in ("due", "under way")]
        if not wanted:
            return _show(planned)
        return asyncio.run(_carry_out(wanted)) | int(_has_unusable(planned))


async def _carry_out(wanted: Sequence[Planned]) -> int:
    """One after the other; a failed one does not keep the next from its turn."""
    cortex = Cortex()
    stopped = asyncio.Event()

    def stop() -> None:
        stopped.set()
        cortex.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    failed = 0
    for one in wanted:
        if stopped.is_set():
            return 1
        agent_id = daily.ask_for(one)
        await cortex.see_through(agent_id)
        handed_on = (later for later in get_agent_thread(agent_id) if later >= agent_id)
        failed += sum(_report(one, later) for later in handed_on)
    return int(failed > 0)


def _report(one: Planned, agent_id: str) -> bool:
    """Say how a run ended; whether it failed."""
    found = runs.summarize(agent_id)
    persona = found.persona if found else one.persona
    about = f"{persona}{f' ({one.facet})' if one.facet else ''} for {one.occasion.day}, run {agent_id}"
    state = get_agent_end_state(agent_id)
    seconds = "" if found is None or found.duration_s is None else f" in {found.duration_s:.1f} s"
    if state == "finish":
        _terminal.say(f"✓ {about}{seconds}")
    else:
        _terminal.say(f"✗ {about}: {_reason(agent_id) or state}", "red")
    return state != "finish"


def _reason(agent_id: str) -> str:
    """What a run's log says of its failure."""
    ends = [event for event in read_agent_events(agent_id) if event.get("event") == "error"]
    return str(ends[-1].get("error", "")) if ends else ""


def _show(planned: Sequence[Planned]) -> int:
    if not planned:
        _terminal.say("Nothing is due.")
        return 0
    _terminal.draw(_COLUMNS, [_row(one) for one in planned])
    for one in planned:
        if one.state == "unusable":
            _terminal.say(f"{one.persona}: {one.note}", "red")
    return int(_has_unusable(planned))


def _has_unusable(planned: Sequence[Planned]) -> bool:
    return any(one.state == "unusable" for one in planned)


def _row(one: Planned) -> list[str]:
    return [one.occasion.day, str(one.priority), one.persona, one.facet or "-", one.schedule, one.state]


def _day(text: str) -> str:
    if not journal.is_day(text):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a date of the form YYYYMMDD, such as 20261103")
    return text
