"""What policies cost that are switched on and have nothing to do: a call under them beside the same call bare."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

from benchmarks.blocks import take_turns
from benchmarks.report import Table, at_most
from benchmarks.world import Json, World
from muse import models
from muse.providers import backend_of
from muse.providers._backend.attempt import CallMetadata

_GOAL_US = 15.0
_CONTEXT = "bench.policies"
_PROMPT = "When does the tide turn today? Answer in one short sentence."
_RULES: Mapping[str, Any] = {"retries": 3, "fallbacks": ["local"], "timeout_s": 60}
_LIMITS = [{"provider": "echo", "requests_per_minute": 10_000_000, "tokens_per_minute": 1_000_000_000_000}]
_DAY = [{"context": "bench.*", "tokens_per_day": 1_000_000_000_000, "usd_per_day": 1_000_000}]
_BUDGETS = [{"context": "bench.*", "usd": 1_000_000, "window": "month"}]
_JOURNALS: Mapping[str, Mapping[str, Any]] = {
    "none": {"breaker": {"failures": 0}, "default": {"provider": "echo", "retries": 0}},
    "by default": {"default": {"provider": "echo"}},
    "and a fallback chain": {"default": {"provider": "echo", **_RULES}},
    "and limits a minute": {"default": {"provider": "echo", **_RULES}, "limits": _LIMITS},
    "and limits a day": {"default": {"provider": "echo", **_RULES}, "limits": [*_LIMITS, *_DAY]},
    "and budgets": {"default": {"provider": "echo", **_RULES}, "limits": [*_LIMITS, *_DAY], "budgets": _BUDGETS},
}
_NOTE = (
    "CPU time of a call to the echo provider, which answers at once. Each row has what the rows above have. Bare: the"
    " same request handed to the provider without the front desk's policies, with its line in the token log."
)


def measure(journal: str, blocks: int) -> Json:
    """Microseconds by block of a call through the front desk, and of the same request handed to the provider."""
    os.environ["JOURNAL_PATH"] = journal
    return take_turns(
        {"ours": lambda: models.generate(_PROMPT, _CONTEXT), "bare": lambda: _bare(_PROMPT, _CONTEXT)}, blocks, 500
    )


def _bare(
    contents: Any,
    context: str,
    temperature: float = 0.3,
    max_output_tokens: int = 8192 * 2,
    system_instruction: str | None = None,
    json_output: bool = False,
    thinking_budget: int | None = None,
    timeout_s: float | None = None,
    **kwargs: Any,
) -> str:
    """What `generate` does, but for the policies."""
    options = {
        "temperature": temperature,
        "max_output_tokens": max_output_tokens,
        "system_instruction": system_instruction,
        "json_output": json_output,
        "thinking_budget": thinking_budget,
        "timeout_s": timeout_s,
        **kwargs,
    }
    call = models.prepare_call(contents, context, options)
    route = call.chain.targets[0]
    return backend_of(route.provider, call.config).reply(call.request, CallMetadata(context, route, call.segment)).text


def tables(world: World) -> Iterator[Table]:
    """One row for each further policy."""
    columns = ("policies", "added µs", "goal", "a call µs", "bare µs")
    yield Table("Policies that have nothing to do", columns, [_row(world, name) for name in _JOURNALS], _NOTE)


def _row(world: World, name: str) -> list[str]:
    journal = world.journal(f"journal-{name.replace(' ', '-')}", {"providers": _JOURNALS[name]})
    spent = world.measure("policies", journal=str(journal), blocks=world.blocks(20))
    added = median(ours - bare for ours, bare in zip(spent["ours"], spent["bare"], strict=True))
    figures = (f"{median(spent[kind]):.1f}" for kind in ("ours", "bare"))
    return [name, f"{added:.1f}", at_most(added, _GOAL_US), *figures]
