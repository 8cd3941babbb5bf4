"""The MCP tools an agent may use: listing, calling, and the allow-list where the call is made; it knows no model."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from typing import Any, Protocol

from muse.errors import ToolError
from muse.messages import Image, Part, Tool, ToolCall, ToolResult

_MISSING_URL = "MCP server URL not provided"


class Session(Protocol):
    """What is needed of an MCP client session."""

    async def list_tools(self, *, cursor: str | None = None) -> Any:
        """One page of the server's tools."""

    async def call_tool(self, name: str, arguments: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        """Call a tool; the result has `content`, `structured_content` and `is_error`."""


class Toolbox:
    """The tools of one session that `allowed` lets through: None all of them, `[]` none, else names and globs."""

    def __init__(self, session: Session | None, allowed: Collection[str] | None, metadata: Mapping[str, Any]) -> None:
        self._session = session
        self._allowed = allowed
        self._metadata = dict(metadata)
        self.tools: tuple[Tool, ...] = ()

    async def load(self) -> None:
        """List the server's tools, page by page."""
        if self._session is None:
            return
        listed: list[Tool] = []
        cursor: str | None = None
        while True:
            page = await self._session.list_tools(cursor=cursor)
            for tool in page.tools:
                if self.is_allowed(tool.name):
                    listed.append(Tool(tool.name, tool.description or "", tool.input_schema))
            cursor = page.next_cursor
            if not cursor:
                break
        self.tools = tuple(listed)

    def is_allowed(self, name: str) -> bool:
        """Whether the allow-list lets a tool through."""
        return self._allowed is None or any(fnmatchcase(name, pattern) for pattern in self._allowed)

    async def call(self, call: ToolCall) -> tuple[ToolResult, Any]:
        """Call a tool: `(result for the model, result for the event)`.

        Raises:
            ToolError: the tool is not offered, its arguments are no JSON object, or it failed; the text is for the model.
        """
        if self._session is None or call.name not in {tool.name for tool in self.tools}:
            offered = ", ".join(tool.name for tool in self.tools) or "none"
            raise ToolError(f"tool {call.name!r} is not offered in this run; offered are: {offered}")
        if "_invalid" in call.args:
            raise ToolError(f"the arguments of {call.name} are not a JSON object: {str(call.args['_invalid'])[:200]}")
        answer = await self._session.call_tool(call.name, dict(call.args), meta=self._metadata or None)
        parts = tuple(_part(block) for block in answer.content)
        if answer.is_error:
            raise ToolError(
                "\n".join(part for part in parts if isinstance(part, str)) or "the tool failed without a reason"
            )
        if answer.structured_content is not None and not parts:
            parts = (json.dumps(answer.structured_content, ensure_ascii=False),)
        return ToolResult(call.call_id, call.name, parts or ("(no output)",)), _event_result(parts)


def _part(block: Any) -> Part:
    """One content block of a tool's answer."""
    match block.type:
        case "text":
            return str(block.text)
        case "image":
            return Image(base64.b64decode(block.data), block.mime_type)
    return json.dumps(block.model_dump(mode="json", exclude_none=True), ensure_ascii=False)


def _event_result(parts: tuple[Part, ...]) -> Any:
    """A result as events carry it: one text as a string, several as a list; a picture by its media type and size."""
    shown = [part if isinstance(part, str) else f"[{part.media_type}, {len(part.data)} bytes]" for part in parts]
    return shown[0] if len(shown) == 1 else shown


def require_url(url: str | None) -> str:
    """`url` itself.

    Raises:
        RuntimeError: it is missing or blank.
    """
    if not url or not url.strip():
        raise RuntimeError(_MISSING_URL)
    return url


@asynccontextmanager
async def open_client(url: str | None, headers: Mapping[str, str] | None = None) -> AsyncIterator[Any]:
    """An MCP client connected to the server at `url`; its `.session` has `list_tools` and `call_tool`.

    Raises:
        RuntimeError: `url` is missing or blank.
    """
    address = require_url(url)
    from mcp import Client  # 0.4 s, and only who uses tools pays it
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared._httpx_utils import create_mcp_http_client

    async with create_mcp_http_client(headers=dict(headers or {})) as http_client:
        async with Client(streamable_http_client(address, http_client=http_client)) as client:
            yield client


@asynccontextmanager
async def open_toolbox(
    url: str | None, *, disabled: bool, allowed: Collection[str] | None, agent_id: str | None, persona: str
) -> AsyncIterator[Toolbox]:
    """The toolbox of one agent run; an empty one if tools are switched off.

    `agent_id` and `persona` reach the server as request metadata and as headers `X-Agent-Id`, `X-Agent-Persona`.

    Raises:
        RuntimeError: tools are wanted and `url` is missing.
    """
    identity = {"agent_id": agent_id, "persona": persona}
    if disabled or (allowed is not None and not allowed):
        yield Toolbox(None, (), {})
        return
    if not url:
        raise RuntimeError(f"{_MISSING_URL} in config")
    headers = {"X-Agent-Id": agent_id or "", "X-Agent-Persona": persona}
    async with open_client(url, {name: value for name, value in headers.items() if value}) as client:
        box = Toolbox(client.session, allowed, {name: value for name, value in identity.items() if value})
        await box.load()
        yield box
