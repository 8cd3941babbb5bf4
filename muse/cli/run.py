"""`muse run`: one agent run as a readable page, or resumed where it was cut off; it knows no provider."""

from __future__ import annotations

import argparse
import json
import shlex
import time
from collections.abc import Iterator, Mapping
from typing import Any

from muse.cli._terminal import terminal
from muse.cli._terminal.run_view import named
from muse.cli.runs import cost_of, state_in_words
from muse.runs import run_files
from muse.runs.client import get_agent_thread
from muse.types.errors import ConfigError
from muse.types.formatting import format_usd, pluralize

HELP = "Show one agent run as a page, or go on with one that was cut off."
_SHOWN_RESULT = 600
_NOT_ASKED = ("event", "ts", "agent_id", "handoff", "handoff_from", "save", "stream", "resume_from")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which run, and what to do with it."""
    parser.add_argument("id", metavar="ID", nargs="?", help="a run's id (muse runs); the newest if left out")
    parser.add_argument("--resume", metavar="ID", help="go on with a run that was cut off")
    parser.add_argument("--json", action="store_true", help="print its events as JSON")


def run(args: argparse.Namespace) -> int:
    """Print or resume it; 0, or the exit status of `muse agent` for a resumed one."""
    if args.resume:
        return _resume(args.resume)
    agent_id = args.id or next(iter(run_files.newest_ids()), None)
    found = run_files.find(agent_id) if agent_id else None
    if found is None:
        raise ConfigError("ID", repr(agent_id), "the id of a run: muse runs lists them")
    events = list(run_files.read_events(found[0]))
    if args.json:
        terminal.print_json(events)
        return 0
    for line in _page(str(agent_id), events):
        terminal.say(line)
    return 0


def _resume(agent_id: str) -> int:
    """Go on with a cut-off run: in its own log if nobody else has that, in a new one if the run has ended in it."""
    from muse.cli.agent import watch  # 0.5 s for the tools, and only who resumes pays it

    found = run_files.find(agent_id)
    if found is None or found[1] == "pending":
        raise ConfigError("--resume", repr(agent_id), "the id of a run that was begun: muse runs lists them")
    recorder = run_files.adopt(agent_id) if found[1] == "active" else None
    if found[1] == "active" and recorder is None:
        raise ConfigError("--resume", f"run {agent_id}, which is under way", "one that was cut off")
    request = _request_of(agent_id, list(run_files.read_events(found[0]))) | {"resume_from": agent_id}
    if recorder is None:
        return watch(request)[0]
    try:
        return watch({**request, "agent_id": agent_id}, also=recorder.write)[0]
    finally:
        recorder.end()


def _request_of(agent_id: str, events: list[dict[str, Any]]) -> dict[str, Any]:
    """What a cut-off run was asked: its request, if its log has one, and who served it.

    Raises:
        ConfigError: it is finished, or never began.
    """
    if any(event.get("event") == "finish" for event in events):
        raise ConfigError("--resume", f"run {agent_id}, which is finished", "one that was cut off (or: --continue)")
    start = next((event for event in events if event.get("event") == "start"), None)
    if start is None:
        raise ConfigError("--resume", f"run {agent_id}, which never began", "one that was cut off after its start")
    first = events[0] if events[0].get("event") == "request" else {}
    asked = {name: value for name, value in first.items() if name not in _NOT_ASKED}
    return asked | {name: start.get(name) for name in ("persona", "provider", "model", "prompt")}


def _page(agent_id: str, events: list[dict[str, Any]]) -> Iterator[str]:
    """A run from top to bottom: prompt, thinking, tools with what they gave, answer, sums."""
    began_ms = next((event["ts"] for event in events if isinstance(event.get("ts"), int)), 0)
    yield f"Run {agent_id}, {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(began_ms / 1000))}"
    chain = get_agent_thread(agent_id)
    if len(chain) > 1:
        yield "Chain: " + " -> ".join(f"[{one}]" if one == agent_id else one for one in chain)
    for event in events:
        yield from _said(event, began_ms)
    yield from _sums(run_files.summarize(agent_id), events)


def _said(event: Mapping[str, Any], began_ms: int) -> Iterator[str]:
    """An event as it stands on the page; what was written piece by piece stands there once, as the answer."""
    at = f"{(event.get('ts', began_ms) - began_ms) / 1000:7.1f} s  "
    match event.get("event"):
        case "start":
            again = ", resumed" if event.get("resume_from") else ""
            yield f"{at}{event.get('persona')} on {event.get('provider')} {event.get('model')}{again}"
            yield from _indented(str(event.get("prompt")))
        case "thinking":
            yield f"{at}thinking"
            yield from _indented(str(event.get("summary")))
        case "tool_end":
            yield f"{at}{named(event)}"
            yield from _indented(_shown(event.get("result")))
        case "approval":
            yield f"{at}asked whether {named(event)} may be called"
        case "info":
            yield f"{at}{event.get('message')}"
        case "finish":
            yield f"{at}answer" + (f" (at its {event['reason']})" if event.get("reason") else "")
            yield from _indented(str(event.get("result")))
        case "error":
            yield f"{at}error" + (f" ({event['reason']})" if event.get("reason") else "")
            yield from _indented(str(event.get("error")))
        case _:
            pass


def _shown(result: object) -> str:
    """What a tool gave, on as few lines as it takes: JSON in one, long ones cut."""
    text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    try:
        text = json.dumps(json.loads(text), ensure_ascii=False)
    except ValueError:
        text = text.rstrip()
    return text if len(text) <= _SHOWN_RESULT else text[:_SHOWN_RESULT] + " …"


def _sums(found: run_files.Run | None, events: list[dict[str, Any]]) -> Iterator[str]:
    """Turns, tools, tokens, cost and seconds, and what can be done with the run."""
    if found is None:
        return
    cost = cost_of(found)
    parts = [
        state_in_words(found),
        pluralize(found.turns, "turn"),
        pluralize(found.tool_calls, "tool call"),
        f"{found.tokens:,} tokens",
    ]
    parts.append("cost unknown" if cost is None else format_usd(cost))
    parts += [f"{found.duration_s:.1f} s"] if found.duration_s is not None else []
    yield ", ".join(parts)
    asked = _options_of(events)
    if found.state == "completed":
        words = ["muse", "agent", found.persona, *asked, "--continue", found.agent_id, "And then?"]
        yield f"Go on with it: {shlex.join(words)}"
    elif found.state in ("failed", "cancelled") and any(event.get("event") == "start" for event in events):
        yield f"Take it up where it ended: muse run --resume {found.agent_id}"
    elif found.state in ("failed", "cancelled") and found.prompt:
        yield f"It never began. Run it again: {shlex.join(['muse', 'agent', found.persona, *asked, found.prompt])}"


def _options_of(events: list[dict[str, Any]]) -> list[str]:
    """Return the options of `muse agent` that say who answers as the run's request did."""
    request = events[0] if events and events[0].get("event") == "request" else {}
    return [
        word
        for name in ("provider", "model", "tier")
        if request.get(name)
        for word in (f"--{name}", str(request[name]))
    ]


def _indented(text: str) -> Iterator[str]:
    yield from (f"            {line}" for line in text.expandtabs(4).splitlines())
    yield ""
