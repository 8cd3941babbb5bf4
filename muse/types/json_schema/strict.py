"""Rewrite a JSON Schema to what a provider's structured output takes; values are checked against the caller's own.

Sources: OpenAI's guide on structured outputs (supported schemas, limits); Anthropic's page on structured outputs (JSON
Schema limitations, limits on optional parameters and unions); the reference of Gemini's `responseJsonSchema`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from muse.types.json_schema.merge import CannotMerge, admits_null, branches_of, flatten, only_ref, target_of, types_of

WRAPPED = "value"
"""The property that holds the answer where a provider takes only objects."""

_SCALARS = ("string", "number", "integer", "boolean", "null")
_TYPES = (*_SCALARS, "object", "array")
_TEXTS = ("title", "description")


class StrictRules(Struct, frozen=True):
    """What a provider's structured output takes.

    `keywords` are those besides the structural ones, `formats` the values of `format`. `require_all`: every property
    has to be required, and optional ones become nullable. The bounds are the most properties, levels of nesting, enum
    values, characters of names and values, optional properties and unions of a whole schema; 0 is no bound.
    """

    keywords: frozenset[str]
    formats: frozenset[str]
    require_all: bool = False
    recursive: bool = True
    least_items: int | None = None
    most_properties: int = 0
    most_levels: int = 0
    most_enum_values: int = 0
    most_chars: int = 0
    most_optional: int = 0
    most_unions: int = 0


_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
OPENAI = StrictRules(
    frozenset(
        {"enum", "const", "pattern", "multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
        | {"minItems", "maxItems"}
    ),
    _FORMATS,
    require_all=True,
    most_properties=5_000,
    most_levels=10,
    most_enum_values=1_000,
    most_chars=120_000,
)
ANTHROPIC = StrictRules(
    frozenset({"enum", "const", "default", "minItems"}),
    _FORMATS | {"uri"},
    recursive=False,
    least_items=1,
    most_optional=24,
    most_unions=16,
)


_DEEPEST = 100
_MOST_NODES = 20_000


class _NotStrict(Exception):
    """The schema cannot be strict."""


def has_object_root(schema: Mapping[str, Any]) -> bool:
    """Return whether a schema's values are objects of one kind, as providers want it of a root."""
    try:
        flat = flatten(schema, schema)
        return branches_of(flat, schema) is None and (types_of(flat) or ["object"]) == ["object"] and _is_object(flat)
    except CannotMerge:
        return False


def _is_object(flat: Mapping[str, Any]) -> bool:
    return flat.get("type") in ("object", ["object"]) or "properties" in flat


