"""A tool's result, JSON or plain text, as passages with their sources, and the choice of the best passage.

Entry points: `read_result`, `best`, `is_backed`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from muse.providers._local.tool_planner.tokenization import InverseDocumentFrequency, telling, words_of

_PLACES = ("entry", "path", "file", "uri", "url", "link", "source", "id")
_DAYS = ("day", "date")
_TIMES = ("time", "start", "at", "when")
_TITLES = ("title", "name", "subject", "heading", "weekday")
_TEXTS = ("text", "snippet", "content", "body", "excerpt", "summary", "description", "notes", "message")
_COUNTS = ("total", "count", "total_count", "total_results")
_BOOKKEEPING = frozenset(
    {"next_offset", "offset", "limit", "kind", "next_cursor", "cursor", "has_more", "score", "rank"}
)
_MARKS = re.compile(r"</?(?:b|em|mark|strong)>|\*\*|^\s*(?:#{1,6}|[-*>])\s+", re.MULTILINE)
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"”’)]?\s+(?=[\"“\u2018(]?[^\W_a-z])|\n+")
_FIGURE = re.compile(r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|hundred)\b")
_DATED = re.compile(
    r"\b\d{1,2}:\d\d\b|\b(?:mon|tues|wednes|thurs|fri|satur|sun)day\b"
    r"|\b(?:january|february|march|april|may|june|july|august|september|october|november|december)\b",
    re.IGNORECASE,
)
_REASON = re.compile(r"\b(?:because|why|reason|cause|so that|with \d|due to)\b", re.IGNORECASE)
_NAME = re.compile(r"(?<!^)(?<![.!?:] )\b[A-Z][a-z]+")
_LABEL = re.compile(r"(when|who|why|where|how)\b[^.!?]{0,30}:", re.IGNORECASE)
_KINDS: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...] = (
    (re.compile(r"\b(?:when|what time|which day|what date)\b", re.IGNORECASE), _DATED),
    (re.compile(r"\b(?:how (?:many|much|long|often|high|far|old)|price|cost)\b", re.IGNORECASE), _FIGURE),
    (re.compile(r"\bwhy\b", re.IGNORECASE), _REASON),
    (re.compile(r"\bwho(?:m|se)?\b", re.IGNORECASE), _NAME),
)
_TITLE_SHARE, _FITTING_KIND, _LATER, _ASIDE_FACTOR = 0.5, 1.2, 0.05, 0.5
_LEAST_WORDS = 3
_NO_OUTPUT = "(no output)"  # the agent loop's text for a result without content
_LONGEST_TIME = len("14:32:00")

MOST_AROUND_CHARS = 300
"""The maximum length, in characters, of the quotation below an answer."""


class Source(Struct, frozen=True):
    """The origin of a passage: the tool's own handle for it, and day, time and title if they are known."""

    place: str = ""
    day: str = ""
    time: str = ""
    title: str = ""

    def line(self) -> str:
        """Return the source in one line, `20261103/notes/a.md, 20261103 14:40, Release`; empty if nothing is known."""
        return ", ".join(part for part in (self.place, self.when, self.title) if part)

    @property
    def when(self) -> str:
        """Return day and time, as far as they are known; a time that includes its day is returned alone."""
        if len(self.time) > _LONGEST_TIME:
            return self.time[: len("2026-11-03T14:32")].replace("T", " ")
        return " ".join(part for part in (self.day, self.time) if part)


class Passage(Struct, frozen=True):
    """A sentence or record of a result.

    Attributes:
        order: The position of its record in the result.
        around: The text around it.
    """

    text: str
    source: Source
    order: int
    around: str = ""


class Result(Struct, frozen=True):
    """A tool's result.

    Attributes:
        passages: Its sentences.
        records: The records it shows.
        total: The number of records that exist; None if the result does not say.
    """

    passages: tuple[Passage, ...]
    records: tuple[Passage, ...]
    total: int | None

    @property
    def is_empty(self) -> bool:
        """Return True if the result has nothing to answer from."""
        return not self.passages


def read_result(text: str, place: str) -> Result:
    """Return a tool's text as passages; `place` is the source of a passage that names none itself."""
    data = _loaded(text)
    if data is None:
        record = Passage("" if text.strip() == _NO_OUTPUT else _plain(text), Source(place), 0)
        return Result(tuple(_sentences(record)), (record,) if record.text else (), None)
    records = tuple(
        Passage(said, source, order) for order, (said, source) in enumerate(_records(data, Source(place))) if said
    )
    passages = tuple(passage for record in records for passage in _sentences(record))
    return Result(passages, records, _total(data))


def best(passages: Sequence[Passage], question: str) -> Passage:
    """Return the passage that shares most with the question and has the kind of thing it asks for.

    Ties go to the first passage.
    """
    stems = [telling(passage.text) for passage in passages]
    titles = [telling(passage.source.title) for passage in passages]
    idf = InverseDocumentFrequency([*stems, *titles])
    said = telling(question)

    def weight(at: int) -> float:
        passage = passages[at]
        shared = idf.shared(said, stems[at])
        shared += _TITLE_SHARE * idf.shared(set(said) - set(stems[at]), titles[at])
        shared += _FITTING_KIND * bool(_kinds_asked(question) and _has_kind(passage.text, question))
        if _is_aside(passage, question):
            shared *= _ASIDE_FACTOR
        return shared - _LATER * passage.order

    return passages[max(range(len(passages)), key=lambda at: (weight(at), -at))]


