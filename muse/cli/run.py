"""`muse run`: one agent run as a readable page, or resumed where it was cut off; it knows no provider."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from muse import runs
from muse.cli import _terminal
from muse.cli._live import PlainView, named
from muse.errors import ConfigError

HELP = "Show one agent run as a page, or go on with one that was cut off."
_SHOWN_RESULT = 600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which run, and what to do with it."""
    parser.add_argument("id", metavar="ID", nargs="?", help="a run's id (muse runs); the newest if left out")
    parser.add_argument("--resume", metavar="ID", help="go on with a run that was cut off")
    parser.add_argument("--json", action="store_true", help="print its events as JSON")


def run(args: argparse.Namespace) -> int:
    """Print or resume it; 0, or the exit status of `muse agent` for a resumed one."""
    if args.resume:
        return _resume(args.resume)
    agent_id = args.id or next(iter(runs.newest_ids()), None)
    found = runs.find(agent_id) if agent_id else None
    if found is None:
        raise ConfigError("ID", repr(agent_id), "the id of a run: muse runs lists them")
    events = list(runs.read_events(found[0]))
    if args.json:
        _terminal.print_json(events)
        return 0
    for line in _page(str(agent_id), events):
        print(line)
    return 0


def _resume(agent_id: str) -> int:
    from muse.cli.agent import watch  # 0.5 s for the tools, and only who resumes pays it

    found = runs.find(agent_id)
    if found is None or found[1] == "pending":
        raise ConfigError("--resume", repr(agent_id), "the id of a run that was begun: muse runs lists them")
    events = list(runs.read_events(found[0]))
    if any(event.get("event") == "finish" for event in events):
        raise ConfigError("--resume", f"run {agent_id}, which is finished", "one that was cut off (or: --continue)")
    start = next((event for event in events if event.get("event") == "start"), None)
    if start is None:
        raise ConfigError("--resume", f"run {agent_id}, which never began", "one that was cut off after its start")
    request = {name: start.get(name) for name in ("persona", "provider", "model", "prompt")}
    return watch({**request, "resume_from": agent_id}, PlainView(), stream=False)


def _page(agent_id: str, events: list[dict[str, Any]]) -> Iterator[str]:
    """A run from top to bottom: prompt, thinking, tools with what they gave, answer, sums."""
    began_ms = next((event["ts"] for event in events if isinstance(event.get("ts"), int)), 0)
    yield f"Run {agent_id}, {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(began_ms / 1000))}"
    for event in events:
        yield from _said(event, began_ms)


def _said(event: Mapping[str, Any], began_ms: int) -> Iterator[str]:
    at = f"{(event.get('ts', began_ms) - began_ms) / 1000:7.1f} s  "
    match event.get("event"):
        case "start":
            yield f"{at}{event.get('persona')} on {event.get('provider')} {event.get('model')}"
            yield from _indented(str(event.get("prompt")))
        case "thinking":
            yield f"{at}thinking"
            yield from _indented(str(event.get("summary")))
        case "tool_end":
            yield f"{at}{named(event)}"
            result = event.get("result")
            text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
            yield from _indented(text if len(text) <= _SHOWN_RESULT else text[:_SHOWN_RESULT] + " …")
        case "finish":
            yield f"{at}answer" + (f" (at its {event['reason']})" if event.get("reason") else "")
            yield from _indented(str(event.get("result")))
            usage = ", ".join(
                f"{count:,} {name.replace('_', ' ')}" for name, count in (event.get("usage") or {}).items()
            )
            yield f"\n{usage}"
        case "error":
            yield f"{at}error: {event.get('error')}"
        case _:
            pass


def _indented(text: str) -> Iterator[str]:
    yield from (f"            {_terminal.clean(line)}" for line in text.splitlines())
    yield ""
