"""Values checked against a JSON Schema: what does not fit, and what is no schema, is told by its place."""

from __future__ import annotations

from typing import Any

import pytest

from muse.types.json_schema.validation import strip_nulls, validate

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


@pytest.mark.parametrize("schema", [None, True, "x", [], {"properties": 7}], ids=repr)
def test_nulls_stay_where_no_schema_speaks_of_them(schema: Any) -> None:
    assert strip_nulls({"a": None}, schema) == {"a": None}


def test_a_value_that_does_not_fit_is_refused_by_its_place() -> None:
    with pytest.raises(ValueError, match=r"\$\.sails\[0\]\.area: 'big' is not of type 'number'"):
        validate({"name": "Tern", "sails": [{"area": "big"}]}, BOAT)


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
        validate({}, schema)
