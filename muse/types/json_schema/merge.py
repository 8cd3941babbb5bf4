"""Resolve `$ref` and `allOf` in a JSON Schema and combine schemas that hold together; checks no value itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

Schema = Mapping[str, Any]
# Keywords that say something to readers and bind no value.
ANNOTATIONS = frozenset(
    {
        "title",
        "description",
        "default",
        "examples",
        "example",
        "deprecated",
        "readOnly",
        "writeOnly",
        "discriminator",
        "$comment",
        "$schema",
        "$id",
        "$defs",
        "definitions",
    }
)
_DEEPEST = 48
_MOST_BRANCHES = 32


class CannotMerge(ValueError):
    """Schemas cannot be combined into one: they contradict each other, refer to nothing, or refer to themselves."""


def target_of(ref: object, root: Schema) -> Any:
    """Return what a local reference (`#`, `#/$defs/name`) leads to.

    Raises:
        CannotMerge: it leads out of the schema, or to nothing in it.
    """
    if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
        raise CannotMerge(f"$ref {ref!r} is not within the schema")
    found: Any = root
    for step in ref.split("/")[1:]:
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isdigit() and int(name) < len(found):
            found = found[int(name)]
        else:
            raise CannotMerge(f"$ref {ref!r} leads to nothing")
    return found


def only_ref(schema: object) -> str | None:
    """Return the reference of a schema that is nothing else but one, with or without annotations; None otherwise."""
    if not isinstance(schema, Mapping):
        return None
    binding = {name: value for name, value in schema.items() if name not in ANNOTATIONS}
    if set(binding) == {"$ref"} and isinstance(binding["$ref"], str):
        return binding["$ref"]
    if set(binding) == {"allOf"} and isinstance(binding["allOf"], list) and len(binding["allOf"]) == 1:
        return only_ref(binding["allOf"][0])
    return None


def flatten(schema: object, root: Schema, depth: int = 0) -> dict[str, Any]:
    """Return a schema of the same meaning whose top has neither `$ref` nor `allOf`; its own `$defs` are left out.

    Raises:
        CannotMerge: it refers to itself without an end, to nothing, or its parts contradict each other.
    """
    if isinstance(schema, bool):
        return {} if schema else {"not": {}}
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        raise CannotMerge("a schema that is none, or that refers to itself")
    flat = {name: value for name, value in schema.items() if name not in ("$ref", "allOf", "$defs", "definitions")}
    parts: list[Any] = [target_of(schema["$ref"], root)] if "$ref" in schema else []
    parts += schema["allOf"] if isinstance(schema.get("allOf"), list) else []
    for part in parts:
        flat = merged(flat, flatten(part, root, depth + 1))
    return flat


def merged(one: Schema, other: Schema) -> dict[str, Any]:
    """Return a schema for the values that both flat schemas take; annotations of `one` win.

    Raises:
        CannotMerge: no value fits both, or both are unions.
    """
    both = {**other, **one}
    for name in one.keys() & other.keys() - ANNOTATIONS:
        both[name] = _combined(name, one[name], other[name])
    return both


def _combined(name: str, one: Any, other: Any) -> Any:
    """Return what a keyword has to be where two schemas say it and both hold."""
    if one == other:
        return one
    combine = _COMBINERS.get(name)
    found = combine(one, other) if combine is not None else None
    if found is None:
        raise CannotMerge(f"two schemas that differ in {name!r}")
    return found


def _both_properties(one: Any, other: Any) -> Any:
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return None
    shared = {key: {"allOf": [one[key], other[key]]} for key in one.keys() & other.keys() if one[key] != other[key]}
    return {**one, **other, **shared}


def _all_required(one: Any, other: Any) -> Any:
    return list(dict.fromkeys([*one, *other])) if isinstance(one, list) and isinstance(other, list) else None


def _common_values(one: Any, other: Any) -> Any:
    return [value for value in one if value in other] or None if isinstance(other, list) else None


def _both(one: Any, other: Any) -> Any:
    return False if one is False or other is False else {"allOf": [one, other]}


def _first(one: Any, _other: Any) -> Any:
    """The one alone: looser than both, and whoever uses the result checks values against the whole schema."""
    return one


def _bound(choose: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def chosen(one: Any, other: Any) -> Any:
        are_numbers = isinstance(one, (int, float)) and isinstance(other, (int, float))
        return choose(one, other) if are_numbers else None

    return chosen


def _common_type(one: Any, other: Any) -> Any:
    mine, theirs = types_of({"type": one}), types_of({"type": other})
    common = [kind for kind in mine if kind in theirs or (kind == "integer" and "number" in theirs)]
    common += [kind for kind in theirs if kind == "integer" and "number" in mine and kind not in common]
    if not common:
        raise CannotMerge(f"no value is both {one!r} and {other!r}")
    return common[0] if len(common) == 1 else common


_LEAST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_MOST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_LOOSE = ("format", "pattern", "multipleOf", "contains", "propertyNames", "patternProperties")
_COMBINERS: Mapping[str, Callable[[Any, Any], Any]] = {
    "type": _common_type,
    "properties": _both_properties,
    "required": _all_required,
    "enum": _common_values,
    "items": _both,
    "additionalProperties": _both,
    **dict.fromkeys(_LEAST, _bound(max)),
    **dict.fromkeys(_MOST, _bound(min)),
    **dict.fromkeys(_LOOSE, _first),
}


def types_of(schema: Schema) -> list[str]:
    """Return the types that `type` names; an empty list where it is absent."""
    kind = schema.get("type", ())
    return [kind] if isinstance(kind, str) else [one for one in kind if isinstance(one, str)]


def branches_of(flat: Schema, root: Schema) -> list[Any] | None:
    """Return the branches of a flat schema's `anyOf` or `oneOf`, each with what stands beside the union; None if none.

    Raises:
        CannotMerge: there are too many.
    """
    unions = [flat[name] for name in ("anyOf", "oneOf") if isinstance(flat.get(name), list) and flat[name]]
    if not unions:
        return None
    beside = {name: value for name, value in flat.items() if name not in ANNOTATIONS and name not in ("anyOf", "oneOf")}
    if len(unions) == 1 and not beside:
        return list(unions[0])
    found: list[Any] = [beside]
    for union in unions:
        if len(found) * len(union) > _MOST_BRANCHES:
            raise CannotMerge(f"more than {_MOST_BRANCHES} combinations of branches")
        found = list(_products(found, union, root))
        if not found:
            raise CannotMerge("no branch fits what stands beside it")
    return found


def _products(found: Sequence[Any], union: Sequence[Any], root: Schema) -> Iterator[Any]:
    """Yield each of `found` together with each branch that does not contradict it."""
    for one in found:
        for branch in union:
            try:
                yield merged(one, flatten(branch, root))
            except CannotMerge:
                continue  # no value fits both


def admits_null(schema: object, root: Schema, depth: int = 0) -> bool:
    """Return whether null fits a schema; True where that cannot be told."""
    if depth > _DEEPEST:
        return True
    try:
        flat = flatten(schema, root)
        branches = branches_of(flat, root)
    except CannotMerge:
        return True
    if branches is not None:
        return any(admits_null(branch, root, depth + 1) for branch in branches)
    values = [flat["const"]] if "const" in flat else flat.get("enum")
    if "null" not in (types_of(flat) or ["null"]) or flat.get("not") == {}:
        return False
    return not isinstance(values, list) or None in values
