"""Connections to MCP servers, over HTTP, as a child process or in memory; it knows no model and no allow-list."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from msgspec import Struct

from muse.agent_loop.mcp_channels import ATTEMPT, SendState, error_output, http_client, mask_logs, watched
from muse.agent_loop.mcp_listings import output_schemas_in, repair_listing
from muse.agent_loop.server_addresses import secrets_in
from muse.journal.secrets import redact, remember
from muse.types.errors import ConfigError, ToolError
from muse.types.messages import Tool
from muse.types.redaction import shown_address

log = logging.getLogger(__name__)

_MISSING_URL = "MCP server URL not provided"
_ENTRY = "an object with 'url' (and 'headers'), or 'command' with 'args' and 'env'"
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
# What the SDK says in place of an answer that cannot come any more, under the code -32000.
_CLOSED_CODE = -32000
_CLOSED = ("Connection closed", "SSE stream ended", "SSE stream failed")
_NO_SUCH_METHOD = -32601
_MOST_PAGES = 500
_LIST_S = 30.0
_MOST_TOOLS = 5_000


class LocalServer(Struct, frozen=True):
    """A server of this process that is made when it is first called; the tools that it lists are known before."""

    tools: tuple[Tool, ...]
    make: Callable[[], Any]


class ToolServer(Struct, frozen=True):
    """One server: a `url` with `headers`, a `command` with `args` and `env`, or a server `hosted` in this process.

    `hosted` is a server object of the mcp package, or a `LocalServer`.
    """

    name: str
    url: str | None = None
    command: str | None = None
    args: tuple[str, ...] = ()
    env: Mapping[str, str] | None = None
    hosted: Any = None
    headers: Mapping[str, str] = {}

    @property
    def is_own(self) -> bool:
        """Whether its tools are the journal's own: it is in this process, or is the server of `mcp_server_url`."""
        return self.hosted is not None or self.name in _OWN_NAMES

    @property
    def shown(self) -> str:
        """Its name, and where it is, without what is secret there."""
        where = shown_address(self.url) if self.url else self.command or "in this process"
        return f"{self.name!r} ({where})"

    def clean(self, text: str) -> str:
        """Return what somebody says of this server without its secrets."""
        return redact(text.replace(self.url, shown_address(self.url)) if self.url else text)

    def hide_secrets(self) -> None:
        """Have what is secret in this entry masked wherever it turns up."""
        remember(secrets_in(self.url, self.args, self.env, self.headers))

    def __repr__(self) -> str:
        return f"ToolServer({self.shown})"


_OWN_NAMES = ("journal", "main")


def servers_of(named: Mapping[str, Any], *, where: str = "mcp_servers") -> tuple[ToolServer, ...]:
    """The servers of an `mcp_servers` object in its common form: `{name: {url, headers | command, args, env}}`.

    A value may also be a server object of the mcp package, or a `LocalServer`: both are talked to in memory.

    Raises:
        ConfigError: an entry has neither `url` nor `command`, or one of a wrong type.
    """
    if not isinstance(named, Mapping):
        raise ConfigError(where, repr(named)[:200], "an object {name: {url, headers | command, args, env}}")
    return tuple(_server(name, entry, f"{where}[{name!r}]") for name, entry in named.items())


def _server(name: str, entry: Any, where: str) -> ToolServer:
    if entry is None or isinstance(entry, (str, int, float, list, tuple)):
        raise ConfigError(where, f"{type(entry).__name__}", _ENTRY)
    if not isinstance(entry, Mapping):
        return ToolServer(name, hosted=entry)
    url, command = entry.get("url"), entry.get("command")
    if isinstance(url, str) and url.strip():
        return ToolServer(name, url=url.strip(), headers=_texts(entry.get("headers"), f"{where}.headers") or {})
    if not isinstance(command, str) or not command.strip():
        raise ConfigError(where, f"the keys {sorted(map(str, entry))}", _ENTRY)
    args = entry.get("args", ())
    if not isinstance(args, (list, tuple)) or not all(isinstance(arg, str) for arg in args):
        raise ConfigError(f"{where}.args", f"{type(args).__name__} with {_kinds(args)}", "a list of strings")
    return ToolServer(name, command=command, args=tuple(args), env=_texts(entry.get("env"), f"{where}.env"))


