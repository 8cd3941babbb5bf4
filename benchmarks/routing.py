"""CPU time of a route with 10 to 1,000 patterns in journal.json, and of all that muse adds around the SDK's call."""

from __future__ import annotations

import os
from collections.abc import Iterator
from statistics import median

from benchmarks.blocks import take_turns
from benchmarks.report import Table, at_most
from benchmarks.world import Json, World
from muse import models
from muse.usage_log import ledger

_COUNTS = (10, 100, 1_000)
_RESOLVE_GOAL_US = 6.0
_CALL_GOAL_US = 25.0
_CONTEXT = "observe.describe.frame"
_NOTE = (
    "`resolve_provider` of a context seen before, edits of journal.json seen at once (one `stat` a call); a new context"
    " walks its matching patterns once. Routing and log: `resolve_provider` and one line of the token log."
)


def measure(patterns: int, journal: str, blocks: int) -> Json:
    """Microseconds, by block, of a known route, a new one, and a known one with its line in the token log."""
    os.environ["JOURNAL_PATH"] = journal
    entry = log_entry()
    fresh = iter(range(10**9))

    def route_and_log() -> None:
        models.resolve_provider(_CONTEXT)
        ledger.append(entry)

    return take_turns(
        {
            "known": lambda: models.resolve_provider(_CONTEXT),
            "new": lambda: models.resolve_provider(f"app{next(fresh) % patterns}.part.name{next(fresh)}"),
            "call": route_and_log,
        },
        blocks,
        500,
    )


def log_entry() -> Json:
    """A line as a call leaves it."""
    return {
        "timestamp": 1_795_000_000.123456,
        "model": "gpt-6.1-sol",
        "context": _CONTEXT,
        "usage": {"input_tokens": 1_024, "output_tokens": 256, "total_tokens": 1_280, "cached_tokens": 512},
        "provider": "openai",
        "model_asked": "gpt-6.1-sol",
        "route": f"providers.contexts['{_CONTEXT}']",
        "duration_s": 1.234567,
        "finish": "stop",
        "cost_usd": 0.00234,
    }


def tables(world: World) -> Iterator[Table]:
    """One row for each number of patterns."""
    columns = ("patterns", "known context µs", "goal", "new context µs", "routing and log µs", "goal of both")
    yield Table("Routing and the token log", columns, [_row(world, count) for count in _COUNTS], _NOTE)


def _row(world: World, patterns: int) -> list[str]:
    contexts = {f"app{n}.part.*": {"tier": 1 + n % 3} for n in range(patterns)}
    journal = world.journal(f"journal-{patterns}", {"providers": {"contexts": contexts}})
    spent = world.measure("routing", patterns=patterns, journal=str(journal), blocks=world.blocks(20))
    known, new, call = (median(spent[name]) for name in ("known", "new", "call"))
    return [
        f"{patterns:,}",
        f"{known:.1f}",
        at_most(known, _RESOLVE_GOAL_US),
        f"{new:.1f}",
        f"{call:.1f}",
        at_most(call, _CALL_GOAL_US),
    ]
