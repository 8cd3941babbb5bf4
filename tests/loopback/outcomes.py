"""What each scenario means, told alike for all wire forms; it does not know any SDK.

Counts are inclusive: cached and cache-writing tokens are part of the input, reasoning is part of
the output, whatever the wire form does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

Call = tuple[str, str]
"""A tool call: the tool's name, and its arguments as JSON with sorted keys."""

TEXT = "The tide turns at six."
THOUGHT = "Checking the tide table for six o'clock."
REFUSAL = "I'm sorry, but I can't help with that."

SERVED = {
    "openai": "gpt-5-mini-2025-08-07",
    "anthropic": "claude-haiku-4-5-20251001",
    "google": "gemini-2.5-flash",
    "compatible": "gpt-4o-mini-2024-07-18",
}
"""The model that every fixture of a provider says it served."""


@dataclass(frozen=True)
class Outcome:
    """A reply without its wire form.

    Attributes:
        finish: stop, tools, length or blocked.
        thinking: the reasoning summary or thinking text.
        calls: tool calls in order.
    """

    text: str
    input_tokens: int
    output_tokens: int
    finish: str = "stop"
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    thinking: str = ""
    calls: tuple[Call, ...] = ()


_CALLS = (("search_journal", '{"query": "release"}'), ("list_days", '{"limit": 3}'))

OUTCOMES = {
    "text": Outcome(TEXT, 24, 7),
    "json": Outcome('{"tide": "low", "hours": [6, 18], "certain": true}', 36, 19),
    "schema": Outcome('{"city": "Husum", "population": 23967}', 48, 15),
    "image": Outcome("A red lighthouse stands on a grassy dyke.", 812, 9),
    "thinking": Outcome(
        "High water is at six, so the tide turns then.",
        40,
        105,
        reasoning_tokens=96,
        thinking=THOUGHT,
    ),
    "tools": Outcome("", 120, 46, finish="tools", calls=_CALLS),
    "tools_answer": Outcome("The release is planned for Thursday; three days have notes.", 210, 14),
    "truncated": Outcome("The tide turns at", 24, 16, finish="length"),
    "blocked": Outcome("", 24, 0, finish="blocked"),
    "empty": Outcome("", 24, 2),
    "cached": Outcome(TEXT, 2024, 7, cached_tokens=1920),
}
"""Outcome by scenario, for the scenarios that every provider has."""


def outcome(provider: str, scenario: str) -> Outcome:
    """Return what `scenario` means at `provider`."""
    if (provider, scenario) == ("google", "empty"):
        return replace(OUTCOMES["empty"], output_tokens=0)
    return OUTCOMES[scenario]


def call(name: str, arguments: str | dict[str, object] | None) -> Call:
    """Return a tool call in comparable form."""
    value = json.loads(arguments) if isinstance(arguments, str) else arguments
    return name, json.dumps(value, sort_keys=True)
