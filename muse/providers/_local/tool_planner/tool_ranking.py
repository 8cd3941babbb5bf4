"""Ranking of the offered tools for a question, by shared words and needed arguments; it asks no model.

Entry points: `rank`, `read_only`.

Each tool is weighed by the words it shares with the question: words of its name count most, words of its description
and arguments less, and a word that all tools have counts next to nothing. A tool whose arguments the question cannot
fill is excluded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from muse.providers._local.tool_planner.argument_filling import Question, can_fill, is_search, names_choices
from muse.providers._local.tool_planner.argument_schema import fields_of, words_in
from muse.providers._local.tool_planner.tokenization import InverseDocumentFrequency, telling
from muse.types.messages import Tool

_NAME, _DESCRIPTION, _ARGUMENT = 2.0, 0.6, 0.2
_ASKED_FOR = 3.0
_ANYTHING = 2.0
_DAY_SAID = 1.5
_VALUE_SAID = 2.5
_HANDLE_SAID = 6.0
_ASKS = re.compile(
    r"\b(?:which|what|how\s+many|list|show(?:\s+me)?|read|give\s+me|any)\b\s*(?P<rest>[^,.;?!]*)", re.IGNORECASE
)
_ASKED_WORDS = 2


def read_only(tools: Iterable[Tool]) -> tuple[Tool, ...]:
    """Return the tools that change nothing; a model that errs as often as this one must not call others."""
    return tuple(tool for tool in tools if tool.read_only)


def rank(tools: Sequence[Tool], question: Question) -> list[Tool]:
    """Return the tools whose arguments can be filled, best first; ties go to more arguments, then to list order."""
    house = _ToolStatistics(tools)
    feasible = [tool for tool in tools if can_fill(tool, question)]
    return sorted(feasible, key=lambda tool: (-house.weight(tool, question), -_reach(tool)))


def day_lister(tools: Iterable[Tool]) -> Tool | None:
    """Return a tool that lists the existing days; None if there is none.

    Its name says so, and it requires no argument.
    """
    days = frozenset(telling("day dates"))
    for tool in tools:
        if not days.isdisjoint(telling(tool.name)) and not tool.schema.get("required"):
            return tool
    return None


def takes_days(tool: Tool) -> bool:
    """Return True if a tool has an argument for a day."""
    return any(field.role == "day" for field in fields_of(tool.schema))


class _ToolStatistics:
    """All tools on offer, and how rare each word is among their names and among their descriptions."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._names = {tool.name: telling(tool.name) for tool in tools}
        self._descriptions = {tool.name: telling(tool.description) for tool in tools}
        self._arguments = {tool.name: telling(" ".join(words_in(tool.schema))) for tool in tools}
        self._idf_of_name = InverseDocumentFrequency(self._names.values())
        self._idf = InverseDocumentFrequency([*self._descriptions.values(), *self._arguments.values()])

    def weight(self, tool: Tool, question: Question) -> float:
        """Return how well a tool fits, if the question can fill its arguments; only comparisons have a meaning."""
        fields = fields_of(tool.schema)
        said, name = telling(question.text), self._names[tool.name]
        weight = _NAME * self._idf_of_name.shared(said, name)
        weight += _ASKED_FOR * self._idf_of_name.shared(self._asked_for(question.text), name)
        weight += _DESCRIPTION * self._idf.shared(said, self._descriptions[tool.name])
        weight += _ARGUMENT * self._idf.shared(said, self._arguments[tool.name])
        weight += _ANYTHING * any(is_search(field) for field in fields)
        weight += _DAY_SAID * any(field.required and field.role == "day" for field in fields)
        weight += _VALUE_SAID * names_choices(tool, question)
        return weight + _HANDLE_SAID * any(field.required and field.role == "handle" for field in fields)

    def _asked_for(self, text: str) -> list[str]:
        """Return the subject: the first word after `which`, `how many` and the like that is in a tool's name."""
        found = _ASKS.search(text)
        asked = telling(found["rest"])[:_ASKED_WORDS] if found else []
        named = {one for name in self._names.values() for one in name}
        return next(([one] for one in asked if one in named), [])


def _reach(tool: Tool) -> int:
    """Return the number of a tool's arguments, as a measure of how much it can be asked for."""
    return len(fields_of(tool.schema))