def is_backed(said: str, passage: str, question: str) -> bool:
    """Return True if a sentence is an answer that the passage supports.

    The sentence must have words that the question does not have. They must be in the passage, in the same order (which
    keeps `from 21 December to 1 January` from being reversed). The sentence must have the kind of thing that the
    question
    asks for: a date, a figure, a name. If the question asks for no such kind, the sentence must have all figures of the
    passage.
    """
    asked, told = set(telling(question)), telling(said)
    rest = iter(telling(passage))
    if set(told) <= asked or not all(one in rest for one in told if one not in asked):
        return False
    if _kinds_asked(question):
        return _has_kind(said, question)
    return {one for one in telling(passage) if one[0].isdigit()} <= set(told)


def _kinds_asked(question: str) -> list[re.Pattern[str]]:
    """Return the patterns for the kinds of thing that a question asks for."""
    return [answer for asked, answer in _KINDS if asked.search(question)]


def _has_kind(text: str, question: str) -> bool:
    """Return True if a text has a thing of a requested kind, apart from the question's own words."""
    asked = set(telling(question))
    news = " ".join("," if asked.issuperset(telling(word)) and telling(word) else word for word in text.split())
    return any(kind.search(news) for kind in _kinds_asked(question))


def _is_aside(passage: Passage, question: str) -> bool:
    """Return True if a passage hardly answers: too short, a question, a mere title, or labelled as another kind."""
    text = passage.text
    if len(words_of(text)) < _LEAST_WORDS or text.endswith("?"):
        return True
    found = _LABEL.match(text)
    other = found is not None and not re.search(rf"\b{found[1]}\b", question, re.IGNORECASE)
    return other or frozenset(telling(text)) <= frozenset(telling(passage.source.title))


def _loaded(text: str) -> Any:
    """Return a text decoded as JSON, or several JSON lines as a list.

    Return None if it is neither, or if it is not a list or object.
    """
    try:
        data = json.loads(text)
    except ValueError:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2 or not all(line.lstrip().startswith("{") for line in lines):
            return None
        return _loaded(f"[{','.join(lines)}]")
    return data if isinstance(data, (dict, list)) else None


def _records(data: Any, above: Source) -> Iterator[tuple[str, Source]]:
    """Yield each object of a result as text, with the source that it or an enclosing object names."""
    if isinstance(data, list):
        for item in data:
            yield from _records(item, above)
    elif isinstance(data, Mapping):
        source = _source(data, above)
        yield _told(data), source
        for value in data.values():
            if _is_nested(value) and not _value(value):
                yield from _records(value, source)
    elif isinstance(data, str):
        yield _plain(data), above


def _is_nested(item: Any) -> bool:
    return isinstance(item, (Mapping, list))


def _source(data: Mapping[str, Any], above: Source) -> Source:
    def first(names: Iterable[str]) -> str:
        return next((str(data[name]) for name in names if isinstance(data.get(name), (str, int)) and data[name]), "")

    return Source(
        first(_PLACES) or above.place,
        first(_DAYS) or above.day,
        first(_TIMES) or above.time,
        first(_TITLES) or above.title,
    )


def _told(data: Mapping[str, Any]) -> str:
    """Return the content of an object: its text, or title, text and named further entries if it has such entries."""
    texts = [str(data[name]) for name in _TEXTS if isinstance(data.get(name), str) and data[name].strip()]
    known = {*_PLACES, *_DAYS, *_TIMES, *_TITLES, *_TEXTS, *_COUNTS, *_BOOKKEEPING}
    further = [
        f"{name.replace('_', ' ')}: {said}" for name in data if name not in known and (said := _value(data[name]))
    ]
    speaker = next((entry.partition(": ")[2] for entry in further if entry.startswith("speaker: ")), "")
    if speaker and texts:
        return f"{speaker}: {_plain(texts[0])}"
    title = next((str(data[name]) for name in _TITLES if isinstance(data.get(name), str)), "")
    if texts and not further:
        return _plain(texts[0])
    return _plain("; ".join([*([title] if title else []), *texts, *further]))


def _value(value: Any) -> str:
    """Return a simple value as text; an empty string for an empty or nested value."""
    match value:
        case bool():
            return "yes" if value else ""
        case str() | int() | float():
            return str(value)
        case list() if not any(map(_is_nested, value)):
            return ", ".join(map(str, value))
        case dict() if not any(map(_is_nested, value.values())):
            return ", ".join(f"{count} {name}" for name, count in value.items())
    return ""


def _plain(text: str) -> str:
    return _MARKS.sub("", text).strip()


def _sentences(record: Passage) -> Iterator[Passage]:
    """Yield the sentences of a record, each with the text around it; a record without sentences is one itself."""
    every = [" ".join(said.split()) for said in _SENTENCE_END.split(record.text) if said.strip()]
    for at, said in enumerate(every):
        yield Passage(said, record.source, record.order, _around(every, at))


def _around(sentences: Sequence[str], at: int) -> str:
    """Return a sentence with its neighbours, up to `MOST_AROUND_CHARS` characters; the sentence itself is never cut."""
    first, last = at, at + 1
    room = MOST_AROUND_CHARS - len(sentences[at])
    while last < len(sentences) and len(sentences[last]) < room:
        room -= len(sentences[last]) + 1
        last += 1
    while first > 0 and len(sentences[first - 1]) < room:
        first -= 1
        room -= len(sentences[first]) + 1
    return " ".join(sentences[first:last])


def _total(data: Any) -> int | None:
    """Return how many there are, as the result itself says; None if it does not."""
    if isinstance(data, list):
        return len(data)
    found = next((data[name] for name in _COUNTS if isinstance(data.get(name), int)), None)
    lists = [value for value in data.values() if isinstance(value, list)]
    return found if found is not None else len(lists[0]) if len(lists) == 1 else None
