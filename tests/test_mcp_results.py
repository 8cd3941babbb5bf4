"""Results of tools on MCP servers that leave the protocol: the tool has run, and the model is told what it said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import CallToolResult

from muse.agent_loop.tool_results import repair_result
from tests.agent_run import calls, replay
from tests.raw_server import calls_in, one, stdio, tool

TEXT = {"type": "text", "text": "42"}
RESULTS: dict[str, tuple[dict[str, Any], str]] = {
    "structured content alone": ({"structuredContent": {"a": 42}}, '{"a": 42}'),
    "structured content that is a list": ({"structuredContent": [42]}, "[42]"),
    "structured content beside null": ({"content": None, "structuredContent": {"a": 42}}, '{"a": 42}'),
    "text in place of a list": ({"content": "42"}, "42"),
    "one part in place of a list": ({"content": TEXT}, "42"),
    "text in place of a part": ({"content": ["42"]}, "42"),
    "a part of an unknown kind": (
        {"content": [TEXT, {"type": "hologram", "x": 1}]},
        str(["42", '{"type": "hologram", "x": 1}']),
    ),
    "a text that is null": ({"content": [{"type": "text", "text": None}, TEXT]}, "42"),
    "the form of 2024": ({"toolResult": {"a": 42}}, '{"a": 42}'),
    "an error that is null": ({"content": [TEXT], "isError": None}, "42"),
    "annotations that are none": ({"content": [{**TEXT, "annotations": "x"}]}, "42"),
    "nothing": ({}, "[]"),
}


@pytest.mark.usefixtures("journal")
@pytest.mark.parametrize(("result", "told"), RESULTS.values(), ids=RESULTS)
async def test_what_a_tool_said_reaches_the_model(result: dict[str, Any], told: str, tmp_path: Path) -> None:
    servers = {"a": stdio({**one(tool("find")), "call": {"result": result}}, tmp_path / "seen")}
    script, run = replay(calls("find"), "Told.", mcp_servers=servers)
    with script:
        assert await run.answer() == "Told."
    assert len(calls_in(tmp_path / "seen")) == 1
    assert str(run.result()) == told


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda v: st.lists(v) | st.dictionaries(st.text(), v),
    max_leaves=5,
)
parts = values | st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image", "audio", "resource", "resource_link", "x"])},
    optional=dict.fromkeys(("text", "data", "mimeType", "uri", "name", "resource", "annotations"), values),
)


@given(
    st.fixed_dictionaries(
        {}, optional={"content": values | st.lists(parts), "structuredContent": values, "isError": values}
    )
)
def test_every_repaired_result_is_one_of_the_protocol(result: dict[str, Any]) -> None:
    repair_result(result)
    assert CallToolResult.model_validate(result, by_name=False).content is not None
