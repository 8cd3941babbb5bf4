"""What every provider refuses is not sent: empty texts, odd tool names, unions on top of a schema, too many tools."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muse.providers import backend_of
from muse.providers._backend.backend import ProviderBackend
from muse.providers._backend.fitting import NO_OUTPUT, ToolRules, fit_request, wire_name, with_own_names
from muse.providers._backend.provider import Payload, Provider
from muse.types.json_schema.tool_parameters import simplify_tool_schema
from muse.types.messages import Assistant, Image, Reply, Request, Tool, ToolCall, ToolResult, ToolResults, Turn, User
from muse.types.usage import Usage

PROVIDERS = ("openai", "anthropic", "google", "openrouter", "ollama", "local")
every_provider = pytest.mark.parametrize("name", PROVIDERS)
CALL = ToolCall("c1", "look", {})
NATIVE: Mapping[str, Any] = {
    "anthropic": [{"type": "text", "text": "\n"}, {"type": "tool_use", "id": "c1", "name": "look", "input": {}}],
    "google": {"role": "model", "parts": [{"text": ""}, {"functionCall": {"name": "look", "args": {}}}]},
    "openrouter": {"role": "assistant", "content": [{"type": "text", "text": ""}], "tool_calls": [{"id": "c1"}]},
}


def _provider(name: str) -> Provider:
    backend = backend_of(name)
    assert isinstance(backend, ProviderBackend)
    return backend.provider


def _payload(name: str, *turns: Turn, **options: Any) -> Payload:
    return _provider(name).encode_fitted(Request("m", turns, **options)).payload


def _texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text that a payload says to the model, with its place."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts(inner, f"{path}[{index}]")
    elif isinstance(value, str) and re.search(
        r"\.(text|content|system|instructions|output|result|error)(\[\d+\])?$", path
    ):
        yield path, value


def _said(payload: Payload) -> list[tuple[str, str]]:
    return [*_texts(payload)]


EMPTY_TURNS: list[tuple[Turn, ...]] = [
    (User(("", "hello", "")),),
    (User((Image(b"\x89PNG\r\n\x1a\n", "image/png"), "")),),
    (User(("hello",)), Assistant(""), User(("again",))),
    (User(("hello",)), Assistant("", (CALL,)), ToolResults((ToolResult("c1", "look", ()),))),
    (User(("hello",)), Assistant("", (CALL,)), ToolResults((ToolResult("c1", "look", ("",)),))),
    (User(("hello",)), Assistant("", (CALL,)), ToolResults((ToolResult("c1", "look", ("", "42", "")),))),
    (User(("hello",)), Assistant("", (CALL,)), ToolResults((ToolResult("c1", "look", ("",), failed=True),))),
]


@pytest.mark.parametrize("turns", EMPTY_TURNS, ids=[str(number) for number in range(len(EMPTY_TURNS))])
@every_provider
def test_no_empty_text_is_sent(name: str, turns: tuple[Turn, ...]) -> None:
    if name == "local" and any(isinstance(part, Image) for part in getattr(turns[0], "parts", ())):
        return  # it reads no pictures
    said = _said(_payload(name, *turns, system=""))
    assert [place for place, text in said if not text] == []


@pytest.mark.parametrize("blank", [" ", "\n\n", "\t"])
def test_texts_of_white_space_are_not_sent_to_anthropic(blank: str) -> None:
    told = ToolResult("c1", "look", (blank,))
    turns = (
        User((blank, "hello")),
        Assistant(blank, (CALL,)),
        ToolResults((told,)),
        Assistant(blank),
        User(("go on",)),
    )
    said = _said(_payload("anthropic", *turns, system=blank))
    assert [text for _, text in said if not text.strip()] == []
    assert (NO_OUTPUT) in [text for _, text in said]


@pytest.mark.parametrize("name", NATIVE)
def test_a_models_own_empty_text_is_not_replayed(name: str) -> None:
    turn = Assistant("", (CALL,), native=NATIVE[name], provider=name)
    payload = _payload(name, User(("hello",)), turn, ToolResults((ToolResult("c1", "look", ("42",)),)))
    assert [text for _, text in _said(payload) if not text.strip()] == []
    assert json.dumps(payload).count("c1") + json.dumps(payload).count("functionCall") >= 1


def test_a_signature_of_gemini_is_replayed_although_its_text_is_empty() -> None:
    native = {"role": "model", "parts": [{"text": "hi"}, {"text": "", "thoughtSignature": "s"}]}
    payload = _payload("google", User(("hello",)), Assistant("hi", native=native, provider="google"), User(("go on",)))
    assert payload["body"]["contents"][1] == native


def test_a_request_with_nothing_to_fit_is_the_same_one() -> None:
    request = Request("m", (User(("hello",)), Assistant("hi"), User(("go on",))), "be short")
    assert fit_request(request, ToolRules(), blanks=False)[0] is request


# Tools

ODD_NAMES = [
    "a" * 65,
    "a" * 64 + "b",
    "a" * 64 + "c",
    "server.tool",
    "server/tool",
    "wörter",
    "9lives",
    "",
    "a b",
    "_x",
    "-y",
]


def _tools(payload: Payload) -> list[dict[str, Any]]:
    """The tools of a payload as name, schema and description, whatever the wire form."""
    found = payload.get("body", payload).get("tools", [])
    flat = found[0]["functionDeclarations"] if found and "functionDeclarations" in found[0] else found
    rows = [one.get("function", one) for one in flat]
    keys = ("parameters", "input_schema", "parametersJsonSchema")
    return [{"name": row["name"], "schema": next(row[key] for key in keys if key in row)} for row in rows]


def _tool(name: str, schema: Any = None) -> Tool:
    return Tool(name, "d", {"type": "object", "properties": {}} if schema is None else schema)


@pytest.mark.parametrize("name", PROVIDERS[:5])
def test_names_are_ones_that_the_provider_takes_and_calls_come_back_under_their_own(name: str) -> None:
    provider = _provider(name)
    tools = tuple(map(_tool, ODD_NAMES))
    calls = tuple(ToolCall(f"c{n}", tool.name, {}) for n, tool in enumerate(tools))
    results = ToolResults(tuple(ToolResult(call.call_id, call.name, ("42",)) for call in calls))
    request = Request("m", (User(("go",)), Assistant("", calls), results), tools=tools)
    payload = provider.encode_fitted(request).payload
    sent = [row["name"] for row in _tools(payload)]
    assert len(set(sent)) == len(ODD_NAMES)
    assert all(
        re.fullmatch("[A-Za-z_][A-Za-z0-9_-]{0,63}" if name == "google" else "[A-Za-z0-9_-]{1,64}", one) for one in sent
    )
    text = json.dumps(payload)
    assert all(text.count(f'"{one}"') >= 2 for one in sent), "calls and tools have one name"
    answered = Reply("", Assistant("", tuple(ToolCall("x", one, {}) for one in sent)), Usage(), "tools", "m", name)
    own = with_own_names(answered, tools, provider.tool_rules)
    assert [call.name for call in own.turn.calls] == ODD_NAMES


def test_a_name_that_is_taken_stays_and_the_rest_depend_on_nothing_but_themselves() -> None:
    rules = ToolRules()
    assert wire_name("search_journal", rules) == "search_journal"
    assert wire_name("server.tool", rules).startswith("server_tool_")
    assert len({wire_name(f"{'a' * 80}{n}", rules) for n in range(500)}) == 500


@pytest.mark.parametrize("name", ["openai", "openrouter"])
def test_of_too_many_tools_the_first_are_sent_with_those_that_were_called(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    tools = tuple(_tool(f"{name}_{n}") for n in range(150))
    called = ToolCall("c1", f"{name}_140", {})
    turns = (User(("go",)), Assistant("", (called,)), ToolResults((ToolResult("c1", called.name, ("42",)),)))
    with caplog.at_level(logging.WARNING):
        encoded = [_provider(name).encode_fitted(Request("m", turns, tools=tools)) for _ in range(2)]
    sent = [row["name"] for row in _tools(encoded[0].payload)]
    assert sent == [f"{name}_{n}" for n in (*range(127), 140)]
    assert encoded[0].dropped == (f"tools beyond 128: {', '.join(f'{name}_{n}' for n in range(127, 132))} and 17 more",)
    assert len(caplog.records) == 1
    assert "at most 128 tools" in caplog.text


ODD_SCHEMAS: list[Any] = [
    {},
    True,
    {"properties": {"a": {"type": "string"}}},
    {"type": "object", "anyOf": [{"required": ["a"]}, {"required": ["b"]}], "properties": {"a": {}, "b": {}}},
    {"oneOf": [{"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}, {"type": "null"}]},
    {
        "allOf": [
            {"properties": {"a": {"type": "string"}}, "required": ["a"]},
            {"properties": {"b": {"type": "integer"}}},
        ]
    },
    {"$ref": "#/$defs/A", "$defs": {"A": {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}}}},
    {"type": "object", "properties": {"a": {"type": "array"}}},
    {"type": "object", "properties": {"a": {"type": "array", "items": [{"type": "string"}]}}},
    {"type": "object", "properties": {"a": {"type": "number", "minimum": 1, "exclusiveMinimum": True}}},
    {"type": "object", "properties": {"a": {"type": "string", "required": True}}},
    {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}},
    {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "enum": [{"a": 1}]},
    {"type": "string"},
]


@pytest.mark.parametrize("schema", ODD_SCHEMAS, ids=str)
@pytest.mark.parametrize("name", PROVIDERS[:5])
def test_a_tools_schema_is_an_object_without_unions_on_top(name: str, schema: Any) -> None:
    (row,) = _tools(_payload(name, User(("go",)), tools=(_tool("find", schema),)))
    sent = row["schema"]
    assert sent["type"] == "object"
    assert isinstance(sent["properties"], Mapping)
    assert not {"anyOf", "oneOf", "allOf", "not", "enum", "$ref"} & set(sent)
    jsonschema.Draft202012Validator.check_schema(sent)
    if name == "google":
        assert "$ref" not in json.dumps(sent)
        assert "$defs" not in sent


def test_the_properties_of_all_branches_are_offered_and_what_each_requires_is_required() -> None:
    by_id = {
        "type": "object",
        "properties": {"id": {"type": "integer"}, "x": {"type": "string"}},
        "required": ["id", "x"],
    }
    by_name = {"type": "object", "properties": {"id": {"type": "string"}, "x": {"type": "string"}}, "required": ["x"]}
    sent = simplify_tool_schema({"oneOf": [by_id, {"$ref": "#/$defs/n"}], "$defs": {"n": by_name}})
    assert sent["properties"] == {
        "id": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        "x": {"type": "string"},
    }
    assert sent["required"] == ["x"]


leaves = st.sampled_from([{"type": "string"}, {"type": "integer"}, {"enum": ["a", 1]}, {"type": ["string", "null"]}])
objects = st.dictionaries(st.sampled_from("abc"), leaves, min_size=1).flatmap(
    lambda properties: st.lists(st.sampled_from(sorted(properties)), unique=True).map(
        lambda required: {"type": "object", "properties": properties, "required": required}
    )
)
unions = st.builds(
    lambda word, branches: {word: [{**branch, "additionalProperties": False} for branch in branches]},
    st.sampled_from(["anyOf", "oneOf"]),
    st.lists(objects, min_size=1, max_size=3),
)
joined = st.builds(lambda branches, beside: {**beside, "allOf": branches}, st.lists(objects, min_size=1), objects)
values = st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["x", "a", 1, 7, None]))
GOOGLE = frozenset({"minItems", "maxItems", "additionalProperties"})


@given(unions | joined | objects, values, st.sampled_from([None, GOOGLE]))
def test_arguments_that_the_tool_takes_are_taken_on_the_wire(
    schema: dict[str, Any], value: dict[str, Any], keywords: frozenset[str] | None
) -> None:
    if jsonschema.Draft202012Validator(schema).is_valid(value):
        jsonschema.validate(value, simplify_tool_schema(schema, keywords))
