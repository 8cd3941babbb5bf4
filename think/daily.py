"""A day's work in order: observe, think, agents; its steps are elsewhere, and so is the page of what ran."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from datetime import datetime

from muse.cli._terminal.arguments import add_day, day_of, parsed, parser_for
from muse.cli._terminal.progress import progress
from muse.cli._terminal.terminal import Column, draw, near, print_json, say
from muse.cortex import schedule_log
from muse.cortex.scheduled_runs import RunResult, carry_out, wanted_of
from muse.errors import ConfigError
from muse.journal import paths
from muse.journal.days import find_day
from think.daily_report.report import as_json, is_whole, keep_report, show_report
from think.daily_report.run_state import DayRun, Stage, StepDone
from think.daily_report.schedule_table import has_unusable, show_end, show_plan
from think.daily_summary.build import BUILT_IN, CONTEXT
from think.pipeline import OBSERVING, STAGES, days_to_do, due_topics, plan_agents, run_agents, run_day

_EPILOG = """\
First what was seen and heard (muse describe, enrich, summarize), then what it
means (muse insight: the topics that are due), then the agents' scheduled runs,
in order of their priority. What has not changed is not asked again, a failing
step does not keep the next from its turn, and a run that was killed goes on
where it was. One page says what ran, what it cost, what failed and how to run
that again; it is kept as daily_report.md in the day's folder.

Without --day: the days of the last week that are over, else the journal's
latest; and every scheduled run that is due. Call it from the system's own
timer, as often as you like.

For example:
  muse daily                          all there is to do
  muse daily --dry-run                what that would be
  muse daily --day 20261103           this day
  muse daily --only think             only the insights
  muse daily --only agents --dry-run  the scheduled runs that are due
"""
_PLAN = (Column("day"), Column("stage"), Column("step", style="bold"), Column("context"))


def main(argv: list[str] | None = None) -> int:
    """Run `muse daily`; 0 done, 1 something failed, 2 used wrongly.

    Raises:
        MuseError: it is under way already, or there is no such day.
    """
    args = parsed(_parser(), argv)
    if isinstance(args, int):
        return args
    asked = day_of(args)
    stages = tuple(stage for stage in STAGES if not args.only or stage in args.only)
    if stages == ("agents",) and not args.json:
        return _agents(asked, dry_run=args.dry_run)
    days = _days(asked, stages)
    if args.dry_run:
        return _show_plan(days, stages, asked, as_json=args.json)
    with schedule_log.exclusive_lock():
        return _run(days, stages, asked, as_json=args.json)


def _parser() -> argparse.ArgumentParser:
    told = "Carry out all that a day needs: describe and sum up, insights, the agents' scheduled runs."
    parser = parser_for("daily", told, _EPILOG)
    add_day(parser, "YYYYMMDD: only what is to be done for this day")
    parser.add_argument("--only", action="append", choices=STAGES, help="only this stage; may be repeated")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and run nothing")
    return parser


def _days(asked: str | None, stages: Sequence[Stage]) -> list[str]:
    """The days that observe and think go through.

    Raises:
        ConfigError: the day that is asked for is not in the journal.
    """
    if not {"observe", "think"}.intersection(stages):
        return []
    if asked is None or (paths.journal_path() / asked).is_dir():
        return days_to_do(asked)
    if "agents" in stages:  # they may have a turn for a day without records
        return []
    return [find_day(asked, what="a segment")]


def _agents(day: str | None, *, dry_run: bool) -> int:
    """The scheduled runs alone: print the plan, or carry it out and say how each ended."""
    if dry_run:
        return 0 if show_plan(plan_agents(day)) else 1
    with schedule_log.exclusive_lock():
        planned = plan_agents(day)
        wanted = wanted_of(planned)
        if not wanted:
            return 0 if show_plan(planned) else 1
        failed: list[bool] = []

        def note(ended: RunResult) -> None:
            show_end(ended)
            failed.append(ended.failed)

        is_all = asyncio.run(carry_out(wanted, note))
    return 0 if is_all and not any(failed) and not has_unusable(planned) else 1


def _show_plan(days: Sequence[str], stages: Sequence[Stage], asked: str | None, *, as_json: bool) -> int:
    """Print what would be gone through, and the scheduled runs that are due."""
    rows: list[tuple[str, str, str, str]] = []
    problems: list[ConfigError] = []
    for day in days:
        if "observe" in stages:
            rows += [(day, "observe", step.name, step.contexts[0]) for step in OBSERVING]
        if "think" in stages:
            topics, bad = due_topics(day)
            rows += [(day, "think", BUILT_IN, CONTEXT), *((day, "think", one.name, one.context) for one in topics)]
            problems += [problem for problem in bad if str(problem) not in map(str, problems)]
    planned = plan_agents(asked) if "agents" in stages else []
    status = 1 if problems or has_unusable(planned) else 0
    if as_json:
        steps = [dict(zip(("day", "stage", "step", "context"), row, strict=True)) for row in rows]
        steps += [
            {"day": one.occasion.day, "stage": "agents", "step": one.persona, "facet": one.facet, "state": one.state}
            for one in planned
        ]
        print_json({"steps": steps, "problems": [str(problem) for problem in problems]})
        return status
    draw(_PLAN, rows)
    for problem in problems:
        say(str(problem), "red")
    if "agents" in stages:
        say("")
        show_plan(planned)
    return status


def _run(days: Sequence[str], stages: Sequence[Stage], asked: str | None, *, as_json: bool) -> int:
    """Go through the days, then the scheduled runs; keep a page for each day, and print all of it."""
    every: list[StepDone] = []
    pages: list[str] = []
    data = []
    last = days[-1] if days else asked or f"{datetime.now():%Y%m%d}"
    resumed = False
    for day in days or [last]:
        run = DayRun(day)
        resumed = resumed or run.resumed
        began = datetime.fromtimestamp(run.state.began).isoformat(sep=" ", timespec="seconds")
        with progress(figures="", shown=not as_json) as step:
            steps = list(run_day(day, stages if days else (), run, step))
            if "agents" in stages and day == last:
                steps += run_agents(plan_agents(asked), run, step)
        if days:
            pages.append(keep_report(day, steps, began=began, resumed=run.resumed))
        run.close()
        every += steps
        data.append(_as_data(day, steps, began, run))
    if as_json:
        print_json({"days": data, "complete": is_whole(every)})
    else:
        _show(every, pages, asked, resumed=resumed)
    return 0 if is_whole(every) else 1


def _as_data(day: str, steps: Sequence[StepDone], began: str, run: DayRun) -> dict[str, object]:
    return as_json(day, steps, began=began, resumed=run.resumed)


def _show(steps: Sequence[StepDone], pages: Sequence[str], asked: str | None, *, resumed: bool) -> None:
    if not steps:
        say(f"Nothing is due, and {asked or 'no day'} is {'not ' if asked else ''}recorded.")
        say(f"The journal is {paths.journal_name()}; JOURNAL_PATH names another.", "dim")
        return
    show_report(steps, resumed=resumed)
    if pages:
        say("")
        say(f"Kept as {', '.join(near(page) for page in pages)}", "dim")
