"""Shows that a run offers its own tools without their server, and offers just what that server lists and checks."""

from __future__ import annotations

import asyncio
from typing import Any

from mcp import Client

from muse.agent_loop.mcp_client import LocalServer, McpConnection, ToolServer
from muse.agent_loop.tool_descriptions import describe_tools
from muse.agent_loop.tool_registry import find_tool_modules
from muse.agents import builtin_tools
from muse.mcp import build_server
from tests.journal_folder import JournalFolder, run
from tests.loopback.server import LoopbackServer


async def _listed() -> list[Any]:
    async with Client(build_server()) as client:
        return list((await client.list_tools()).tools)


def test_what_is_offered_is_what_the_server_lists() -> None:
    listed = [
        (tool.name, tool.description, tool.input_schema, tool.annotations.read_only_hint)
        for tool in asyncio.run(_listed())
    ]
    assert [
        (tool.name, tool.description, tool.schema, tool.read_only) for tool in describe_tools(find_tool_modules())
    ] == listed
    assert len(listed) >= 8


def test_what_is_offered_is_what_the_server_checks_arguments_by() -> None:
    tools = build_server()._tool_manager.list_tools()
    checked = {tool.name: tool.fn_metadata.arg_model.model_json_schema(by_alias=True) for tool in tools}
    named = {name: {**schema, "additionalProperties": False} for name, schema in checked.items()}
    for tool in describe_tools(find_tool_modules()):
        assert {**tool.schema, "title": f"{tool.name}Arguments"} == named[tool.name]


def test_the_server_is_made_by_the_first_call_and_once(journal: JournalFolder) -> None:
    own = builtin_tools()["journal"]
    assert isinstance(own, LocalServer)
    made: list[Any] = []

    def make() -> Any:
        made.append(own.make())
        return made[-1]

    async def call_twice() -> tuple[int, list[Any]]:
        link = McpConnection(ToolServer("journal", hosted=LocalServer(own.tools, make)), {})
        await link.open(5)
        assert await link.list_tools() == list(own.tools)
        before = len(made)
        answers = await asyncio.gather(*(link.call("list_days", {}, None) for _ in range(2)))
        await link.close()
        return before, [answer.structured_content["total"] for answer in answers]

    before, totals = asyncio.run(call_twice())
    assert before == 0
    assert len(made) == 1
    assert totals == [0, 0]


_RUN = """
import asyncio, sys
from muse import agents
kinds = []
request = {"prompt": "When does the tide turn?", "provider": "openai"}
assert asyncio.run(agents.run(request, lambda event: kinds.append(event["event"]), hosted=agents.builtin_tools))
print(*kinds, "mcp" in sys.modules)
"""


def test_a_run_that_calls_no_tool_does_not_load_the_mcp_package(journal: JournalFolder) -> None:
    with LoopbackServer() as server:
        said = run(_RUN, OPENAI_API_KEY="key", OPENAI_BASE_URL=f"{server.url}/v1", JOURNAL_PATH=str(journal.path))
        offered = [tool["name"] for tool in server.requests[0].body["tools"]]
    assert said.split() == ["start", "finish", "False"]
    assert offered == [tool.name for tool in describe_tools(find_tool_modules())]
