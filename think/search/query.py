"""Search in the journal: words into ranked hits with snippets and where to read on; it knows no tool and no model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import msgspec
from msgspec import Struct

from muse.errors import MuseError
from muse.journal import paths
from think.entries.entries import Kind
from think.entries.passages import Line, compose
from think.search.index import SearchIndex, open_index

MOST_CHARS = 1_000
MOST_WORDS = 64
SNIPPET_CHARS = 320
MARK = "**"

_QUOTED = re.compile(r'"([^"]*)"|([^\s"/]+)')
_POSSESSIVE = re.compile(r"['’]s\b")
_WORD = re.compile(r"[^\W_]+")
# Words that say nothing of what is looked for: left out unless the query has no others.
_FILLERS = """
a about all am an and any are as at be been but by can could d did didn do does doesn don for from had has have he her
him his how i if in into is isn it its ll m me my of on or our re s she should so t tell than that the their them then
there these they this those to us ve was wasn we were what when where which who whom whose why will with would you your
"""
# Ranking costs about a microsecond a passage: of a query's words the rarer ones choose so many passages, the others
# only count where they stand beside them.
_CANDIDATES = 8_000
_LEAD_CHARS = 80
_OPEN, _CLOSE = "\x02", "\x03"  # no text in the index has them: it holds printable characters only
_MARKED = re.compile(f"{_OPEN}(.*?){_CLOSE}", re.DOTALL)

# The title counts most; the names of the day count less than a word of the text.
_COUNT = (
    "SELECT count(*) FROM words JOIN passages ON passages.id = words.rowid WHERE words MATCH :match"
    " AND passages.day BETWEEN :day_from AND :day_to AND passages.kind = ifnull(:kind, passages.kind)"
)
_PAGE = (
    "SELECT words.rowid FROM words JOIN passages ON passages.id = words.rowid WHERE words MATCH :match"
    " AND passages.day BETWEEN :day_from AND :day_to AND passages.kind = ifnull(:kind, passages.kind)"
    " ORDER BY bm25(words, 3.0, 1.0, 0.7), words.rowid LIMIT :limit OFFSET :offset"
)
_FREQUENCY = "SELECT count(*) FROM words WHERE words MATCH :match"
_SHOW = (
    "SELECT entries.name, entries.day, entries.time, entries.kind, entries.title, passages.heading, passages.lines,"
    " highlight(words, 1, char(2), char(3)) FROM words"
    " JOIN passages ON passages.id = words.rowid JOIN entries ON entries.id = passages.entry"
    " WHERE words MATCH :match AND words.rowid = :key"
)


class QueryError(MuseError, ValueError):
    """Nothing can be looked for with this query; the text says what would be right."""


class Query(Struct, frozen=True):
    """What is looked for: words (those in double quotes stand together), from day to day (`YYYYMMDD`), of one kind."""

    text: str
    day_from: str | None = None
    day_to: str | None = None
    kind: Kind | None = None
    limit: int = 5
    offset: int = 0


class Hit(Struct, frozen=True):
    """A passage that was found: `snippet` has the best lines, `offset` is where they begin in the entry's text."""

    entry: str
    day: str
    time: str
    kind: Kind
    title: str
    speaker: str
    snippet: str
    offset: int


class Found(Struct, frozen=True):
    """A page of hits, best first; `total` counts those of all pages."""

    total: int
    hits: tuple[Hit, ...]


def search(query: Query, index: SearchIndex | None = None) -> Found:
    """Passages with all the words first, then those with any of them, each by how much the words tell (bm25).

    Words match in all their forms (release, released), without accents and in either case; `Tuesday`, `3 November` and
    `2026-11-03` match what is of that day. In a large journal a passage needs one of the query's rarer words.

    Raises:
        QueryError: the query has no words, or too many.
    """
    words = words_of(query.text)
    index = index or open_index(paths.journal_path())
    within = {"day_from": int(query.day_from or 0), "day_to": int(query.day_to or 99999999), "kind": query.kind}
    total = 0
    keys: list[int] = []
    for match in _tiers(words, index):
        ((count,),) = index.rows(_COUNT, {**within, "match": match})
        wanted = query.limit - len(keys)
        if wanted > 0 and query.offset < total + count:
            page = {"match": match, "limit": wanted, "offset": max(0, query.offset - total)}
            keys += (int(key) for (key,) in index.rows(_PAGE, {**within, **page}))
        total += count
    any_word = " OR ".join(words)
    return Found(total, tuple(_hit(row) for key in keys for row in index.rows(_SHOW, {"match": any_word, "key": key})))


