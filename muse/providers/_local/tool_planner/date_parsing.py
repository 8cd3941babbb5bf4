"""Days that a question names, as dates: written out, by weekday, or as `yesterday`.

Entry points: `days_in`, `without_days`, `known_days`, `needs_calendar`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from datetime import date, timedelta

from msgspec import Struct

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
_NEAR = {"today": 0, "tonight": 0, "yesterday": 1}
_ANY_DAY = re.compile(r"(?<![\d/])(?:19|20)\d\d-?[01]\d-?[0-3]\d(?!\d)")
_MONTH = "|".join(f"{month[:3]}(?:{month[3:]})?" for month in _MONTHS)
_YEAR = r"(?:,?\s+(?P<year{0}>\d{{4}}))?"
_NAMED = re.compile(
    rf"""\b(?:
        (?P<iso>\d{{4}}-\d\d-\d\d) (?![\w/])
      | (?P<plain>(?:19|20)\d{{6}}) (?![\w/])
      | (?P<dom1>\d{{1,2}})(?:st|nd|rd|th)?(?:\s+of)?\s+(?P<month1>{_MONTH})\b{_YEAR.format(1)}
      | (?P<month2>{_MONTH})\s+(?:the\s+)?(?P<dom2>\d{{1,2}})(?:st|nd|rd|th)?\b{_YEAR.format(2)}
      | (?P<near>{"|".join(_NEAR)})\b
      | (?P<weekday>{"|".join(WEEKDAYS)})(?:['’]s)?\b
      | (?P<week>(?:last|this|past)\s+week)\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_NAMED_WITH_LEAD = re.compile(rf"(?:\b(?:on|of|in|since|from)\s+)?(?:\bthe\s+)?(?:{_NAMED.pattern})", _NAMED.flags)


class Span(Struct, frozen=True):
    """A range from `first` to `last` day, both included; `said` holds the question's words that name them."""

    first: date
    last: date
    said: tuple[str, ...]


def needs_calendar(text: str) -> bool:
    """Return True if a text names a day without its year or week."""
    for match in _NAMED.finditer(text):
        if match["weekday"] or (match["dom1"] and not match["year1"]) or (match["dom2"] and not match["year2"]):
            return True
    return False


def days_in(text: str, today: date, known: Collection[date] = ()) -> Span | None:
    """Return the days that a text names; None if it names none.

    A day without year or week is the latest of the `known` days that fits, else the latest up to `today`.
    """
    found = [(match[0], days) for match in _NAMED.finditer(text) if (days := tuple(_days(match, today, known)))]
    if not found:
        return None
    every = [day for _, days in found for day in days]
    return Span(min(every), max(every), tuple(said for said, _ in found))


def without_days(text: str) -> str:
    """Return a text without the words that name days."""
    return " ".join(_NAMED_WITH_LEAD.sub(" ", text).split()).replace(" ?", "?")


def _days(match: re.Match[str], today: date, known: Collection[date]) -> Iterator[date]:
    """Yield the day or days that one match names; nothing for a day that does not exist."""
    if match["iso"] or match["plain"]:
        yield from _parsed((match["iso"] or match["plain"]).replace("-", ""))
    elif match["near"]:
        yield today - timedelta(days=_NEAR[match["near"].lower()])
    elif match["week"]:
        monday = today - timedelta(days=today.weekday())
        monday -= timedelta(days=0 if match["week"].lower().startswith("this") else 7)
        yield from (monday, monday + timedelta(days=6))
    elif match["weekday"]:
        number = WEEKDAYS.index(match["weekday"].lower())
        fitting = [day for day in known if day.weekday() == number]
        yield max(fitting) if fitting else today - timedelta(days=(today.weekday() - number) % 7)
    else:
        yield from _named(match, today, known)


def _named(match: re.Match[str], today: date, known: Collection[date]) -> Iterator[date]:
    """Yield a day of a month, given with or without its year."""
    month = next(number for number, name in enumerate(_MONTHS, 1) if name.startswith(_either(match, "month")[:3]))
    day, year = int(_either(match, "dom")), _either(match, "year")
    if year:
        yield from _parsed(f"{year}{month:02}{day:02}")
        return
    fitting = [one for one in known if (one.month, one.day) == (month, day)]
    if not fitting:
        years = range(today.year - 4, today.year + 1)
        fitting = [one for near in years for one in _parsed(f"{near}{month:02}{day:02}") if one <= today]
    if fitting:
        yield max(fitting)


def _either(match: re.Match[str], name: str) -> str:
    return (match[f"{name}1"] or match[f"{name}2"] or "").lower()


def _parsed(plain: str) -> Iterator[date]:
    """Yield the date of eight digits; nothing if there is no such day."""
    try:
        yield date(int(plain[:4]), int(plain[4:6]), int(plain[6:]))
    except ValueError:
        return


def known_days(texts: Iterable[str]) -> frozenset[date]:
    """Return all days in the results of tools, as `20261103` or `2026-11-03`."""
    found = (match.replace("-", "") for text in texts for match in _ANY_DAY.findall(text))
    return frozenset(day for plain in found for day in _parsed(plain))
