"""What an agent run says, as typed dicts, and the two ways out for it; it knows no provider and no tool."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Literal, NotRequired, Required, TypedDict

from muse.terminal.text import escape_control


class StartEvent(TypedDict, total=False):
    """The run begins."""

    event: Required[Literal["start"]]
    ts: Required[int]
    prompt: Required[str]
    persona: Required[str]
    model: Required[str]
    provider: Required[str]


class ThinkingEvent(TypedDict, total=False):
    """A summary of the model's reasoning."""

    event: Required[Literal["thinking"]]
    ts: Required[int]
    summary: Required[str]
    model: str


class ToolStartEvent(TypedDict, total=False):
    """A tool call begins; `call_id` pairs it with its end."""

    event: Required[Literal["tool_start"]]
    ts: Required[int]
    tool: Required[str]
    args: dict[str, Any] | None
    call_id: str | None


class ToolEndEvent(TypedDict, total=False):
    """A tool call is over; a failed one has `{"error": ...}` as its result."""

    event: Required[Literal["tool_end"]]
    ts: Required[int]
    tool: Required[str]
    args: dict[str, Any] | None
    result: Any
    call_id: str | None


class AgentUpdatedEvent(TypedDict):
    """Another agent goes on with the run."""

    event: Literal["agent_updated"]
    ts: int
    agent: str


class FallbackEvent(TypedDict, total=False):
    """The model asked could not answer, and the next target of the context's fallback chain goes on with the turn."""

    event: Required[Literal["fallback"]]
    ts: Required[int]
    provider: Required[str]
    model: Required[str]
    error: Required[str]
    to_provider: Required[str]
    to_model: Required[str]


class FinishEvent(TypedDict, total=False):
    """The run is over and has an answer; `usage` is the sum over its turns."""

    event: Required[Literal["finish"]]
    ts: Required[int]
    result: Required[str]
    usage: dict[str, int]
    reason: NotRequired[str]


class ErrorEvent(TypedDict, total=False):
    """The run is over and has none."""

    event: Required[Literal["error"]]
    ts: Required[int]
    error: Required[str]
    trace: str | None
    reason: NotRequired[str]
    cause: NotRequired[dict[str, Any]]


Event = (
    StartEvent
    | ThinkingEvent
    | ToolStartEvent
    | ToolEndEvent
    | AgentUpdatedEvent
    | FallbackEvent
    | FinishEvent
    | ErrorEvent
)


def now_ms() -> int:
    """Milliseconds since the epoch, as events carry them."""
    return time.time_ns() // 1_000_000


class JSONEventCallback:
    """Hands events to a function, each with its `ts`; the caller's dict is left as it was."""

    def __init__(self, callback: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.callback = callback

    def emit(self, data: Mapping[str, Any]) -> None:
        """Pass one event on, with `ts` (ms) added where it has none."""
        if self.callback is not None:
            self.callback({"ts": now_ms(), **data} if "ts" not in data else dict(data))

    def close(self) -> None:
        """Nothing to close: the pair of `JSONEventWriter.close`."""


class JSONEventWriter:
    """Writes events as JSON lines to standard output, flushed, and to a file if one is named."""

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path) if path else None
        self.file: IO[str] | None = None
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = self.path.open("a", encoding="utf-8")

    def emit(self, data: Mapping[str, Any]) -> None:
        """Write one event as a whole line."""
        line = json.dumps(data, ensure_ascii=False, default=str) + "\n"
        sys.stdout.write(escape_control(line, keep_newlines=True))
        sys.stdout.flush()
        if self.file is not None:
            self.file.write(line)
            self.file.flush()

    def close(self) -> None:
        """Close the file, if there is one; standard output stays open."""
        if self.file is not None:
            self.file.close()
            self.file = None