def words_of(text: str) -> list[str]:
    """The words to look for, each as a string of FTS5's query language: what holds no blank stays together (`CW-318`).

    Raises:
        QueryError: there are none, or too many.
    """
    if len(text) > MOST_CHARS:
        raise QueryError(
            f"query: found {len(text)} characters, expected {MOST_CHARS} at most: name a few telling words"
        )
    chunks = [quoted or _POSSESSIVE.sub("", bare) for quoted, bare in _QUOTED.findall(compose(text))]
    runs = [tuple(_WORD.findall(chunk.casefold())) for chunk in chunks]
    runs = [run for run in dict.fromkeys(runs) if run]
    if not runs:
        raise QueryError(
            f'query: found no word in {text[:40]!r}, expected what to look for, such as "release decision"'
        )
    fillers = frozenset(_FILLERS.split())
    telling = [run for run in runs if not fillers.issuperset(run)] or runs
    if len(telling) > MOST_WORDS:
        raise QueryError(
            f"query: found {len(telling)} words, expected {MOST_WORDS} at most: name the most telling ones"
        )
    return [f'"{" ".join(run)}"' for run in telling]


def _tiers(words: Sequence[str], index: SearchIndex) -> list[str]:
    """Two matches, without a passage in common: all of the words, any of the words."""
    if len(words) == 1:
        return [words[0]]
    common = {word: int(index.rows(_FREQUENCY, {"match": word})[0][0]) for word in words}
    ordered = sorted(words, key=lambda word: common[word])
    sums = list(accumulate(common[word] for word in ordered))
    rarest = next((number for number, sum_ in enumerate(sums) if sum_), 0)
    chosen = [word for number, word in enumerate(ordered) if number <= rarest or sums[number] <= _CANDIDATES]
    beside = [word for word in words if word not in chosen]
    wanted = " OR ".join(chosen)
    if beside:
        wanted = f"({wanted}) OR (({wanted}) AND ({' OR '.join(beside)}))"
    every = " AND ".join(words)
    return [every, f"({wanted}) NOT ({every})"]


def _hit(row: tuple[Any, ...]) -> Hit:
    name, day, time, kind, title, heading, packed, marked = row
    places = [Line(offset, at, speaker, "") for offset, at, speaker in msgspec.json.decode(packed)]
    lines = str(marked).split("\n")
    best = max(range(len(lines)), key=lambda number: _telling(lines[number]))
    place = places[best]
    if place.speaker:  # what stands before the best line is told by others; its own speaker has a field
        lines = [_without_speaker(lines[best], place.speaker), *lines[best + 1 :]]
        best = 0
    full_title = f"{title}: {heading}" if heading else title
    snippet = _snippet(lines, best)
    return Hit(name, f"{day:08d}", place.time or time, kind, full_title, place.speaker, snippet, place.offset)


def _without_speaker(line: str, speaker: str) -> str:
    return line.split(": ", speaker.count(": ") + 1)[-1]


def _telling(line: str) -> tuple[int, int]:
    """How many words of the query a line has: different ones, then all."""
    found = [word.casefold() for word in _MARKED.findall(line)]
    return len(set(found)), len(found)


def _snippet(lines: Sequence[str], best: int) -> str:
    """The best line, cut around its first marked word if it is long, and what fits of the lines after and before it."""
    shown = [_cut(lines[best])]
    room = SNIPPET_CHARS - len(shown[0])
    for line in lines[best + 1 :]:
        room -= len(line) + 1
        if room < 0:
            break
        shown.append(line)
    for line in reversed(lines[:best]):
        room -= len(line) + 1
        if room < 0:
            break
        shown.insert(0, line)
    text = _MARKED.sub(lambda word: f"{MARK}{word[1]}{MARK}", "\n".join(shown))
    return text.replace(_OPEN, "").replace(_CLOSE, "")


def _cut(line: str) -> str:
    """A line of `SNIPPET_CHARS` at most, cut between words."""
    if len(line) <= SNIPPET_CHARS:
        return line
    begin = max(0, line.find(_OPEN) - _LEAD_CHARS)
    begin = line.find(" ", begin) + 1 if begin else 0
    end = begin + SNIPPET_CHARS
    if end < len(line):
        end = max(line.rfind(" ", begin, end), begin + SNIPPET_CHARS // 2)
    return f"{'… ' if begin else ''}{line[begin:end]}{' …' if end < len(line) else ''}"
