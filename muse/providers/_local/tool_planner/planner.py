"""Tool use for models that cannot call tools: a plan in small reliable steps.

Entry points: `plan`, `PlannerSession`.

The plan is a generator. It yields requests for the engine and is sent the answers, so that sync and async callers can
both drive it. It returns a chat completion, with `tool_calls` or with the answer. Its only memory is the conversation:
the calls since the last question, and their results. It makes at most `MOST_CALLS` calls for one question.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from muse.providers._local.tool_planner.answer_extraction import AnswerRequest, answer, formed_answer
from muse.providers._local.tool_planner.argument_filling import Asked, Question, fill, fits, is_search, search_words
from muse.providers._local.tool_planner.argument_schema import fields_of
from muse.providers._local.tool_planner.date_parsing import days_in, known_days, needs_calendar, without_days
from muse.providers._local.tool_planner.result_passages import read_result
from muse.providers._local.tool_planner.task import Task
from muse.providers._local.tool_planner.tokenization import telling
from muse.providers._local.tool_planner.tool_ranking import day_lister, rank, read_only, takes_days
from muse.types.messages import Tool, ToolCall, ToolResult

MOST_CALLS = 3
_SHOWN_ERROR_CHARS = 300

Plan = Generator[Asked, Mapping[str, Any], dict[str, Any]]
Move = ToolCall | Mapping[str, Any] | str
"""The result of a turn: a tool call, an answer of the engine, or a text."""


def plan(task: Task, today: date) -> Plan:
    """Plan one turn of a model; the usage of the completion is the sum over its engine requests.

    Yields:
        The requests for the engine, whose answers must be sent back.

    Returns:
        The chat completion.
    """
    spent = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    steps = _steps(task, today)
    said: Mapping[str, Any] | None = None
    while True:
        try:
            asked = next(steps) if said is None else steps.send(said)
        except StopIteration as over:
            return _completion(over.value, spent)
        said = yield asked
        usage = said.get("usage") or {}
        spent = {name: count + int(usage.get(name) or 0) for name, count in spent.items()}


class PlannerSession:
    """A running plan: `asked` is the next engine request, or None once `completion` holds the result."""

    def __init__(self, steps: Plan) -> None:
        self._steps = steps
        self.asked: Asked | None = None
        self.completion: dict[str, Any] = {}
        self._go(None)

    def hear(self, said: Mapping[str, Any]) -> None:
        """Take the engine's answer to `asked` and continue the plan."""
        self._go(said)

    def _go(self, said: Mapping[str, Any] | None) -> None:
        try:
            self.asked = next(self._steps) if said is None else self._steps.send(said)
        except StopIteration as over:
            self.asked, self.completion = None, over.value


def _steps(task: Task, today: date) -> Generator[Asked, Mapping[str, Any], Move]:
    tools = read_only(task.tools)
    if not tools and not task.past:
        return _no_tools(task.tools)
    question = Question(task.question, days_in(task.question, today, known_days(_texts(task.past))))
    ranked = rank(tools, question)
    if task.past and not _was_calendar(task, ranked):
        return (yield from _after_call(task, tools, ranked, question))
    lister = day_lister(tools)
    if ranked and not task.past and lister and lister is not ranked[0] and _wants_calendar(ranked[0], task.question):
        return _call(task, lister, {})
    for tool in ranked:
        args = yield from fill(tool, question)
        if args is not None:
            return _call(task, tool, args)
    offered = ", ".join(tool.name for tool in tools)
    return f"None of the tools I may use ({offered}) can be called with what this question says, so I cannot answer it."


def _after_call(
    task: Task, tools: Sequence[Tool], ranked: Sequence[Tool], question: Question
) -> Generator[Asked, Mapping[str, Any], Move]:
    """Return the answer from the last result; if that is empty, one wider call, or a text that nothing was found."""
    call, result = task.past[-1]
    tool = next((tool for tool in task.tools if tool.name == call.name), None)
    if result.failed:
        return f"The tool {call.name} failed, so I cannot answer from it: {_text_of(result)[:_SHOWN_ERROR_CHARS]}"
    found = read_result(_text_of(result), _place(call))
    if not found.is_empty:
        wish = _wish(task, call, tool)
        return (
            yield from (formed_answer(wish, found, task.form, task.max_tokens) if task.form else answer(wish, found))
        )
    wider = None if len(task.past) >= MOST_CALLS else (yield from _wider(task, call, tools, ranked, question))
    if wider is not None:
        return wider
    tried = "; ".join(f"{made.name}({json.dumps(dict(made.args), ensure_ascii=False)})" for made, _ in task.past)
    return f"I found nothing that answers this. I looked with {tried}."


