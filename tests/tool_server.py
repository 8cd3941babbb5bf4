"""A real MCP server over Streamable HTTP on loopback, with tools for tests; it knows no agent and no model.

As a process, for tests that kill it: `python -m tests.tool_server PORT` (0 takes a free one) prints its address, then
the name of each tool that is called, and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Mapping
from typing import Any, Self

import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context, Image
from mcp.server.mcpserver.exceptions import ToolError

DAYS = ["20261102", "20261103", "20261104"]


class ToolServer:
    """The server, in a thread, while it lasts as a context manager.

    Attributes:
        headers: the headers of each tool call, in lower case.
        metadata: the request metadata of each tool call.
        called: the names of the tools called, in order of arrival.
    """

    def __init__(self, port: int = 0) -> None:
        self.headers: list[Mapping[str, str]] = []
        self.metadata: list[Mapping[str, Any]] = []
        self.called: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", port))
        app = _journal_tools(self).streamable_http_app()
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none", lifespan="on"))
        self._thread = threading.Thread(target=self._serve, name="tool-server", daemon=True)

    @property
    def url(self) -> str:
        """The address for a run's config."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}/mcp"

    def forget(self) -> None:
        """Forget what was called."""
        self.headers.clear()
        self.metadata.clear()
        self.called.clear()

    def note(self, name: str, context: Context) -> None:
        """Remember one call."""
        self.called.append(name)
        self.headers.append({key.lower(): value for key, value in (context.headers or {}).items()})
        self.metadata.append(dict(context.request_context.meta or {}))

    def _serve(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._socket]))

    def __enter__(self) -> Self:
        """Start: the socket listens already, so that a client may come at once."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._server.should_exit = True
        self._thread.join()


def _journal_tools(server: ToolServer) -> MCPServer:
    """The tools that the wire fixtures call, and some that fail, wait or show pictures."""
    tools = MCPServer("journal", log_level="CRITICAL")
    both_are_here = asyncio.Barrier(2)

    @tools.tool()
    async def search_journal(query: str, ctx: Context) -> str:
        """Search the journal."""
        server.note("search_journal", ctx)
        return f"2 hits for {query!r}"

    @tools.tool()
    async def list_days(limit: int, ctx: Context) -> list[str]:
        """List the days that have notes."""
        server.note("list_days", ctx)
        return DAYS[:limit]

    @tools.tool()
    async def fail(ctx: Context) -> str:
        """Fail."""
        server.note("fail", ctx)
        raise ToolError("the shelf is empty")

    @tools.tool()
    async def meet(ctx: Context) -> str:
        """Wait until it is called a second time."""
        server.note("meet", ctx)
        await both_are_here.wait()
        return "met"

    @tools.tool()
    async def wait(ctx: Context) -> str:
        """Wait for ever."""
        server.note("wait", ctx)
        await asyncio.Event().wait()
        return "never"

    @tools.tool(structured_output=False)
    async def picture(ctx: Context) -> Any:
        """Show a picture."""
        server.note("picture", ctx)
        return Image(data=b"\x89PNG\r\n\x1a\n0000", format="png")

    return tools


class _Talking(ToolServer):
    """A server that says on standard output what is called."""

    def note(self, name: str, context: Context) -> None:
        super().note(name, context)
        self.say(name)

    def say(self, line: str) -> None:
        """Print a line at once."""
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    with _Talking(int(sys.argv[1])) as _server:
        _server.say(_server.url)
        sys.stdin.read()
