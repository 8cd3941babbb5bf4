"""What may come next at a place in journal.json: keys and values by its schema, names by what there is; no page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path as File
from typing import Any

from msgspec import Struct

import muse
from apps.settings.json_scanner import Path, Scan, last_word
from apps.settings.route_table import Plans

_BARE = re.compile(r"[A-Za-z0-9_.+-]*")
_REST_OF_WORD = re.compile(r'(?:[^"\\\n,:{}\[\]]|\\[^\n])*"?')
_MOST = 60


class Suggestion(Struct, frozen=True):
    """One thing that may stand there: `insert` takes the place of the characters `start` to `end`."""

    label: str
    insert: str
    detail: str
    start: int
    end: int


class Names(Struct, frozen=True):
    """The names that the schema leaves open: of contexts, providers and models, each with a word on it."""

    contexts: Mapping[str, str]
    providers: Mapping[str, str]
    models: Mapping[str, str]


def names_of(plans: Plans) -> Names:
    """The names that there are now."""
    models = {model: spec.label for spec in plans.specs.values() for model in spec.tiers.values()}
    return Names(
        {name: info.label for name, info in plans.registry.contexts.items()},
        {name: spec.label for name, spec in plans.specs.items()},
        {**dict.fromkeys(plans.models(), "in journal.json"), **models},
    )


def suggest(text: str, cursor: int, names: Names) -> list[Suggestion]:
    """What may stand at the cursor (an offset in characters), those that begin like what is written there first."""
    cursor = max(0, min(cursor, len(text)))
    start = last_word(text[:cursor])
    if start < cursor and _is_closed(text[start:cursor]):
        return []
    path, due = Scan(text[:start]).due
    end = _end(text, start, cursor)
    written = text[start:cursor].strip('"').casefold()
    if due == "key":
        taken = _keys_at(text, path, start)
        found = [(name, detail) for name, detail in _keys(path, names) if name not in taken]
        rows = [(name, json.dumps(name) + _colon(text, end, path, name), detail) for name, detail in found]
    elif due in ("value", "item"):
        rows = [(label, label, detail) for label, detail in _values(path, names)]
    else:
        rows = [("{", "{\n  \n}", "an object")] if not text.strip() else []
    begins = [row for row in rows if row[0].strip('"').casefold().startswith(written)]
    within = [row for row in rows if len(written) > 1 and row not in begins and written in row[0].casefold()]
    fitting = begins + within
    return [Suggestion(label, insert, detail, start, end) for label, insert, detail in fitting[:_MOST]]


def _is_closed(word: str) -> bool:
    return len(word) > 1 and word[0] == '"' and word[-1] == '"'


def _end(text: str, start: int, cursor: int) -> int:
    """Where the word at the cursor ends: with its closing quote, if it has one on its line."""
    if text[start:cursor].startswith('"'):
        rest = _REST_OF_WORD.match(text, cursor)
        return rest.end() if rest and rest[0].endswith('"') else cursor
    rest = _BARE.match(text, cursor)
    return rest.end() if rest else cursor


def _colon(text: str, end: int, path: Path, name: str) -> str:
    """What comes after a key: nothing where a colon stands, else one with the beginning of its value."""
    if text[end:].lstrip().startswith(":"):
        return ""
    kind = _node((*path, name)).get("type")
    return ": " + {"object": "{}", "array": "[]", "string": '""'}.get(kind if isinstance(kind, str) else "", "")


def _keys_at(text: str, path: Path, start: int) -> set[str]:
    """The keys that the object at a path has, apart from the one that is being written."""
    places = (place for place in Scan(text).places if place.role == "key" and place.start != start)
    return {str(place.path[-1]) for place in places if place.path[:-1] == path}


def _keys(path: Path, names: Names) -> Iterator[tuple[str, str]]:
    """`(key, what it means)` of the object at a path."""
    for choice in _branches(_node(path)):
        yield from ((name, _detail(below)) for name, below in choice.get("properties", {}).items())
    if path == ("providers", "contexts"):
        yield from names.contexts.items()
    if path == ("providers", "models"):
        yield from names.providers.items()


def _values(path: Path, names: Names) -> Iterator[tuple[str, str]]:
    """`(JSON text, what it means)` of what may stand at a path."""
    node = _node(path)
    detail = _detail(node)
    for choice in _branches(node):
        yield from ((json.dumps(value), detail) for value in choice.get("enum", ()))
        if choice.get("type") == "boolean":
            yield from (("true", detail), ("false", detail))
        if choice.get("type") == "object":
            yield "{}", "an object"
        if choice.get("type") == "array":
            yield "[]", "a list"
    named = {"provider": names.providers, "model": names.models, "context": names.contexts}.get(_names_what(path))
    for name, label in (named or {}).items():
        yield json.dumps(name), label


def _names_what(path: Path) -> str:
    """Which names stand at a path: of providers, models or contexts."""
    words = [step for step in path if isinstance(step, str)]
    if path[:2] == ("providers", "models") and len(path) == 4:
        return "model"
    if words and words[-1] in ("fallbacks", "allow") and isinstance(path[-1], int):
        return "provider"
    if path[:1] != ("providers",) or path[1:2] == ("compatible",):
        return ""
    return words[-1] if words and isinstance(path[-1], str) else ""


def _detail(node: Mapping[str, Any]) -> str:
    whole = {**_resolved(node), **node}
    return str(whole.get("description") or whole.get("title") or "")


@cache
def schema() -> Mapping[str, Any]:
    """The schema of journal.json."""
    file = File(muse.__file__).parent / "journal.schema.json"
    found: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _node(path: Path) -> Mapping[str, Any]:
    """The part of the schema that speaks of a path; empty where none does."""
    node = _resolved(schema())
    for step in path:
        node = _resolved(_below(node, step))
    return node


def _below(node: Mapping[str, Any], step: str | int) -> Mapping[str, Any]:
    for choice in _branches(node):
        if isinstance(step, int):
            below = choice.get("items")
        else:
            below = choice.get("properties", {}).get(step, choice.get("additionalProperties"))
        if isinstance(below, Mapping):
            return below
    return {}


def _branches(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A node and its alternatives."""
    yield node
    for word in ("anyOf", "oneOf"):
        for choice in node.get(word, ()):
            yield from _branches(_resolved(choice))


def _resolved(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """A node with what it refers to; its own words go before those."""
    reference = node.get("$ref")
    if not isinstance(reference, str):
        return node
    target: Any = schema()
    for step in reference.removeprefix("#/").split("/"):
        target = target[step]
    return {**_resolved(target), **{name: value for name, value in node.items() if name != "$ref"}}