def with_object_root(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a schema whose root is an object: as it is, with its reference followed, or as the only property of one.

    `unwrapped` takes an answer out of that property again.
    """
    if has_object_root(schema):
        if "$ref" not in schema and "allOf" not in schema and "type" in schema:
            return schema
        kept = {name: schema[name] for name in ("$defs", "definitions") if name in schema}
        return {**flatten(schema, schema), "type": "object", **kept}
    inner = {name: value for name, value in schema.items() if name not in ("$defs", "definitions", "$schema", "$id")}
    outer = {name: _moved(schema[name]) for name in ("$defs", "definitions") if name in schema}
    return {
        "type": "object",
        "properties": {WRAPPED: _moved(inner)},
        "required": [WRAPPED],
        "additionalProperties": False,
        **outer,
    }


def _moved(schema: Any) -> Any:
    """Return a copy of a schema whose references lead to where its root stands after wrapping."""
    if isinstance(schema, list):
        return [_moved(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    moved = {name: _moved(value) for name, value in schema.items()}
    ref = moved.get("$ref")
    if isinstance(ref, str) and ref.startswith("#") and not ref.startswith(("#/$defs/", "#/definitions/")):
        moved["$ref"] = f"#/properties/{WRAPPED}{ref[1:]}"
    return moved


def unwrapped(text: str, schema: Mapping[str, Any] | None) -> str:
    """Return the text of an answer without the object that `with_object_root` put around it."""
    if schema is None or not text.lstrip().startswith("{") or has_object_root(schema):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(value, dict) and set(value) == {WRAPPED}:
        return json.dumps(value[WRAPPED], ensure_ascii=False)
    return text


def make_strict(schema: Mapping[str, Any], rules: StrictRules) -> dict[str, Any] | None:
    """Return a schema that is strict by `rules` and takes every value of `schema`; None if there is none.

    Objects name all their properties and admit no other. `oneOf` becomes `anyOf`, `allOf` is merged, `prefixItems`
    become `items`, and keywords that the provider does not take are left out. An object meant to be open
    (`additionalProperties`, `patternProperties`, no `properties`) and a value of any kind cannot be strict.
    """
    try:
        form = _Strict(schema, rules).whole()
        _Size(form, rules).require()
    except (_NotStrict, CannotMerge, RecursionError):
        return None
    return form


class _Strict:
    """Rewrites one schema; what it refers to is put under `$defs`."""

    def __init__(self, root: Mapping[str, Any], rules: StrictRules) -> None:
        self._root = root
        self._rules = rules
        self._names: dict[str, str] = {}
        self._pending: list[str] = []
        self._nodes = 0

    def whole(self) -> dict[str, Any]:
        """Return the root with its definitions."""
        form = self._node(flatten(self._root, self._root), 0)
        defs: dict[str, Any] = {}
        while self._pending:
            ref = self._pending.pop()
            defs[self._names[ref]] = self._node(target_of(ref, self._root), 0)
        return {**form, "$defs": dict(sorted(defs.items()))} if defs else form

    def _ref(self, ref: str) -> dict[str, Any]:
        """Return a reference to a definition; what it leads to is seen to later."""
        seen: set[str] = set()
        while ref not in seen:  # a definition that only refers to another one
            seen.add(ref)
            ref = only_ref(target_of(ref, self._root)) or ref
        if ref == "#":
            return {"$ref": "#"}
        if ref not in self._names:
            name = re.sub(r"[^A-Za-z0-9_-]", "_", ref.rsplit("/", 1)[-1]) or "part"
            taken = set(self._names.values())
            self._names[ref] = next(
                one for one in (name, *(f"{name}_{n}" for n in range(2, 9_999))) if one not in taken
            )
            self._pending.append(ref)
        return {"$ref": f"#/$defs/{self._names[ref]}"}

    def _node(self, schema: Any, depth: int) -> dict[str, Any]:
        self._nodes += 1
        if depth > _DEEPEST or self._nodes > _MOST_NODES:
            raise _NotStrict
        ref = only_ref(schema)
        if ref is not None:
            return self._ref(ref)
        flat = flatten(schema, self._root)
        branches = branches_of(flat, self._root)
        if branches is None and len(types_of(flat)) > 1 and not set(types_of(flat)) <= set(_SCALARS):
            branches = [{**flat, "type": kind} for kind in types_of(flat)]
        if branches is not None:
            nodes = [self._node(branch, depth + 1) for branch in branches]
            unique = [node for index, node in enumerate(nodes) if node not in nodes[:index]]
            return unique[0] if len(unique) == 1 else {**_texts(flat), "anyOf": unique}
        match _kind_of(flat):
            case "object":
                return self._object(flat, depth)
            case "array":
                return self._array(flat, depth)
            case kind:
                return {**_texts(flat), "type": kind, **self._kept(flat)}

    def _object(self, flat: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties, extra = flat.get("properties"), flat.get("additionalProperties")
        if not isinstance(properties, Mapping) or (not properties and extra is not False):
            raise _NotStrict
        if extra not in (None, False) or flat.get("patternProperties"):
            raise _NotStrict
        required = [name for name in flat.get("required") or () if name in properties]
        if len(required) < len(flat.get("required") or ()):
            raise _NotStrict  # a required key of any kind
        nodes = {name: self._node(child, depth + 1) for name, child in properties.items()}
        if self._rules.require_all:
            nodes = {
                name: node if name in required or admits_null(properties[name], self._root) else _or_null(node)
                for name, node in nodes.items()
            }
            required = list(nodes)
        return {
            **_texts(flat),
            "type": "object",
            "properties": nodes,
            "required": required,
            "additionalProperties": False,
        }

    def _array(self, flat: Mapping[str, Any], depth: int) -> dict[str, Any]:
        items, first = flat.get("items"), flat.get("prefixItems")
        if isinstance(items, list):
            first, items = items, flat.get("additionalItems")
        kinds = list(first) if isinstance(first, list) else []
        kinds += [items] if isinstance(items, Mapping) else []
        if not kinds or items is True or (first and items is None and flat.get("maxItems") != len(first)):
            raise _NotStrict  # items of any kind
        nodes = [self._node(kind, depth + 1) for kind in kinds]
        unique = [node for index, node in enumerate(nodes) if node not in nodes[:index]]
        item = unique[0] if len(unique) == 1 else {"anyOf": unique}
        kept = self._kept({name: value for name, value in flat.items() if name not in ("enum", "const")})
        return {**_texts(flat), "type": "array", "items": item, **kept}

    def _kept(self, flat: Mapping[str, Any]) -> dict[str, Any]:
        """Return the keywords that the provider takes."""
        kept = {name: value for name, value in flat.items() if name in self._rules.keywords}
        if flat.get("format") in self._rules.formats:
            kept["format"] = flat["format"]
        least = self._rules.least_items
        if least is not None and "minItems" in kept:
            kept["minItems"] = min(kept["minItems"], least)
        return kept


def _texts(flat: Mapping[str, Any]) -> dict[str, Any]:
    return {name: flat[name] for name in _TEXTS if isinstance(flat.get(name), str)}


def _or_null(node: dict[str, Any]) -> dict[str, Any]:
    if "anyOf" in node:
        return {**node, "anyOf": [*node["anyOf"], {"type": "null"}]}
    return {"anyOf": [node, {"type": "null"}]}


def _kind_of(flat: Mapping[str, Any]) -> str | list[str]:
    """Return the type of a schema's values, told by other keywords where it does not say it.

    Raises:
        _NotStrict: they may be of any type.
    """
    kinds = types_of(flat)
    if not kinds:
        if "properties" in flat:
            return "object"
        if "items" in flat or "prefixItems" in flat:
            return "array"
        values = [flat["const"]] if "const" in flat else flat.get("enum") or ()
        kinds = list(dict.fromkeys(_type_of(value) for value in values))
    if not kinds or not set(kinds) <= set(_TYPES):
        raise _NotStrict
    if len(kinds) > 1 and not set(kinds) <= set(_SCALARS):
        raise _NotStrict  # an enum of objects and others
    return kinds[0] if len(kinds) == 1 else kinds


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    names = {str: "string", int: "integer", float: "number", list: "array", dict: "object"}
    return "null" if value is None else names.get(type(value), "string")


class _Size:
    """Counts what a provider bounds."""

    def __init__(self, form: Mapping[str, Any], rules: StrictRules) -> None:
        self._form = form
        self._rules = rules
        self._known: dict[str, int] = {}
        self.properties = self.enum_values = self.chars = self.optional = self.unions = 0

    def require(self) -> None:
        """Raise `_NotStrict` where a bound is passed."""
        defs = self._form.get("$defs", {})
        levels = self._levels(self._form)
        for node in (self._form, *defs.values()):
            self._count(node)
        self.chars += sum(map(len, defs))
        rules = self._rules
        found = (self.properties, levels, self.enum_values, self.chars, self.optional, self.unions)
        sizes = (rules.most_properties, rules.most_levels, rules.most_enum_values, rules.most_chars)
        most = (*sizes, rules.most_optional, rules.most_unions)
        if any(bound and count > bound for count, bound in zip(found, most, strict=True)):
            raise _NotStrict

    def _count(self, node: Mapping[str, Any]) -> None:
        properties = node.get("properties", {})
        self.properties += len(properties)
        self.optional += len(properties) - len(node.get("required", ())) if properties else 0
        self.unions += "anyOf" in node or isinstance(node.get("type"), list)
        values = [*node.get("enum", ()), *([node["const"]] if "const" in node else [])]
        self.enum_values += len(node.get("enum", ()))
        self.chars += sum(map(len, properties)) + sum(len(str(value)) for value in values)
        for child in _children(node):
            self._count(child)

    def _levels(self, node: Mapping[str, Any]) -> int:
        """Return how many objects and arrays stand within each other; a schema within itself counts once."""
        ref = node.get("$ref")
        if not isinstance(ref, str):
            inner = max(map(self._levels, _children(node)), default=0)
            return inner + (node.get("type") in ("object", "array"))
        if ref not in self._known:
            self._known[ref] = _OPEN
            self._known[ref] = 0 if ref == "#" else self._levels(self._form["$defs"][ref.rsplit("/", 1)[-1]])
        if (self._known[ref] == _OPEN or ref == "#") and not self._rules.recursive:
            raise _NotStrict
        return max(self._known[ref], 0)


_OPEN = -1


def _children(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = [*node.get("properties", {}).values(), *node.get("anyOf", ())]
    return [*found, node["items"]] if isinstance(node.get("items"), Mapping) else found