def _wider(
    task: Task, call: ToolCall, tools: Sequence[Tool], ranked: Sequence[Tool], question: Question
) -> Generator[Asked, Mapping[str, Any], ToolCall | None]:
    """Return the same call with fewer restrictions, else another search; None if no new call is possible."""
    same = next((tool for tool in tools if tool.name == call.name), None)
    less = _less_narrow(same, call.args, question) if same else None
    if same is not None and less is not None:
        return _call(task, same, less)
    for tool in ranked:
        if tool.name not in {made.name for made, _ in task.past} and any(map(is_search, fields_of(tool.schema))):
            args = yield from fill(tool, Question(question.text))
            return _call(task, tool, args) if args is not None else None
    return None


def _less_narrow(tool: Tool, args: Mapping[str, Any], question: Question) -> dict[str, Any] | None:
    """Return the arguments without the optional ones, or with all search words if none are optional.

    Return None if that changes nothing or does not fit the schema.
    """
    fields = fields_of(tool.schema)
    less = {field.name: args[field.name] for field in fields if field.required and field.name in args}
    if less == dict(args):
        every = " ".join(search_words(tool, question))
        less |= {field.name: every for field in fields if field.name in less and is_search(field)}
    return less if less != dict(args) and fits(tool, less) else None


def _was_calendar(task: Task, ranked: Sequence[Tool]) -> bool:
    """Return True if the only call so far listed the days, to find out which day the question means."""
    lister = day_lister(task.tools)
    only = len(task.past) == 1 and lister is not None and task.past[0][0].name == lister.name
    return only and bool(ranked) and ranked[0] is not lister and _wants_calendar(ranked[0], task.question)


def _wants_calendar(tool: Tool, question: str) -> bool:
    return takes_days(tool) and needs_calendar(question)


def _wish(task: Task, call: ToolCall, tool: Tool | None) -> AnswerRequest:
    """Return the subject of the answer: the question without what the choice of tool and arguments has settled."""
    fields = fields_of(tool.schema) if tool else ()
    days_settled = any(field.role == "day" and field.name in call.args for field in fields)
    topic = without_days(task.question) if days_settled else task.question
    settled = {
        call.name,
        tool.description if tool else "",
        *(str(call.args.get(field.name)) for field in fields if field.role != "words"),
    }
    known = {one for text in settled for one in telling(text)}
    open_words = tuple(one for one in telling(without_days(task.question)) if one not in known)
    return AnswerRequest(
        task.question, topic, open_words, listed=not any(field.required and field.role != "day" for field in fields)
    )


def _place(call: ToolCall) -> str:
    """Return the source for a result that names none: the tool and its arguments."""
    said = ", ".join(str(value) for value in call.args.values())
    return f"{call.name}({said})"


def _no_tools(offered: Sequence[Tool]) -> str:
    names = ", ".join(tool.name for tool in offered) or "no tool at all"
    return (
        f"I may only call tools that are marked read-only, and none of these is: {names}."
        " Offer such a tool, or route this context to a provider that calls tools itself."
    )


def _call(task: Task, tool: Tool, args: Mapping[str, Any]) -> ToolCall:
    return ToolCall(f"call_{task.calls_before + 1}", tool.name, dict(args))


def _completion(move: Move, spent: Mapping[str, int]) -> dict[str, Any]:
    """Return a move as a chat completion."""
    message: dict[str, Any] = {"role": "assistant", "content": None}
    finish = "stop"
    match move:
        case ToolCall(call_id, name, args):
            function = {"name": name, "arguments": json.dumps(dict(args), ensure_ascii=False)}
            message["tool_calls"] = [{"index": 0, "id": call_id, "type": "function", "function": function}]
            finish = "tool_calls"
        case str():
            message["content"] = move
        case _:
            choice = move["choices"][0]
            message["content"], finish = choice["message"]["content"], choice["finish_reason"]
    choices = [{"index": 0, "message": message, "finish_reason": finish}]
    return {"object": "chat.completion", "choices": choices, "usage": dict(spent)}


def _text_of(result: ToolResult) -> str:
    return "\n".join(part for part in result.parts if isinstance(part, str))


def _texts(past: Iterable[tuple[ToolCall, ToolResult]]) -> list[str]:
    return [_text_of(result) for _, result in past]
