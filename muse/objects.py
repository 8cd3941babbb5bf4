"""Objects out of replies, checked against a Pydantic model or JSON Schema; it makes no call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol, Self

from msgspec.structs import replace

from muse.errors import InvalidReply
from muse.messages import Assistant, Reply, Request, User
from muse.schema import drop_nulls, require_fit

_LONGEST_COMPLAINT = 1_000


class Model(Protocol):
    """What is used of a Pydantic model class."""

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """Its JSON Schema."""

    @classmethod
    def model_validate(cls, obj: Any) -> Self:
        """An instance, or pydantic's `ValidationError`, which is a `ValueError`."""


Form = type[Model] | Mapping[str, Any]


def schema_of(form: Form) -> Mapping[str, Any]:
    """The JSON Schema of `form`.

    Raises:
        TypeError: it is neither a Pydantic model class nor a JSON Schema.
    """
    if isinstance(form, Mapping):
        return form
    try:
        return form.model_json_schema()
    except AttributeError as exc:
        raise TypeError(f"schema: found {form!r}, expected a Pydantic model class or a JSON Schema as a dict") from exc


def read_object(reply: Reply, form: Form) -> Any:
    """The object that a reply holds: an instance of the Pydantic model, or the JSON value.

    Raises:
        InvalidReply: the text is no JSON or does not fit; the error says where and why.
    """
    schema = schema_of(form)
    try:
        value = drop_nulls(json.loads(_without_fence(reply.text)), schema)
        if not isinstance(form, Mapping):
            return form.model_validate(value)
        require_fit(value, schema)
    except (ValueError, RecursionError) as exc:
        complaint = " ".join(str(exc).split())[:_LONGEST_COMPLAINT]
        raise InvalidReply(complaint, text=reply.text, provider=reply.provider, model=reply.model) from exc
    return value


def repair(request: Request, reply: Reply, problem: InvalidReply) -> Request:
    """The request once more, with the reply that did not fit and what is wrong with it."""
    words = f"That does not fit: {problem}. Answer again, with the whole JSON and nothing else, so that it fits."
    return replace(request, turns=(*request.turns, Assistant(reply.text), User((words,))))


def _without_fence(text: str) -> str:
    """A reply's JSON without the Markdown fence that models like to put around it."""
    bare = text.strip()
    if bare.startswith("```") and bare.endswith("```"):
        return bare.removeprefix("```json").removeprefix("```").removesuffix("```").strip()
    return bare
