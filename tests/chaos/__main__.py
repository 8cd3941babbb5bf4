"""`python -m tests.chaos`: bad days with a bar, and a table of what held; 1 if something did not."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.chaos.day import Day, live
from tests.chaos.verdict import verdicts


def main() -> int:
    """Live through the day, then judge it."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--calls", type=int, default=2_000, help="from four processes together (2000)")
    parser.add_argument(
        "--kills", type=int, nargs="+", default=[0, 50], help="callers killed on the way, one day for each (0 50)"
    )
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds that each call is given (60)")
    parser.add_argument("--seed", type=int, default=1, help="another day (1)")
    options = parser.parse_args()
    console = Console()
    held = True
    for kills in options.kills:
        with tempfile.TemporaryDirectory(prefix="muse-chaos-") as folder:
            day = _live(Path(folder), options, kills, console)
        held &= _print(day, console)
    return 0 if held else 1


def _live(folder: Path, options: argparse.Namespace, most_kills: int, console: Console) -> Day:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("calls", total=options.calls)

        def say(done: int, kills: int) -> None:
            progress.update(task, completed=done, description=f"calls ({kills} kills)")

        return live(
            folder, calls=options.calls, kills=most_kills, timeout_s=options.timeout, seed=options.seed, say=say
        )


def _print(day: Day, console: Console) -> bool:
    table = Table("what must hold", "found", "holds")
    found = list(verdicts(day))
    for verdict in found:
        table.add_row(verdict.claim, verdict.found, "[green]yes" if verdict.holds else "[red]NO")
    console.print(table)
    by_whom = ", ".join(f"{name} {count:,}" for name, count in day.answered().most_common())
    console.print(f"{len(day.rows):,} calls in {day.seconds:.0f} s, {day.kills} kills; answered by {by_whom}")
    for row in day.rows:
        if "error" in row:
            console.print(f"call {row['number']}, {row['seconds']:.1f} s: {row['error']}", row["tries"], markup=False)
    return all(verdict.holds for verdict in found)


if __name__ == "__main__":
    sys.exit(main())
