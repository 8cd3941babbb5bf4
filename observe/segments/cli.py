"""What the commands over a day have in common: options, the way through it, a table; it knows no model."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import msgspec

from muse.cli._terminal.arguments import FAILED, add_day, print_error
from muse.cli._terminal.progress import progress
from muse.cli._terminal.terminal import Column, draw, near, print_json, say
from muse.errors import ConfigError
from muse.journal import paths
from muse.types.formatting import format_usd
from observe.segments.results import DayDone, Work
from observe.segments.segments import day_with


def add_choice(parser: argparse.ArgumentParser, told: str, *, or_file: bool = False) -> None:
    """Add what a command over a day has: the day (or a file), --segment, --force."""
    add_day(parser, told, or_file=or_file)
    parser.add_argument("--segment", metavar="SEGMENT", help="one segment of the day, such as 140000_2040")
    parser.add_argument("--force", action="store_true", help="ask everything again, also if nothing has changed")


def run_day(name: str, day: str, args: argparse.Namespace, work: Work, *, nothing: str) -> int:
    """Have a day's segments worked on with a progress bar, and show what came of it; the exit status.

    `nothing` says what the day lacks where it has no segment to work on.
    """
    with progress(shown=not args.json) as step:
        found = asyncio.run(work(day, force=args.force, segment=args.segment, on_step=step))
    if not found.segments and not args.json:
        say(f"{day} has {nothing}; nothing to do.")
        return 0
    return show_day(name, found, as_json=args.json)


def show_day(name: str, found: DayDone, *, as_json: bool) -> int:
    """Print what came of a day; the exit status: 1 if anything failed."""
    status = FAILED if found.failed or found.problems else 0
    if as_json:
        print_json(msgspec.to_builtins(found))
        return status
    columns = [Column("segment"), Column("state"), Column("result"), Column("cost", numbers=True), Column("kept as")]
    rows = [
        (
            one.segment,
            "unchanged" if one.state == "skipped" else one.state,
            one.about,
            format_usd(one.cost_usd),
            one.file,
        )
        for one in found.segments
    ]
    draw(columns, rows)
    say("")
    cost = format_usd(found.cost_usd, more=found.unpriced > 0)
    counts = f"{found.done} done, {found.skipped} unchanged, {found.failed} failed, {cost}"
    say(f"{found.day}: {counts}. Kept in {near(str(paths.journal_path() / found.day))}")
    for problem in found.problems:
        print_error(name, problem)
    if found.failed:
        say(f"Run it again: only what failed is asked again (muse {name} {found.day}).", "yellow")
    return status


def chosen(what: str | None, wanted: tuple[str, ...]) -> str | Path:
    """What a command is to work on: a day as `YYYYMMDD` (the latest with `wanted` files if None), or a file.

    Raises:
        ConfigError: it is neither.
    """
    if what is None or paths.is_day(what):
        return day_with(wanted, what)
    path = Path(what)
    if not path.is_file():
        raise ConfigError("DAY|FILE", repr(what), "a day such as 20261103, or a file that exists")
    return path
