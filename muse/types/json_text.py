"""Find the JSON values that a model's text holds: bare, in prose, in code fences, beside thinking aloud."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

# A fence whose content begins as JSON does; the lookbehind keeps long runs of marks linear.
_FENCE = re.compile(r"(?<!`)`{3,}+[ \t]*+([\w+.-]*+)\s*+(?=[\[{])|(?<!~)~{3,}+[ \t]*+([\w+.-]*+)\s*+(?=[\[{])")
_BEGINS = re.compile(r'\{\s*+["}]|\[\s*+["\[{\]\-0-9tfn]')
_TAG = re.compile(r"<(/?)(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_JSON_TAGS = ("json", "jsonc", "json5", "jsonl")
# Bounds on looking: a text of brackets alone would be read again for each.
_MOST_READ = 4_000_000
_MOST_TRIES = 1_000
_decoder = json.JSONDecoder()


def find_json_values(text: str) -> Iterator[Any]:
    """Yield the JSON values that a text holds, the likeliest answer first.

    First the text as a whole; then, without the blocks of thinking aloud, what stands in fences marked as JSON, in
    other fences, and between other words, each time the last one first: what is said last was thought over. What was
    thought aloud is looked through after all that.
    """
    whole = text.strip().removeprefix("\ufeff").strip()
    yield from _loaded(whole, is_strict=False)  # models write line ends into texts as they are
    said = _without_thoughts(whole)
    if said != whole:
        yield from _loaded(said)
    for part in dict.fromkeys((said, whole)):
        yield from _values_of(part)


def _without_thoughts(text: str) -> str:
    """Return a text without blocks of thinking; the beginning of one, or its end, may be missing."""
    said: list[str] = []
    place = depth = 0
    for tag in _TAG.finditer(text):
        if depth == 0:
            said.append(text[place : tag.start()])
        if not tag[1]:
            depth += 1
        elif depth:
            depth -= 1
        else:  # the beginning was part of the prompt
            said.clear()
        place = tag.end()
    rest = text[place:]
    if depth == 0 or not "".join(said).strip():
        said.append(rest)
    return "\n".join(said).strip()


def _values_of(text: str) -> Iterator[Any]:
    """Yield the values within a text."""
    fenced: list[tuple[bool, Any]] = []
    for mark in list(_FENCE.finditer(text))[-_MOST_TRIES:]:
        tag = (mark[1] or mark[2] or "").lower()
        fenced += [(tag in _JSON_TAGS, value) for value in _decoded(text, mark.end())[0]]
    for is_marked in (True, False):
        yield from (value for marked, value in reversed(fenced) if marked is is_marked)
    yield from reversed(_embedded(text))


def _loaded(text: str, *, is_strict: bool = True) -> list[Any]:
    """Return the value that a text is, if it is one; the one fence around all of it does not count."""
    if len(text) > 6 and text.startswith("```") and text.endswith("```"):
        head, _, inner = text[3:-3].partition("\n")
        text = inner if head.strip().lower() in ("", *_JSON_TAGS) else text[3:-3]
    try:
        return [json.loads(text, strict=is_strict)]
    except (ValueError, RecursionError):
        return []


def _embedded(text: str) -> list[Any]:
    """Return the objects and arrays between other words, outermost ones only, in their order."""
    found: list[Any] = []
    place = read = 0
    for _ in range(_MOST_TRIES):
        begins = _BEGINS.search(text, place)
        if begins is None or read > _MOST_READ:
            break
        values, end, cost = _decoded(text, begins.start())
        found += values
        place, read = end, read + cost
    return found


def _decoded(text: str, place: int) -> tuple[list[Any], int, int]:
    """Return `([the value that begins at a place, if one does], where to look on, how many characters were read)`."""
    try:
        value, end = _decoder.raw_decode(text, place)
    except json.JSONDecodeError as exc:
        return [], place + 1, exc.pos - place
    except RecursionError:
        return [], place + 1, 2_000
    return [value], end, end - place
