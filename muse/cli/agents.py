"""`muse agents`: the personas there are, each with its context, route, tools and schedule; it runs none of them."""

from __future__ import annotations

import argparse
from typing import Any

from muse import models
from muse.agent_loop.run_config import RunConfig
from muse.cli._terminal import terminal
from muse.cli._terminal.terminal import Column
from muse.journal.personas import get_agents, listed, problems_of, tools_in_words
from muse.providers import obstacle_to
from muse.types.errors import ConfigError

HELP = "List the personas with their contexts, routes, tools and schedules."
_COLUMNS = ("persona", "title", "context", "provider", "model", "tools", "schedule")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How to print it."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the list; 0."""
    rows = [_row(name, fields) for name, fields in sorted(get_agents().items())]
    if args.json:
        terminal.print_json(rows)
    else:
        _draw(rows)
        for row in rows:
            if row["problem"]:
                terminal.say(f"{row['persona']}: {row['problem']}", "red")
        print("\nRun one: muse agent default 'What did I decide about the release on Tuesday?'")
    return 0


def _draw(rows: list[dict[str, Any]]) -> None:
    """A table; in a window too narrow for it some lines a persona, so that no name is folded."""
    columns = [Column(name, style="bold" if name == "persona" else "") for name in _COLUMNS]
    cells = [[str(row[name]) for name in _COLUMNS] for row in rows]
    if terminal.fits(columns, cells):
        terminal.draw(columns, cells)
        return
    for row in rows:
        terminal.say(f"  {row['context']}", lead=row["persona"])
        route = f"{row['provider']} {row['model']}"
        terminal.wrap("    ", filter(None, (route, row["schedule"])), " · ", "dim")
        terminal.wrap("    ", row["tools"].split(", "), ", ", "dim")


def _row(name: str, fields: dict[str, Any]) -> dict[str, Any]:
    context = RunConfig(prompt="-", model="-", persona=name).ledger_context
    problems = [str(problem) for problem in problems_of(name)]
    try:
        provider, model = models.resolve_provider(context)
        broken = obstacle_to(provider)
        problems += [] if broken is None else [str(broken)]
    except ConfigError as exc:
        provider, model = "no route", str(exc)
    return {
        "persona": name,
        "title": fields["title"],
        "context": context,
        "provider": provider,
        "model": model,
        "tools": ", ".join(tools_in_words(fields)) or "none",
        "schedule": str(fields.get("schedule") or ""),
        "inputs": list(listed(fields.get("inputs"))),
        "output": fields.get("output"),
        "problem": "; ".join(problems),
    }
