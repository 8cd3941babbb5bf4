"""The fields that a persona's JSON file may have, and what is wrong with those of a file; it reads none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from muse.journal.lenient_parser import Problem, closest_name, describe_value

_TEXT, _NAMES, _NUMBER = (str,), (str, list), (int, float)
FIELDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("title", "description", "label", "group", "extra_context", "output", "prompt", "save"), _TEXT),
    **dict.fromkeys(("schedule", "day"), _TEXT),
    **dict.fromkeys(("tools", "approve", "make", "make_env", "inputs", "images"), _NAMES),
    **dict.fromkeys(("tier", "max_turns", "max_tool_calls", "max_tokens", "max_total_tokens"), (int,)),
    **dict.fromkeys(("max_cost_usd", "timeout_s", "tool_timeout_s", "thinking_budget", "priority"), _NUMBER),
    **dict.fromkeys(("multi_facet", "always", "stream", "disable_mcp", "resume"), (bool,)),
    "mcp_servers": (dict,),
    "handoff": (str, dict),
}
_KINDS: Mapping[type, str] = {
    str: "text that is not empty",
    list: "a list of names",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "an object {...}",
}
_ROUTED = ("provider", "model", "context")


def problems_of(data: Mapping[str, Any], path: str) -> Iterator[Problem]:
    """Yield what is wrong with the fields of a persona's file at `path`.

    Null counts as left out. Fields whose names begin with `$`, `_` or `x-` are the author's own.
    """
    for name, value in data.items():
        place = f"{path}: {name}"
        if name.startswith(("$", "_", "x-")):
            continue
        if name not in FIELDS:
            yield Problem(place, "an unknown field", _meant(name))
        elif value is not None and not _is_of(value, FIELDS[name]):
            yield Problem(place, describe_value(value), " or ".join(_KINDS[kind] for kind in FIELDS[name]))


def names_in(value: object) -> list[str] | None:
    """Return the names that a field such as `tools` lists; None if it is malformed.

    >>> names_in("journal, todo"), names_in(["journal"]), names_in([]), names_in([5]), names_in("")
    (['journal', 'todo'], ['journal'], [], None, None)
    """
    if not _is_of(value, _NAMES):
        return None
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else list(value)  # type: ignore[call-overload]


def _is_of(value: object, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, bool) and bool not in kinds:
        return False
    if isinstance(value, float) and int in kinds and float not in kinds:
        return value.is_integer()
    if not isinstance(value, kinds):
        return False
    if isinstance(value, str):
        return bool(value.strip())
    return not isinstance(value, list) or all(isinstance(one, str) and one.strip() for one in value)


def _meant(name: str) -> str:
    if name.lower() in _ROUTED:
        return (
            "none: who serves its runs stands in journal.json, under providers.contexts (muse agents has its context)"
        )
    near = closest_name(name, FIELDS)
    return f"{near!r}?" if near else f"one of {', '.join(sorted(FIELDS))}, or a name that begins with x-"
