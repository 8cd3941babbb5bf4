"""Lists of tools that MCP servers send: what is usable of them is offered and called, and the rest is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muse import testing
from muse.agent_loop.mcp_listings import repair_listing, repair_schema
from muse.errors import ToolError
from tests.agent_run import calls, replay
from tests.raw_server import calls_in, one, stdio, tool

pytestmark = pytest.mark.usefixtures("journal")
NO_SCHEMAS: dict[str, Any] = {
    "required at a property": {"type": "object", "properties": {"q": {"type": "string", "required": True}}},
    "unknown type": {"type": "object", "properties": {"q": {"type": "any"}}},
    "another spelling": {"type": "object", "properties": {"q": {"type": "str"}}},
    "a word for a schema": {"type": "object", "properties": {"q": "string"}},
    "no type": {"properties": {"q": {}}},
    "empty": {},
    "null": None,
    "a list": [],
    "true": True,
    "a text": "object",
    "a string at the root": {"type": "string"},
    "null properties": {"type": "object", "properties": None},
    "required is a text": {"type": "object", "properties": {}, "required": "q"},
    "no such reference": {"type": "object", "properties": {"q": {"$ref": "#/definitions/Q"}}},
    "refers elsewhere": {"type": "object", "properties": {"q": {"$ref": "http://127.0.0.1:9/q.json"}}},
    "draft 4 bounds": {"type": "object", "properties": {"n": {"minimum": 0, "exclusiveMinimum": True}}},
    "items of a tuple": {"type": "object", "properties": {"q": {"items": [{"type": "string"}]}}},
    "a foreign pattern": {"type": "object", "properties": {"q": {"type": "string", "pattern": r"\p{L}+("}}},
    "empty enum": {"type": "object", "properties": {"q": {"enum": []}}},
}


def _listing(schema: Any) -> dict[str, Any]:
    return one({"name": "find", "description": "d", "inputSchema": schema}, tool("now"))


@pytest.mark.parametrize("schema", NO_SCHEMAS.values(), ids=NO_SCHEMAS)
async def test_a_tool_whose_schema_is_none_is_offered_and_called(schema: Any, tmp_path: Path) -> None:
    servers = {"a": stdio(_listing(schema), tmp_path / "seen")}
    script, run = replay(testing.calls(("find", {"q": "x"})), "Found.", mcp_servers=servers)
    with script as played:
        assert await run.answer() == "Found."
    assert [tool.name for tool in played.requests[0].tools] == ["find", "now"]
    for offered in played.requests[0].tools:
        jsonschema.Draft202012Validator.check_schema(dict(offered.schema))
        assert offered.schema["type"] == "object"
    assert run.result() == "42"
    assert [call["name"] for call in calls_in(tmp_path / "seen")] == ["find"]


ENTRIES: dict[str, Any] = {
    "no name": {"inputSchema": {"type": "object"}},
    "a number as name": tool(7),
    "no tool": "find",
    "null": None,
}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
async def test_an_entry_that_is_no_tool_costs_itself_and_is_told_once(
    entry: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    servers = {"a": stdio(one(entry, tool("now"), entry), tmp_path / "seen")}
    script, run = replay(calls("now"), "Noon.", mcp_servers=servers)
    with script:
        assert await run.answer() == "Noon."
    [info] = run.said("info")
    assert "'a'" in info["message"]
    assert "without a name" in info["message"]
    assert caplog.text.count("without a name") == 1


ODD_PARTS = {"description": 7, "annotations": {"readOnlyHint": "yes"}, "title": [], "outputSchema": {"type": "any"}}


async def test_parts_of_a_tool_that_are_of_a_wrong_kind_are_left_out(tmp_path: Path) -> None:
    servers = {"a": stdio(one({**tool("now"), **ODD_PARTS}), tmp_path / "seen")}
    script, run = replay(calls("now"), "Noon.", mcp_servers=servers)
    with script:
        assert await run.answer() == "Noon."
    assert run.result() == "42"


PAGES: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "empty cursor": (
        {"start": {"tools": [tool("first")], "nextCursor": ""}, "": {"tools": [tool("second")]}},
        ["first", "second"],
        "",
    ),
    "null cursor": ({"start": {"tools": [tool("first")], "nextCursor": None}}, ["first"], ""),
    "a number as cursor": (
        {"start": {"tools": [tool("first")], "nextCursor": 2}, "2": {"tools": [tool("second")]}},
        ["first", "second"],
        "",
    ),
    "the same cursor": (
        {"start": {"tools": [tool("first")], "nextCursor": "x"}, "x": {"tools": [tool("second")], "nextCursor": "x"}},
        ["first", "second"],
        "comes to a page again",
    ),
    "a circle": (
        {
            "start": {"tools": [tool("first")], "nextCursor": "x"},
            "x": {"tools": [], "nextCursor": "y"},
            "y": {"tools": [], "nextCursor": "x"},
        },
        ["first"],
        "comes to a page again",
    ),
    "dies on the second page": (
        {"start": {"tools": [tool("first")], "nextCursor": "x"}},
        ["first"],
        "broke off after 1",
    ),
    "one name twice": ({"start": {"tools": [tool("first"), tool("first", {"type": "object"})]}}, ["first"], ""),
    "no list": ({"start": {"tools": {"first": {}}}}, [], "not a list"),
}


@pytest.mark.parametrize(("pages", "names", "told"), PAGES.values(), ids=PAGES)
async def test_pages_are_read_to_their_end_and_not_further(
    pages: dict[str, Any], names: list[str], told: str, tmp_path: Path
) -> None:
    servers = {"a": stdio({"pages": pages}, tmp_path / "seen")}
    script, run = replay("Read.", mcp_servers=servers)
    with script as played:
        assert await run.answer() == "Read."
    assert [tool.name for tool in played.requests[0].tools] == names
    said = [event["message"] for event in run.said("info")]
    assert [told in text for text in said] == ([True] if told else [])


@pytest.mark.parametrize(
    "bare", [{"capabilities": {"resources": {}}}, {"capabilities": {"tools": {}}}, {"pages": {}}], ids=str
)
async def test_a_server_without_a_list_leaves_the_run_the_tools_of_the_others(
    bare: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    servers = {"bare": stdio(bare, tmp_path / "bare"), "good": stdio(one(tool("now")), tmp_path / "good")}
    script, run = replay(calls("now"), "Noon.", mcp_servers=servers)
    with script:
        assert await run.answer() == "Noon."
    [info] = run.said("info")
    assert "'bare'" in info["message"]
    assert caplog.text.count("'bare'") == 1
    assert run.result() == "42"


async def test_a_run_whose_only_server_has_no_tools_goes_on_without(tmp_path: Path) -> None:
    script, run = replay("Fine.", mcp_servers={"bare": stdio({"capabilities": {}}, tmp_path / "seen")})
    with script:
        assert await run.answer() == "Fine."
    assert "offers no tools" in run.said("info")[0]["message"]


async def test_a_run_whose_only_server_dies_while_it_lists_ends_with_its_name(tmp_path: Path) -> None:
    script, run = replay(mcp_servers={"dying": stdio({"pages": {}}, tmp_path / "seen")})
    with script:
        await run.fail(ToolError, "'dying'")


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=4) | st.just("object") | st.just("string"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "properties", "required", "items", "anyOf", "enum", "pattern", "$ref", "minLength", "a"]
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=25,
)


@given(_json)
def test_whatever_is_sent_as_a_schema_becomes_one_of_an_object(schema: Any) -> None:
    mended = repair_schema(schema)
    jsonschema.Draft202012Validator.check_schema(mended)
    assert mended["type"] == "object"
    assert repair_schema(mended) == mended


@given(_json)
def test_a_good_schema_stays_as_it_is(extra: Any) -> None:
    good = {
        "type": "object",
        "properties": {"q": {"type": ["string", "null"], "default": extra, "examples": [extra]}, "n": True},
        "required": ["q"],
        "additionalProperties": False,
    }
    assert repair_schema(good) == good


@given(st.dictionaries(st.sampled_from(["tools", "nextCursor", "_meta"]), _json | st.lists(_json, max_size=3)))
def test_whatever_is_sent_as_a_list_becomes_one(result: dict[str, Any]) -> None:
    told: list[str] = []
    repair_listing(result, told.append)
    json.dumps(result)
    assert all(isinstance(tool["name"], str) and isinstance(tool["inputSchema"], dict) for tool in result["tools"])
    assert isinstance(result.get("nextCursor", ""), str)
