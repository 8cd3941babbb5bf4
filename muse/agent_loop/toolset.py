"""The tools an agent may use: offered, approved, called, their results made fit for a model; it knows no model.

The allow-list is held where the call is made: what is not offered is refused there, whatever a model or a text it read
says.
"""

from __future__ import annotations

import base64
import json
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from itertools import count as count_from
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from muse.agent_loop.mcp_client import McpConnection, ToolServer
from muse.agent_loop.result_truncation import READ_MORE, READ_MORE_TOOL, TruncatedResults
from muse.journal.secrets import redact
from muse.policies.deadline import Deadline
from muse.types.content import detect_media_type
from muse.types.errors import ToolError
from muse.types.exif_orientation import rotate_upright
from muse.types.json_schema.patterns import may_take_long
from muse.types.json_schema.validation import validate
from muse.types.messages import Image, Part, Tool, ToolCall, ToolResult

log = logging.getLogger(__name__)

_CONNECT_S = 20.0
_ANY = "*"
_SHOWN_NAMES = 3
_INVALID = "_invalid"
_LONGEST_NAME = 64


class ToolCallPreview(ToolCall, frozen=True):
    """A call as somebody is asked about it: with the name of its server, and with what it would do if that is known."""

    server: str = ""
    preview: str = ""


Approver = Callable[[ToolCall], Awaitable[bool]]


class ToolPolicy(Struct, frozen=True):
    """What of the servers' tools a run may use, and what of it only with somebody's yes.

    `allowed`: None all, empty none, else entries. `*` is every tool of every server; `server__tool`, both sides names
    or globs, a tool of that server; a name or glob without `__` a tool of the journal's own (`ToolServer.is_own`).
    `approve`: globs of tools to ask about with `approver`, in any case and under any of a tool's names; without an
    approver they are refused.
    """

    allowed: Collection[str] | None = None
    approve: Sequence[str] = ()
    approver: Approver | None = None

    def allows(self, server: ToolServer, name: str, servers: Collection[str]) -> bool:
        """Whether the allow-list lets a server's tool through; `servers` are the names of all servers of the run."""
        if self.allowed is None:
            return True
        return any(_is_entry_of(entry, server, name, servers) for entry in self.allowed)

    def must_ask(self, names: Iterable[str]) -> bool:
        """Whether a call of the tool that has these names needs a yes."""
        globs = [pattern.casefold() for pattern in self.approve]
        return any(fnmatchcase(name.casefold(), pattern) for name in names for pattern in globs)


def _is_entry_of(entry: str, server: ToolServer, name: str, servers: Collection[str]) -> bool:
    """Whether an entry of an allow-list means a server's tool.

    An entry in which several servers' names may be read (`a__b__c` with servers `a` and `a__b`) means the longest.
    """
    if entry == _ANY or (server.is_own and fnmatchcase(name, entry)):
        return True
    splits = [(entry[: found.start()], entry[found.start() + 2 :]) for found in re.finditer("(?=__)", entry)]
    meant = [split for split in splits if any(fnmatchcase(one, split[0]) for one in servers)]
    if not meant:
        return False
    server_part, tool_part = max(meant, key=lambda split: len(split[0]))
    return fnmatchcase(server.name, server_part) and fnmatchcase(name, tool_part)


class _OfferedTool(Struct, frozen=True):
    """A tool under the name that models know it by, and the link and name to call it by."""

    tool: Tool
    link: McpConnection
    name: str

    @property
    def names(self) -> tuple[str, ...]:
        """The tool's names: the model's, its own, and that with its server's."""
        return self.tool.name, self.name, f"{self.link.server.name}__{self.name}"


