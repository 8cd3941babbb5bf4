"""`muse runs`: the agent runs of the journal at a glance, newest first; it starts none."""

from __future__ import annotations

import argparse

from msgspec import structs

from muse import models
from muse.cli._terminal import arguments, terminal
from muse.cli._terminal.terminal import Column
from muse.runs import run_files
from muse.types.formatting import exact_usd, format_usd

HELP = "List the agent runs of the journal, newest first, with state, tools, tokens, cost and seconds."
_SHOWN_PROMPT, _LEAST_PROMPT = 48, 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many, and how to print them."""
    parser.add_argument("-n", "--limit", type=arguments.count, default=20, metavar="N", help="at most so many (20)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the list; 0."""
    found = [run for agent_id in run_files.newest_ids()[: args.limit] if (run := run_files.summarize(agent_id))]
    if args.json:
        rows = [structs.asdict(run) | {"cost_usd": exact_usd(cost_of(run))} for run in found]
        terminal.print_json(rows)
        return 0
    if not found:
        print("No runs yet. Make one: muse agent default 'What did I decide about the release on Tuesday?'")
        return 0
    columns = [Column("run", style="bold"), Column("state"), Column("persona"), Column("provider"), Column("prompt")]
    columns += [Column(name, numbers=True) for name in ("turns", "tools", "tokens", "cost", "seconds")]
    _draw(columns, found)
    return 0


def _draw(columns: list[Column], found: list[run_files.Run]) -> None:
    """A table, its prompts as long as the window lets them; in a narrow one two lines a run."""
    for length in range(_SHOWN_PROMPT, _LEAST_PROMPT - 1, -4):
        rows = [_cells(run, length) for run in found]
        if terminal.fits(columns, rows):
            terminal.draw(columns, rows)
            return
    for run in found:
        chained, state, persona, provider, prompt, *sums = _cells(run, _SHOWN_PROMPT)
        terminal.say(f"  {state}  {persona}  {provider}", lead=chained)
        counted = [f"{value} {column.name}" for value, column in zip(sums, columns[-len(sums) :], strict=True) if value]
        terminal.wrap("    ", (prompt, *counted), " · ", "dim")


def _cells(run: run_files.Run, prompt_chars: int) -> list[str]:
    cost = cost_of(run)
    prompt = " ".join(run.prompt.split())
    short = prompt if len(prompt) <= prompt_chars else prompt[: prompt_chars - 1] + "…"
    chained = f"{run.agent_id} ← {run.handoff_from}" if run.handoff_from else run.agent_id
    seconds = f"{run.duration_s:.1f}" if run.duration_s is not None else ""
    dollars = "unknown" if cost is None else format_usd(cost)
    texts = [chained, state_in_words(run), run.persona, run.provider, short]
    return [*texts, str(run.turns), str(run.tool_calls), f"{run.tokens:,}", dollars, seconds]


def state_in_words(run: run_files.Run) -> str:
    """Return a run's state, with its reason where that says more, such as `failed (timeout)`."""
    return f"{run.state} ({run.reason})" if run.reason not in ("", run.state) else run.state


def cost_of(run: run_files.Run) -> float | None:
    """What a run cost (US dollars): the sum of its lines in the usage log, else by its model and token sums.

    None if it is not known: a line without a price, or a model without one.
    """
    if run.cost_usd is not None:
        return run.cost_usd
    cost = models.calc_token_cost({"model": run.model, "provider": run.provider, "usage": run.usage})
    return float(cost["total_cost"]) if cost else None
