"""An agent run as a person watches it: thinking dimmed, tools with their seconds, text as it comes; it runs nothing.

What is watched goes to standard error, the result alone to standard output: so it can be piped. What a model or a tool
said cannot steer the terminal.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from muse.cli._terminal.terminal import print_error
from muse.terminal.text import escape_control

_SHOWN_ARGS = 70
_SHOWN_ERROR = 160


class View:
    """Somebody who is told of every event; here one who ignores them all."""

    def take(self, event: Mapping[str, Any]) -> None:
        """One event of the run."""

    def pause(self) -> None:
        """Stop writing: a question is about to be put where events are shown."""

    def resume(self) -> None:
        """Go on: the question is answered."""

    def close(self) -> None:
        """The run is over."""


class JsonView(View):
    """Events as JSON lines, for programs."""

    def take(self, event: Mapping[str, Any]) -> None:
        """Print it."""
        line = json.dumps(event, ensure_ascii=False, default=str)
        print(escape_control(line), flush=True)


class PlainView(View):
    """For pipes and logs: one line a tool on standard error, the result on standard output."""

    def __init__(self) -> None:
        self._started_s: dict[str, float] = {}

    def take(self, event: Mapping[str, Any]) -> None:
        """Print what there is to say of an event."""
        match event.get("event"):
            case "tool_start":
                self._started_s[str(event.get("call_id"))] = time.monotonic()
            case "tool_end":
                mark, words, seconds = self.tool_line(event)
                print_error(f"{mark} {words} {seconds}")
            case "error":
                print_error(f"muse: {_ended(event)}")
            case "finish":
                say_result(str(event.get("result", "")))
                if event.get("reason"):
                    print_error(f"muse: ended at its {event['reason']}")
            case _:
                pass

    def tool_line(self, event: Mapping[str, Any]) -> tuple[str, str, str]:
        """A tool call that is over: whether it went well, what it was asked, how long it took (and why it failed)."""
        began_s = self._started_s.pop(str(event.get("call_id")), time.monotonic())
        seconds = f"{time.monotonic() - began_s:.1f} s"
        if not isinstance(event.get("result"), Mapping) or "error" not in event["result"]:
            return "✓", named(event), seconds
        return "✗", named(event), f"{seconds}: {_cut(str(event['result']['error']))}"


class TerminalView(PlainView):
    """For a terminal: a spinner while tools are at work, thinking dimmed, text written as it comes."""

    def __init__(self) -> None:
        super().__init__()
        from muse.terminal.console import console  # it brings rich, and only who watches pays for it

        self._console = console(stderr=True)
        self._status: Any = None
        self._under_way: dict[str, str] = {}
        self._has_streamed = False
        self._began_s = time.monotonic()
        self._held: list[Mapping[str, Any]] | None = None

    def pause(self) -> None:
        """Stop the spinner and keep events back, so that nothing is drawn over the question."""
        self._stop()
        self._break_line()
        self._held = []

    def resume(self) -> None:
        """Draw what was kept back, and go on."""
        held, self._held = self._held or (), None
        for event in held:
            self.take(event)

    def take(self, event: Mapping[str, Any]) -> None:
        """Draw what an event changes."""
        if self._held is not None:
            self._held.append(event)
            return
        match event.get("event"):
            case "start":
                words = f"{event.get('persona')} · {event.get('provider')} {event.get('model')}"
                self._say(escape_control(words), "dim")
                self._spin("thinking")
            case "thinking":
                self._break_line()
                self._say("\n".join(_lines(str(event.get("summary")))), "dim italic")
            case "delta":
                self._stop()
                sys.stdout.write("\n".join(_lines(str(event.get("text")))))
                sys.stdout.flush()
                self._has_streamed = True
            case "tool_start":
                super().take(event)
                self._break_line()
                self._under_way[str(event.get("call_id"))] = named(event)
                self._spin(", ".join(self._under_way.values()))
            case "tool_end":
                self._end_tool(event)
            case "finish":
                self._end(event)
            case "error":
                self._stop()
                self._break_line()
                self._say(f"muse: {_ended(event)}", "red")
            case _:
                pass

    def _end_tool(self, event: Mapping[str, Any]) -> None:
        self._stop()
        mark, words, seconds = self.tool_line(event)
        from rich.text import Text

        color = "green" if mark == "✓" else "yellow"
        self._console.print(Text.assemble((mark, color), " ", words, " ", (seconds, "dim")), soft_wrap=True)
        self._under_way.pop(str(event.get("call_id")), None)
        self._spin(", ".join(self._under_way.values()) or "thinking")

    def _end(self, event: Mapping[str, Any]) -> None:
        self._stop()
        if self._has_streamed:
            self._break_line()
        else:
            say_result(str(event.get("result", "")))
        usage = event.get("usage") or {}
        about = [f"{usage.get('total_tokens', 0):,} tokens", f"{time.monotonic() - self._began_s:.1f} s"]
        about += [f"run {event['agent_id']}"] if event.get("agent_id") else []
        about += [f"ended at its {event['reason']}"] if event.get("reason") else []
        self._say(escape_control(" · ".join(about)), "dim")

    def _break_line(self) -> None:
        if self._has_streamed:
            print(flush=True)
            self._has_streamed = False

    def _say(self, text: str, style: str) -> None:
        if text.strip():
            self._console.print(text, style=style, soft_wrap=True)

    def _spin(self, what: str) -> None:
        from rich.text import Text

        from muse.terminal.console import start_live

        text = Text(what, style="dim", overflow="ellipsis", no_wrap=True)
        if self._status is None:
            self._status = self._console.status(text, spinner="dots")
            start_live(self._status)
        else:
            self._status.update(text)

    def _stop(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def close(self) -> None:
        """Stop the spinner, whatever happened."""
        self._stop()


def say_result(text: str) -> None:
    """Print a result, control characters escaped; tabs are expanded on a terminal."""
    print("\n".join(_lines(text)) if sys.stdout.isatty() else escape_control(text, keep_newlines=True), flush=True)


def named(event: Mapping[str, Any]) -> str:
    """A call in words: `search_journal(query='release')`, cut short."""
    said = _args_of(event)
    short = said if len(said) <= _SHOWN_ARGS else said[: _SHOWN_ARGS - 1] + "…"
    return escape_control(f"{event.get('tool')}({short})")


def is_short(event: Mapping[str, Any]) -> bool:
    """Whether `named` shows all of a call's arguments."""
    return len(_args_of(event)) <= _SHOWN_ARGS


def _args_of(event: Mapping[str, Any]) -> str:
    args = event.get("args") or {}
    return ", ".join(f"{name}={value!r}" for name, value in args.items()) if isinstance(args, Mapping) else ""


def _lines(text: str) -> list[str]:
    """The lines of a text, each safe to show."""
    return [escape_control(line) for line in text.replace("\r\n", "\n").expandtabs(4).split("\n")]


def _cut(text: str) -> str:
    """The first line of an error, cut short."""
    first, _, rest = text.strip().partition("\n")
    short = first if len(first) <= _SHOWN_ERROR else first[: _SHOWN_ERROR - 1] + "…"
    return escape_control(f"{short} …" if rest.strip() and not short.endswith("…") else short)


def _ended(event: Mapping[str, Any]) -> str:
    """How a run without an answer ended."""
    return "interrupted" if event.get("reason") == "cancelled" else "\n".join(_lines(str(event.get("error"))))
