"""Fitting a request to a provider's limits: empty texts, tool names, tool schemas and the number of tools.

Entry points: `fit_request`, `wire_name`, `with_own_names`.

Sources: OpenAI's reference of function tools (names, 128 tools, a schema whose top level is an object and not a
union); Anthropic's pages on tool use (names, `input_schema`) and on errors (texts without content); the reference of
Gemini's `FunctionDeclaration` (names that begin with a letter, the keywords of `parametersJsonSchema`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from muse.types.messages import Assistant, Part, Reply, Request, Tool, ToolCall, ToolResult, ToolResults, Turn, User

log = logging.getLogger(__name__)
NO_OUTPUT = "[no output]"
"""The text sent in place of an empty tool result."""

_HASH_CHARS = 8
_LONGEST_KEPT = 48
_SHOWN = 5
_warned: set[str] = set()


class ToolRules(Struct, frozen=True):
    """The limits of a provider for tools.

    Attributes:
        name: A pattern that a whole tool name must match.
        most: The maximum number of tools in a request; 0 for no limit.
        keywords: The JSON Schema keywords that the provider knows in a tool's parameters; None for all. If they are
            listed, references are replaced by their targets.
    """

    name: str = "[A-Za-z0-9_-]{1,64}"
    most: int = 128
    keywords: frozenset[str] | None = None


def fit_request(request: Request, rules: ToolRules | None, *, blanks: bool) -> tuple[Request, tuple[str, ...]]:
    """Return a request that the provider accepts, and descriptions of what is not sent.

    The same request object is returned if nothing has to change.

    Args:
        request: The request to fit.
        rules: The limits for tools; None leaves the tools unchanged.
        blanks: False to leave out texts of only white space too; texts without a character are always left out.
    """
    system = request.system if request.system and _says(request.system, blanks) else None
    turns = tuple(_filled(request.turns, blanks))
    if system != request.system or any(one is not other for one, other in zip(turns, request.turns, strict=False)):
        request = replace(request, system=system, turns=turns)
    elif len(turns) != len(request.turns):
        request = replace(request, turns=turns)
    if rules is None or not request.tools:
        return request, ()
    return _with_tools(request, rules)


def _says(text: str, blanks: bool) -> bool:
    return bool(text) if blanks else not text.isspace() and bool(text)


def _filled(turns: Iterable[Turn], blanks: bool) -> Iterable[Turn]:
    """Yield the turns without empty texts; leave out a turn with no content at all."""
    for turn in turns:
        match turn:
            case User(parts):
                said = _said(parts, blanks)
                if said:
                    yield turn if said is parts else User(said)
            case Assistant(text, calls, native):
                if _says(text, blanks):
                    yield turn
                elif native or calls:
                    yield replace(turn, text="") if text else turn
            case ToolResults(results):
                told = tuple(_told(result, blanks) for result in results)
                yield turn if all(map(_is_same, told, results)) else ToolResults(told)


def _said(parts: tuple[Part, ...], blanks: bool) -> tuple[Part, ...]:
    """Return the parts that are not empty; the same tuple if all are kept."""
    if all(not isinstance(part, str) or _says(part, blanks) for part in parts):
        return parts
    return tuple(part for part in parts if not isinstance(part, str) or _says(part, blanks))


def _told(result: ToolResult, blanks: bool) -> ToolResult:
    said = _said(result.parts, blanks) or (NO_OUTPUT,)
    return result if said is result.parts else replace(result, parts=said)


def _is_same(one: object, other: object) -> bool:
    return one is other


def _with_tools(request: Request, rules: ToolRules) -> tuple[Request, tuple[str, ...]]:
    from muse.types.json_schema.tool_parameters import simplify_tool_schema  # only requests with tools need it

    tools, skipped = _offered(request, rules.most)
    renamed = {tool.name: wire_name(tool.name, rules) for tool in request.tools}
    turns = request.turns
    if any(name != wire for name, wire in renamed.items()):
        turns = tuple(_renamed(turn, rules) for turn in turns)
    fit = tuple(
        replace(tool, name=renamed[tool.name], schema=simplify_tool_schema(tool.schema, rules.keywords))
        for tool in tools
    )
    dropped = (f"tools beyond {rules.most}: {_listed(skipped)}",) if skipped else ()
    if dropped and dropped[0] not in _warned:
        _warned.add(dropped[0])
        log.warning(
            "%s takes at most %d tools in a request and %d are on offer; left out: %s. Name the tools that are"
            " needed (`tools` of the persona or the run)",
            request.model,
            rules.most,
            len(request.tools),
            _listed(skipped),
        )
    return replace(request, tools=fit, turns=turns), dropped


def _offered(request: Request, most: int) -> tuple[tuple[Tool, ...], tuple[str, ...]]:
    """Return the tools to send and the names of the others; tools already called come first, then list order."""
    if not most or len(request.tools) <= most:
        return request.tools, ()
    called = {call.name for turn in request.turns if isinstance(turn, Assistant) for call in turn.calls}
    ranked = sorted(range(len(request.tools)), key=lambda index: (request.tools[index].name not in called, index))
    kept = set(ranked[:most])
    sent = tuple(tool for index, tool in enumerate(request.tools) if index in kept)
    return sent, tuple(tool.name for index, tool in enumerate(request.tools) if index not in kept)


def _listed(names: tuple[str, ...]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


@lru_cache(maxsize=4096)
def wire_name(name: str, rules: ToolRules) -> str:
    """Return a tool's name as the provider accepts it: unchanged, or its beginning plus a hash of the full name.

    The result depends only on the name and the rules, so that another process can replay a conversation.
    """
    if re.fullmatch(rules.name, name):
        return name
    from hashlib import sha256  # takes 3 ms, which only names that do not fit need

    start = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:_LONGEST_KEPT]
    start = start if start[:1].isalpha() or start[:1] == "_" else f"_{start}"
    return f"{start}_{sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:_HASH_CHARS]}"


def _renamed(turn: Turn, rules: ToolRules) -> Turn:
    match turn:
        case Assistant(calls=calls) if calls:
            return replace(turn, calls=tuple(replace(call, name=wire_name(call.name, rules)) for call in calls))
        case ToolResults(results):
            return ToolResults(tuple(replace(result, name=wire_name(result.name, rules)) for result in results))
        case _:
            return turn


def with_own_names(reply: Reply, tools: tuple[Tool, ...], rules: ToolRules | None) -> Reply:
    """Return the reply with the tool names of its calls changed back to the names used in muse."""
    if rules is None or not reply.turn.calls:
        return reply
    own: Mapping[str, str] = {wire_name(tool.name, rules): tool.name for tool in tools}
    calls = tuple(_own(call, own) for call in reply.turn.calls)
    return (
        reply if all(map(_is_same, calls, reply.turn.calls)) else replace(reply, turn=replace(reply.turn, calls=calls))
    )


def _own(call: ToolCall, own: Mapping[str, str]) -> ToolCall:
    name: Any = own.get(call.name, call.name)
    return call if name == call.name else replace(call, name=name)
