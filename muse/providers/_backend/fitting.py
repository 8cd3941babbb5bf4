"""Fit a request to what every provider refuses: empty texts, tool names, tool schemas, too many tools.

Sources: OpenAI's reference of function tools (names, 128 tools, a schema whose top is an object and no union);
Anthropic's pages on tool use (names, `input_schema`) and on errors (texts without anything to read); the reference of
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
"""What stands in place of a tool's result that says nothing."""

_HASH_CHARS = 8
_LONGEST_KEPT = 48
_SHOWN = 5
_warned: set[str] = set()


class ToolRules(Struct, frozen=True):
    """What a provider takes of tools.

    `name` is a pattern that a whole name matches, `most` how many tools a request may have (0: any number), `keywords`
    those of JSON Schema that it knows in a tool's parameters (None: all); where they are listed, references are
    replaced by what they refer to.
    """

    name: str = "[A-Za-z0-9_-]{1,64}"
    most: int = 128
    keywords: frozenset[str] | None = None


def fit_request(request: Request, rules: ToolRules | None, *, blanks: bool) -> tuple[Request, tuple[str, ...]]:
    """Return a request as a provider takes it, and what of it is not sent; the same request where nothing is to do.

    Texts without a character are left out, and without `blanks` those of white space too. Tools are fitted to `rules`;
    None leaves them as they are.
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
    """Yield the turns without empty texts; one that says nothing at all is left out."""
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
    """Return the parts that say something; the same tuple if all do."""
    if all(not isinstance(part, str) or _says(part, blanks) for part in parts):
        return parts
    return tuple(part for part in parts if not isinstance(part, str) or _says(part, blanks))


def _told(result: ToolResult, blanks: bool) -> ToolResult:
    said = _said(result.parts, blanks) or (NO_OUTPUT,)
    return result if said is result.parts else replace(result, parts=said)


def _is_same(one: object, other: object) -> bool:
    return one is other


def _with_tools(request: Request, rules: ToolRules) -> tuple[Request, tuple[str, ...]]:
    from muse.types.json_schema.tool_parameters import simplify_tool_schema  # only a request with tools pays it

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
    """Return the tools that are sent and the names of the others: tools that were called stay, then the first."""
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
    """Return a tool's name in the form that a provider takes: itself, or its beginning with a hash of all of it.

    It depends on nothing but the name, so that a conversation can be replayed by another process.
    """
    if re.fullmatch(rules.name, name):
        return name
    from hashlib import sha256  # 3 ms, and only a name that does not fit pays it

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
    """Return a reply whose calls have the names under which the tools were offered to muse."""
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
