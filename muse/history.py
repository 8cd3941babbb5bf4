"""An earlier agent run's events -> turns to go on from; it knows where runs are kept and nothing of who made them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from muse import journal
from muse.messages import Assistant, Turn, User

log = logging.getLogger(__name__)
_LONGEST_VALUE = 50


def format_tool_summary(calls: list[Mapping[str, Any]]) -> str:
    r"""What tools a turn used, as text: `"\n\nTools used: a(k='v'), b(id=1)"`; "" for none.

    >>> format_tool_summary([{"tool": "find", "args": {"q": "tide"}}])
    "\n\nTools used: find(q='tide')"
    """
    if not calls:
        return ""
    return "\n\nTools used: " + ", ".join(
        f"{call.get('tool', '?')}({_format_args(call.get('args'))})" for call in calls
    )


def _format_args(args: object) -> str:
    if not isinstance(args, Mapping):
        return ""
    return ", ".join(f"{name}={repr(value)[:_LONGEST_VALUE]}" for name, value in args.items())


def parse_agent_events_to_turns(agent_id: str) -> list[dict[str, str]]:
    """The turns of run `agent_id` as `[{"role", "content"}]`, from its log in the journal.

    A `start` with a prompt is a user turn; a `finish` an assistant turn: its text, then the tools used since the last one.
    An unknown run gives `[]` and a warning.
    """
    path = journal.folder() / "agents" / f"{agent_id}.jsonl"
    if not path.is_file():
        log.warning("Cannot continue from %s: log not found", agent_id)
        return []
    turns: list[dict[str, str]] = []
    calls: list[Mapping[str, Any]] = []
    for event in _events(path.read_text(encoding="utf-8", errors="replace")):
        match event.get("event"):
            case "start" if event.get("prompt"):
                turns.append({"role": "user", "content": str(event["prompt"])})
            case "tool_start":
                calls.append(event)
            case "finish":
                text = str(event.get("result") or "").strip() + format_tool_summary(calls)
                turns.append({"role": "assistant", "content": text})
                calls = []
    return turns


def turns_of_run(agent_id: str) -> tuple[Turn, ...]:
    """As `parse_agent_events_to_turns`, as turns for a request."""
    pairs = parse_agent_events_to_turns(agent_id)
    return tuple(
        User((pair["content"],)) if pair["role"] == "user" else Assistant(pair["content"])
        for pair in pairs
        if pair["content"].strip()
    )


def _events(text: str) -> Iterator[Mapping[str, Any]]:
    for line in text.split("\n"):  # splitlines() also cuts at U+2028, which JSON text may hold
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, Mapping):
            yield event
