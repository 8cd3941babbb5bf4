"""Filling of a call's arguments from the question: copied, resolved or chosen, then validated.

Entry points: `fill`, `can_fill`, `Question`.

The model is asked for one argument at a time, under a grammar that allows only words of the question or values of the
schema. An argument that no word of the question is about is left to the tool's own default.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from muse.providers._local.tool_planner import few_shot_prompts
from muse.providers._local.tool_planner.argument_schema import Field, fields_of
from muse.providers._local.tool_planner.date_parsing import Span, without_days
from muse.providers._local.tool_planner.tokenization import is_telling, stem, telling, words_of
from muse.types.json_schema.validation import validate
from muse.types.messages import Tool

Asked = tuple[Literal["chat", "complete"], dict[str, Any]]
"""An operation of the engine and its body; the engine's answer is sent back into the generator."""

_SEARCHED = frozenset(map(stem, ("query", "search", "term", "keyword", "words", "text", "q", "phrase")))
_LIMITS = frozenset(map(stem, ("limit", "count", "number", "max", "top", "size")))
_PLACE = re.compile(r"https?://\S+|~?[\w.-]*/[\w./#~-]*\w|\b[\w-]+\.[A-Za-z]\w{1,4}\b")
_ID = re.compile(r"\b[A-Z][A-Z0-9]*-\d+\b|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|#\d+\b")
_NUMBER = re.compile(r"(?<![\w.,-])-?\d+(?:\.\d+)?(?![\w.,-]*\w)")
_FIRST_FEW = re.compile(r"\b(?:first|last|latest|newest|top)\s+(\d{1,3})\b", re.IGNORECASE)
_LEFT_OUT: Any = object()


class Question(Struct, frozen=True):
    """A question as the planner sees it; `span` holds the days it names."""

    text: str
    span: Span | None = None

    def handle_for(self, field: Field) -> str | None:
        """Return the first id in the question for an argument that takes ids, else the first path or address.

        Return None if there is none.
        """
        found: Iterable[str] = _ID.findall(self.text) if field.is_id else filter(_is_place, _PLACE.findall(self.text))
        return next(iter(found), None)


def is_search(field: Field) -> bool:
    """Return True if an argument takes free search words."""
    return field.role == "words" and not _SEARCHED.isdisjoint(map(stem, field.name.split("_")))


def names_choices(tool: Tool, question: Question) -> bool:
    """Return True if the question names a value of a required argument that must be one of a list."""
    listed = (field for field in fields_of(tool.schema) if field.required and len(field.choices) > 1)
    return any(_named_choice(field, question, exactly=True) is not _LEFT_OUT for field in listed)


def can_fill(tool: Tool, question: Question) -> bool:
    """Return True if the question has what each required argument of a tool needs, without asking the model."""
    return all(_at_hand(field, question) for field in fields_of(tool.schema) if field.required)


def fill(tool: Tool, question: Question) -> Generator[Asked, Mapping[str, Any], dict[str, Any] | None]:
    """Return the arguments of a call that the tool's schema accepts; None if the question lacks some."""
    fields = fields_of(tool.schema)
    searches = any(field.role == "words" and field.required for field in fields)
    args: dict[str, Any] = {}
    for field in fields:
        value = _sure(field, question, searches)
        if value is _LEFT_OUT and field.required:
            value = yield from _asked(field, question, search_words(tool, question))
        if value is not _LEFT_OUT:
            args[field.name] = value
    if not fits(tool, args):  # a value that the question gives for an optional argument may be out of its bounds
        args = {field.name: args[field.name] for field in fields if field.required and field.name in args}
    return args if fits(tool, args) else None


def _is_place(found: str) -> bool:
    """Return True if a text with a slash or dot is a path or address, and not `and/or` or `9/11`."""
    return any(map(str.isalpha, found)) and ("." in found or found.count("/") > 1 or any(map(str.isdigit, found)))


