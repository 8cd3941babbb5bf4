"""Tools as an agent would be offered them, and a scripted stand-in for the engine; it knows no test."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from muse.providers._local.tool_planner.planner import PlannerSession, plan
from muse.providers._local.tool_planner.task import Task
from muse.types.messages import Tool, ToolCall, ToolResult

TODAY = date(2026, 11, 20)
TEXT = {"type": "string"}
DAY = {"anyOf": [{**TEXT, "description": "YYYYMMDD"}, {"type": "null"}], "default": None}
COUNT = {"type": "integer", "minimum": 1, "maximum": 50, "default": 5}


def tool(
    name: str, description: str, properties: Mapping[str, Any], required: Sequence[str] = (), **hints: Any
) -> Tool:
    """A tool, read-only unless said otherwise."""
    schema = {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }
    return Tool(name, description, schema, hints.get("read_only", True))


LOG = tool("list_days", "The days of the log, with their weekday.", {"limit": COUNT})
SEARCH = tool(
    "search_log", "Search the log.", {"query": TEXT, "day_from": DAY, "day_to": DAY, "limit": COUNT}, ["query"]
)
SAILINGS = tool("get_sailings", "The sailings of a day.", {"day": {**TEXT, "description": "YYYYMMDD"}}, ["day"])
READ = tool("read_page", "Read a page of the log.", {"path": TEXT}, ["path"])
ERASE = tool("erase_log", "Erase the log.", {"query": TEXT}, ["query"], read_only=False)
FERRY = (LOG, SEARCH, SAILINGS, READ, ERASE)
DAYS = {"days": [{"day": "20261106", "weekday": "Friday"}, {"day": "20261103", "weekday": "Tuesday"}]}
FOUND = {
    "total": 1,
    "results": [
        {
            "day": "20261103",
            "time": "14:40",
            "title": "Lightship",
            "snippet": "The lightship was relieved at noon. Captain Orde sailed on 12 November with 14 men.",
            "entry": "20261103/notes/1440_lightship.md",
        }
    ],
}
NOTHING = {"total": 0, "results": [], "next_offset": None}


class Scripted:
    """An engine that says what it was told to, in order, then the last again; `asked` has what it was asked."""

    def __init__(self, *said: str, supports_tools: bool = False, message: Mapping[str, Any] | None = None) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._said = said
        self._supports_tools = supports_tools
        self._message = message

    def ready(self, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Describe itself."""
        assert timeout_s is None or timeout_s > 0
        return {"supports_tools": self._supports_tools}

    async def aready(self, *, timeout_s: float | None = None) -> dict[str, Any]:
        """As `ready`, awaited."""
        return self.ready(timeout_s=timeout_s)

    def request(self, op: str, body: dict[str, Any], *, timeout_s: float | None = None) -> dict[str, Any]:
        """Answer with the next text, or in the chat with the message."""
        assert timeout_s is None or timeout_s > 0
        said = self._said[min(len(self.asked), len(self._said) - 1)] if self._said else ""
        self.asked.append((op, body))
        usage = {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}
        if op == "complete":
            return {"choices": [{"index": 0, "text": f" {said}\n", "finish_reason": "stop"}], "usage": usage}
        message = self._message or {"role": "assistant", "content": said}
        finish = "tool_calls" if "tool_calls" in message else "stop"
        return {"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage}

    async def arequest(self, op: str, body: dict[str, Any], *, timeout_s: float | None = None) -> dict[str, Any]:
        """As `request`, awaited."""
        return self.request(op, body, timeout_s=timeout_s)

    def stream(self, op: str, body: dict[str, Any], *, timeout_s: float | None = None) -> Iterator[dict[str, Any]]:
        """As `request`, in one chunk."""
        whole = self.request(op, body, timeout_s=timeout_s)
        choices = [{**choice, "delta": choice["message"]} for choice in whole["choices"]]
        yield {**whole, "choices": choices}

    async def astream(
        self, op: str, body: dict[str, Any], *, timeout_s: float | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """As `stream`, awaited."""
        for chunk in self.stream(op, body, timeout_s=timeout_s):
            yield chunk


def completed(task: Task, engine: Scripted, today: date = TODAY) -> dict[str, Any]:
    """The completion that a plan comes to."""
    walk = PlannerSession(plan(task, today))
    while walk.asked is not None:
        walk.hear(engine.request(*walk.asked))
    return walk.completion


def called(task: Task, engine: Scripted) -> tuple[str, dict[str, Any]] | None:
    """Name and arguments of the call a plan comes to; None if it answers."""
    message = completed(task, engine)["choices"][0]["message"]
    for call in message.get("tool_calls", ()):
        return call["function"]["name"], json.loads(call["function"]["arguments"])
    return None


def told(task: Task, engine: Scripted) -> str:
    """The text a plan comes to."""
    text = completed(task, engine)["choices"][0]["message"]["content"]
    assert isinstance(text, str)
    return text


def after(question: str, *made: tuple[Tool, Mapping[str, Any], Any], failed: bool = False, **more: Any) -> Task:
    """A question about the ferry's log, after calls with these arguments and results."""
    past = []
    for number, (used, args, result) in enumerate(made, 1):
        text = result if isinstance(result, str) else json.dumps(result)
        call = ToolCall(f"call_{number}", used.name, args)
        past.append((call, ToolResult(call.call_id, used.name, (text,), failed)))
    return Task(question, FERRY, tuple(past), len(past), **more)
