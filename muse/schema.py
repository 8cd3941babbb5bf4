"""JSON Schema: made strict as providers want it, and replies checked against it; it knows no provider by name."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

_CHILDREN = ("properties", "$defs", "definitions", "patternProperties")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")


def close_objects(
    schema: Mapping[str, Any], *, require_all: bool, without: Collection[str] = ()
) -> dict[str, Any] | None:
    """A copy of `schema` in which each object names all its properties and admits no other; None if that cannot be.

    `require_all` lists every property as required and lets those that were optional be null (OpenAI's strict form).
    Keywords in `without` are left out. An object that is meant to be open (`additionalProperties` true or a schema, or
    no `properties`) cannot be closed.
    """
    try:
        return _close(schema, require_all, frozenset(without))
    except _OpenObject:
        return None


class _OpenObject(Exception):
    """The schema has an object whose keys are not known."""


def _close(schema: Mapping[str, Any], require_all: bool, without: frozenset[str]) -> dict[str, Any]:
    closed = {key: value for key, value in schema.items() if key not in without}
    for key in _CHILDREN:
        if isinstance(closed.get(key), Mapping):
            closed[key] = {name: _close_any(child, require_all, without) for name, child in closed[key].items()}
    for key in _LISTS:
        if isinstance(closed.get(key), list):
            closed[key] = [_close_any(child, require_all, without) for child in closed[key]]
    if "items" in closed:
        closed["items"] = _close_any(closed["items"], require_all, without)
    if closed.get("type") == "object" or "properties" in closed:
        _close_object(closed, require_all)
    return closed


def _close_any(schema: Any, require_all: bool, without: frozenset[str]) -> Any:
    return _close(schema, require_all, without) if isinstance(schema, Mapping) else schema


def _close_object(closed: dict[str, Any], require_all: bool) -> None:
    properties = closed.get("properties")
    if not properties or closed.get("additionalProperties", False) is not False:
        raise _OpenObject
    closed["additionalProperties"] = False
    if require_all:
        required = set(closed.get("required", ()))
        closed["properties"] = {
            name: child if name in required else _or_null(child) for name, child in properties.items()
        }
        closed["required"] = list(properties)


def _or_null(schema: Any) -> Any:
    if isinstance(schema, Mapping) and "null" in _types(schema):
        return schema
    return {"anyOf": [schema, {"type": "null"}]}


def _types(schema: Mapping[str, Any]) -> Collection[str]:
    kind = schema.get("type", ())
    return (kind,) if isinstance(kind, str) else kind


def drop_nulls(value: Any, schema: Any) -> Any:
    """`value` without the nulls that stand for absent optional properties: the inverse of `require_all`."""
    if not isinstance(schema, Mapping):
        return value
    if isinstance(value, list):
        return [drop_nulls(item, schema.get("items")) for item in value]
    properties = schema.get("properties")
    if not isinstance(value, dict) or not isinstance(properties, Mapping):
        return value
    required = schema.get("required", ())
    return {
        name: drop_nulls(item, properties.get(name))
        for name, item in value.items()
        if item is not None or name in required or _admits_null(properties.get(name))
    }


def _admits_null(schema: Any) -> bool:
    if not isinstance(schema, Mapping):
        return True
    branches = (branch for key in ("anyOf", "oneOf") for branch in schema.get(key, ()))
    return "null" in _types(schema) or any(_admits_null(branch) for branch in branches)


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    """The validator of a schema, given as JSON: seeing that it is a schema takes 1 ms, so it is done once for each."""
    from jsonschema import Draft202012Validator
    from referencing import Registry

    known = json.loads(schema)
    Draft202012Validator.check_schema(known)
    return Draft202012Validator(known, registry=Registry())


def require_schema(schema: Mapping[str, Any]) -> None:
    """See that a schema is one, and refers to nothing that is not in it, before anything is asked by it.

    Raises:
        ValueError: it is none.
    """
    from jsonschema import Draft202012Validator, FormatChecker, SchemaError
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    try:
        known = json.loads(json.dumps(schema))
        Draft202012Validator.check_schema(known, FormatChecker(formats=["regex"]))
        root = DRAFT202012.create_resource(known)
        _require_references(root, Registry().resolver_with_root(root))
        Draft202012Validator(known, registry=Registry()).is_valid(None)  # shows one that only refers to itself
    except SchemaError as exc:
        raise ValueError(f"the schema itself is not one: {exc.json_path}: {exc.message}") from exc
    except Unresolvable as exc:
        raise ValueError(f"the schema refers to {exc.ref!r}, which is not in it") from exc
    except TypeError as exc:
        raise ValueError(f"the schema itself is not one: it is no JSON ({exc})") from exc
    except RecursionError as exc:
        raise ValueError("the schema refers to itself without an end") from exc


def _require_references(resource: Any, resolver: Any) -> None:
    """Look up what each schema within a schema refers to.

    Raises:
        referencing.exceptions.Unresolvable: it is not there.
    """
    if isinstance(resource.contents, Mapping) and isinstance(resource.contents.get("$ref"), str):
        resolver.lookup(resource.contents["$ref"])
    for child in resource.subresources():
        _require_references(child, resolver.in_subresource(child))


def require_fit(value: Any, schema: Mapping[str, Any]) -> None:
    """See that a value fits its schema.

    Raises:
        ValueError: it does not (the first problem is said with its place), or the schema is none, or it refers to what
            is not in it (nothing is fetched).
    """
    from jsonschema import SchemaError, ValidationError  # 50 ms, and only who checks pays it
    from referencing.exceptions import Unresolvable

    try:
        _validator(json.dumps(schema)).validate(value)
    except ValidationError as exc:
        raise ValueError(f"{exc.json_path}: {exc.message}") from exc
    except SchemaError as exc:
        raise ValueError(f"the schema itself is not one: {exc.message}") from exc
    except Unresolvable as exc:
        raise ValueError(f"the schema refers to {exc.ref!r}, which is not in it") from exc
    except RecursionError as exc:
        raise ValueError("the schema refers to itself without an end") from exc
