"""The planning task in a request that offers tools to the embedded model.

Entry points: `Task`, `task_of`, `uses_tools`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from muse.types.messages import Assistant, Request, Tool, ToolCall, ToolResult, ToolResults, Turn, User

_MOST_QUESTION_CHARS = 2_000
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


class Task(Struct, frozen=True):
    """A question, the tools on offer, and the calls made for the question so far with their results.

    Attributes:
        calls_before: The number of calls in the conversation so far, which numbers the next one.
        form: The `response_format` of the answer.
        max_tokens: The limit of an answer in that format.
    """

    question: str
    tools: tuple[Tool, ...] = ()
    past: tuple[tuple[ToolCall, ToolResult], ...] = ()
    calls_before: int = 0
    form: Mapping[str, Any] | None = None
    max_tokens: int = 1024


def uses_tools(request: Request) -> bool:
    """Return True if a request offers tools, or asks for the answer after tools were called."""
    return bool(request.tools) or any(isinstance(turn, ToolResults) for turn in request.turns[-2:])


def task_of(request: Request, form: Mapping[str, Any] | None = None) -> Task:
    """Return the task in a request; its last question is the one that the last calls were made for."""
    turns = request.turns
    closing = not request.tools and len(turns) > 1 and isinstance(turns[-2], ToolResults)
    until = len(turns) - 1 if closing else len(turns)
    at = max((place for place in range(until) if isinstance(turns[place], User)), default=0)
    calls = {call.call_id: call for turn in turns for call in (turn.calls if isinstance(turn, Assistant) else ())}
    results = [result for turn in turns[at:] if isinstance(turn, ToolResults) for result in turn.results]
    past = tuple((calls[result.call_id], result) for result in results if result.call_id in calls)
    return Task(_said(turns[at]), request.tools, past, len(calls), form, request.max_output_tokens)


def _said(turn: Turn) -> str:
    """Return what the user says in a turn: its last question if it has one, else its whole text."""
    parts = turn.parts if isinstance(turn, User) else ()
    text = "\n".join(part for part in parts if isinstance(part, str)).strip()
    questions = [said for said in _SENTENCE_END.split(text) if said.endswith("?")]
    return (questions[-1] if questions else text)[:_MOST_QUESTION_CHARS]
