"""Connections to MCP servers, over HTTP, as a child process or in memory; it knows no model and no allow-list."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from msgspec import Struct

from muse.errors import ConfigError, ToolError
from muse.messages import Tool

log = logging.getLogger(__name__)

_MISSING_URL = "MCP server URL not provided"
# Where the SDK says that the other side is gone, by class name: its own error types are known once it is imported.
_LOST = frozenset(
    {
        "ClosedResourceError",
        "BrokenResourceError",
        "EndOfStream",
        "ConnectError",
        "ReadError",
        "WriteError",
        "RemoteProtocolError",
    }
)
_UNKNOWN_SESSION = -32600
_LOST_CODES = frozenset({-32000, _UNKNOWN_SESSION})


class LocalServer(Struct, frozen=True):
    """A server of this process that is made when it is first called; the tools that it lists are known before."""

    tools: tuple[Tool, ...]
    make: Callable[[], Any]


class ToolServer(Struct, frozen=True):
    """One server: a `url`, a `command` with `args` and `env`, or a server `hosted` in this process.

    `hosted` is a server object of the mcp package, or a `LocalServer`.
    """

    name: str
    url: str | None = None
    command: str | None = None
    args: tuple[str, ...] = ()
    env: Mapping[str, str] | None = None
    hosted: Any = None


def servers_of(named: Mapping[str, Any], *, where: str = "mcp_servers") -> tuple[ToolServer, ...]:
    """The servers of an `mcp_servers` object in its common form: `{name: {url | command, args, env}}`.

    A value may also be a server object of the mcp package, or a `LocalServer`: both are talked to in memory.

    Raises:
        ConfigError: an entry has neither `url` nor `command`, or one of a wrong type.
    """
    if not isinstance(named, Mapping):
        raise ConfigError(where, repr(named)[:200], "an object {name: {url | command, args, env}}")
    return tuple(_server(name, entry, f"{where}[{name!r}]") for name, entry in named.items())


def _server(name: str, entry: Any, where: str) -> ToolServer:
    if entry is None or isinstance(entry, (str, int, float, list, tuple)):
        raise ConfigError(where, repr(entry)[:200], "an object with 'url', or 'command' with 'args' and 'env'")
    if not isinstance(entry, Mapping):
        return ToolServer(name, hosted=entry)
    url, command = entry.get("url"), entry.get("command")
    if isinstance(url, str) and url.strip():
        return ToolServer(name, url=url)
    if not isinstance(command, str) or not command.strip():
        raise ConfigError(where, f"the keys {sorted(map(str, entry))}", "'url', or 'command' with 'args' and 'env'")
    args, env = entry.get("args", ()), entry.get("env")
    if not isinstance(args, (list, tuple)) or not all(isinstance(arg, str) for arg in args):
        raise ConfigError(f"{where}.args", repr(args), "a list of strings")
    if env is not None and not (isinstance(env, Mapping) and all(isinstance(value, str) for value in env.values())):
        raise ConfigError(f"{where}.env", repr(env), "an object of strings")
    return ToolServer(name, command=command, args=tuple(args), env=env)


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
    async with _connect(ToolServer("", url=require_url(url)), headers or {}) as client:
        yield client


@asynccontextmanager
async def _connect(server: ToolServer, headers: Mapping[str, str]) -> AsyncIterator[Any]:
    from mcp import Client, StdioServerParameters  # 0.4 s, and only who uses tools pays it
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared._httpx_utils import create_mcp_http_client

    if server.hosted is not None:
        made = server.hosted.make() if isinstance(server.hosted, LocalServer) else server.hosted
        async with Client(made) as client:
            yield client
    elif server.command is not None:
        env = dict(server.env) if server.env is not None else None
        # One byte that is no UTF-8 would end the session, and with it every other call; replaced, it costs itself.
        parameters = StdioServerParameters(
            command=server.command, args=list(server.args), env=env, encoding_error_handler="replace"
        )
        async with Client(parameters) as client:
            yield client
    else:
        async with (
            create_mcp_http_client(headers=dict(headers)) as http_client,
            Client(streamable_http_client(require_url(server.url), http_client=http_client)) as client,
        ):
            yield client


class Link:
    """The connection to one server, opened, held and closed by one task of its own, as its sessions want it."""

    def __init__(self, server: ToolServer, headers: Mapping[str, str]) -> None:
        self.server = server
        self._headers = headers
        self._client: Any = None
        self._first: Any = None
        self._owner: Any = None
        self._closing: Any = None

    async def open(self, timeout_s: float) -> None:
        """Connect; with a `LocalServer`, for which its first call does it, only get ready to.

        Raises:
            ToolError: the server cannot be reached in time; it is named.
        """
        import asyncio  # a coroutine runs, so it is loaded; 20 ms for whoever imports muse without one

        self._first = asyncio.Lock()
        if not isinstance(self.server.hosted, LocalServer):
            await self._reach(timeout_s)

    async def _reach(self, timeout_s: float) -> None:
        """Connect; raises as `open`."""
        import asyncio  # a coroutine runs, so it is loaded

        loop = asyncio.get_running_loop()
        ready: asyncio.Future[Any] = loop.create_future()
        self._closing = asyncio.Event()
        self._owner = loop.create_task(self._hold(ready), name=f"mcp {self.server.name}")
        try:
            async with asyncio.timeout(timeout_s):
                self._client = await ready
        except BaseException as exc:
            self._owner.cancel()
            await self.close()
            if not isinstance(exc, Exception):
                raise
            raise ToolError(f"MCP server {self._named()} cannot be reached: {_reason(exc)}") from exc

    async def _hold(self, ready: Any) -> None:
        """The owner task: connect, hand the client over, hold it until the link is closed."""
        try:
            async with _connect(self.server, self._headers) as client:
                if not ready.done():
                    ready.set_result(client)
                await self._closing.wait()
        except Exception as exc:  # noqa: BLE001 - the edge of the owner task: whatever ended it is told to who waits
            if not ready.done():
                ready.set_exception(exc)
            else:
                log.debug("MCP server %s: connection ended: %s", self._named(), _reason(exc))

    async def list_tools(self) -> list[Tool]:
        """Every tool the server has, page by page; of a `LocalServer`, those that it says it has."""
        if isinstance(self.server.hosted, LocalServer):
            return list(self.server.hosted.tools)
        listed: list[Tool] = []
        cursor: str | None = None
        while True:
            page = await self._client.list_tools(cursor=cursor)
            listed += map(_tool, page.tools)
            cursor = page.next_cursor
            if not cursor:
                return listed

    async def call(self, name: str, args: dict[str, Any], meta: dict[str, Any] | None, *, again: bool) -> Any:
        """Call a tool. A lost connection is made anew, once; the call is repeated if it never ran, or with `again`.

        Raises:
            ToolError: the connection was lost and the call may have run, or the server is gone.
        """
        async with self._first:  # of several calls at once, one connects
            if self._client is None:
                await self._reach(_RECONNECT_S)
        client = self._client
        try:
            return await client.session.call_tool(name, args, meta=meta)
        except Exception as exc:
            if not _is_lost(exc):
                raise
            log.info("MCP server %s: connection lost (%s), connecting again", self._named(), _reason(exc))
            may_repeat = again or _never_ran(exc)
        async with self._first:  # of several calls that lost the same connection, one makes the next
            if self._client is client:
                await self.close()
                await self._reach(_RECONNECT_S)
        if not may_repeat:
            raise ToolError(f"the connection to {self._named()} was lost during the call; it may or may not have run")
        return await self._client.session.call_tool(name, args, meta=meta)

    async def close(self) -> None:
        """Let the owner task close the connection, and wait until it has."""
        import asyncio  # a coroutine runs, so it is loaded

        if self._owner is None:
            return
        owner, self._owner = self._owner, None
        self._closing.set()
        done, _ = await asyncio.wait({owner}, timeout=_CLOSE_S)
        if not done:
            owner.cancel()
            await asyncio.wait({owner})

    def _named(self) -> str:
        where = self.server.url or self.server.command or "in this process"
        return f"{self.server.name!r} ({where})"


_RECONNECT_S = 10.0
_CLOSE_S = 2.0


def _tool(listed: Any) -> Tool:
    """A tool as the mcp package lists it, in our words."""
    hints = listed.annotations
    return Tool(
        listed.name, listed.description or "", listed.input_schema, bool(hints is not None and hints.read_only_hint)
    )


def _never_ran(exc: BaseException) -> bool:
    """Whether the server did not take the call: restarted, it does not know the session that the call belongs to."""
    return getattr(exc, "code", None) == _UNKNOWN_SESSION


def _is_lost(exc: BaseException) -> bool:
    """Whether an exception says that the other side is gone (and not that it refused the call)."""
    if isinstance(exc, BaseExceptionGroup):
        return all(_is_lost(inner) for inner in exc.exceptions)
    if isinstance(exc, OSError) and not isinstance(exc, TimeoutError):
        return True
    return type(exc).__name__ in _LOST or getattr(exc, "code", None) in _LOST_CODES


def _reason(exc: BaseException) -> str:
    """The innermost cause in words: task groups and SDKs wrap it."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    while exc.__cause__ is not None:
        exc = exc.__cause__
    return str(exc) or type(exc).__name__