class Toolset:
    """The tools of one run, from all its servers; names that two servers share get the server's name before them."""

    def __init__(
        self, links: Sequence[McpConnection], policy: ToolPolicy, metadata: Mapping[str, Any], call_timeout_s: float
    ) -> None:
        self._links = links
        self._policy = policy
        self._metadata = dict(metadata)
        self._call_timeout_s = call_timeout_s
        self._offers: dict[str, _OfferedTool] = {}
        self._truncated_results = TruncatedResults()
        self.notes: list[str] = []

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools on offer now; the one for reading on joins them when a result was cut short."""
        offered = tuple(offer.tool for offer in self._offers.values())
        return offered if self._truncated_results.is_empty else (*offered, READ_MORE_TOOL)

    def connect(self, links: Sequence[McpConnection]) -> None:
        """Take the servers that were reached."""
        self._links = links

    async def load(self) -> None:
        """List the tools of every server.

        Raises:
            ToolError: none of the servers gives a list.
        """
        listed: list[tuple[McpConnection, Tool]] = []
        failed: list[ToolError] = []
        for link in self._links:
            try:
                listed += [(link, tool) for tool in await link.list_tools()]
            except ToolError as exc:
                failed.append(exc)
        if failed and len(failed) == len(self._links):
            raise failed[0]
        for problem in failed:
            self.say(f"{problem}; the run goes on without its tools")
        servers = {link.server.name for link in self._links}
        allowed = [(link, tool) for link, tool in listed if self._policy.allows(link.server, tool.name, servers)]
        count = Counter([READ_MORE, *(tool.name for _, tool in allowed)])
        for link, tool in allowed:
            own = tool.name if count[tool.name] == 1 else f"{link.server.name}__{tool.name}"
            name = _free_name(own, self._offers)
            self._offers[name] = _OfferedTool(replace(tool, name=name), link, tool.name)
        self._say_unmatched(listed)

    def say(self, text: str) -> None:
        """Warn of something about the servers, once, and keep it in `notes` for the run's events."""
        if text not in self.notes:
            log.warning("%s", text)
            self.notes.append(text)

    def _say_unmatched(self, listed: Sequence[tuple[McpConnection, Tool]]) -> None:
        """Say which entries without a server's name would mean another server's tool with it."""
        for entry in self._policy.allowed or ():
            if any(link.server.is_own and fnmatchcase(tool.name, entry) for link, tool in listed):
                continue
            meant = [f"{link.server.name}__{tool.name}" for link, tool in listed if fnmatchcase(tool.name, entry)]
            if entry != _ANY and meant:
                shown = ", ".join(meant[:_SHOWN_NAMES])
                self.say(f"tools: {entry!r} means a tool of the journal's own; another server's is named {shown}")

    async def call(self, call: ToolCall) -> tuple[ToolResult, Any]:
        """Make a call: `(result for the model, result for the event)`.

        Raises:
            ToolError: refused, its arguments do not fit, or it failed; the text is for the model to read.
        """
        if call.name == READ_MORE and not self._truncated_results.is_empty:
            page = self._truncated_results.read(call.args)
            return ToolResult(call.call_id, call.name, (page,)), page
        offer = self._offers.get(call.name)
        if offer is None:
            raise ToolError(f"refused: {call.name!r} is not offered in this run; offered are: {self._names()}")
        await _check_arguments(call, offer.tool)
        if self._policy.must_ask(offer.names):
            await self._ask(call, offer)
        answer = await self._answer(offer, dict(call.args))
        await _check_result(answer, offer)
        parts = self._truncated_results.cap(_masked(_parts(answer)))
        if answer.is_error:
            raise ToolError("\n".join(map(_shown, parts)) or "the tool failed without a reason")
        return ToolResult(call.call_id, call.name, parts or ("(no output)",)), _event_result(parts)

    async def _answer(self, offer: _OfferedTool, args: dict[str, Any]) -> Any:
        """What the tool says, within the time of one call.

        Raises:
            ToolError: it said nothing in that time.
        """
        import asyncio  # a coroutine runs, so it is loaded; 20 ms for whoever imports muse without one

        try:
            async with asyncio.timeout(self._call_timeout_s):
                return await offer.link.call(offer.name, args, self._metadata or None, offered=offer.tool)
        except TimeoutError as exc:
            raise ToolError(f"{offer.tool.name} gave no answer within {self._call_timeout_s:g} s") from exc

    def _names(self) -> str:
        return ", ".join(self._offers) or "none"

    async def _ask(self, call: ToolCall, offer: _OfferedTool) -> None:
        if self._policy.approver is None:
            raise ToolError(f"refused: {call.name} needs somebody's approval, and there is nobody to ask in this run")
        asked = ToolCallPreview(call.call_id, call.name, call.args, server=offer.link.server.name)
        if not await self._policy.approver(asked):
            raise ToolError(f"refused: {call.name} was not approved")


async def _check_arguments(call: ToolCall, tool: Tool) -> None:
    """See that a call's arguments are of the tool's schema.

    Raises:
        ToolError: they are not; the text says where.
    """
    if _INVALID in call.args:
        raise ToolError(f"the arguments of {call.name} are not a JSON object: {str(call.args[_INVALID])[:200]!r}")
    try:
        await _check(dict(call.args), tool.schema)
    except ValueError as exc:
        raise ToolError(f"the arguments of {call.name} do not fit its schema: {exc}") from exc


async def _check_result(answer: Any, offer: _OfferedTool) -> None:
    """See that the structured part of a result is of the schema that the server listed for it.

    Raises:
        ToolError: it is not, or is missing; the text says that the tool did run.
    """
    schema = offer.link.output_schemas.get(offer.name)
    if schema is None or answer.is_error:
        return
    try:
        if answer.structured_content is None and "structured_content" not in answer.model_fields_set:
            raise ValueError("there is no structured content")
        await _check(answer.structured_content, schema)
    except ValueError as exc:
        raise ToolError(f"{offer.tool.name} has run, but its result does not fit its output schema: {exc}") from exc


