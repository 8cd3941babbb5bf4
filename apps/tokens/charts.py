"""The charts of the app as the host draws them, and the table with the same figures; it reads no log."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from msgspec import Struct

from apps.tokens.filters import Choice
from muse.usage_index.queries import Groups, UsageSum, UsageSums

_MOST_SERIES = 7
_MOST_EMPTY_DAYS = 120
_MOST_BARS = 20
REST = "others"
UNITS: Mapping[str, str] = {
    "cost": "usd",
    "tokens": "count",
    "calls": "count",
    "failed": "count",
    "latency": "seconds",
}
TITLES: Mapping[str, str] = {
    "cost": "Cost by day, in US dollars",
    "tokens": "Tokens by day, input and output",
    "calls": "Calls by day (attempts)",
    "failed": "Failed calls by day",
    "latency": "Seconds for a call by day: half of the calls took at most p50, 95 % at most p95",
}
_VALUES: Mapping[str, Callable[[UsageSum], float]] = {
    "cost": lambda row: row.total.cost_usd,
    "tokens": lambda row: row.total.usage.total_tokens,
    "calls": lambda row: row.total.calls,
    "failed": lambda row: row.total.failed,
}


class Picture(Struct, frozen=True):
    """A chart: what the host's script takes, the days it shows, and whether its values add up."""

    data: dict[str, Any]
    days: tuple[str, ...]
    unit: str
    adds_up: bool


def by_day(choice: Choice, groups: Groups) -> Picture:
    """The chart of a range; `groups` are by day and by the field that is stacked."""
    if choice.show == "latency":
        return _latencies(choice, groups.sums(("day",)))
    value = _VALUES[choice.show]
    ranked = [row.key[0] for row in sorted(groups.sums((choice.stack,)).rows, key=value, reverse=True)]
    named = set(ranked[: _MOST_SERIES + (len(ranked) == _MOST_SERIES + 1)])
    sums = groups.sums(("day", choice.stack))
    days = _days(choice, sorted({row.key[0] for row in sums.rows}))
    values: dict[str, dict[str, float]] = {}
    for row in sums.rows:
        day, name = row.key
        series = values.setdefault(name if name in named else REST, {})
        series[day] = series.get(day, 0) + value(row)
    order = [name for name in (*ranked, REST) if name in values and any(values[name].values())]
    rows = [{"label": name, "values": [values[name].get(day, 0) for day in days]} for name in dict.fromkeys(order)]
    return _picture(choice, days, rows, kind="bar", stacked=True)


def _latencies(choice: Choice, sums: UsageSums) -> Picture:
    found = {row.key[0]: row for row in sums.rows}
    days = _days(choice, sorted(found))
    rows: list[dict[str, Any]] = [
        {"label": "p50", "values": [found[day].p50_s if day in found else None for day in days]},
        {"label": "p95", "values": [found[day].p95_s if day in found else None for day in days]},
    ]
    return _picture(choice, days, rows, kind="line", stacked=False)


def _picture(
    choice: Choice, days: Sequence[str], rows: Sequence[Mapping[str, Any]], *, kind: str, stacked: bool
) -> Picture:
    data = {
        "type": kind,
        "stacked": stacked,
        "labels": [_short(day) for day in days],
        "series": list(rows),
        "unit": UNITS[choice.show],
        "links": [choice.link(f"/{day}", since="", **{"from": "", "to": "", "show": "", "stack": ""}) for day in days],
    }
    return Picture(data, tuple(days), UNITS[choice.show], stacked)


def largest(sums: UsageSums, links: Sequence[str]) -> dict[str, Any]:
    """A chart of the dearest groups (by tokens where none cost anything)."""
    rows = sums.rows[:_MOST_BARS]
    is_free = not any(row.total.cost_usd for row in rows)
    value = _VALUES["tokens" if is_free else "cost"]
    label = "Tokens" if is_free else "Cost"
    return {
        "type": "bar",
        "stacked": False,
        "horizontal": True,
        "labels": [_cut(row.key[0]) for row in rows],
        "series": [{"label": label, "values": [value(row) for row in rows]}],
        "unit": "count" if is_free else "usd",
        "links": list(links[:_MOST_BARS]),
    }


def _days(choice: Choice, found: Sequence[str]) -> list[str]:
    """The days of a chart: all of a span that is not long, else those that have lines."""
    if not found:
        return []
    first, last = (_date(str(day)) for day in (choice.days if choice.days[0] else (found[0], found[-1])))
    last = min(last, max(_date(found[-1]), date.today()))
    count = (last - first).days + 1
    if not 1 <= count <= _MOST_EMPTY_DAYS:
        return list(found)
    return [f"{first + timedelta(days=number):%Y%m%d}" for number in range(count)]


def _date(day: str) -> date:
    try:
        return date(int(day[:4]), int(day[4:6]), int(day[6:]))
    except ValueError:  # the open end of a range
        return date.max


def _short(day: str) -> str:
    parsed = time.strptime(day, "%Y%m%d")
    return time.strftime(f"{parsed.tm_mday} %b", parsed)


def _cut(name: str, most: int = 40) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
