"""Objects out of replies, checked against a Pydantic model or JSON Schema; it makes no call."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, Self

from msgspec.structs import replace

from muse.types.errors import InvalidReply
from muse.types.json_schema.strict import WRAPPED, has_object_root
from muse.types.messages import Assistant, Reply, Request, User

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


def to_json_schema(form: Form) -> Mapping[str, Any]:
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


def parse_output(reply: Reply, form: Form) -> Any:
    """The object that a reply holds: an instance of the Pydantic model, or the JSON value.

    It is found within prose, code fences and beside thinking aloud (`<think>`); of several that fit, see
    `muse.types.json_text.find_json_values`.

    Raises:
        InvalidReply: the text holds no JSON, or none that fits; the error says where and why.
    """
    from muse.types.json_text import find_json_values  # 1 ms, and only who asks for objects pays it

    schema = to_json_schema(form)
    complaint = ""
    for value in find_json_values(reply.text):
        for meant in _meant(value, schema):
            try:
                return _fitted(meant, form, schema)
            except (ValueError, RecursionError) as exc:
                complaint = complaint or " ".join(str(exc).split())[:_LONGEST_COMPLAINT]
    complaint = complaint or f"found no JSON ({_why_none(reply.text)})"
    raise InvalidReply(complaint, text=reply.text, provider=reply.provider, model=reply.model)


def _meant(value: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
    """Yield what a value may mean: itself, and what stands in the object that a provider wants around it."""
    if isinstance(value, dict) and set(value) == {WRAPPED} and not has_object_root(schema):
        yield value[WRAPPED]
    yield value


def _fitted(value: Any, form: Form, schema: Mapping[str, Any]) -> Any:
    """Return a value in its form.

    Raises:
        ValueError, RecursionError: it does not fit.
    """
    from muse.types.json_schema.validation import strip_nulls, validate  # as above

    bare = strip_nulls(value, schema)
    if not isinstance(form, Mapping):
        return form.model_validate(bare)
    validate(bare, schema)
    return bare


def _why_none(text: str) -> str:
    """Return why a text as a whole is no JSON."""
    try:
        json.loads(text)
    except (ValueError, RecursionError) as exc:
        return str(exc)[:_LONGEST_COMPLAINT]
    return "an empty answer"


def build_repair_request(request: Request, reply: Reply, problem: InvalidReply) -> Request:
    """The request once more, with the reply that did not fit and what is wrong with it."""
    words = f"That does not fit: {problem}. Answer again, with the whole JSON and nothing else, so that it fits."
    return replace(request, turns=(*request.turns, Assistant(reply.text), User((words,))))
