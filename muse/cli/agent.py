"""`muse agent`: run a persona once and watch it; it knows no provider and no tool."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from muse import agents
from muse.cli._terminal import arguments
from muse.cli._terminal.approval import TerminalApprover
from muse.cli._terminal.arguments import FAILED, INTERRUPTED
from muse.cli._terminal.run_view import JsonView, PlainView, TerminalView, View
from muse.cli._terminal.terminal import print_error, say
from muse.journal import input_changes
from muse.journal.lenient_parser import closest_name
from muse.journal.personas import get_agent, get_agents
from muse.journal.storage import atomic_files
from muse.runs.client import require_completed
from muse.terminal.text import escape_message
from muse.types.errors import ConfigError

HELP = "Run an agent: a persona with its tools, on the provider that journal.json names for it."
AT_LIMIT = 2
_ENDED_AS = {"cancelled": INTERRUPTED, "timeout": AT_LIMIT, "limit": AT_LIMIT}
_PASSED_ON = ("provider", "model", "tier", "continue_from", "max_turns", "timeout_s", "disable_mcp")

Watched = Callable[[Mapping[str, Any]], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Who is to run, on what, and where the result goes."""
    parser.add_argument("name", metavar="NAME", help="a persona: `muse agents` lists them")
    parser.add_argument("prompt", metavar="PROMPT", nargs="?", help="what it is to do; - reads standard input")
    parser.add_argument("--provider", help="another provider than the routed one")
    parser.add_argument("--model", help="another model; its name may tell its provider")
    parser.add_argument("--tier", type=int, choices=(1, 2, 3), help="another tier: 1 the most capable, 3 the fastest")
    parser.add_argument("--continue", dest="continue_from", metavar="ID", help="take up an earlier run")
    parser.add_argument("--save", metavar="FILE", type=Path, help="write the result to a file too")
    parser.add_argument(
        "--day", metavar="YYYYMMDD", type=arguments.day, help="the $day of the persona's own prompt (today)"
    )
    parser.add_argument("--max-turns", type=arguments.count, metavar="N", help="at most so many replies of the model")
    parser.add_argument(
        "--timeout", dest="timeout_s", type=arguments.seconds, metavar="S", help="seconds for the whole run"
    )
    parser.add_argument("--no-tools", dest="disable_mcp", action="store_true", help="run without any tool")
    parser.add_argument("--if-changed", action="store_true", help="run only if the persona's inputs changed since")
    parser.add_argument("--dry-run", action="store_true", help="say what would run, and run nothing")
    parser.add_argument("--json", action="store_true", help="print the events, one JSON line each")


def run(args: argparse.Namespace) -> int:
    """Run it: 0 finished, 1 failed, 2 at a limit or out of time, 130 interrupted."""
    persona = _persona(args.name)
    prompt = _prompt(args.prompt, persona, args.day)
    if args.continue_from:
        require_completed(args.continue_from)
    if args.save is not None and not args.save.absolute().parent.is_dir():
        raise ConfigError("--save", f"{args.save}, in a folder that is not there", "a file in a folder that is")
    request = {name: value for name, value in vars(args).items() if name in _PASSED_ON and value not in (None, False)}
    request |= {"persona": args.name, "prompt": prompt}
    asked = prompt if args.prompt or args.day else persona.get("prompt") or prompt  # today is no change by itself
    seen = (
        input_changes.check_inputs(persona, asked) if args.if_changed and input_changes.is_declared(persona) else None
    )
    if seen is not None and seen.is_fresh:
        print_error(f"{args.name}: nothing it reads has changed since its last run ({len(seen.inputs)} files)")
        return 0
    if args.dry_run:
        return _announce(request, seen)
    return _run(request, seen, as_json=args.json, save=args.save)


def _run(request: Mapping[str, Any], seen: input_changes.InputState | None, *, as_json: bool, save: Path | None) -> int:
    """Run a request, then put its result where it belongs."""
    status, last = watch(request, as_json=as_json)
    if last.get("event") != "finish":
        return status
    if save is not None:
        atomic_files.write_atomic(save, str(last["result"]) + "\n")
    if seen is not None and status == 0:
        written = seen.keep(str(last["result"]))
        if written is not None:
            print_error(f"{request['persona']}: written to {written}")
    return status


def _announce(request: Mapping[str, Any], seen: input_changes.InputState | None) -> int:
    """Say what would run, where, and why."""
    prepared = agents.resolve_run(request)
    why = f": {seen.reason}" if seen is not None else ""
    say(f"{request['persona']} would run on {prepared.provider} {prepared.config['model']}{why}")
    print(escape_message(f"  prompt: {request['prompt']}"))
    if seen is not None:
        say(f"  inputs: {len(seen.inputs)} files")
        say(f"  output: {seen.output or 'standard output'}")
    return 0


def watch(
    request: Mapping[str, Any], *, as_json: bool = False, also: Watched | None = None
) -> tuple[int, dict[str, Any]]:
    """Run a request and show its events (`also` gets them too): `(exit status, the last event)`."""
    is_seen = sys.stderr.isatty() and not as_json
    view: View = JsonView() if as_json else TerminalView() if is_seen else PlainView()
    last: dict[str, Any] = {}

    def take(event: dict[str, Any]) -> None:
        if event.get("event") in ("finish", "error"):
            last.update(event)
        if also is not None:
            also(event)
        view.take(event)

    async def whole() -> None:
        task = asyncio.current_task()
        if task is not None and sys.platform != "win32":
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
            agents.cancel_on_closed_stdout(task)
        asked = {**request, "stream": True} if is_seen and sys.stdout.isatty() else request
        approver = TerminalApprover(view).approve if sys.stdin.isatty() and sys.stderr.isatty() else None
        await agents.run_recorded(asked, take, approver=approver, hosted=agents.builtin_tools)

    try:
        asyncio.run(whole())
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED, last
    finally:
        view.close()
    return _status(last), last


def _status(last: Mapping[str, Any]) -> int:
    reason = str(last.get("reason"))
    if last.get("event") == "finish":
        return AT_LIMIT if reason == "limit" else 0
    return _ENDED_AS.get(reason, FAILED)


def _persona(name: str) -> dict[str, Any]:
    """The persona that was named.

    Raises:
        ConfigError: there is none of that name; those there are, are named.
    """
    known = get_agents()
    if name not in known:
        near = closest_name(name, known)
        raise ConfigError("NAME", repr(name), f"{near!r}?" if near else f"one of {', '.join(sorted(known))}")
    return get_agent(name)


def _prompt(said: str | None, persona: Mapping[str, Any], day: str | None) -> str:
    """The prompt: as it was typed, or the persona's own for `day`, or standard input.

    Raises:
        ConfigError: there is none.
    """
    own = persona.get("prompt")
    if said is None and own:
        about = datetime.strptime(day, "%Y%m%d") if day else datetime.now().astimezone()
        return str(own).replace("$day", f"{about:%A, %Y-%m-%d} ({about:%Y%m%d})")
    text = sys.stdin.read() if said == "-" or (said is None and not sys.stdin.isatty()) else said
    if not text or not text.strip():
        allowed = f"what the agent is to do, such as: muse agent {persona['persona']} 'Plan my day'"
        raise ConfigError("PROMPT", "nothing", allowed)
    return text.strip()