async def _check(value: Any, schema: Mapping[str, Any]) -> None:
    """See that a value fits a schema of a server, which may take long: then the event loop goes on meanwhile.

    Raises:
        ValueError: it does not.
    """
    import asyncio  # a coroutine runs, so it is loaded

    if may_take_long(value, schema):
        await asyncio.to_thread(validate, value, schema)
    else:
        validate(value, schema)


def _masked(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """Return the parts of a result without any known key in their texts."""
    return tuple(redact(part) if isinstance(part, str) else part for part in parts)


def _parts(answer: Any) -> tuple[Part, ...]:
    """A tool's answer: its blocks, or what it gave as structure alone."""
    parts = tuple(_part(block) for block in answer.content)
    if not parts and answer.structured_content is not None:
        return (json.dumps(answer.structured_content, ensure_ascii=False),)
    return parts


def _part(block: Any) -> Part:
    match block.type:
        case "text":
            return _sendable(block.text)
        case "image":
            return _picture(block)
        case "audio":
            return f"[{block.mime_type} left out: sound cannot be passed on]"
        case _:
            return _sendable(json.dumps(block.model_dump(mode="json", exclude_none=True), ensure_ascii=False))


def _sendable(text: str) -> str:
    """`text` without halves of surrogate pairs: JSON may escape them, and no request can carry them."""
    return text.encode("utf-8", errors="replace").decode("utf-8")


def _picture(block: Any) -> Part:
    """A picture by what its bytes are, whatever the tool calls them; a note in its place if no model could read it."""
    try:
        data = base64.b64decode(block.data, validate=True)
        media_type = detect_media_type(data)
    except ValueError:
        return f"[{block.mime_type} that could not be read]"
    if not media_type.startswith("image/"):
        return f"[{media_type}, {len(data)} bytes]"
    return rotate_upright(Image(data, media_type))


def _free_name(wanted: str, taken: Collection[str]) -> str:
    """A tool's name in the letters and the length that every provider takes; numbered where it is taken already."""
    base = re.sub("[^A-Za-z0-9_-]", "_", wanted)[:_LONGEST_NAME] or "tool"
    numbered = (f"{base[: _LONGEST_NAME - 4]}_{number}" for number in count_from(2))
    return base if base not in taken else next(name for name in numbered if name not in taken)


def _shown(part: Part) -> str:
    return part if isinstance(part, str) else f"[{part.media_type}, {len(part.data)} bytes]"


def _event_result(parts: tuple[Part, ...]) -> Any:
    """A result as events carry it: one text as a string, several as a list; a picture by its media type and size."""
    shown = list(map(_shown, parts))
    return shown[0] if len(shown) == 1 else shown


@asynccontextmanager
async def open_toolset(
    servers: Sequence[ToolServer],
    policy: ToolPolicy,
    *,
    agent_id: str | None,
    persona: str,
    deadline: Deadline,
    call_timeout_s: float,
) -> AsyncIterator[Toolset]:
    """The toolbox of one agent run; an empty one if there are no servers or nothing is allowed.

    `agent_id` and `persona` reach the servers as request metadata and as headers `X-Agent-Id`, `X-Agent-Persona`.

    Raises:
        ToolError: none of the servers can be reached or lists its tools; of several, a run goes on with those that do,
            and says so in a warning and in the toolbox's `notes`.
        TimeoutError: `deadline` is over before all of them have said what they offer.
    """
    import asyncio  # a coroutine runs, so it is loaded

    identity = {"agent_id": agent_id, "persona": persona} if agent_id else {"persona": persona}
    headers = {"X-Agent-Id": agent_id, "X-Agent-Persona": persona} if agent_id else {"X-Agent-Persona": persona}
    wanted = servers if policy.allowed is None or policy.allowed else ()
    box = Toolset((), policy, identity, call_timeout_s)
    links = [McpConnection(server, headers, box.say) for server in wanted]
    opened: list[McpConnection] = []
    try:
        unreached: list[ToolError] = []
        for link in links:
            try:
                await deadline.bound(link.open(_CONNECT_S))
            except ToolError as exc:
                box.say(f"{exc}; the run goes on without its tools")
                unreached.append(exc)
            else:
                opened.append(link)
        if unreached and not opened:
            raise unreached[0]
        box.connect(opened)
        await deadline.bound(box.load())
        yield box
    finally:
        await asyncio.gather(*(link.close() for link in opened))
