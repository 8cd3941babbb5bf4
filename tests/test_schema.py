"""JSON Schema as providers want it: closed where it can be, never looser than before, and nulls taken out again."""

from __future__ import annotations

import copy
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muse.schema import close_objects, drop_nulls, require_fit

BOAT = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "sails": {"type": "array", "items": {"type": "object", "properties": {"area": {"type": "number"}}}},
        "home": {"$ref": "#/$defs/port"},
    },
    "required": ["name"],
    "$defs": {"port": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}},
}

leaves: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{"type": "string"}, {"type": "integer"}, {"type": "boolean"}, {"type": ["string", "null"]}]
)


def _objects(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    properties = st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3)
    return properties.flatmap(
        lambda chosen: st.lists(st.sampled_from(sorted(chosen)), unique=True).map(
            lambda required: {"type": "object", "properties": chosen, "required": required}
        )
    )


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


schemas = _objects(st.recursive(leaves, lambda inner: _objects(inner) | inner.map(_array), max_leaves=5))


@st.composite
def instances(draw: st.DrawFn, schema: dict[str, Any], *, strict: bool) -> Any:
    """A value of `schema`; a `strict` one has null where an optional property is absent."""
    match schema["type"]:
        case "object":
            value = {}
            for name, child in schema["properties"].items():
                if name in schema["required"] or draw(st.booleans()):
                    value[name] = draw(instances(child, strict=strict))
                elif strict:
                    value[name] = None
            return value
        case "array":
            return draw(st.lists(instances(schema["items"], strict=strict), max_size=2))
        case "string":
            return draw(st.text(max_size=3))
        case "integer":
            return draw(st.integers(-5, 5))
        case "boolean":
            return draw(st.booleans())
        case _:
            return draw(st.none() | st.text(max_size=3))


def test_every_object_is_closed_and_the_given_schema_is_left_alone() -> None:
    before = copy.deepcopy(BOAT)
    closed = close_objects(BOAT, require_all=False)
    assert before == BOAT
    assert closed is not None
    assert closed["additionalProperties"] is False
    assert closed["required"] == ["name"]
    assert closed["properties"]["sails"]["items"]["additionalProperties"] is False
    assert closed["$defs"]["port"]["additionalProperties"] is False


def test_all_properties_are_required_and_the_optional_ones_may_be_null() -> None:
    closed = close_objects(BOAT, require_all=True)
    assert closed is not None
    assert closed["required"] == ["name", "sails", "home"]
    assert closed["properties"]["name"] == {"type": "string", "minLength": 1}
    assert closed["properties"]["home"] == {"anyOf": [{"$ref": "#/$defs/port"}, {"type": "null"}]}


def test_keywords_that_a_provider_does_not_take_are_left_out_at_every_depth() -> None:
    closed = close_objects(BOAT, require_all=False, without={"minLength", "$defs"})
    assert closed is not None
    assert "$defs" not in closed
    assert closed["properties"]["name"] == {"type": "string"}


OPEN = [
    {"type": "object"},
    {"type": "object", "properties": {}},
    {"type": "object", "properties": {"a": {}}, "additionalProperties": True},
    {"type": "object", "properties": {"a": {}}, "additionalProperties": {"type": "string"}},
    {"type": "object", "properties": {"a": {"type": "object"}}},
    {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "object"}]}},
    {"properties": {"a": {}}, "$defs": {"b": {"type": "object"}}},
]


@pytest.mark.parametrize("schema", OPEN, ids=str)
def test_an_object_that_is_meant_to_be_open_cannot_be_closed(schema: dict[str, Any]) -> None:
    assert close_objects(schema, require_all=False) is None


@pytest.mark.parametrize("schema", [True, {}, {"type": "string"}, {"properties": {"a": True}}], ids=str)
def test_schemas_without_objects_or_with_true_in_place_of_one_are_taken(schema: Any) -> None:
    closed = close_objects(schema if isinstance(schema, dict) else {"items": schema}, require_all=True)
    assert closed is not None
    jsonschema.Draft202012Validator.check_schema(closed)


@given(st.data(), schemas)
def test_a_strict_answer_without_its_nulls_fits_the_schema_that_was_asked_for(
    data: st.DataObject, schema: dict[str, Any]
) -> None:
    strict = close_objects(schema, require_all=True)
    assert strict is not None
    answer = data.draw(instances(schema, strict=True))
    jsonschema.validate(answer, strict)
    jsonschema.validate(drop_nulls(answer, schema), schema)


@given(st.data(), schemas)
def test_what_fits_stays_as_it_is(data: st.DataObject, schema: dict[str, Any]) -> None:
    value = data.draw(instances(schema, strict=False))
    require_fit(value, schema)
    assert drop_nulls(value, schema) == value


@pytest.mark.parametrize("schema", [None, True, "x", [], {"properties": 7}], ids=repr)
def test_nulls_stay_where_no_schema_speaks_of_them(schema: Any) -> None:
    assert drop_nulls({"a": None}, schema) == {"a": None}


def test_a_value_that_does_not_fit_is_refused_by_its_place() -> None:
    with pytest.raises(ValueError, match=r"\$\.sails\[0\]\.area: 'big' is not of type 'number'"):
        require_fit({"name": "Tern", "sails": [{"area": "big"}]}, BOAT)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "bread"}, "the schema itself is not one"),
        ({"$ref": "#/$defs/nowhere"}, "refers to .*nowhere"),
        ({"$ref": "http://127.0.0.1:9/schema.json"}, "refers to 'http://127.0.0.1:9/schema.json'"),
        ({"$ref": "#"}, "without an end"),
    ],
    ids=str,
)
def test_a_schema_that_is_none_is_refused_and_nothing_is_fetched(
    monkeypatch: pytest.MonkeyPatch, schema: dict[str, Any], text: str
) -> None:
    monkeypatch.setattr("urllib.request.urlopen", lambda *_: pytest.fail("fetched"))
    with pytest.raises(ValueError, match=text):
        require_fit({}, schema)
