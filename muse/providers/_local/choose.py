"""Which of the offered tools fits a question best: shared words and what its arguments need; it asks no model.

Each tool is weighed by the words it shares with the question: those of its name count most, those of its description and
arguments less, and a word that all tools have counts next to nothing. A tool whose arguments the question cannot fill is out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from muse.messages import Tool
from muse.providers._local.fields import Field, fields_of, words_in
from muse.providers._local.fill import Question, can_fill, is_search
from muse.providers._local.words import Rarity, telling

_NAME, _DESCRIPTION, _ARGUMENT = 2.0, 0.6, 0.4
_ASKED_FOR = 3.0
_ANYTHING = 1.5
_DAY_SAID = 1.5
_HANDLE_SAID = 6.0
_ASKS = re.compile(
    r"\b(?:which|what|how\s+many|list|show(?:\s+me)?|read|give\s+me|any)\b\s*(?P<rest>[^,.;?!]*)", re.IGNORECASE
)
_ASKED_WORDS = 2


def read_only(tools: Iterable[Tool]) -> tuple[Tool, ...]:
    """The tools that change nothing: no other may be called by a model that errs as often as this one."""
    return tuple(tool for tool in tools if tool.read_only)


def rank(tools: Sequence[Tool], question: Question) -> list[Tool]:
    """The tools whose arguments can be filled, the most fitting first; of equals the more general, then the first."""
    texts = {tool.name: _Texts(tool) for tool in tools}
    rarity = Rarity(text.every for text in texts.values())
    feasible = [tool for tool in tools if can_fill(tool, question)]
    return sorted(feasible, key=lambda tool: (-_weight(tool, texts[tool.name], question, rarity), -_reach(tool)))


def day_lister(tools: Iterable[Tool]) -> Tool | None:
    """A tool that tells which days there are: it is named after them and needs no argument."""
    days = frozenset(telling("day dates"))
    for tool in tools:
        if not days.isdisjoint(telling(tool.name)) and not tool.schema.get("required"):
            return tool
    return None


def takes_days(tool: Tool) -> bool:
    """Whether a tool has an argument for a day."""
    return any(field.role == "day" for field in fields_of(tool.schema))


class _Texts:
    """The stems of one tool: of its name, its description, its arguments."""

    def __init__(self, tool: Tool) -> None:
        self.name = telling(tool.name)
        self.description = telling(tool.description)
        self.arguments = [stem for text in words_in(tool.schema) for stem in telling(text)]
        self.every = [*self.name, *self.description, *self.arguments]


def _weight(tool: Tool, texts: _Texts, question: Question, rarity: Rarity) -> float:
    fields = fields_of(tool.schema)
    said = telling(question.text)
    weight = _NAME * rarity.shared(said, texts.name)
    weight += _DESCRIPTION * rarity.shared(said, texts.description)
    weight += _ARGUMENT * rarity.shared(said, texts.arguments)
    weight += _ASKED_FOR * rarity.shared(_asked_for(question.text), texts.name)
    weight += _ANYTHING * any(is_search(field) for field in fields)
    weight += _DAY_SAID * (question.span is not None and _needs(fields, "day"))
    return weight + _HANDLE_SAID * (bool(question.handles) and _needs(fields, "handle"))


def _needs(fields: Iterable[Field], role: str) -> bool:
    return any(field.required and field.role == role for field in fields)


def _asked_for(text: str) -> list[str]:
    """What is asked for: the first telling words after `which`, `how many`, `show me` and the like."""
    found = _ASKS.search(text)
    return telling(found["rest"])[:_ASKED_WORDS] if found else []


def _reach(tool: Tool) -> int:
    """How much a tool can be asked for: the number of its arguments."""
    return len(fields_of(tool.schema))
