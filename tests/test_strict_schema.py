"""Strict schemas: each is one that its provider takes and takes all that was asked for; its nulls come out again."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, create_model

from muse.types.json_schema.strict import ANTHROPIC, OPENAI, StrictRules, make_strict, unwrapped, with_object_root
from muse.types.json_schema.validation import strip_nulls
from muse.types.messages import Assistant, Reply
from muse.types.structured_output import parse_output
from muse.types.usage import Usage

Schema = dict[str, Any]
BOAT: Schema = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "default": "Tern"},
        "sails": {"type": "array", "items": {"type": "object", "properties": {"area": {"type": "number"}}}},
        "home": {"$ref": "#/$defs/port", "description": "where it lies"},
    },
    "required": ["name"],
    "$defs": {"port": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}},
}
every_provider = pytest.mark.parametrize("rules", [OPENAI, ANTHROPIC], ids=["openai", "anthropic"])


def test_every_object_is_closed_and_the_given_schema_is_left_alone() -> None:
    before = copy.deepcopy(BOAT)
    closed = make_strict(BOAT, ANTHROPIC)
    assert before == BOAT
    assert closed is not None
    assert closed["additionalProperties"] is False
    assert closed["required"] == ["name"]
    assert closed["properties"]["sails"]["items"]["additionalProperties"] is False
    assert closed["$defs"]["port"]["additionalProperties"] is False


def test_all_properties_are_required_and_the_optional_ones_may_be_null() -> None:
    closed = make_strict(BOAT, OPENAI)
    assert closed is not None
    assert closed["required"] == ["name", "sails", "home"]
    assert closed["properties"]["name"] == {"type": "string"}
    assert closed["properties"]["home"] == {"anyOf": [{"$ref": "#/$defs/port"}, {"type": "null"}]}


OPEN: list[Any] = [
    {"type": "object"},
    {"type": "object", "properties": {}},
    {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": True},
    {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}},
    {"type": "object", "properties": {"a": {"type": "string"}}, "patternProperties": {"^x": {"type": "string"}}},
    {"type": "object", "properties": {"a": {"type": "object"}}},
    {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["b"]},
    {"type": "object", "properties": {"a": {}}},
    {"type": "object", "properties": {"a": True}},
    {"type": "object", "properties": {"a": {"type": "array"}}},
    {"type": "object", "properties": {"a": {"type": "array", "prefixItems": [{"type": "string"}]}}},
    {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "object"}]}},
    {"type": "object", "properties": {"a": {"$ref": "#/$defs/none"}}},
    {"type": "object", "properties": {"a": {"$ref": "https://example.com/schema"}}},
    {"type": "object", "properties": {"a": {"allOf": [{"type": "string"}, {"type": "integer"}]}}},
    {"$ref": "#"},
    {},
]


@pytest.mark.parametrize("schema", OPEN, ids=str)
@every_provider
def test_what_may_hold_anything_or_nothing_is_not_strict(schema: Schema, rules: StrictRules) -> None:
    assert make_strict(schema, rules) is None


def test_more_than_a_provider_takes_is_not_strict() -> None:
    deep: Schema = {"type": "string"}
    for _ in range(11):
        deep = {"type": "object", "properties": {"a": deep}, "required": ["a"]}
    wide = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(5_001)}}
    chosen = {"type": "object", "properties": {"a": {"enum": [f"v{n}" for n in range(1_001)]}}}
    optional = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(25)}}
    union = {"type": "object", "properties": {f"p{n}": {"type": ["string", "null"]} for n in range(17)}}
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}, "v": {"type": "string"}}}
    tree = {"type": "object", "properties": {"root": {"$ref": "#/$defs/node"}}, "$defs": {"node": node}}
    assert [make_strict(schema, OPENAI) for schema in (deep, wide, chosen)] == [None, None, None]
    assert [
        make_strict(schema, ANTHROPIC) for schema in (optional, {**union, "required": list(union["properties"])})
    ] == [None, None]  # type: ignore[call-overload]
    assert make_strict(tree, OPENAI) is not None
    assert make_strict(tree, ANTHROPIC) is None


# What the providers' pages say of a strict schema, checked on what is made.

_KNOWN = {"type", "properties", "required", "additionalProperties", "items", "anyOf", "$ref", "$defs", "title"}
_KNOWN |= {"description", "format"}


def _nodes(form: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield form
    for name in ("properties", "$defs"):
        for child in form.get(name, {}).values():
            yield from _nodes(child)
    for child in form.get("anyOf", ()):
        yield from _nodes(child)
    if "items" in form:
        yield from _nodes(form["items"])


def _require_strict(form: Mapping[str, Any], rules: StrictRules) -> None:
    jsonschema.Draft202012Validator.check_schema(form)
    for node in _nodes(form):
        assert set(node) <= _KNOWN | rules.keywords, node
        if "$ref" in node:
            assert set(node) == {"$ref"}
            continue
        assert "type" in node or "anyOf" in node, node
        if node.get("type") == "object":
            assert node["additionalProperties"] is False
            if rules.require_all:
                assert node["required"] == list(node["properties"])


# Schemas drawn at random, each with a value and what a strict answer makes of that value.

_LEAVES: list[Schema] = [
    {"type": "string", "maxLength": 3},
    {"type": "integer", "minimum": -5, "maximum": 5, "default": 1},
    {"type": "boolean"},
    {"type": ["string", "null"], "maxLength": 3},
    {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 3}, {"type": "null"}], "default": None},
    {"enum": ["a", "b"]},
    {"enum": ["a", None]},
    {"const": "k"},
    {"$ref": "#/$defs/word"},
    {"allOf": [{"$ref": "#/$defs/word"}], "description": "a word"},
    {"$ref": "#/$defs/point"},
    {"$ref": "#/$defs/tree"},
]
_DEFS: Schema = {
    "word": {"type": "string", "maxLength": 2},
    "point": {
        "type": "object",
        "properties": {"x": {"type": "integer"}, "y": {"type": ["integer", "null"]}, "z": {"type": "integer"}},
        "required": ["x"],
    },
    "tree": {
        "type": "object",
        "properties": {"leaf": {"type": "string"}, "next": {"$ref": "#/$defs/tree"}, "more": {"$ref": "#/$defs/point"}},
    },
}


def _objects(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    properties = st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3)
    return properties.flatmap(
        lambda chosen: st.lists(st.sampled_from(sorted(chosen)), unique=True).map(
            lambda required: {"type": "object", "properties": chosen, "required": required}
        )
    )


def _told_apart(objects: list[Schema], word: str) -> Schema:
    """A union whose branches are told apart by the property `kind`."""
    branches = [
        {
            **one,
            "properties": {**one["properties"], "kind": {"const": f"k{number}"}},
            "required": [*one["required"], "kind"],
        }
        for number, one in enumerate(objects)
    ]
    return {word: branches, "discriminator": {"propertyName": "kind"}}


def _both(one: Schema, other: Schema) -> Schema:
    renamed = {name.upper(): child for name, child in other["properties"].items()}
    second = {"type": "object", "properties": renamed, "required": [name.upper() for name in other["required"]]}
    return {"allOf": [one, second]}


def _grown(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    objects = _objects(inner)
    return st.one_of(
        objects,
        inner.map(lambda items: {"type": "array", "items": items, "maxItems": 2}),
        st.tuples(inner, inner).map(
            lambda two: {"type": "array", "prefixItems": list(two), "minItems": 2, "maxItems": 2, "items": False}
        ),
        st.builds(_told_apart, st.lists(objects, min_size=2, max_size=3), st.sampled_from(["oneOf", "anyOf"])),
        st.builds(_both, objects, objects),
    )


schemas = _objects(st.recursive(st.sampled_from(_LEAVES), _grown, max_leaves=5)).map(
    lambda one: {**one, "$defs": _DEFS}
)


def _null_fits(schema: Schema) -> bool:
    return bool(jsonschema.Draft202012Validator({"$defs": _DEFS, **schema}).is_valid(None))


@st.composite
def pairs(draw: st.DrawFn, schema: Schema, depth: int = 0) -> tuple[Any, Any]:
    """A value of `schema`, and the same as a strict answer says it: null where an optional property is absent."""
    if "$ref" in schema:
        return draw(pairs(_DEFS[schema["$ref"].rsplit("/", 1)[1]], depth + 1))
    if "allOf" in schema:
        found = [draw(pairs(part, depth + 1)) for part in schema["allOf"]]
        return found[0] if len(found) == 1 else ({**found[0][0], **found[1][0]}, {**found[0][1], **found[1][1]})
    for word in ("oneOf", "anyOf"):
        if word in schema:
            return draw(pairs(draw(st.sampled_from(schema[word])), depth + 1))
    if schema.get("type") == "object":
        return draw(_object_pairs(schema, depth))
    if schema.get("type") == "array":
        kinds = schema.get("prefixItems") or [schema["items"]] * draw(st.integers(0, 2))
        items = [draw(pairs(kind, depth + 1)) for kind in kinds]
        return [one for one, _ in items], [other for _, other in items]
    leaf = draw(_leaf(schema))
    return leaf, leaf


def _leaf(schema: Schema) -> st.SearchStrategy[Any]:
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    leaves: dict[str, st.SearchStrategy[Any]] = {
        "string": st.text(max_size=2),
        "integer": st.integers(0, 3),
        "boolean": st.booleans(),
        "null": st.none(),
    }
    kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    return st.one_of([leaves[kind] for kind in kinds])


@st.composite
def _object_pairs(draw: st.DrawFn, schema: Schema, depth: int) -> tuple[Schema, Schema]:
    value, strict = {}, {}
    for name, child in schema["properties"].items():
        if name in schema.get("required", ()) or (depth < 6 and draw(st.booleans())):
            value[name], strict[name] = draw(pairs(child, depth + 1))
        elif _null_fits(child):  # null says null there, so what is absent is said as null
            value[name] = strict[name] = None
        else:
            strict[name] = None
    return value, strict


slow = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much])


@slow
@given(st.data(), schemas)
def test_nulls_go_where_the_strict_form_put_them_and_nowhere_else(data: st.DataObject, schema: Schema) -> None:
    form = make_strict(schema, OPENAI)
    assert form is not None
    _require_strict(form, OPENAI)
    value, answer = data.draw(pairs(schema))
    jsonschema.validate(value, schema)
    jsonschema.validate(answer, form)
    assert strip_nulls(answer, schema) == value


@slow
@given(st.data(), schemas)
def test_what_fits_stays_as_it_is(data: st.DataObject, schema: Schema) -> None:
    value, _ = data.draw(pairs(schema))
    assert strip_nulls(value, schema) == value


@slow
@given(st.data(), schemas)
def test_what_fits_is_taken_by_every_strict_form(data: st.DataObject, schema: Schema) -> None:
    form = make_strict(schema, ANTHROPIC)
    if form is not None:
        _require_strict(form, ANTHROPIC)
        jsonschema.validate(data.draw(pairs(schema))[0], form)


# Models drawn at random.


class Colour(Enum):
    """Two words."""

    RED = "red"
    BLUE = "blue"


_FIELDS: list[tuple[Any, Any]] = [
    (int, ...),
    (int, 3),
    (str, "x"),
    (int | None, None),
    (int | None, 5),
    (Colour, Colour.RED),
    (list[int], Field(default_factory=list)),
    (Literal["a", "b"], "a"),
    (tuple[int, str], (1, "a")),
    (Annotated[str, Field(max_length=4)], "y"),
]


@st.composite
def models(draw: st.DrawFn, depth: int = 0) -> type[BaseModel]:
    """A model class; its fields are of the kinds above, of further models, of lists of them, and of unions of two."""
    fields: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from("abcd"), unique=True, min_size=1, max_size=3)):
        kind = draw(st.integers(0, 4)) if depth < 2 else 0
        if kind < 2:
            fields[name] = draw(st.sampled_from(_FIELDS))
            continue
        inner = draw(models(depth + 1))
        if kind == 2:
            fields[name] = draw(st.sampled_from([(inner, ...), (inner | None, None)]))
        elif kind == 3:
            fields[name] = draw(st.sampled_from([(list[inner], ...), (list[inner], Field(default_factory=list))]))  # type: ignore[valid-type]
        else:
            one = create_model(f"One{depth}", __base__=inner, kind=(Literal["one"], ...))
            two = create_model(f"Two{depth}", __base__=draw(models(depth + 1)), kind=(Literal["two"], ...))
            fields[name] = (Annotated[one | two, Field(discriminator="kind")], ...)  # type: ignore[valid-type]
    return create_model(f"Model{depth}{draw(st.integers(0, 99))}", **fields)


def _reply(value: Any) -> Reply:
    text = json.dumps(value)
    return Reply(text, Assistant(text), Usage(), "stop", "m", "p")


@slow
@given(st.data(), models())
def test_a_model_gets_its_defaults_back_and_keeps_its_nulls(data: st.DataObject, model: type[BaseModel]) -> None:
    schema = model.model_json_schema()
    form = make_strict(schema, OPENAI)
    assert form is not None
    _require_strict(form, OPENAI)
    _DEFS.update(schema.get("$defs", {}))
    value, answer = data.draw(pairs(schema))
    jsonschema.validate(answer, form)
    assert parse_output(_reply(answer), model) == model.model_validate(value)


# Unions that nothing but their properties tells apart, and roots.


def test_a_null_belongs_to_the_branch_whose_properties_the_answer_has() -> None:
    one = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    two = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a"]}
    schema = {"type": "object", "properties": {"it": {"anyOf": [one, two]}}}
    assert strip_nulls({"it": {"a": 1, "b": None}}, schema) == {"it": {"a": 1}}
    maps = {"type": "object", "additionalProperties": two}
    assert strip_nulls({"x": {"a": 1, "b": None}, "y": None}, maps) == {"x": {"a": 1}, "y": None}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "integer"}},
        {"type": "string"},
        {"enum": ["a", "b"]},
        {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        {"type": ["object", "null"], "properties": {"a": {"type": "string"}}, "required": ["a"]},
        {"type": "array", "items": {"$ref": "#/$defs/node"}, "$defs": {"node": {"type": "string"}}},
    ],
    ids=str,
)
def test_a_root_that_is_no_object_is_put_into_one_and_taken_out_again(schema: Schema) -> None:
    rooted = with_object_root(schema)
    form = make_strict(rooted, OPENAI)
    assert form is not None
    assert form["type"] == "object"
    _require_strict(form, OPENAI)
    for value in ([1, 2], "a", {"a": "b"}, None, ["x"]):
        if jsonschema.Draft202012Validator(schema).is_valid(value):
            jsonschema.validate({"value": value}, form)
            assert json.loads(unwrapped(json.dumps({"value": value}), schema)) == value
            assert parse_output(_reply({"value": value}), schema) == value
            assert parse_output(_reply(value), schema) == value


def test_a_root_that_refers_to_itself_is_followed_once() -> None:
    node = {
        "type": "object",
        "properties": {"v": {"type": "string"}, "next": {"$ref": "#/$defs/node"}},
        "required": ["v"],
    }
    schema = {"$ref": "#/$defs/node", "$defs": {"node": node}}
    form = make_strict(with_object_root(schema), OPENAI)
    assert form is not None
    assert form["type"] == "object"
    jsonschema.validate({"v": "a", "next": {"v": "b", "next": None}}, form)
    assert strip_nulls({"v": "a", "next": {"v": "b", "next": None}}, schema) == {"v": "a", "next": {"v": "b"}}
    itself = {"type": "object", "properties": {"v": {"type": "string"}, "next": {"$ref": "#"}}, "required": ["v"]}
    assert make_strict(itself, OPENAI) is not None
    assert strip_nulls({"v": "a", "next": {"v": "b", "next": None}}, itself) == {"v": "a", "next": {"v": "b"}}


def test_a_list_that_refers_to_itself_as_a_whole_is_wrapped_with_its_references() -> None:
    schema = {"type": "array", "items": {"anyOf": [{"type": "integer"}, {"$ref": "#"}]}}
    rooted = with_object_root(schema)
    jsonschema.validate({"value": [1, [2, [3]]]}, rooted)
    form = make_strict(rooted, OPENAI)
    assert form is not None
    jsonschema.validate({"value": [1, [2, [3]]]}, form)


def test_requirements_beside_properties_are_distributed_over_the_branches() -> None:
    place = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}
    schema = {"type": "object", "properties": {"it": {**place, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}}}
    form = make_strict(schema, OPENAI)
    assert form is not None
    _require_strict(form, OPENAI)
    jsonschema.validate({"it": {"a": "x", "b": None}}, form)
    assert strip_nulls({"it": {"a": "x", "b": None}}, schema) == {"it": {"a": "x"}}
