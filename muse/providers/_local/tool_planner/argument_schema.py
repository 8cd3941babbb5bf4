"""A tool's arguments, classified by what may fill them, as its JSON Schema shows.

Entry points: `fields_of`, `words_in`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from msgspec import Struct

from muse.providers._local.tool_planner.tokenization import telling

Role = Literal["words", "day", "handle", "choice", "number", "flag", "words list", "nothing"]
"""What may fill an argument: words or a number from the question, a day it names, a handle (id, path, address) in it,
one of the schema's own values, yes or no. `nothing`: only the tool's default."""

Edge = Literal["first", "last", ""]

_HANDLES = frozenset(telling("id ids path entry filename url uri link address handle key slug ref reference"))
_IDS = frozenset(telling("id ids key handle ref reference slug"))
_DAYS = frozenset(telling("day date"))
_STARTS = frozenset(("from", "start", "since", "after", "begin"))
_ENDS = frozenset(("to", "end", "until", "before", "till"))
_SIMPLE: Mapping[str, Role] = {"integer": "number", "number": "number", "boolean": "flag"}


class Field(Struct, frozen=True):
    """One argument of a tool.

    Attributes:
        edge: Which end of a range the argument is (`day_from`, `day_to`); empty for neither.
        iso: True for dates as `YYYY-MM-DD`, False for `YYYYMMDD`.
    """

    name: str
    role: Role
    required: bool
    schema: Mapping[str, Any]
    edge: Edge = ""
    iso: bool = False

    @property
    def is_id(self) -> bool:
        """Return True if a handle is an id and not a path or address."""
        return not _IDS.isdisjoint(telling(self.name))

    @property
    def choices(self) -> tuple[Any, ...]:
        """Return the values that the schema allows, if it lists them."""
        return (self.schema["const"],) if "const" in self.schema else tuple(self.schema.get("enum", ()))


def fields_of(schema: Mapping[str, Any]) -> tuple[Field, ...]:
    """Return the arguments that a tool's schema declares, in its order."""
    required = schema.get("required", ())
    properties: Mapping[str, Any] = schema.get("properties", {})
    return tuple(_field(name, stated, name in required, schema) for name, stated in properties.items())


def words_in(schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names, descriptions and listed values of a schema's arguments."""
    for field in fields_of(schema):
        yield field.name
        yield str(field.schema.get("description", ""))
        yield from map(str, field.choices)


def _field(name: str, stated: Any, required: bool, root: Mapping[str, Any]) -> Field:
    schema = _settled(stated, root)
    role = _role(name, schema)
    text = str(schema.get("description", "")).upper()
    iso = schema.get("format") == "date" or "YYYY-MM-DD" in text
    parts = frozenset(name.lower().replace("-", "_").split("_"))
    edge: Edge = "last" if parts & _ENDS else "first" if parts & _STARTS else ""
    return Field(name, role, required, schema, edge, iso)


def _settled(stated: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema of a non-null value: references followed one step, `null` removed, outer keywords kept."""
    if not isinstance(stated, Mapping):
        return {}
    schema: dict[str, Any] = dict(stated)
    reference = str(schema.pop("$ref", ""))
    if reference.startswith("#/$defs/"):
        schema |= root.get("$defs", {}).get(reference.removeprefix("#/$defs/"), {})
    for key in ("anyOf", "oneOf"):
        variants = [one for one in schema.pop(key, ()) if one.get("type") != "null"]
        schema |= {**_settled(variants[0], root), **schema} if variants else {}
    if isinstance(schema.get("type"), list):
        schema["type"] = next((one for one in schema["type"] if one != "null"), "null")
    if "enum" in schema:
        schema["enum"] = [value for value in schema["enum"] if value is not None]
    return schema


def _role(name: str, schema: Mapping[str, Any]) -> Role:
    kind = schema.get("type")
    if "enum" in schema or "const" in schema:
        return "choice"
    if isinstance(kind, str) and kind in _SIMPLE:
        return _SIMPLE[kind]
    if kind == "array" and _settled(schema.get("items"), schema).get("type") == "string":
        return "words list"
    if kind != "string":
        return "nothing"
    named = frozenset(telling(name))
    says_day = "YYYYMMDD" in str(schema.get("description", "")).upper().replace("-", "")
    if named & _DAYS or says_day or schema.get("format") == "date":
        return "day"
    return "handle" if named & _HANDLES or schema.get("format") in {"uri", "uuid"} else "words"
