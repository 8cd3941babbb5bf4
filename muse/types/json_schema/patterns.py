"""Bounds on the work that the patterns of a JSON Schema can cause: an estimate, and a check in a process of its own.

Python's `re` goes back over a text in every way a pattern allows: `(a+)+$` takes seconds for 30 characters, and holds
the whole interpreter meanwhile. A schema whose patterns need few steps for the value at hand is checked in place; any
other in a child process, which is killed when its time is over.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

MOST_STEPS = 5_000_000.0
"""Steps of the matcher that are taken in place: some 50 ms."""
MOST_CHECKS = 20_000
"""Subschemas, each counted as often as it is referred to, that are checked in place."""
TIMEOUT_S = 5.0
_UNBOUNDED = float("inf")
_DEEPEST = 100
_CHILD = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from muse.types.json_schema.validation import find_mismatch
value, schema = json.load(sys.stdin)
print(json.dumps(find_mismatch(value, schema)))
"""
_ATOM = re.compile(
    r"\\x[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\[^0-9bBAZk]|\\[bBAZ]|\[\^?\]?(?:\\.|[^\]\\])*\]|[^\\\[(){}*+?|]"
)
_REPEAT = re.compile(r"(?:[*+?]|\{(\d+)(,(\d*))?\}|\{,(\d+)\})[?+]?")


def may_take_long(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether checking `value` may take more than `MOST_STEPS` of matching patterns, or `MOST_CHECKS`."""
    if _checks_in(schema, schema, {}, 0) > MOST_CHECKS:
        return True
    patterns = set(_patterns_in(schema, 0))
    if not patterns:
        return False
    texts = list(_texts_in(value, 0))
    longest, count = max(map(len, texts), default=0), len(texts)
    return sum(most_steps(pattern, longest) for pattern in patterns) * count > MOST_STEPS


def has_patterns(schema: Mapping[str, Any]) -> bool:
    """Whether any pattern stands in a schema, so that a check of it may take long for some value."""
    return next(_patterns_in(schema, 0), None) is not None or _checks_in(schema, schema, {}, 0) > MOST_CHECKS


def _checks_in(schema: Any, root: Mapping[str, Any], known: dict[str, int], depth: int) -> int:
    """Return how many subschemas a schema has with those it refers to; one that refers to itself counts once."""
    if depth > _DEEPEST:
        return MOST_CHECKS + 1
    parts = list(schema.values()) if isinstance(schema, Mapping) else schema if isinstance(schema, list) else []
    total = 1 + sum(_checks_in(part, root, known, depth + 1) for part in parts if isinstance(part, (Mapping, list)))
    ref = schema.get("$ref") if isinstance(schema, Mapping) else None
    if isinstance(ref, str) and ref.startswith("#"):
        if ref not in known:
            known[ref] = 1
            known[ref] = _checks_in(_target(root, ref), root, known, depth + 1)
        total += known[ref]
    return min(total, 1 << 60)


def _target(root: Mapping[str, Any], ref: str) -> Any:
    """Return the part of a schema that `#/a/b` refers to; None if it is not there."""
    from urllib.parse import unquote  # 4 ms, and only who has references pays it

    place: Any = root
    for part in ref.split("/")[1:]:
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        place = place.get(name) if isinstance(place, Mapping) else None
    return place


def _patterns_in(schema: Any, depth: int) -> Iterator[str]:
    """Yield every text that may be a pattern, wherever it stands, and one for a schema too deep to look through."""
    if depth > _DEEPEST:
        yield "(.*)*"
    elif isinstance(schema, Mapping):
        for name, part in schema.items():
            if name == "pattern" and isinstance(part, str):
                yield part
            if name == "patternProperties" and isinstance(part, Mapping):
                yield from map(str, part)
            yield from _patterns_in(part, depth + 1)
    elif isinstance(schema, list):
        for part in schema:
            yield from _patterns_in(part, depth + 1)


def _texts_in(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield str(name)
            yield from _texts_in(part, depth + 1)
    elif isinstance(value, list):
        for part in value:
            yield from _texts_in(part, depth + 1)


def most_steps(pattern: str, length: int) -> float:
    """Return a bound on the steps of searching `pattern` in a text of `length` characters; inf if none is known.

    Known are sequences and alternatives of single characters and classes, each perhaps repeated, and groups of them
    that are not repeated more than once. Each repeat multiplies the ways there are by the lengths it may take.
    """
    ways, at = 1.0, 0
    while at < len(pattern):
        if pattern.startswith(("(?:", "(?P<"), at) or (pattern[at] == "(" and pattern[at + 1 : at + 2] != "?"):
            opened = re.compile(r"\((?:\?:|\?P<\w+>)?").match(pattern, at)
            at = opened.end() if opened else len(pattern)
            continue
        if pattern[at] == ")":
            repeat = _REPEAT.match(pattern, at + 1)
            if repeat is not None and not repeat[0].startswith("?"):
                return _UNBOUNDED
            ways, at = ways * 2, repeat.end() if repeat else at + 1
            continue
        if pattern[at] == "|":
            ways, at = ways + length + 1, at + 1
            continue
        atom = _ATOM.match(pattern, at)
        if atom is None:
            return _UNBOUNDED
        repeat = _REPEAT.match(pattern, atom.end())
        ways *= 1.0 if repeat is None else _lengths_of(repeat, length)
        at = atom.end() if repeat is None else repeat.end()
    starts = 1.0 if pattern.startswith("^") and "|" not in pattern else length + 1.0
    return ways * starts * (len(pattern) + 1)


def _lengths_of(repeat: re.Match[str], length: int) -> float:
    """Return how many lengths a repeat may take within a text."""
    least, ranged, most, only_most = repeat.groups()
    if repeat[0].startswith("?"):
        return 2.0
    if repeat[0][0] in "*+":
        return length + 1.0
    if only_most is not None:
        return min(int(only_most), length) + 1.0
    if ranged is None:
        return 1.0
    return max(1.0, min(int(most) if most else length, length) - int(least) + 1.0)


def find_mismatch_isolated(value: Any, schema: Mapping[str, Any], timeout_s: float = TIMEOUT_S) -> str | None:
    """Return what `validation.problem_with` says, from a process of its own that gets `timeout_s` seconds."""
    import subprocess  # 4 ms, and only who has such a pattern pays it

    # -P: no module is taken from the working folder, whose files may be those of a stranger.
    words = [sys.executable, "-P", "-c", _CHILD, json.dumps([path or os.getcwd() for path in sys.path])]
    asked = json.dumps([value, schema])
    named = ("PATH", "SYSTEMROOT", "LANG", "LC_ALL")
    env = {name: os.environ[name] for name in named if name in os.environ}
    try:
        said = subprocess.run(
            words,
            input=asked,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=env,
            check=True,
        )
        problem: str | None = json.loads(said.stdout)
    except subprocess.TimeoutExpired:
        return f"a pattern of the schema was not matched within {timeout_s:g} s"
    except (OSError, subprocess.CalledProcessError, ValueError) as exc:
        return f"the patterns of the schema could not be matched ({type(exc).__name__})"
    return problem