def _texts(entries: Any, where: str) -> Mapping[str, str] | None:
    """Return an object of strings, or None. Its values are not quoted in an error: they may be secret."""
    if entries is None or (isinstance(entries, Mapping) and all(isinstance(one, str) for one in entries.values())):
        return entries
    kinds = _kinds(entries.values() if isinstance(entries, Mapping) else ())
    raise ConfigError(where, f"{type(entries).__name__} with {kinds}", "an object of strings")


def _kinds(values: Any) -> str:
    """Return the types of some values, in words."""
    is_several = isinstance(values, Iterable) and not isinstance(values, str)
    return ", ".join(sorted({type(value).__name__ for value in values})) if is_several else "no values"


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
async def _connect(
    server: ToolServer, headers: Mapping[str, str], on_listing: Callable[[dict[str, Any]], None] = lambda _: None
) -> AsyncIterator[Any]:
    from mcp import Client, StdioServerParameters, stdio_client  # 0.4 s, and only who uses tools pays it
    from mcp.client.streamable_http import streamable_http_client

    if server.hosted is not None:
        made = server.hosted.make() if isinstance(server.hosted, LocalServer) else server.hosted
        async with Client(made) as client:
            yield client
        return
    server.hide_secrets()
    mask_logs()
    if server.command is not None:
        env = dict(server.env) if server.env is not None else None
        # One byte that is no UTF-8 would end the session, and with it every other call; replaced, it costs itself.
        parameters = StdioServerParameters(
            command=server.command, args=list(server.args), env=env, encoding_error_handler="replace"
        )
        with error_output(server.name) as errors:
            async with Client(watched(stdio_client(parameters, errlog=errors), on_listing)) as client:
                yield client
        return
    async with http_client({**server.headers, **headers}) as client_of_http:
        transport = streamable_http_client(require_url(server.url), http_client=client_of_http)
        async with Client(watched(transport, on_listing)) as client:
            yield client


