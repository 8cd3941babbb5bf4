"""Dates in a document, its name and its metadata, each with where it stands; it knows no model.

English, German and French month names are read. Where day and month cannot be told apart (3/4/2026) both are offered.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date

from msgspec import Struct

from observe.documents.text_extraction import Document

MOST_DATES = 12
_SNIPPET = 70
_DATE_LINE = 36
_MONTH_TEXT = """
    january jan januar janvier 1 february feb februar fevrier février 2 march mar märz maerz mars 3 april apr avril 4
    may mai 5 june jun juni juin 6 july jul juli juillet 7 august aug août aout 8 september sep sept septembre 9
    october oct oktober okt octobre 10 november nov novembre 11 december dec dezember dez décembre decembre 12
"""


def _months() -> dict[str, int]:
    months: dict[str, int] = {}
    waiting: list[str] = []
    for word in _MONTH_TEXT.split():
        if word.isdigit():
            months |= dict.fromkeys(waiting, int(word))
            waiting = []
        else:
            waiting.append(word)
    return months


_MONTHS = _months()
_NAMES = "|".join(sorted(_MONTHS, key=len, reverse=True))
_ISO = re.compile(r"(?<![\d.])((?:19|20)\d\d)[-/.]([01]?\d)[-/.]([0-3]?\d)(?!\d)")
_TIGHT = re.compile(r"(?<!\d)((?:19|20)\d\d)([01]\d)([0-3]\d)(?!\d)")
_DAY_FIRST = re.compile(
    rf"(?<!\d)([0-3]?\d)(?:st|nd|rd|th|\.|er)?\s+(?:of\s+)?({_NAMES})\.?,?\s+((?:19|20)\d\d)", re.IGNORECASE
)
_MONTH_FIRST = re.compile(rf"\b({_NAMES})\.?\s+([0-3]?\d)(?:st|nd|rd|th)?,?\s+((?:19|20)\d\d)", re.IGNORECASE)
_NUMBERS = re.compile(r"(?<![\d./-])([0-3]?\d)([./-])([0-3]?\d)\2((?:19|20)\d\d)(?!\d)")


class Candidate(Struct, frozen=True):
    """A date as `YYYY-MM-DD`, where it was found, and the words around it there.

    `is_sign` marks the places where a document says its own date: metadata, its name, a line that is little else.
    """

    date: str
    where: str
    snippet: str
    is_sign: bool = False


def candidates_of(document: Document) -> tuple[Candidate, ...]:
    """The dates that may be the one on which a document was made, each once, the likelier place first."""
    found: dict[str, Candidate] = {}
    for candidate in _all(document):
        found.setdefault(candidate.date, candidate)
        if len(found) >= MOST_DATES:
            break
    return tuple(found.values())


def _all(document: Document) -> Iterator[Candidate]:
    for said in document.metadata:
        yield from (Candidate(when, said.field, said.text, is_sign=True) for _, when in _dates(said.text))
    yield from (
        Candidate(when, "file name", document.name, is_sign=True) for _, when in _dates(document.name.replace("_", " "))
    )
    for number, line in enumerate(document.text.split("\n"), start=1):
        for place, when in _dates(line):
            start = max(0, place - _SNIPPET // 2)
            snippet = " ".join(line[start : start + _SNIPPET].split())
            yield Candidate(when, f"line {number}", snippet, is_sign=len(line.strip()) <= _DATE_LINE)


def _dates(text: str) -> list[tuple[int, str]]:
    """`(place, YYYY-MM-DD)` of each date in a text, in the order in which they stand there."""
    found: list[tuple[int, str]] = []
    for pattern in (_ISO, _TIGHT):
        found += [
            (match.start(), when) for match in pattern.finditer(text) if (when := _date(*map(int, match.groups())))
        ]
    for match in _DAY_FIRST.finditer(text):
        found.append((match.start(), _date(int(match[3]), _MONTHS[match[2].lower()], int(match[1]))))
    for match in _MONTH_FIRST.finditer(text):
        found.append((match.start(), _date(int(match[3]), _MONTHS[match[1].lower()], int(match[2]))))
    for match in _NUMBERS.finditer(text):
        year, first, second = int(match[4]), int(match[1]), int(match[3])
        readings = [(second, first)] if match[2] == "." else [(second, first), (first, second)]
        found += [(match.start(), _date(year, month, day)) for month, day in readings]
    return sorted({(place, when) for place, when in found if when})


def _date(year: int, month: int, day: int) -> str:
    try:
        return date(year, month, day).isoformat()
    except ValueError:
        return ""
