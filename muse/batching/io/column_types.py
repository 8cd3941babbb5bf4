"""Inference of column types for tables, row by row. Entry points: `note_kinds`, `column_of`.

A kind is "bool", "int64", "float64" or "string", `("list", kind)`, or `("struct", (name, kind), ...)`. Values that have
no kind in common become text; those that are not text are written as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muse.batching.io.cells import StringifiedValue

Kind = str | tuple[Any, ...]
SPELLED = "spelled"
"""Text in place of another type."""

_NONE, _WIDE = "", "wide"  # only nulls so far; a whole number that a float64 may not hold
_WORDS: Mapping[type, str] = {bool: "bool", int: "int64", float: "float64", str: "string", StringifiedValue: SPELLED}
_JOINT: Mapping[frozenset[str], str] = {
    frozenset(("int64", "float64")): "float64",
    frozenset(("int64", _WIDE)): _WIDE,
}
_COLUMNS: Mapping[str, str] = {_NONE: "string", SPELLED: "string", _WIDE: "int64"}
_LARGEST = 2**63
_EXACT = 2**53  # beyond it a float64 does not hold every whole number
_MOST_MEMBERS = 100
_DEEPEST = 8


def note_kinds(kinds: dict[str, Kind], fields: Mapping[str, Any]) -> None:
    """Widen `kinds` so that they hold the values of a row."""
    for name, value in fields.items():
        kinds[name] = joint(kinds.get(name, _NONE), kind_of(value))


def kind_of(value: Any, depth: int = 0) -> Kind:
    """Return the kind of one value; an object without members, or too deep or wide for a column, is text."""
    if value is None:
        return _NONE
    if isinstance(value, (list, tuple)) and depth < _DEEPEST:
        inner: Kind = _NONE
        for item in value:
            inner = joint(inner, kind_of(item, depth + 1))
        return ("list", inner)
    if isinstance(value, dict) and 0 < len(value) <= _MOST_MEMBERS and depth < _DEEPEST:
        return ("struct", *((str(name), kind_of(inner, depth + 1)) for name, inner in value.items()))
    kind = _WORDS.get(type(value), "string")
    if kind != "int64" or -_EXACT <= value <= _EXACT:
        return kind
    return _WIDE if -_LARGEST <= value < _LARGEST else "string"


def joint(one: Kind, other: Kind) -> Kind:
    """Return the kind that holds the values of both."""
    if _NONE in (one, other) or one == other:
        return one or other
    if SPELLED in (one, other):
        return SPELLED
    if isinstance(one, str) and isinstance(other, str):
        return _JOINT.get(frozenset((one, other)), "string")
    if isinstance(one, str) or isinstance(other, str) or one[0] != other[0]:
        return "string"
    return ("list", joint(one[1], other[1])) if one[0] == "list" else _joint_members(one, other)


def _joint_members(one: tuple[Any, ...], other: tuple[Any, ...]) -> Kind:
    members = dict(one[1:])
    for name, kind in other[1:]:
        members[name] = joint(members.get(name, _NONE), kind)
    return ("struct", *members.items()) if len(members) <= _MOST_MEMBERS else "string"


def column_of(kind: Kind) -> Kind:
    """Return the column type of a kind; a column of only nulls is text."""
    if isinstance(kind, str):
        return _COLUMNS.get(kind, kind)
    if kind[0] == "list":
        return ("list", column_of(kind[1]))
    return ("struct", *((name, column_of(inner)) for name, inner in kind[1:]))
