"""Rewrite the schema of a tool's arguments to one that providers take; calls are checked against the tool's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muse.types.json_schema.merge import CannotMerge, branches_of, flatten, only_ref, target_of

EMPTY: Mapping[str, Any] = {"type": "object", "properties": {}}
# What may not stand at the top of a tool's parameters.
_NOT_ON_TOP = frozenset(
    {"anyOf", "oneOf", "allOf", "not", "enum", "const", "if", "then", "else", "$ref", "dependentSchemas"}
    | {"dependentRequired", "dependencies", "$schema", "$id", "discriminator", "nullable"}
)
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
_STRUCTURE = frozenset({"type", "properties", "required", "items", "anyOf", "enum", "description", "title", "format"})
_DEEPEST = 24
_MOST_NODES = 5_000
_FORMATS = frozenset({"date-time", "date", "time", "int32", "int64", "float", "double", "enum"})
_TYPES = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})


def simplify_tool_schema(schema: object, keywords: frozenset[str] | None = None) -> dict[str, Any]:
    """Return a schema for a tool's arguments whose top is an object without unions and references.

    It takes every value that `schema` takes: the properties of all branches of a union at the top are optional there
    unless each branch requires them. Keywords of older drafts that providers refuse are mended at every depth. With
    `keywords` only those and the structural ones are kept, and references are replaced by what they refer to, one that
    leads into itself by an object of any kind.
    """
    if not isinstance(schema, Mapping):
        return dict(EMPTY)
    try:
        top = _top(schema)
    except CannotMerge:
        top = {name: value for name, value in schema.items() if name not in _NOT_ON_TOP}
    properties = top.get("properties")
    top = {**top, "type": "object", "properties": properties if isinstance(properties, Mapping) else {}}
    kept = {name: schema[name] for name in ("$defs", "definitions") if isinstance(schema.get(name), Mapping)}
    if keywords is None:
        mended: dict[str, Any] = _mended({**top, **kept})
        return mended
    plain: dict[str, Any] = _Plain(schema, keywords).rewritten(top, (), 0)
    return {**plain, "properties": plain.get("properties", {})}


def _top(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the top of a schema without references and unions.

    Raises:
        CannotMerge: its parts contradict each other or lead nowhere.
    """
    flat = flatten(schema, schema)
    branches = branches_of(flat, schema)
    top = {name: value for name, value in flat.items() if name not in _NOT_ON_TOP}
    if branches is None:
        return top
    parts = [_top({**_defs(schema), **flatten(branch, schema)}) for branch in branches]
    parts = [part for part in parts if part.get("type", "object") in ("object", ["object"]) or "properties" in part]
    for part in parts:
        top = {**part, **top, "properties": _any_of_both(top.get("properties"), part.get("properties"))}
    required = [set(part.get("required") or ()) for part in parts]
    common = set.intersection(*required) if required else set()
    top["required"] = [name for name in top["properties"] if name in common | set(flat.get("required") or ())]
    if not top["required"]:
        del top["required"]
    if any(part.get("additionalProperties", True) is not False for part in parts):
        top.pop("additionalProperties", None)
    return top


