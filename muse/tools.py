"""The tools an agent may use: offered, approved, called, their results made fit for a model; it knows no model.

The allow-list is held where the call is made: what is not offered is refused there, whatever a model or a text it read
says.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from typing import Any

from msgspec import Struct

from muse.errors import ToolError
from muse.messages import Image, Part, Tool, ToolCall, ToolResult
from muse.schema import require_fit
from muse.servers import Link, ToolServer
from muse.shelf import READ_MORE, READ_MORE_TOOL, Shelf

Approver = Callable[[ToolCall], Awaitable[bool]]
_CONNECT_S = 20.0
_INVALID = "_invalid"


class Policy(Struct, frozen=True):
    """What of the servers' tools a run may use, and what of it only with somebody's yes.

    `allowed`: None all, empty none, else names and globs. `approve`: globs of tools to ask about with `approver`;
    without one they are refused.
    """

    allowed: Collection[str] | None = None
    approve: Sequence[str] = ()
    approver: Approver | None = None

    def allows(self, name: str) -> bool:
        """Whether the allow-list lets a tool through."""
        return self.allowed is None or any(fnmatchcase(name, pattern) for pattern in self.allowed)

    def must_ask(self, name: str) -> bool:
        """Whether a call of the tool needs a yes."""
        return any(fnmatchcase(name, pattern) for pattern in self.approve)


class _Offer(Struct, frozen=True):
    """A tool under the name that models know it by, and the link and name to call it by."""

    tool: Tool
    link: Link
    name: str


class Toolbox:
    """The tools of one run, from all its servers; names that two servers share get the server's name before them."""

    def __init__(self, links: Sequence[Link], policy: Policy, metadata: Mapping[str, Any]) -> None:
        self._links = links
        self._policy = policy
        self._metadata = dict(metadata)
        self._offers: dict[str, _Offer] = {}
        self._shelf = Shelf()

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools on offer now; the one for reading on joins them when a result was cut short."""
        offered = tuple(offer.tool for offer in self._offers.values())
        return offered if self._shelf.is_empty else (*offered, READ_MORE_TOOL)

    async def load(self) -> None:
        """List the tools of every server."""
        listed = [(link, tool) for link in self._links for tool in await link.list_tools()]
        count = Counter(tool.name for _, tool in listed)
        for link, tool in listed:
            name = tool.name if count[tool.name] == 1 else f"{link.server.name}__{tool.name}"
            if self._policy.allows(name) or self._policy.allows(tool.name):
                hints = tool.annotations
                read_only = bool(hints and hints.read_only_hint)
                offered = Tool(name, tool.description or "", tool.input_schema, read_only)
                self._offers[name] = _Offer(offered, link, tool.name)

    async def call(self, call: ToolCall) -> tuple[ToolResult, Any]:
        """Make a call: `(result for the model, result for the event)`.

        Raises:
            ToolError: refused, its arguments do not fit, or it failed; the text is for the model to read.
        """
        if call.name == READ_MORE and not self._shelf.is_empty:
            page = self._shelf.read(call.args)
            return ToolResult(call.call_id, call.name, (page,)), page
        offer = self._offers.get(call.name)
        if offer is None:
            raise ToolError(f"refused: {call.name!r} is not offered in this run; offered are: {self._names()}")
        _check_arguments(call, offer.tool)
        if self._policy.must_ask(call.name):
            await self._ask(call)
        answer = await offer.link.call(offer.name, dict(call.args), self._metadata or None, again=offer.tool.read_only)
        parts = self._shelf.cap(_parts(answer))
        if answer.is_error:
            raise ToolError(_event_result(parts) or "the tool failed without a reason")
        return ToolResult(call.call_id, call.name, parts or ("(no output)",)), _event_result(parts)

    def _names(self) -> str:
        return ", ".join(self._offers) or "none"

    async def _ask(self, call: ToolCall) -> None:
        if self._policy.approver is None:
            raise ToolError(f"refused: {call.name} needs somebody's approval, and there is nobody to ask in this run")
        if not await self._policy.approver(call):
            raise ToolError(f"refused: {call.name} was not approved")


def _check_arguments(call: ToolCall, tool: Tool) -> None:
    """See that a call's arguments are of the tool's schema.

    Raises:
        ToolError: they are not; the text says where.
    """
    if _INVALID in call.args:
        raise ToolError(f"the arguments of {call.name} are not a JSON object: {str(call.args[_INVALID])[:200]!r}")
    try:
        require_fit(dict(call.args), tool.schema)
    except ValueError as exc:
        raise ToolError(f"the arguments of {call.name} do not fit its schema: {exc}") from exc


def _parts(answer: Any) -> tuple[Part, ...]:
    """A tool's answer: its blocks, or what it gave as structure alone."""
    parts = tuple(_part(block) for block in answer.content)
    if not parts and answer.structured_content is not None:
        return (json.dumps(answer.structured_content, ensure_ascii=False),)
    return parts


def _part(block: Any) -> Part:
    match block.type:
        case "text":
            return str(block.text)
        case "image":
            try:
                return Image(base64.b64decode(block.data, validate=True), block.mime_type)
            except binascii.Error:
                return f"[{block.mime_type} that could not be read]"
        case _:
            return json.dumps(block.model_dump(mode="json", exclude_none=True), ensure_ascii=False)


def _event_result(parts: tuple[Part, ...]) -> Any:
    """A result as events carry it: one text as a string, several as a list; a picture by its media type and size."""
    shown = [part if isinstance(part, str) else f"[{part.media_type}, {len(part.data)} bytes]" for part in parts]
    return shown[0] if len(shown) == 1 else shown


@asynccontextmanager
async def open_toolbox(
    servers: Sequence[ToolServer], policy: Policy, *, agent_id: str | None, persona: str
) -> AsyncIterator[Toolbox]:
    """The toolbox of one agent run; an empty one if there are no servers or nothing is allowed.

    `agent_id` and `persona` reach the servers as request metadata and as headers `X-Agent-Id`, `X-Agent-Persona`.

    Raises:
        ToolError: a server cannot be reached.
    """
    identity = {"agent_id": agent_id, "persona": persona} if agent_id else {"persona": persona}
    headers = {"X-Agent-Id": agent_id, "X-Agent-Persona": persona} if agent_id else {"X-Agent-Persona": persona}
    wanted = servers if policy.allowed is None or policy.allowed else ()
    links = [Link(server, headers) for server in wanted]
    opened: list[Link] = []
    try:
        for link in links:
            await link.open(_CONNECT_S)
            opened.append(link)
        box = Toolbox(opened, policy, identity)
        await box.load()
        yield box
    finally:
        for link in opened:
            await link.close()
