"""`muse routes`: every known context with its route and where each part of it comes from; it makes no call."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import groupby
from typing import Any

from msgspec import Struct

from muse import models
from muse.cli._terminal import terminal
from muse.cli._terminal.terminal import Column
from muse.journal import config_loader
from muse.providers import obstacle_to
from muse.routing import contexts
from muse.routing.glob_overlap import is_glob
from muse.terminal.text import escape_control
from muse.types.errors import ConfigError

HELP = "List every known context and those that journal.json names, with provider, model, tier and their sources."
FIELDS = ("provider", "model", "tier")


class Row(Struct, frozen=True):
    """One context: where it is declared, its route with the rule behind each field, and why it cannot be served."""

    context: str
    declared: str
    values: tuple[str, str, str] = ("", "", "")
    sources: tuple[str, str, str] = ("", "", "")
    problem: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which contexts, and in which form."""
    parser.add_argument(
        "glob", metavar="GLOB", nargs="?", default="*", help="only contexts of this form, such as 'agent.*'"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the table; 1 if a context has no route, or one to a provider that cannot be used; else 0."""
    rows = [_row(name, declared) for name, declared in _names() if fnmatchcase(name, args.glob)]
    if args.json:
        terminal.print_json([_as_json(row) for row in rows])
    elif rows:
        _print(rows)
    else:
        terminal.say(f"No known context is of the form {args.glob!r}.")
    return int(any(row.problem for row in rows))


def _names() -> Iterator[tuple[str, str]]:
    """`(context, where it is declared)`: the registry's, and exact names that only journal.json has, by name."""
    snapshot = config_loader.load()
    known = contexts.registry(snapshot).contexts
    names = {name: info.source for name, info in known.items()}
    own = (name for name in snapshot.config.contexts if name and not is_glob(name))
    yield from sorted({**dict.fromkeys(own, "journal.json"), **names}.items())


def _row(name: str, declared: str) -> Row:
    shown = os.path.relpath(declared) if os.path.isabs(declared) else declared
    try:
        found = models.explain(name)
        models.fallback_chain(name)
    except ConfigError as exc:
        return Row(name, shown, problem=str(exc))
    route = found.route
    broken = obstacle_to(route.provider)
    values = (route.provider, route.model, str(int(route.tier)))
    sources = (found.rule_sources["provider"], found.rule_sources["model"], found.rule_sources["tier"])
    return Row(name, shown, values, sources, "" if broken is None else str(broken))


def _print(rows: list[Row]) -> None:
    """One line a context where there is room for it (always in a pipe), else the sources in a line of their own."""
    good = [row for row in rows if not row.problem]
    columns, cells = _in_one_line(good)
    if good and terminal.fits(columns, cells):
        terminal.draw(columns, cells)
    elif good:
        _print_grouped(good)
    for row in rows:
        if row.problem:
            served = " ".join(row.values[:2]) if row.values[0] else "no route"
            terminal.say(f"{row.context}: {served}: {row.problem}", "red")


def _in_one_line(rows: list[Row]) -> tuple[list[Column], list[list[str]]]:
    columns = [
        Column("context", style="bold"),
        *(Column(name) for name in FIELDS),
        *(Column(f"{name} from", style="dim") for name in FIELDS),
    ]
    return columns, [[row.context, *row.values, *_short(row)] for row in rows]


def _print_grouped(rows: list[Row]) -> None:
    """Neighbours whose fields come from the same places stand below one line that names these."""
    sizes = [max(len(escape_control(text)) for text in texts) for texts in zip(*map(_columns, rows), strict=True)]
    for sources, group in groupby(rows, _short):
        places: dict[str, list[str]] = {}
        for name, source in zip(FIELDS, sources, strict=True):
            places.setdefault(source, []).append(name)
        terminal.wrap("", (f"{' and '.join(names)} from {source}" for source, names in places.items()), ", ", "dim")
        for row in group:
            cells = (escape_control(text).ljust(size) for text, size in zip(_columns(row), sizes, strict=True))
            terminal.say(f"  {'  '.join(cells)}".rstrip())
        print()


def _columns(row: Row) -> tuple[str, ...]:
    return (row.context, *row.values)


def _short(row: Row) -> tuple[str, ...]:
    """The sources as a table has room for them; `muse route --explain` and `--json` give the whole path."""
    return tuple(_shorten(source, row.context) for source in row.sources)


def _shorten(source: str, context: str) -> str:
    kind, bracket, name = source.partition("[")
    if kind == "providers.contexts":
        name = name[1:-2]
        return "own entry" if name == context else name
    if source.startswith("context "):
        name = source[len("context ") + 1 : -1]
        return "declared" if name == context else f"declared {name}"
    return source.removeprefix("providers.").replace("'", "") if bracket else source.removeprefix("providers.")


def _as_json(row: Row) -> dict[str, Any]:
    shown: dict[str, Any] = {"context": row.context, "declared": row.declared}
    if row.problem:
        shown["problem"] = row.problem
    if not row.values[0]:
        return shown
    provider, model, tier = row.values
    return shown | {
        "provider": provider,
        "model": model,
        "tier": int(tier),
        "from": dict(zip(FIELDS, row.sources, strict=True)),
    }
