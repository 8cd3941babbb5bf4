"""An earlier agent run's events -> turns to go on from; it knows where runs are kept and nothing of who made them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct

from muse.journal import paths
from muse.journal.storage.path_containment import is_inside
from muse.runs.images import recall_pictures
from muse.types.messages import Assistant, ToolCall, ToolResult, ToolResults, Turn, User

log = logging.getLogger(__name__)
INTERRUPTED = "interrupted: the run was cut off while this tool was at work; it may or may not have had its effect"
_LONGEST_VALUE = 50


def format_tool_summary(calls: list[Mapping[str, Any]]) -> str:
    r"""What tools a turn used, as text: `"\n\nTools used: a(k='v'), b(id=1)"`; "" for none.

    The tool of a call stands under `tool` or `name`.

    >>> format_tool_summary([{"tool": "find", "args": {"q": "tide"}}])
    "\n\nTools used: find(q='tide')"
    """
    if not calls:
        return ""
    return "\n\nTools used: " + ", ".join(
        f"{call.get('tool') or call.get('name') or '?'}({_format_args(call.get('args'))})" for call in calls
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


class RunHistory(Struct, frozen=True):
    """An earlier run as a conversation; if it was cut off, with what of its last turn ended and what did not."""

    turns: tuple[Turn, ...] = ()
    ended: tuple[ToolResult, ...] = ()
    pending: tuple[ToolCall, ...] = ()

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls of the turn that was cut off, in the model's order."""
        last = self.turns[-1] if self.turns else None
        return last.calls if isinstance(last, Assistant) and self.pending else ()

    @property
    def closed(self) -> tuple[Turn, ...]:
        """The turns, with what was cut off told as interrupted: a conversation that can go on with anything."""
        if not self.pending:
            return self.turns
        return (*self.turns, _results_of(self.calls, {result.call_id: result for result in self.ended}))


def load_history(agent_id: str, *, sees: bool = True) -> RunHistory:
    """Run `agent_id` as turns for a request: prompts, answers, tool calls and tool results, for any provider.

    What it took up itself comes first, back to the run that began the conversation. An unknown run gives an empty past
    and a warning. With `sees=False` the pictures of its prompts are named only.
    """
    book = _TurnBuilder(sees=sees)
    for events in reversed(list(_chain(agent_id))):
        for event in events:
            book.take(event)
    return book.past()


def interrupted(call: ToolCall) -> ToolResult:
    """What a model is told of a call whose end nobody saw."""
    return ToolResult(call.call_id, call.name, (f"Error: {INTERRUPTED}",), failed=True)


def _results_of(calls: Iterable[ToolCall], ended: Mapping[str, ToolResult]) -> ToolResults:
    """The results of one turn in the order of its calls; every call has one, as providers want it."""
    return ToolResults(tuple(ended.get(call.call_id) or interrupted(call) for call in calls))


def _chain(agent_id: str) -> Iterator[list[Mapping[str, Any]]]:
    """The events of a run, then those of the run it took up, and so on; a circle ends where it closes."""
    seen: set[str] = set()
    earlier: str | None = agent_id
    while earlier and earlier not in seen:
        seen.add(earlier)
        events = list(_events(_log_of(earlier) or ""))
        yield events
        taken_up = (event.get("resume_from") or event.get("continue_from") for event in events if _begins(event))
        earlier = next((str(found) for found in taken_up if found and found != earlier), None)


def _begins(event: Mapping[str, Any]) -> bool:
    return event.get("event") == "start"


def _goes_on(start: Mapping[str, Any]) -> bool:
    """Whether a run that was cut off goes on with this `start` in its own log, where its prompt stands already."""
    return bool(start.get("resume_from")) and start.get("resume_from") == start.get("agent_id")


def _is_asked_anew(start: Mapping[str, Any]) -> bool:
    """Whether this `start` says a prompt that the conversation does not have yet."""
    return bool(start.get("prompt")) and not start.get("resume_from")


class _TurnBuilder:
    """Events put together into turns: the calls of one turn are those that begin before it is over."""

    def __init__(self, *, sees: bool) -> None:
        self._sees = sees
        self.turns: list[Turn] = []
        self.calls: dict[str, ToolCall] = {}
        self.results: dict[str, ToolResult] = {}

    def take(self, event: Mapping[str, Any]) -> None:
        """One event of the run's log."""
        match event.get("event"):
            case "start" if _is_asked_anew(event):
                self._end_turn()
                named = event.get("images")
                pictures = recall_pictures(named if isinstance(named, list) else (), sees=self._sees)
                self.turns.append(User((str(event["prompt"]), *pictures)))
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

    def past(self) -> RunHistory:
        """What was taken so far."""
        pending = tuple(call for key, call in self.calls.items() if key not in self.results)
        if not pending:
            self._end_turn()
            return RunHistory(tuple(self.turns))
        self.turns.append(Assistant("", tuple(self.calls.values())))
        ended = tuple(self.results[key] for key in self.calls if key in self.results)
        return RunHistory(tuple(self.turns), ended, pending)

    def _end_turn(self) -> None:
        if self.calls:
            self.turns.append(Assistant("", tuple(self.calls.values())))
            self.turns.append(_results_of(self.calls.values(), self.results))
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
    folder = paths.journal_path() / "agents"
    for name in (f"{agent_id}.jsonl", f"{agent_id}_active.jsonl"):  # an id is a name, never a way to another folder
        path = folder / name
        if (
            path.parent == folder and path.is_file() and is_inside(path, paths.journal_path())
        ):  # an id is a name, never a way to another folder
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
