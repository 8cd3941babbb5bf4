"""`muse usage`: tokens and cost out of the token log, as table and bars, JSON or CSV; it writes nothing."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from muse import models
from muse.cli._terminal import arguments, terminal
from muse.cli._terminal.terminal import Column
from muse.journal import paths
from muse.terminal.text import escape_control
from muse.types.errors import ConfigError
from muse.types.formatting import format_usd, pluralize
from muse.usage_log import ledger
from muse.usage_log.totals import FIELDS, Field, Line, UsageSummary, UsageTotal, summarize

HELP = "Sum up the token log: calls, failures, tokens and cost, by context unless --by says otherwise."
_MOST_BARS = 10
_NUMBERS = ("calls", "failed", "unpriced", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which days, grouped how, in which form."""
    days = parser.add_mutually_exclusive_group()
    days.add_argument("--day", metavar="YYYYMMDD", type=arguments.day, help="one day")
    days.add_argument(
        "--since", metavar="7d|YYYYMMDD", type=_since, help="the last 7 days with today, or from a day on"
    )
    parser.add_argument(
        "--by",
        metavar="FIELD[,FIELD]",
        type=_by,
        default=("context",),
        help=f"group by {', '.join(FIELDS)}, or several of them",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--csv", action="store_true", help="print CSV")


def run(args: argparse.Namespace) -> int:
    """Print the sums; 0."""
    days = (args.day, args.day) if args.day else (args.since, "99991231") if args.since else None
    found = summarize(_lines(days), args.by, price=models.calc_token_cost, owner=models.get_model_provider)
    unreadable = ledger.count_bad_lines(days)
    if args.json:
        whole = found.total.counts()
        terminal.print_json({"by": args.by, "rows": _as_dicts(found), "total": whole, "unreadable": unreadable})
    elif args.csv:
        _print_csv(found)
    elif found.total.calls:
        _print(found, _span(days), unreadable)
    else:
        terminal.say(f"No calls in the token log of {_span(days)} ({_folder()}).")
    return 0


def _since(text: str) -> str:
    try:
        return ledger.first_day(text)
    except ConfigError as exc:
        raise argparse.ArgumentTypeError(f"found {exc.found}, expected {exc.allowed}") from None


def _by(text: str) -> tuple[Field, ...]:
    names = dict.fromkeys(name.strip() for name in text.split(","))
    fields = tuple(field for name in names for field in FIELDS if field == name)
    if len(fields) < len(names) or not fields:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected one or several of {', '.join(FIELDS)}")
    return fields


def _lines(days: tuple[str, str] | None) -> Iterator[tuple[str, Line]]:
    """`(day, line)` of the token log; the day is that of the file, which its writer chose by the local date."""
    for day in (path.stem for path in ledger.day_files(days)):
        yield from ((day, line) for line in ledger.read((day, day)))


def _folder() -> Path:
    return paths.journal_path() / "tokens"


def _as_dicts(found: UsageSummary) -> list[dict[str, Any]]:
    return [dict(zip(found.by, total.key, strict=True)) | total.counts() for total in found.rows]


def _print_csv(found: UsageSummary) -> None:
    writer = csv.DictWriter(sys.stdout, [*found.by, *found.total.counts()], lineterminator="\n")
    writer.writeheader()
    writer.writerows(_as_dicts(found))


def _print(found: UsageSummary, span: str, unreadable: int) -> None:
    terminal.say(f"{pluralize(found.total.calls, 'call')}, {span}", "bold")
    print()
    _print_table(found)
    for title, value, text in _PICTURES:
        _print_bars(found, title, value, text)
    if found.total.unpriced:
        have = "has" if found.total.unpriced == 1 else "have"
        calls = pluralize(found.total.unpriced, "call")
        terminal.say(f"{calls} {have} no known price; their cost is not in the sums.", "yellow")
    if unreadable:
        terminal.say(f"{pluralize(unreadable, 'line')} of the log cannot be read and are left out.", "yellow")


def _print_table(found: UsageSummary) -> None:
    """The table; where it is too wide the columns that say least are left out, first those without any count."""
    total = found.total.counts()
    numbers = [name for name in _NUMBERS if name in {"calls", "input_tokens", "output_tokens"} or total[name]]
    for dropped in (None, "reasoning_tokens", "cached_tokens"):
        numbers = [name for name in numbers if name != dropped]
        columns, rows = _table(found, numbers)
        if terminal.fits(columns, rows):
            break
    terminal.draw(columns, rows[:-1], total=rows[-1])
    print()


def _table(found: UsageSummary, numbers: list[str]) -> tuple[list[Column], list[list[str]]]:
    columns = [*(Column(name) for name in found.by)]
    columns += [Column(name.removesuffix("_tokens"), numbers=True) for name in numbers]
    columns.append(Column("cost", numbers=True))
    rows = []
    for total in (*found.rows, found.total):
        values = total.counts()
        key = total.key or ("all", *("" for _ in found.by[1:]))
        rows.append([*key, *(f"{values[name]:,}" for name in numbers), _cost_text(total)])
    return columns, rows


def _print_bars(
    found: UsageSummary, title: str, value: Callable[[UsageTotal], float], text: Callable[[UsageTotal], str]
) -> None:
    """A bar for each of the largest rows, as long as its share of the largest one."""
    rows = sorted((total for total in found.rows if value(total) > 0), key=value, reverse=True)
    if not rows:
        return
    names = [escape_control(" ".join(total.key)) for total in rows[:_MOST_BARS]]
    size = min(max(map(len, names)), max(terminal.width() // 3, 16))
    cells = max(min(terminal.width() - size - 24, 60), 8)
    whole, most = sum(map(value, rows)), value(rows[0])
    terminal.say(title, "bold")
    for name, total in zip(names, rows, strict=False):
        drawn = terminal.bar(value(total) / most, cells).ljust(cells)
        label = name if len(name) <= size else name[: size - 3] + "..."
        terminal.say(f"  {label.ljust(size)}  {drawn}  {text(total):>9}  {value(total) / whole:4.0%}")
    if len(rows) > _MOST_BARS:
        rest = sum(map(value, rows[_MOST_BARS:]))
        terminal.say(f"  and {len(rows) - _MOST_BARS} more with {rest / whole:.0%} together", "dim")
    print()


def _cost_text(total: UsageTotal) -> str:
    is_unknown = total.unpriced and total.unpriced == total.calls
    return "unknown" if is_unknown else format_usd(total.cost_usd, more=total.unpriced > 0)


def _cost(total: UsageTotal) -> float:
    return total.cost_usd


def _tokens(total: UsageTotal) -> float:
    return total.usage.total_tokens


_PICTURES: tuple[tuple[str, Callable[[UsageTotal], float], Callable[[UsageTotal], str]], ...] = (
    ("Cost", _cost, lambda total: format_usd(total.cost_usd)),
    ("Tokens", _tokens, lambda total: f"{total.usage.total_tokens:,}"),
)


def _span(days: tuple[str, str] | None) -> str:
    found = [path.stem for path in ledger.day_files(days)]
    if not found:
        return "any day" if days is None else days[0] if days[0] == days[1] else f"{days[0]} and later"
    return found[0] if len(found) == 1 else f"{pluralize(len(found), 'day')} from {found[0]} to {found[-1]}"
