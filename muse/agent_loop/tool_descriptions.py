"""What a model gets to read of a tool that stands in this process, had from its function alone; it knows no MCP.

The MCP server lists the same: `muse.mcp` takes names, descriptions and schemas from here. So an agent can offer its own
tools before that server, whose package takes 0.4 s to import, is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from pydantic import TypeAdapter

from muse.agent_loop.tool_registry import LocalTool, ToolModule
from muse.types.messages import Tool


def describe_tools(packs: Sequence[ToolModule]) -> tuple[Tool, ...]:
    """The tools of the given packs, in their order."""
    return tuple(describe_tool(tool) for pack in packs for tool in pack.tools)


def describe_tool(tool: LocalTool) -> Tool:
    """A tool as it is offered: its function's name, docstring, and arguments as a JSON schema that takes no others.

    Raises:
        pydantic.errors.PydanticUserError: an argument's type has no JSON schema.
    """
    arguments: TypeAdapter[Any] = TypeAdapter(cast("Any", tool.function))
    return Tool(tool.name, tool.description, arguments.json_schema(), tool.read_only)
