"""Objects out of replies: a Pydantic model or JSON Schema as the form, the reply checked against it; it makes no call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol, Self

from msgspec.structs import replace

from muse.errors import InvalidReply
from muse.messages import Assistant, Reply, Request, User
from muse.schema import drop_nulls

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
    if isinstance(form, type) and hasattr(form, "model_json_schema"):
        return form.model_json_schema()
    raise TypeError(f"schema: found {form!r}, expected a Pydantic model class or a JSON Schema as a dict")


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
        _check(value, schema)
    except ValueError as exc:
        complaint = " ".join(str(exc).split())[:_LONGEST_COMPLAINT]
        raise InvalidReply(complaint, text=reply.text, provider=reply.provider, model=reply.model) from exc
    return value


def repair(request: Request, reply: Reply, problem: InvalidReply) -> Request:
    """The request once more, with the reply that did not fit and what is wrong with it."""
    words = f"That does not fit: {problem}. Answer again, with the whole JSON and nothing else, so that it fits."
    return replace(request, turns=(*request.turns, Assistant(reply.text), User((words,))))


def _check(value: Any, schema: Mapping[str, Any]) -> None:
    """See that a value fits its schema.

    Raises:
        ValueError: it does not; the first problem is said with its place.
    """
    from jsonschema import Draft202012Validator, ValidationError  # 50 ms, and only who checks an object pays it

    try:
        Draft202012Validator(schema).validate(value)
    except ValidationError as exc:
        raise ValueError(f"{exc.json_path}: {exc.message}") from exc


def _without_fence(text: str) -> str:
    """A reply's JSON without the Markdown fence that models like to put around it."""
    bare = text.strip()
    if bare.startswith("```") and bare.endswith("```"):
        return bare.removeprefix("```json").removeprefix("```").removesuffix("```").strip()
    return bare
