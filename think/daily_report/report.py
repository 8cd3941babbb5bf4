"""One page of what ran for a day, what it cost, what failed and how to run that again; it runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Any

import msgspec

from muse.cli._terminal.terminal import Column, draw, fits, say
from muse.journal.storage.atomic_files import make_folder, write_atomic
from muse.types.formatting import format_usd
from think.daily_report.run_state import StepDone, report_path, sum_of
from think.output.formatting import day_title

_COLUMNS = (
    Column("day"),
    Column("stage"),
    Column("step", style="bold"),
    Column("state"),
    Column("result"),
    Column("calls", numbers=True),
    Column("tokens", numbers=True),
    Column("seconds", numbers=True),
    Column("cost", numbers=True),
)
_ON_THE_PAGE = ("stage", "tokens", "seconds")


def is_whole(steps: Sequence[StepDone]) -> bool:
    """Whether nothing failed; what the routed model cannot do is no failure of the run."""
    return not any(step.state == "failed" for step in steps)


def as_json(day: str, steps: Sequence[StepDone], *, began: str, resumed: bool) -> dict[str, Any]:
    """The report as data."""
    calls, tokens, cost_usd, unpriced = sum_of(steps)
    return {
        "day": day,
        "began": began,
        "resumed": resumed,
        "complete": is_whole(steps),
        "calls": calls,
        "tokens": tokens,
        "cost_usd": cost_usd,
        "unpriced": unpriced,
        "steps": msgspec.to_builtins(steps),
    }


def keep_report(day: str, steps: Sequence[StepDone], *, began: str, resumed: bool) -> str:
    """Write the page and its data into the day's folder; the page's path."""
    page, data = report_path(day, ".md"), report_path(day, ".json")
    make_folder(page.parent)
    write_atomic(page, markdown_report(day, steps, began=began, resumed=resumed))
    text = msgspec.json.encode(as_json(day, steps, began=began, resumed=resumed))
    write_atomic(data, msgspec.json.format(text, indent=2).decode() + "\n")
    return str(page)


def markdown_report(day: str, steps: Sequence[StepDone], *, began: str, resumed: bool) -> str:
    """The page."""
    lines = [f"# What ran for {day_title(day)}", "", f"Begun {began}.{_RESUMED if resumed else ''}", ""]
    heads = [column.name for column in _COLUMNS]
    marks = ["---:" if column.numbers else "---" for column in _COLUMNS]
    lines += [_markdown_row(row) for row in (heads, marks, *map(_row, steps), _total(steps))]
    for alike in _with_problems(steps):
        ended = "not done" if alike[0].state == "not done" else "failed"
        lines += ["", f"## {_names(alike)}: {ended}", ""]
        lines += [f"- {problem}" for problem in _problems(alike[0])]
        lines += ["", f"Again: `{again}`"] if (again := _again(alike)) else []
    return "\n".join(lines) + "\n"


def show_report(steps: Sequence[StepDone], *, resumed: bool) -> None:
    """Print it."""
    if resumed:
        say(_RESUMED.strip(), "dim")
    _draw([_row(step) for step in steps], _total(steps))
    for alike in _with_problems(steps):
        color = "yellow" if alike[0].state == "not done" else "red"
        say("")
        say(f"{_names(alike)}: {alike[0].state}", color)
        for problem in _problems(alike[0]):
            say(f"  {problem}", color)
        if again := _again(alike):
            say(f"  Again: {again}")


def _draw(rows: Sequence[Sequence[str]], total: Sequence[str]) -> None:
    """Print the table; in a window too narrow for it without what the page has anyway."""
    is_shown = [fits(_COLUMNS, [*rows, total]) or column.name not in _ON_THE_PAGE for column in _COLUMNS]
    slim = [list(compress(row, is_shown)) for row in (*rows, total)]
    draw(list(compress(_COLUMNS, is_shown)), slim[:-1], total=slim[-1])


_RESUMED = " It goes on with a run that was broken off: figures count from its beginning."
_MOST_PROBLEMS = 10


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', ' ').strip() or '-' for cell in cells)} |"


def _with_problems(steps: Sequence[StepDone]) -> list[list[StepDone]]:
    """The steps that have problems; those with the same ones (a key that is missing, say) together."""
    alike: dict[tuple[str, str, tuple[str, ...]], list[StepDone]] = {}
    for step in steps:
        if step.problems:
            alike.setdefault((step.day, step.state, step.problems), []).append(step)
    return list(alike.values())


def _names(alike: Sequence[StepDone]) -> str:
    return ", ".join(step.name for step in alike)


def _again(alike: Sequence[StepDone]) -> str:
    """What to type: the step's own command, or for several the day's."""
    return alike[0].again if len(alike) == 1 else f"muse daily --day {alike[0].day}"


def _problems(step: StepDone) -> list[str]:
    """What failed, each on one line; of very many the first."""
    shown = [" ".join(problem.split()) for problem in step.problems[:_MOST_PROBLEMS]]
    more = len(step.problems) - len(shown)
    return [*shown, *([f"and {more} more"] if more else [])]


def _row(step: StepDone) -> list[str]:
    figures = [f"{step.calls:,}", f"{step.tokens:,}", f"{step.duration_s or 0.0:.1f}"]
    return [
        step.day,
        step.stage,
        step.name,
        step.state,
        step.about,
        *figures,
        format_usd(step.cost_usd, more=step.unpriced > 0),
    ]


def _total(steps: Sequence[StepDone]) -> list[str]:
    calls, tokens, cost_usd, unpriced = sum_of(steps)
    return ["all", "", "", "", "", f"{calls:,}", f"{tokens:,}", "", format_usd(cost_usd, more=unpriced > 0)]