def fits(tool: Tool, args: Mapping[str, Any]) -> bool:
    """Return True if a tool's schema accepts these arguments."""
    try:
        validate(args, tool.schema)
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
    """Return the value that the question surely gives for an argument, without the model; `_LEFT_OUT` if none."""
    match field.role:
        case "day":
            return _day(field, question)
        case "handle":
            handle = question.handle_for(field)
            return _LEFT_OUT if handle is None else handle
        case "choice":
            return _named_choice(field, question, exactly=searches)
        case "number":
            return _number(field, question)
        case _:
            return _LEFT_OUT


def _day(field: Field, question: Question) -> Any:
    if question.span is None:
        return _LEFT_OUT
    day = question.span.last if field.edge == "last" else question.span.first
    return day.isoformat() if field.iso else day.strftime("%Y%m%d")


def _named_choice(field: Field, question: Question, *, exactly: bool) -> Any:
    """Return the value of the argument that the question names; `_LEFT_OUT` if none.

    The match is exact if a wrong guess would spoil a search, else a similar word is enough. If the question names
    several values, `from` one `to` another, each of the two arguments gets its own.
    """
    split = (lambda text: [stem(word) for word in words_of(text)]) if exactly else telling
    said = split(question.text)
    named = {said.index(one): value for value in field.choices for one in split(str(value)) if one in said}
    if len(field.choices) == 1 and field.required:
        return field.choices[0]
    if len(set(named.values())) > 1 and not field.edge:
        return _LEFT_OUT
    return named[max(named) if field.edge == "last" else min(named)] if named else _LEFT_OUT


def _number(field: Field, question: Question) -> Any:
    """Return a number of the question for an argument that requires one, or that says how many results are wanted."""
    limits = not _LIMITS.isdisjoint(map(stem, field.name.split("_")))
    pattern = _NUMBER if field.required else _FIRST_FEW
    found = pattern.search(without_days(question.text)) if field.required or limits else None
    if found is None:
        return _LEFT_OUT
    number = float(found[found.lastindex or 0])
    return int(number) if field.schema.get("type") == "integer" or number.is_integer() else number


def search_words(tool: Tool, question: Question) -> list[str]:
    """Return the telling words of a question to search for with a tool, without those its choice has settled.

    The settled words are those of the tool's name, and days if the tool has arguments for them.
    """
    text = (
        without_days(question.text) if any(field.role == "day" for field in fields_of(tool.schema)) else question.text
    )
    named = frozenset(telling(tool.name))
    every = [
        word
        for word in words_of(few_shot_prompts.one_line(text, few_shot_prompts.MOST_QUESTION_CHARS))
        if is_telling(word)
    ]
    return [word for word in every if named.isdisjoint(telling(word))] or every


def _asked(field: Field, question: Question, searched: Sequence[str]) -> Generator[Asked, Mapping[str, Any], Any]:
    """Ask the model to copy or choose the value of an argument; `searched` are the words that may be searched for."""
    label = field.name.replace("_", " ")
    said_words = words_of(few_shot_prompts.one_line(question.text, few_shot_prompts.MOST_QUESTION_CHARS))
    match field.role:
        case "words" if is_search(field) and searched:
            body = few_shot_prompts.search_words(without_days(question.text), searched, "Search words")
        case "words" | "words list" if said_words:
            body = few_shot_prompts.copied_words(question.text, said_words, label)
        case "choice" if field.choices:
            body = few_shot_prompts.choice(question.text, label, [str(value) for value in field.choices])
        case "flag":
            body = few_shot_prompts.choice(question.text, label, ("yes", "no"))
        case _:
            return _LEFT_OUT
    said = said_in((yield "complete", body))
    return _read(field, said) if said else _LEFT_OUT


def _read(field: Field, said: str) -> Any:
    """Return the model's text as a value of the argument's type."""
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
    """Return the first line of a completion; an empty string if it has none."""
    choices: Sequence[Mapping[str, Any]] = answer.get("choices") or ({},)
    return str(choices[0].get("text") or "").strip().partition("\n")[0].strip()
