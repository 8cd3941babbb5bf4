"""An agent run as a person watches it: thinking dimmed, tools with their seconds, text as it comes; it runs nothing.

What is watched goes to standard error, the result alone to standard output: so it can be piped.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol

from muse.cli._terminal import clean

_SHOWN_ARGS = 70


class View(Protocol):
    """Somebody who is told of every event."""

    def take(self, event: Mapping[str, Any]) -> None:
        """One event of the run."""

    def close(self) -> None:
        """The run is over."""


class PlainView:
    """For pipes and logs: one line a tool on standard error, the result on standard output."""

    def __init__(self) -> None:
        self._started_s: dict[str, float] = {}

    def take(self, event: Mapping[str, Any]) -> None:
        match event.get("event"):
            case "tool_start":
                self._started_s[str(event.get("call_id"))] = time.monotonic()
            case "tool_end":
                print(self.tool_line(event), file=sys.stderr)
            case "error":
                print(f"muse: {event.get('error')}", file=sys.stderr)
            case "finish":
                print(event.get("result", ""))
            case _:
                pass

    def tool_line(self, event: Mapping[str, Any]) -> str:
        """A tool call that is over: whether it went well, what it was asked, how long it took."""
        began_s = self._started_s.pop(str(event.get("call_id")), time.monotonic())
        failed = isinstance(event.get("result"), Mapping) and "error" in event["result"]
        mark, tail = ("✗", f": {event['result']['error']}") if failed else ("✓", "")
        return f"{mark} {named(event)} {time.monotonic() - began_s:.1f} s{clean(tail)}"

    def close(self) -> None:
        """Nothing is open."""


class TerminalView(PlainView):
    """For a terminal: a spinner while tools are at work, thinking dimmed, text written as it comes."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console  # only who watches pays for it

        self._console = Console(stderr=True, highlight=False)
        self._status: Any = None
        self._under_way: list[str] = []
        self._has_streamed = False

    def take(self, event: Mapping[str, Any]) -> None:
        match event.get("event"):
            case "start":
                said = f"{event.get('persona')} · {event.get('provider')} {event.get('model')}"
                self._console.print(f"[dim]{said}[/dim]")
                self._spin("thinking")
            case "thinking":
                self._stop()
                self._console.print(clean(str(event.get("summary"))), style="dim italic", markup=False)
            case "delta":
                self._stop()
                sys.stdout.write(str(event.get("text")))
                sys.stdout.flush()
                self._has_streamed = True
            case "tool_start":
                super().take(event)
                self._break_line()
                self._under_way.append(named(event))
                self._spin(", ".join(self._under_way))
            case "tool_end":
                self._end_tool(event)
            case "finish":
                self._end(event)
            case "error":
                self._stop()
                self._break_line()
                self._console.print(f"muse: {event.get('error')}", style="red", markup=False)
            case _:
                pass

    def _end_tool(self, event: Mapping[str, Any]) -> None:
        self._stop()
        line = self.tool_line(event)
        self._console.print(line, style="green" if line.startswith("✓") else "yellow", markup=False)
        if named(event) in self._under_way:
            self._under_way.remove(named(event))
        self._spin(", ".join(self._under_way) or "thinking")

    def _end(self, event: Mapping[str, Any]) -> None:
        self._stop()
        if self._has_streamed:
            self._break_line()
        else:
            print(event.get("result", ""))
        if event.get("reason"):
            self._console.print(f"[dim]ended at its {event['reason']}[/dim]")

    def _break_line(self) -> None:
        if self._has_streamed:
            print()
            self._has_streamed = False

    def _spin(self, what: str) -> None:
        self._stop()
        self._status = self._console.status(f"[dim]{what}[/dim]", spinner="dots")
        self._status.start()

    def _stop(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def close(self) -> None:
        """Stop the spinner, whatever happened."""
        self._stop()


def named(event: Mapping[str, Any]) -> str:
    """A call in words: `search_journal(query='release')`, cut short."""
    args = event.get("args") or {}
    said = ", ".join(f"{name}={value!r}" for name, value in args.items()) if isinstance(args, Mapping) else ""
    short = said if len(said) <= _SHOWN_ARGS else said[: _SHOWN_ARGS - 1] + "…"
    return clean(f"{event.get('tool')}({short})")