def _defs(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {name: schema[name] for name in ("$defs", "definitions") if name in schema}


def _any_of_both(one: Any, other: Any) -> dict[str, Any]:
    """Return the properties of two branches; one that differs may be as either has it."""
    mine, theirs = (dict(side) if isinstance(side, Mapping) else {} for side in (one, other))
    for name, child in theirs.items():
        known = mine.get(name)
        if name not in mine:
            mine[name] = child
        elif known != child:
            choices = known["anyOf"] if isinstance(known, Mapping) and set(known) == {"anyOf"} else [known]
            mine[name] = {"anyOf": [*choices, child]} if child not in choices else known
    return mine


def _mended(schema: Any) -> Any:
    """Return a schema without what newer drafts do not know: keywords of a wrong type, lists of items, bare arrays."""
    if not isinstance(schema, Mapping):
        return schema if isinstance(schema, bool) else {}
    mended = {name: value for name, value in schema.items() if not _is_odd(name, value)}
    for name in _MAPS:
        if isinstance(mended.get(name), Mapping):
            mended[name] = {key: _mended(child) for key, child in mended[name].items()}
    for name in _LISTS:
        if isinstance(mended.get(name), list):
            mended[name] = [_mended(child) for child in mended[name]]
    if isinstance(mended.get("items"), list):
        mended["prefixItems"] = [_mended(child) for child in mended.pop("items")]
    for name in _SINGLE:
        if name in mended:
            mended[name] = _mended(mended[name])
    if "array" in _types(mended) and "items" not in mended:
        mended["items"] = {}
    return mended


def _is_odd(name: str, value: Any) -> bool:
    """Return whether a keyword's value is of a kind that JSON Schema 2020-12 does not know."""
    match name:
        case "required":
            return not isinstance(value, list)
        case "exclusiveMinimum" | "exclusiveMaximum":
            return isinstance(value, bool)
        case "anyOf" | "oneOf" | "allOf" | "enum":
            return not isinstance(value, list) or not value
        case "type":
            return not value or not set([value] if isinstance(value, str) else value) <= _TYPES
        case _:
            is_map = name in ("properties", "patternProperties", "$defs", "definitions")
            return not isinstance(value, Mapping) if is_map else name in ("$schema", "$id", "id") and _is_text(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _types(schema: Mapping[str, Any]) -> list[Any]:
    kind = schema.get("type")
    return kind if isinstance(kind, list) else [kind]


class _Plain:
    """Rewrites a schema to few keywords and no references."""

    def __init__(self, root: Mapping[str, Any], keywords: frozenset[str]) -> None:
        self._root = root
        self._keywords = keywords | _STRUCTURE
        self._nodes = 0

    def rewritten(self, schema: Any, stack: tuple[str, ...], depth: int) -> dict[str, Any]:
        """Return a schema, inside of those that `stack` refers to."""
        self._nodes += 1
        if not isinstance(schema, Mapping) or depth > _DEEPEST or self._nodes > _MOST_NODES:
            return {}
        ref = only_ref(schema)
        if ref is not None:
            return self._followed(schema, ref, stack, depth)
        try:
            flat = _mended(flatten(schema, self._root))
            branches = branches_of(flat, self._root)
        except CannotMerge:
            flat, branches = _mended({**schema, "allOf": None, "$ref": None}), None
        if "const" in flat and "enum" not in flat:
            flat["enum"] = [flat["const"]]
        kept = {name: value for name, value in flat.items() if name in self._keywords}
        if kept.get("format") not in _FORMATS:
            kept.pop("format", None)
        if branches is not None:
            texts = {name: kept[name] for name in ("title", "description") if name in kept}
            return {**texts, "anyOf": [self.rewritten(branch, stack, depth + 1) for branch in branches]}
        if "prefixItems" in flat and "prefixItems" not in self._keywords:
            kept["items"] = {}
        return self._with_children(kept, stack, depth)

    def _with_children(self, kept: dict[str, Any], stack: tuple[str, ...], depth: int) -> dict[str, Any]:
        if isinstance(kept.get("properties"), Mapping):
            kept["properties"] = {
                name: self.rewritten(child, stack, depth + 1) for name, child in kept["properties"].items()
            }
        if isinstance(kept.get("prefixItems"), list):
            kept["prefixItems"] = [self.rewritten(child, stack, depth + 1) for child in kept["prefixItems"]]
        for name in ("items", "additionalProperties"):
            if isinstance(kept.get(name), Mapping):
                kept[name] = self.rewritten(kept[name], stack, depth + 1)
        return kept

    def _followed(self, schema: Mapping[str, Any], ref: str, stack: tuple[str, ...], depth: int) -> dict[str, Any]:
        """Return what a reference leads to, with the words beside it."""
        words = {name: schema[name] for name in ("title", "description") if isinstance(schema.get(name), str)}
        if ref in stack:
            return {**words, "type": "object"}
        try:
            target = target_of(ref, self._root)
        except CannotMerge:
            return words
        return {**self.rewritten(target, (*stack, ref), depth + 1), **words}
