"""How the pages word what they show: days, spans, kinds of lines, values of a chart; it reads no log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apps.host.formatting import day
from apps.tokens.charts import Picture
from apps.tokens.filters import ALL, Choice
from muse.types.formatting import format_count, format_duration, format_usd
from muse.usage_index.line_queries import Only

ONLY_WORDS: Mapping[Only, str] = {
    "failed": "failed",
    "unpriced": "without a known price",
    "estimated": "with estimated counts",
    "kept": "answered from the cache",
    "overnight": "at batch price",
    "own": "with a model their caller named",
}


def span(choice: Choice) -> str:
    """The days of a choice in words."""
    first, last = choice.days
    if choice.days == ALL:
        return "All days"
    if first == last:
        return day(first)
    if first == ALL[0]:
        return f"Up to {day(last)}"
    return f"From {day(first)} on" if last == ALL[1] else f"{day(first)} to {day(last)}"


def iso(number: int) -> str:
    """A day as an input of a form takes it; empty for an open end.

    >>> iso(20261103), iso(0)
    ('2026-11-03', '')
    """
    text = str(number)
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if number not in ALL else ""


def shown(value: float | None, unit: str) -> str:
    """A value of a chart."""
    return {"usd": format_usd, "seconds": format_duration}.get(unit, format_count)(value)


def added(picture: Picture, place: int) -> float:
    """The sum of a chart's series at one day."""
    values: list[float] = [series["values"][place] for series in picture.data["series"]]
    return sum(values)


def percent(share: float) -> str:
    """A share of the whole, with a digit behind the point where it is small.

    >>> percent(0.366), percent(0.0141), percent(0.0002), percent(0)
    ('37 %', '1.4 %', '<0.1 %', '0 %')
    """
    if 0 < share < 0.0005:
        return "<0.1 %"
    return f"{share * 100:.{1 if 0 < share < 0.0995 else 0}f} %"


WORDS: Mapping[str, Any] = {
    "percent": percent,
    "only_words": ONLY_WORDS,
    "span": span,
    "iso": iso,
    "shown": shown,
    "added": added,
}
