"""The arguments of one call, filled from the question: copied, resolved or chosen, then checked; it chooses no tool.

The model is asked for one argument at a time, under a grammar that leaves it nothing but words of the question or values
of the schema. What no word of the question is about is left to the tool's own default.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from typing import Any

from msgspec import Struct

from muse.messages import Tool
from muse.providers._local import shots
from muse.providers._local.days import Span, without_days
from muse.providers._local.fields import Field, fields_of
from muse.providers._local.words import stem, telling, words_of
from muse.schema import require_fit

Asked = tuple[str, dict[str, Any]]
"""An operation of the engine and its body; what is sent back is the engine's answer."""

_SEARCHED = frozenset(map(stem, "query search term keyword keywords words text q phrase".split()))
_LIMITS = frozenset(map(stem, "limit count number max top size".split()))
_HANDLE = re.compile(r"https?://\S+|[\w.~-]*[/#][\w./#~-]+|\b[\w-]+\.[A-Za-z]\w{1,4}\b|\b[A-Z][A-Z0-9]*-\d+\b")
_NUMBER = re.compile(r"(?<![\w.,-])-?\d+(?:\.\d+)?(?![\w.,-]*\w)")
_FIRST_FEW = re.compile(r"\b(?:first|last|latest|newest|top)\s+(\d{1,3})\b", re.IGNORECASE)
_LEFT_OUT: Any = object()


class Question(Struct, frozen=True):
    """A question as the planner sees it; `span` are the days it names."""

    text: str
    span: Span | None = None

    @property
    def handles(self) -> tuple[str, ...]:
        """The paths, addresses and ids that stand in it."""
        return tuple(found.rstrip(".,;:?!") for found in _HANDLE.findall(self.text))


def is_search(field: Field) -> bool:
    """Whether an argument takes any words to look for."""
    return field.role == "words" and not _SEARCHED.isdisjoint(map(stem, field.name.split("_")))


def can_fill(tool: Tool, question: Question) -> bool:
    """Whether the question has what each required argument of a tool needs; the model is not asked."""
    return all(_at_hand(field, question) for field in fields_of(tool.schema) if field.required)


def fill(tool: Tool, question: Question) -> Generator[Asked, Mapping[str, Any], dict[str, Any] | None]:
    """Give the arguments of a call that the tool's schema accepts; None if the question has not got them."""
    fields = fields_of(tool.schema)
    searches = any(field.role == "words" and field.required for field in fields)
    args: dict[str, Any] = {}
    for field in fields:
        value = _sure(field, question, searches)
        if value is _LEFT_OUT and field.required:
            value = yield from _asked(field, question)
        if value is not _LEFT_OUT:
            args[field.name] = value
    return args if fits(tool, args) else None


def fits(tool: Tool, args: Mapping[str, Any]) -> bool:
    """Whether a tool's schema accepts these arguments."""
    try:
        require_fit(args, tool.schema)
    except ValueError:
        return False
    return True


def _at_hand(field: Field, question: Question) -> bool:
    match field.role:
        case "words" | "words list":
            return bool(telling(without_days(question.text)))
        case "choice" | "flag":
            return True
        case "nothing":
            return False
        case "day" | "handle" | "number":
            return _sure(field, question, False) is not _LEFT_OUT


def _sure(field: Field, question: Question, searches: bool) -> Any:
    """What the question says beyond doubt about an argument, without the model; `_LEFT_OUT` if nothing."""
    match field.role:
        case "day":
            return _day(field, question)
        case "handle":
            return question.handles[0] if field.required and question.handles else _LEFT_OUT
        case "choice":
            return _named_choice(field, question, exactly=searches)
        case "number":
            return _number(field, question)
        case _:
            return _LEFT_OUT


def _day(field: Field, question: Question) -> Any:
    if question.span is None:
        return _LEFT_OUT
    day = question.span.first if field.edge == "first" else question.span.last
    return day.isoformat() if field.iso else day.strftime("%Y%m%d")


def _named_choice(field: Field, question: Question, *, exactly: bool) -> Any:
    """The value that the question names: word for word where a search would lose by a guess, else also by its like."""
    split = (lambda text: [stem(word) for word in words_of(text)]) if exactly else telling
    said = frozenset(split(question.text))
    named = [value for value in field.choices if not said.isdisjoint(split(str(value)))]
    if len(field.choices) == 1 and field.required:
        return field.choices[0]
    return named[0] if len(named) == 1 else _LEFT_OUT


def _number(field: Field, question: Question) -> Any:
    """A number of the question for an argument that must have one, or for one that says how many are wanted."""
    limits = not _LIMITS.isdisjoint(map(stem, field.name.split("_")))
    pattern = _NUMBER if field.required else _FIRST_FEW
    found = pattern.search(without_days(question.text)) if field.required or limits else None
    if found is None:
        return _LEFT_OUT
    number = float(found[found.lastindex or 0])
    return int(number) if field.schema.get("type") == "integer" or number.is_integer() else number


def _asked(field: Field, question: Question) -> Generator[Asked, Mapping[str, Any], Any]:
    """Have the model copy or choose the value of an argument."""
    label = field.name.replace("_", " ")
    match field.role:
        case "words" if is_search(field):
            body = shots.search_words(without_days(question.text), "Search words")
        case "words" | "words list":
            body = shots.copied_words(question.text, label)
        case "choice" if field.choices:
            body = shots.choice(question.text, label, [str(value) for value in field.choices])
        case "flag":
            body = shots.choice(question.text, label, ("yes", "no"))
        case _:
            return _LEFT_OUT
    if body is None:
        return _LEFT_OUT
    said = said_in((yield "complete", body))
    return _read(field, said) if said else _LEFT_OUT


def _read(field: Field, said: str) -> Any:
    """What the model wrote as a value of the argument's type."""
    match field.role:
        case "flag":
            return said == "yes"
        case "words list":
            return [said]
        case "choice":
            return next((value for value in field.choices if str(value) == said), _LEFT_OUT)
        case _:
            return said


def said_in(answer: Mapping[str, Any]) -> str:
    """The text of a completion, in one line without its blanks."""
    choices = answer.get("choices") or ({},)
    return str(choices[0].get("text") or "").partition("\n")[0] if choices[0].get("text", "").strip() else ""
