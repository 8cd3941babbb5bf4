"""What an MCP server lists as its tools, repaired: what can be used stays, the rest is left out and named.

Servers send schemas that are none (`required: true` at a property, `type: "any"`, null). A tool with such a schema is
offered with what is valid in it; its server checks the arguments by its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from muse.types.json_schema.validation import check_schema

Told = Callable[[str], None]

_TYPES = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})
_SPELLINGS: Mapping[str, str] = {
    "str": "string",
    "text": "string",
    "int": "integer",
    "long": "integer",
    "float": "number",
    "double": "number",
    "bool": "boolean",
    "dict": "object",
    "map": "object",
    "list": "array",
    "none": "null",
}
_LONGEST_PATTERN = 2_000
_DEEPEST = 60
_MOST_DESCRIPTION = 20_000


def repair_listing(result: dict[str, Any], tell: Told) -> None:
    """Make the result of a `tools/list` one that the protocol allows, in place; `tell` gets what was left out.

    Output schemas are taken out: see `output_schemas_in`.
    """
    listed = result.get("tools")
    if not isinstance(listed, list):
        tell(f"its list of tools is {type(listed).__name__}, not a list")
        listed = []
    cursor = result.get("nextCursor")
    if cursor is None:
        result.pop("nextCursor", None)
    elif not isinstance(cursor, str):
        result["nextCursor"] = str(cursor)
    result["tools"] = [tool for entry in listed if (tool := _tool(entry, tell)) is not None]


def _tool(entry: Any, tell: Told) -> dict[str, Any] | None:
    """Return a listed tool without what is no part of one; None if it has no name."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not entry["name"]:
        tell("an entry without a name in its list of tools is left out")
        return None
    tool: dict[str, Any] = {"name": entry["name"], "inputSchema": repair_schema(entry.get("inputSchema"))}
    for name in ("title", "description"):
        if isinstance(entry.get(name), str):
            tool[name] = entry[name][:_MOST_DESCRIPTION]
    hints = entry.get("annotations")
    if isinstance(hints, dict):
        tool["annotations"] = {name: value for name, value in hints.items() if isinstance(value, bool)}
    if isinstance(entry.get("_meta"), dict):
        tool["_meta"] = entry["_meta"]
    return tool


def output_schemas_in(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the output schemas of a `tools/list` by the names of their tools, without those that are none."""
    found: dict[str, dict[str, Any]] = {}
    listed = result.get("tools")
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("outputSchema"), dict):
            try:
                check_schema(entry["outputSchema"])
            except ValueError:
                continue
            found[str(entry.get("name"))] = entry["outputSchema"]
    return found


def repair_schema(schema: Any) -> dict[str, Any]:
    """Return what is valid of the schema of a tool's arguments, which are an object; any object if nothing is."""
    try:
        mended = _repair(schema, 0) if isinstance(schema, Mapping) else {}
        mended["type"] = "object"
        check_schema(mended)
    except (ValueError, RecursionError):
        return {"type": "object", "properties": {}}
    if not any(name in mended for name in ("properties", "anyOf", "oneOf", "allOf", "$ref")):
        mended["properties"] = {}
    return mended


def _repair(schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """Return a copy of a schema without the keywords that have a value they cannot have."""
    if depth > _DEEPEST:
        raise ValueError("a schema within schemas too deep to be meant")
    kept: dict[str, Any] = {}
    for name, value in schema.items():
        mended = _keyword(str(name), value, depth + 1)
        if mended is not _DROP:
            kept[str(name)] = mended
    if isinstance(schema.get("items"), list):  # as tuples were written before draft 2020-12
        kept["prefixItems"] = _keyword("prefixItems", schema["items"], depth + 1)
    return {name: value for name, value in kept.items() if value is not _DROP}


_DROP = object()


def _keyword(name: str, value: Any, depth: int) -> Any:
    """Return the value of a keyword, mended; `_DROP` if it is none that this keyword can have."""
    mend = _MEND.get(name)
    return value if mend is None else mend(value, depth)


def _names(value: Any, _: int) -> Any:
    is_list = isinstance(value, list) and all(isinstance(one, str) for one in value)
    return list(dict.fromkeys(value)) if is_list else _DROP


def _values(value: Any, _: int) -> Any:
    return value if isinstance(value, list) and value else _DROP


def _pattern(value: Any, _: int) -> Any:
    return value if isinstance(value, str) and is_pattern(value) else _DROP


def _map(value: Any, depth: int) -> Any:
    if not isinstance(value, Mapping):
        return _DROP
    return {str(name): _subschema(one, depth) for name, one in value.items()}


def _pattern_map(value: Any, depth: int) -> Any:
    if not isinstance(value, Mapping):
        return _DROP
    return {name: _subschema(one, depth) for name, one in value.items() if is_pattern(str(name))}


def _schemas(value: Any, depth: int) -> Any:
    return [_subschema(one, depth) for one in value] if isinstance(value, list) and value else _DROP


def _schema(value: Any, depth: int) -> Any:
    return _subschema(value, depth) if isinstance(value, (Mapping, bool)) else _DROP


def _count(value: Any, _: int) -> Any:
    return value if _is_number(value) and value >= 0 and value == int(value) else _DROP


def _bound(value: Any, _: int) -> Any:
    return value if _is_number(value) else _DROP


def _factor(value: Any, _: int) -> Any:
    return value if _is_number(value) and value > 0 else _DROP


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: Any, _: int) -> Any:
    return value if isinstance(value, str) else _DROP


def _subschema(value: Any, depth: int) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and _type(value) is not _DROP:
        return {"type": _type(value)}
    return _repair(value, depth) if isinstance(value, Mapping) else {}


def _type(value: Any) -> Any:
    """Return a type, or list of types, as JSON Schema spells them; `_DROP` for none that there is ("any", "date")."""
    if isinstance(value, list):
        found = [one for one in map(_type, value) if isinstance(one, str)]
        return list(dict.fromkeys(found)) if found and len(found) == len(value) else _DROP
    if not isinstance(value, str):
        return _DROP
    lower = value.lower()
    known = _SPELLINGS.get(lower, lower)
    return known if known in _TYPES else _DROP


def is_pattern(text: str) -> bool:
    """Whether `text` is a regular expression that can be used here."""
    if len(text) > _LONGEST_PATTERN:
        return False
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError):
        return False
    return True


_MEND: Mapping[str, Callable[[Any, int], Any]] = {
    "type": lambda value, _: _type(value),
    "required": _names,
    "enum": _values,
    "pattern": _pattern,
    "patternProperties": _pattern_map,
    "multipleOf": _factor,
    **dict.fromkeys(("properties", "$defs", "definitions", "dependentSchemas"), _map),
    **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems"), _schemas),
    **dict.fromkeys(
        ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames"), _schema
    ),
    **dict.fromkeys(("unevaluatedProperties", "unevaluatedItems"), _schema),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), _count),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _bound),
    **dict.fromkeys(("title", "description", "format", "$ref", "$comment", "$id", "$schema"), _text),
}
