"""`muse agent`: run a persona once and watch it; it knows no provider and no tool."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from muse import agents, journal
from muse.cli._live import PlainView, TerminalView, View, named
from muse.errors import ConfigError
from muse.messages import ToolCall

HELP = "Run an agent: a persona with its tools, on the provider that journal.json names for it."
FAILED, AT_LIMIT, INTERRUPTED = 1, 2, 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Who is to run, on what, and where the result goes."""
    parser.add_argument("name", metavar="NAME", help="a persona: `muse agents` lists them")
    parser.add_argument("prompt", metavar="PROMPT", nargs="?", help="what it is to do; - reads standard input")
    parser.add_argument("--provider", help="another provider than the routed one")
    parser.add_argument("--model", help="another model; its name may tell its provider")
    parser.add_argument("--tier", type=int, choices=(1, 2, 3), help="another tier: 1 the most capable, 3 the fastest")
    parser.add_argument("--continue", dest="continue_from", metavar="ID", help="take up an earlier run")
    parser.add_argument("--save", metavar="FILE", type=Path, help="write the result to a file too")
    parser.add_argument("--max-turns", type=int, metavar="N", help="at most so many replies of the model")
    parser.add_argument("--timeout", dest="timeout_s", type=float, metavar="SECONDS", help="for the whole run")
    parser.add_argument("--no-tools", dest="disable_mcp", action="store_true", help="run without any tool")
    parser.add_argument("--json", action="store_true", help="print the events, one JSON line each")


def run(args: argparse.Namespace) -> int:
    """Run it: 0 finished, 1 failed, 2 at a limit or out of time, 130 interrupted."""
    request = {name: value for name, value in vars(args).items() if name in _PASSED_ON and value not in (None, False)}
    request |= {"persona": args.name, "prompt": _prompt(args.prompt)}
    watched = sys.stdout.isatty() and sys.stderr.isatty() and not args.json
    view: View = _JsonView() if args.json else TerminalView() if watched else PlainView()
    return watch(request, view, stream=watched, save=args.save)


_PASSED_ON = ("provider", "model", "tier", "continue_from", "max_turns", "timeout_s", "disable_mcp")


def watch(request: Mapping[str, Any], view: View, *, stream: bool, save: Path | None = None) -> int:
    """Run a request with its events shown and kept; the exit status."""
    last: dict[str, Any] = {}

    def take(event: dict[str, Any]) -> None:
        if event.get("event") in ("finish", "error"):
            last.update(event)
        view.take(event)

    async def whole() -> None:
        task = asyncio.current_task()
        if task is not None and hasattr(signal, "SIGTERM"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        asked = {**request, "stream": True} if stream else request
        approver = _ask_person if sys.stdin.isatty() else None
        await agents.run_recorded(asked, take, approver=approver, hosted=agents.own_tools)

    try:
        asyncio.run(whole())
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED
    finally:
        view.close()
    if save is not None and last.get("event") == "finish":
        journal.write_atomic(save, str(last["result"]) + "\n")
    return _status(last)


def _status(last: Mapping[str, Any]) -> int:
    if last.get("event") == "finish":
        return AT_LIMIT if last.get("reason") == "limit" else 0
    return (
        AT_LIMIT if "time ran out" in str(last.get("error")) or "no answer within" in str(last.get("error")) else FAILED
    )


async def _ask_person(call: ToolCall) -> bool:
    """Ask at the terminal whether a tool may be called; only a yes is one."""
    question = f"allow {named({'tool': call.name, 'args': dict(call.args)})}? [y/N] "
    answer = await asyncio.to_thread(_read_answer, question)
    return answer.strip().lower() in ("y", "yes")


def _read_answer(question: str) -> str:
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline()


def _prompt(said: str | None) -> str:
    """The prompt: as it was typed, or standard input.

    Raises:
        ConfigError: there is none.
    """
    text = sys.stdin.read() if said == "-" or (said is None and not sys.stdin.isatty()) else said
    if not text or not text.strip():
        raise ConfigError("PROMPT", "nothing", "what the agent is to do, such as: muse agent default 'Plan my day'")
    return text.strip()


class _JsonView:
    """Events as JSON lines, for programs."""

    def take(self, event: Mapping[str, Any]) -> None:
        print(json.dumps(event, ensure_ascii=False, default=str), flush=True)

    def close(self) -> None:
        """Nothing is open."""
