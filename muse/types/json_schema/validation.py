"""Check values against a JSON Schema, and take out the nulls that stand for absent properties; knows no provider."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from muse.types.json_schema.merge import CannotMerge, admits_null, branches_of, flatten
from muse.types.json_schema.patterns import find_mismatch_isolated, may_take_long


def strip_nulls(value: Any, schema: Any) -> Any:
    """Return `value` without the nulls that stand for absent optional properties.

    It is the inverse of what `strict.strict_form` lets be null: a null goes where the property is optional
    and its own schema admits none, behind references, in arrays, in maps and in the branch of a union that the value
    is of.
    """
    return _Nulls(schema).dropped(value, schema, 0) if isinstance(schema, Mapping) else value


class _Nulls:
    """Walks a value along its schema."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root

    def dropped(self, value: Any, schema: Any, depth: int) -> Any:
        """Return `value` without nulls that stand for something absent; itself where the schema cannot be followed."""
        if not isinstance(value, (dict, list)) or not isinstance(schema, Mapping) or depth > _DEEPEST_VALUE:
            return value
        try:
            flat = flatten(schema, self._root)
            branches = branches_of(flat, self._root)
        except CannotMerge:
            return value
        if branches is not None:
            return self._of_best_branch(value, branches, depth)
        if isinstance(value, list):
            return [self.dropped(item, child, depth + 1) for item, child in _with_items(value, flat)]
        required = flat.get("required") or ()
        return {
            name: self.dropped(item, child, depth + 1)
            for name, item, child in _with_properties(value, flat)
            if not self._is_absent(name, item, flat, child) or name in required
        }

    def _is_absent(self, name: str, item: Any, flat: Mapping[str, Any], child: Any) -> bool:
        """Return whether a value is null in place of a declared property that never is."""
        declared = flat.get("properties")
        is_declared = isinstance(declared, Mapping) and name in declared
        return item is None and is_declared and not admits_null(child, self._root)

    def _of_best_branch(self, value: Any, branches: Sequence[Any], depth: int) -> Any:
        """Return `value` as the branch has it that it fits best.

        That is a branch it is valid in without its nulls, among these the one whose properties are nearest to its own
        keys (a strict answer has all of them), among these the one that keeps the most nulls.
        """
        found = [self.dropped(value, branch, depth + 1) for branch in branches]
        if len(found) == 1 or all(one == found[0] for one in found):
            return found[0]
        ranks = [
            (self._is_valid(one, branch), -self._distance(value, branch, depth + 1), _nulls(one))
            for one, branch in zip(found, branches, strict=True)
        ]
        return found[ranks.index(max(ranks))]

    def _is_valid(self, value: Any, branch: Any) -> bool:
        from jsonschema.exceptions import SchemaError  # with the validator below it is there anyway
        from referencing.exceptions import Unresolvable

        try:
            return bool(_validator(json.dumps(self._root)).evolve(schema=branch).is_valid(value))
        except (SchemaError, Unresolvable, RecursionError, TypeError):
            return False

    def _distance(self, value: Any, schema: Any, depth: int) -> int:
        """Return how many keys of `value` a schema does not name, and how many that it names are missing."""
        if not isinstance(value, (dict, list)) or depth > _DEEPEST_VALUE:
            return 0
        try:
            flat = flatten(schema, self._root)
            branches = branches_of(flat, self._root)
        except CannotMerge:
            return 0
        if branches is not None:
            return min(self._distance(value, branch, depth + 1) for branch in branches)
        if isinstance(value, list):
            return sum(self._distance(item, child, depth + 1) for item, child in _with_items(value, flat))
        declared = flat.get("properties")
        names = declared.keys() if isinstance(declared, Mapping) else value.keys()
        inner = sum(self._distance(item, child, depth + 1) for _, item, child in _with_properties(value, flat))
        return len(value.keys() ^ names) + inner


_DEEPEST_VALUE = 200


def _nulls(value: Any) -> int:
    """Return how many nulls a value holds."""
    if isinstance(value, dict):
        return sum(map(_nulls, value.values()))
    return sum(map(_nulls, value)) if isinstance(value, list) else value is None


def _with_items(value: list[Any], flat: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield each item with its schema."""
    items, first = flat.get("items"), flat.get("prefixItems")
    if isinstance(items, list):  # drafts before 2020-12 list the first ones there
        first, items = items, flat.get("additionalItems")
    first = first if isinstance(first, list) else []
    for index, item in enumerate(value):
        yield item, first[index] if index < len(first) else items


def _with_properties(value: dict[str, Any], flat: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield each key with its value and schema."""
    declared, patterns = (_mapping(flat.get(name)) for name in ("properties", "patternProperties"))
    for name, item in value.items():
        if name in declared:
            yield name, item, declared[name]
        else:
            matching = (child for pattern, child in patterns.items() if _matches(pattern, name))
            yield name, item, next(matching, flat.get("additionalProperties"))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return False


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    """The validator of a schema, given as JSON: seeing that it is a schema takes 1 ms, so it is done once for each."""
    from jsonschema import Draft202012Validator
    from referencing import Registry

    known = json.loads(schema)
    Draft202012Validator.check_schema(known)
    return Draft202012Validator(known, registry=Registry())


def check_schema(schema: Mapping[str, Any]) -> None:
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


def validate(value: Any, schema: Mapping[str, Any]) -> None:
    """See that a value fits its schema. Patterns that may take long are matched in a process with a time limit.

    Raises:
        ValueError: it does not (the first problem is said with its place), or the schema is none, or it refers to what
            is not in it (nothing is fetched), or one of its patterns takes too long.
    """
    check = find_mismatch_isolated if may_take_long(value, schema) else find_mismatch
    problem = check(value, schema)
    if problem is not None:
        raise ValueError(problem)


def find_mismatch(value: Any, schema: Mapping[str, Any]) -> str | None:
    """Return why a value does not fit its schema, None if it does; patterns are matched however long they take."""
    from jsonschema import SchemaError, ValidationError  # 50 ms, and only who checks pays it
    from referencing.exceptions import Unresolvable

    try:
        _validator(json.dumps(schema)).validate(value)
    except ValidationError as exc:
        return f"{exc.json_path}: {exc.message}"
    except SchemaError as exc:
        return f"the schema itself is not one: {exc.message}"
    except Unresolvable as exc:
        return f"the schema refers to {exc.ref!r}, which is not in it"
    except RecursionError:
        return "the schema refers to itself without an end"
    except re.error as exc:
        return f"the schema has a pattern that is none here: {exc}"
    return None
