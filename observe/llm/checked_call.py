"""A question whose answer has a form: asked, checked, sent back once; it knows no feature and writes no file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct, field

from muse import models
from muse.errors import InvalidReply
from muse.types.content import to_turns
from muse.types.formatting import total_usd
from muse.types.messages import GenerateOptions, Reply, Request
from muse.types.structured_output import build_repair_request, parse_output

_WRITES_FROM = 8_192
_SMALL_CHARS, _LARGE_CHARS = 1_800, 40_000


def _anything(_value: Any) -> None:
    """Find nothing wrong with a value."""


class Question(Struct, frozen=True):
    """A prompt for a context, and the JSON Schema of its answer.

    `check` looks at what a schema cannot say, and raises `ValueError` with what is wrong. `options` are further ones of
    the call; `segment` names what it is about in the token log.
    """

    context: str
    prompt: str
    schema: Mapping[str, Any]
    check: Callable[[Any], None] = _anything
    segment: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


class Answer(Struct, frozen=True):
    """A value that fits, who gave it, and what the calls for it cost (None where a price is not known)."""

    value: Any
    provider: str
    model: str
    cost_usd: float | None

    @property
    def made_by(self) -> str:
        """Provider and model in one."""
        return f"{self.provider} {self.model}"


class Room(Struct, frozen=True):
    """How much the model holds that a context is routed to, in tokens of prompt and answer."""

    tokens: int

    @property
    def writes(self) -> bool:
        """Whether it is asked to write; a model that holds less than a few pages chooses among what stands there."""
        return self.tokens > _WRITES_FROM

    @property
    def chunk_chars(self) -> int:
        """How long a piece of text may be that it is asked about at once."""
        return min(_LARGE_CHARS, self.tokens * 2) if self.writes else _SMALL_CHARS


def room_of(context: str) -> Room:
    """The room of who serves a context now."""
    return Room(models.context_tokens(models.route(context)))


def object_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON Schema of an object that has these fields, by their schemas, and no others."""
    return {"type": "object", "properties": dict(fields), "required": list(fields), "additionalProperties": False}


async def ask(question: Question) -> Answer:
    """The answer; one that does not fit is sent back once with what is wrong.

    Raises:
        InvalidReply: the second one does not fit either; `text` is that reply.
        MuseError: as `muse.models.areply`.
    """
    first = await _reply(question.prompt, question)
    try:
        return _answer(_value(first, question), first)
    except InvalidReply as problem:
        _, turns = to_turns(question.prompt)
        again = build_repair_request(Request("", turns), first, problem)
    second = await _reply(list(again.turns), question)
    return _answer(_value(second, question), first, second)


async def _reply(contents: Any, question: Question) -> Reply:
    options: GenerateOptions = {"temperature": 0.0, "json_schema": question.schema, "segment": question.segment}
    options.update(question.options)  # type: ignore[typeddict-item]
    return await models.areply(contents, question.context, **options)


def _value(reply: Reply, question: Question) -> Any:
    value = parse_output(reply, question.schema)
    try:
        question.check(value)
    except ValueError as exc:
        raise InvalidReply(str(exc), text=reply.text, provider=reply.provider, model=reply.model) from exc
    return value


def _answer(value: Any, *replies: Reply) -> Answer:
    last = replies[-1]
    return Answer(value, last.provider, last.model, total_usd(reply.cost_usd for reply in replies))
