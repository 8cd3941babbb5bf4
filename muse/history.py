"""An earlier agent run's events -> turns to go on from; it knows where runs are kept and nothing of who made them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

from muse import journal
from muse.messages import Assistant, Results, ToolCall, ToolResult, Turn, User

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

    A `start` with a prompt is a user turn; a `finish` an assistant turn: its text, then the tools used since the last
    one. An unknown run gives `[]` and a warning.
    """
    text = _log_of(agent_id)
    if text is None:
        return []
    turns: list[dict[str, str]] = []
    calls: list[Mapping[str, Any]] = []
    for event in _events(text):
        match event.get("event"):
            case "start" if event.get("prompt") and not _goes_on(event):
                turns.append({"role": "user", "content": str(event["prompt"])})
            case "tool_start":
                calls.append(event)
            case "finish":
                text = str(event.get("result") or "").strip() + format_tool_summary(calls)
                turns.append({"role": "assistant", "content": text})
                calls = []
            case _:
                pass
    return turns


class Past(Struct, frozen=True):
    """An earlier run as a conversation; if it was cut off, with what of its last turn ended and what did not."""

    turns: tuple[Turn, ...] = ()
    ended: tuple[ToolResult, ...] = ()
    pending: tuple[ToolCall, ...] = ()


def past_of(agent_id: str) -> Past:
    """Run `agent_id` as turns for a request: prompts, answers, tool calls and tool results, for any provider.

    An unknown run gives an empty past and a warning.
    """
    text = _log_of(agent_id)
    book = _Book()
    for event in _events(text or ""):
        book.take(event)
    return book.past()


def _goes_on(start: Mapping[str, Any]) -> bool:
    """Whether a run that was cut off goes on with this `start` in its own log, where its prompt stands already."""
    return bool(start.get("resume_from")) and start.get("resume_from") == start.get("agent_id")


class _Book:
    """Events put together into turns: the calls of one turn are those that begin before it is over."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.calls: dict[str, ToolCall] = {}
        self.results: dict[str, ToolResult] = {}

    def take(self, event: Mapping[str, Any]) -> None:
        """One event of the run's log."""
        match event.get("event"):
            case "start" if event.get("prompt") and not _goes_on(event):
                self.turns.append(User((str(event["prompt"]),)))
            case "tool_start":
                if self.calls and len(self.results) == len(self.calls):
                    self._end_turn()
                call = _call_of(event, len(self.turns), len(self.calls))
                self.calls[call.call_id] = call
            case "tool_end":
                call = _call_of(event, len(self.turns), len(self.results))
                if call.call_id in self.calls:
                    self.results[call.call_id] = _result_of(event, call)
            case "finish":
                self._end_turn()
                if str(event.get("result") or "").strip():
                    self.turns.append(Assistant(str(event["result"]).strip()))
            case _:
                pass

    def past(self) -> Past:
        """What was taken so far."""
        pending = tuple(call for key, call in self.calls.items() if key not in self.results)
        if not pending:
            self._end_turn()
            return Past(tuple(self.turns))
        self.turns.append(Assistant("", tuple(self.calls.values())))
        return Past(tuple(self.turns), tuple(self.results.values()), pending)

    def _end_turn(self) -> None:
        if self.calls:
            self.turns.append(Assistant("", tuple(self.calls.values())))
            self.turns.append(Results(tuple(self.results[key] for key in self.calls if key in self.results)))
        self.calls, self.results = {}, {}


def _call_of(event: Mapping[str, Any], turn: int, index: int) -> ToolCall:
    args = event.get("args")
    call_id = str(event.get("call_id") or f"call-{turn}-{index}")
    return ToolCall(call_id, str(event.get("tool") or "unknown"), args if isinstance(args, Mapping) else {})


def _result_of(event: Mapping[str, Any], call: ToolCall) -> ToolResult:
    """A recorded result as the model saw it: an error under its key, several texts as a list, else one text."""
    shown = event.get("result")
    if isinstance(shown, Mapping) and "error" in shown:
        return ToolResult(call.call_id, call.name, (f"Error: {shown['error']}",), failed=True)
    pieces = shown if isinstance(shown, list) else [shown]
    texts = tuple(piece if isinstance(piece, str) else json.dumps(piece, ensure_ascii=False) for piece in pieces)
    return ToolResult(call.call_id, call.name, texts or ("(no output)",))


def _log_of(agent_id: str) -> str | None:
    """A run's log as text, finished or under way; None, with a warning, if there is none."""
    folder = journal.folder() / "agents"
    for name in (f"{agent_id}.jsonl", f"{agent_id}_active.jsonl"):
        path = folder / name
        if path.is_file():
            return path.read_text(encoding="utf-8", errors="replace")
    log.warning("Cannot continue from %s: log not found", agent_id)
    return None


def _events(text: str) -> Iterator[Mapping[str, Any]]:
    for line in text.split("\n"):  # splitlines() also cuts at U+2028, which JSON text may hold
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, Mapping):
            yield event