class McpConnection:
    """The connection to one server, opened, held and closed by one task of its own, as its sessions want it."""

    def __init__(
        self, server: ToolServer, headers: Mapping[str, str], tell: Callable[[str], None] = log.warning
    ) -> None:
        self.server = server
        self.output_schemas: dict[str, dict[str, Any]] = {}
        self._tell = tell
        self._headers = headers
        self._client: Any = None
        self._first: Any = None
        self._owner: Any = None
        self._closing: Any = None
        self._is_new = False  # connected again, and not listed since
        self._relisted: dict[str, Tool] | None = None

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
            raise ToolError(f"MCP server {self.server.shown} cannot be reached: {self._reason(exc)}") from exc

    async def _hold(self, ready: Any) -> None:
        """The owner task: connect, hand the client over, hold it until the link is closed."""
        try:
            async with _connect(self.server, self._headers, self._take_listing) as client:
                if not ready.done():
                    ready.set_result(client)
                await self._closing.wait()
        except Exception as exc:  # noqa: BLE001 - the edge of the owner task: whatever ended it is told to who waits
            if not ready.done():
                ready.set_exception(exc)
            else:
                log.debug("MCP server %s: connection ended: %s", self.server.shown, self._reason(exc))

    async def list_tools(self, timeout_s: float = _LIST_S) -> list[Tool]:
        """Every tool the server has, page by page; of a `LocalServer`, those that it says it has.

        A list that does not end, breaks off or has entries that are no tools gives what it has, and says so.

        Raises:
            ToolError: the server gave no list at all; it is named.
        """
        import asyncio  # a coroutine runs, so it is loaded

        if isinstance(self.server.hosted, LocalServer):
            return list(self.server.hosted.tools)
        found: dict[str, Tool] = {}
        try:
            async with asyncio.timeout(timeout_s):
                await self._list_into(found)
        except Exception as exc:
            if getattr(exc, "code", None) == _NO_SUCH_METHOD and not found:
                self.tell("it offers no tools")
            elif found:
                self.tell(f"its list of tools broke off after {len(found)} tools: {self._reason(exc)}")
            else:
                words = self._reason(exc)
                raise ToolError(f"MCP server {self.server.shown} does not list its tools: {words}") from exc
        return list(found.values())

    async def _list_into(self, found: dict[str, Tool]) -> None:
        """Add the server's tools to `found`, of two with one name the first."""
        if self._client.server_capabilities.tools is None:
            self.tell("it offers no tools")
            return
        cursor: str | None = None
        seen: set[str] = set()
        for _ in range(_MOST_PAGES):
            page = await self._client.list_tools(cursor=cursor, cache_mode="bypass")
            for listed in page.tools:
                found.setdefault(listed.name, _tool(listed))
            cursor = page.next_cursor
            if cursor is None:
                return
            if cursor in seen:
                self.tell(f"its list of tools comes to a page again; the {len(found)} tools so far are taken")
                return
            seen.add(cursor)
            if len(found) >= _MOST_TOOLS:
                break
        self.tell(f"its list of tools does not end; the {len(found)} tools so far are taken")

    def tell(self, text: str) -> None:
        """Say something of this server, without its secrets."""
        self._tell(self.server.clean(f"MCP server {self.server.shown}: {text}"))

    def _take_listing(self, result: dict[str, Any]) -> None:
        """Repair what the server lists before the SDK reads it, and keep what results are checked by."""
        self.output_schemas.update(output_schemas_in(result))
        repair_listing(result, self.tell)

    async def call(
        self, name: str, args: dict[str, Any], meta: dict[str, Any] | None, *, offered: Tool | None = None
    ) -> Any:
        """Call a tool by its own name; `offered` is what it was listed as. A lost connection is made anew, once.

        The call is sent again only if the server provably did not take it.

        Raises:
            ToolError: the connection was lost and the call may have run, the server is gone, or it came back with
                another tool of this name.
        """
        async with self._first:  # of several calls at once, one connects
            if self._client is None:
                await self._reach(_RECONNECT_S)
        client, attempt = self._client, SendState()
        await self._require_same(name, offered)
        try:
            return await self._send(client, name, args, meta, attempt)
        except Exception as exc:
            is_lost = _is_lost(exc)
            if not is_lost and not attempt.is_refused:
                raise
            log.info("MCP server %s: connection lost (%s), connecting again", self.server.shown, self._reason(exc))
        async with self._first:  # of several calls that lost the same connection, one makes the next
            if self._client is client:
                await self.close()
                await self._reach(_RECONNECT_S)
                self._is_new = True
        if not attempt.was_not_taken:
            shown = self.server.shown
            raise ToolError(f"the connection to {shown} was lost during the call; it may or may not have run")
        await self._require_same(name, offered)
        return await self._send(self._client, name, args, meta, SendState())

    async def _require_same(self, name: str, offered: Tool | None) -> None:
        """See that a server that was connected to again has the tool as it was offered, and approved, before.

        Raises:
            ToolError: it has not.
        """
        async with self._first:
            if self._is_new:
                self._relisted = {listed.name: listed for listed in await self.list_tools(_RECONNECT_S)}
                self._is_new = False
        if self._relisted is None or offered is None:
            return
        now = self._relisted.get(name)
        if now is None or now.schema != offered.schema:
            found = "does not offer it any more" if now is None else "offers it with another schema now"
            raise ToolError(f"{offered.name} was not called: {self.server.shown} was connected to again and {found}")

    async def _send(self, client: Any, name: str, args: dict[str, Any], meta: Any, attempt: SendState) -> Any:
        token = ATTEMPT.set(attempt)
        try:
            return await client.session.call_tool(name, args, meta=meta)
        finally:
            ATTEMPT.reset(token)

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

    def _reason(self, exc: BaseException) -> str:
        return self.server.clean(_reason(exc))


_RECONNECT_S = 10.0
_CLOSE_S = 2.0


def _tool(listed: Any) -> Tool:
    """A tool as the mcp package lists it, in our words."""
    hints = listed.annotations
    return Tool(
        listed.name, listed.description or "", listed.input_schema, bool(hints is not None and hints.read_only_hint)
    )


def _is_lost(exc: BaseException) -> bool:
    """Whether an exception says that the other side is gone (and not that it refused the call)."""
    if isinstance(exc, BaseExceptionGroup):
        return all(_is_lost(inner) for inner in exc.exceptions)
    if isinstance(exc, OSError) and not isinstance(exc, TimeoutError):
        return True
    if type(exc).__name__ in _LOST:
        return True
    return getattr(exc, "code", None) == _CLOSED_CODE and str(exc).startswith(_CLOSED)


def _reason(exc: BaseException) -> str:
    """The innermost cause in words: task groups and SDKs wrap it."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    while exc.__cause__ is not None:
        exc = exc.__cause__
    return str(exc) or type(exc).__name__
