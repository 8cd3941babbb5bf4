"""What the commands of this room have in common: options, a progress bar, tables, exit statuses; it knows no model."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from muse import journal
from muse.amounts import usd
from muse.cli._terminal import Column, draw, is_terminal, near, print_json, say
from muse.errors import ConfigError
from observe.days.outcome import DayDone, OnStep
from observe.days.segments import day_with

FAILED, MISUSED = 1, 2


class Work(Protocol):
    """Works on a day's segments, or on the one that is named."""

    def __call__(  # noqa: D102 - the class says it
        self, day: str, *, force: bool = False, segment: str | None = None, on_step: OnStep | None = None
    ) -> Coroutine[Any, Any, DayDone]: ...


def parser_for(name: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """A parser with the options that every command has."""
    parser = argparse.ArgumentParser(
        prog=f"muse {name}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else")
    parser.add_argument("-v", "--verbose", action="store_true", help="say more of what is done")
    parser.add_argument("-d", "--debug", action="store_true", help="log everything")
    return parser


def add_choice(parser: argparse.ArgumentParser, kind: str, told: str, reads: Callable[[str], str] = str) -> None:
    """Add what a command over a day has: the day (or a file) as `what`, --segment, --force."""
    parser.add_argument("what", nargs="?", metavar=kind, type=reads, help=told)
    parser.add_argument("--segment", metavar="SEGMENT", help="one segment of the day, such as 140000_2040")
    parser.add_argument("--force", action="store_true", help="ask everything again, also if nothing has changed")


def parsed(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace | int:
    """The arguments; the exit status where argparse would end the process (after --help and wrong usage)."""
    try:
        return parser.parse_args(argv)
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else MISUSED


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


def misused(name: str, what: str) -> int:
    """Say what is wrong with the words of a command; its exit status."""
    complain(name, f"{what} (muse {name} --help)")
    return MISUSED


def complain(name: str, what: str) -> None:
    """Say on standard error what went wrong."""
    sys.stderr.write(f"muse {name}: {what}\n")


@contextmanager
def progress(*, shown: bool) -> Iterator[OnStep]:
    """A progress bar on a terminal, nothing into a pipe; what it gives is called at each step."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    is_seen = shown and is_terminal() and sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not is_seen) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, of: bar.update(task, description=what, completed=done, total=of)


def show_day(name: str, found: DayDone, *, as_json: bool) -> int:
    """Print what came of a day; the exit status: 1 if anything failed."""
    status = FAILED if found.failed or found.problems else 0
    if as_json:
        print_json(msgspec.to_builtins(found))
        return status
    columns = [Column("segment"), Column("state"), Column("result"), Column("cost", numbers=True), Column("kept as")]
    rows = [
        (one.segment, "unchanged" if one.state == "skipped" else one.state, one.about, usd(one.cost_usd), one.file)
        for one in found.segments
    ]
    draw(columns, rows)
    say("")
    counts = f"{found.done} done, {found.skipped} unchanged, {found.failed} failed, {usd(found.cost_usd)}"
    say(f"{found.day}: {counts}. Kept in {near(str(journal.folder() / found.day))}")
    for problem in found.problems:
        complain(name, problem)
    if found.failed:
        say(f"Run it again: only what failed is asked again (muse {name} {found.day}).", "yellow")
    return status


def chosen(what: str | None, wanted: tuple[str, ...]) -> str | Path:
    """What a command is to work on: a day as `YYYYMMDD` (the latest with `wanted` files if None), or a file.

    Raises:
        ConfigError: it is neither.
    """
    if what is None or journal.is_day(what):
        return day_with(wanted, what)
    path = Path(what)
    if not path.is_file():
        raise ConfigError("DAY|FILE", repr(what), "a day such as 20261103, or a file that exists")
    return path
