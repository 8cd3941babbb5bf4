"""Sums over the lines of the token log; pure: it reads no file, and a price comes from the function it is given."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from msgspec import Struct, field

from muse.usage import Usage, usage_of

Field = Literal["context", "model", "provider", "day", "segment"]
FIELDS: tuple[Field, ...] = ("context", "model", "provider", "day", "segment")
Line = Mapping[str, Any]
Price = Callable[[Line], Mapping[str, Any] | None]
_NONE = "(none)"


class Total(Struct, frozen=True):
    """The sum of some lines; `key` has one text for each field they are grouped by.

    `calls` counts lines (attempts), `failed` those with an error, `unpriced` those that used tokens at an unknown
    price: their cost is not in `cost_usd`. `duration_s` is the time spent in calls.
    """

    key: tuple[str, ...] = ()
    calls: int = 0
    failed: int = 0
    unpriced: int = 0
    usage: Usage = Usage()
    cost_usd: float = 0.0
    duration_s: float = 0.0


class Summary(Struct, frozen=True):
    """Totals by key, dearest first (days in order, then dearest first), and the total of all lines."""

    by: tuple[Field, ...]
    rows: tuple[Total, ...]
    total: Total


class _Sum(Struct):
    """A total while it grows; costs are summed exactly at the end, so that the order of lines does not count."""

    calls: int = 0
    failed: int = 0
    unpriced: int = 0
    usage: Usage = Usage()
    costs_usd: list[float] = field(default_factory=list)
    durations_s: list[float] = field(default_factory=list)

    def total(self, key: tuple[str, ...] = ()) -> Total:
        """The sum as it stands."""
        cost, duration = math.fsum(self.costs_usd), math.fsum(self.durations_s)
        return Total(key, self.calls, self.failed, self.unpriced, self.usage, cost, duration)


def summarize(
    lines: Iterable[tuple[str, Line]], by: Iterable[Field], *, price: Price, owner: Callable[[str], str]
) -> Summary:
    """Sum `(day, line)` pairs by one or more fields.

    A line without `cost_usd` (the older form) is priced by `price`, one without `provider` belongs to `owner(model)`.
    """
    fields = tuple(by)
    whole = _Sum()
    groups: dict[tuple[str, ...], _Sum] = {}
    for day, line in lines:
        key = tuple(_value(name, day, line, owner) for name in fields)
        usage, cost = usage_of(line.get("usage")), _cost(line, price)
        for one in (whole, groups.setdefault(key, _Sum())):
            _add(one, line, usage, cost)
    rows = [one.total(key) for key, one in groups.items()]
    rows.sort(key=lambda total: (total.key[fields.index("day")] if "day" in fields else "", *_rank(total)))
    return Summary(fields, tuple(rows), whole.total())


def _add(one: _Sum, line: Line, usage: Usage, cost: float | None) -> None:
    one.calls += 1
    one.failed += bool(line.get("error"))
    one.unpriced += cost is None and usage.total_tokens > 0
    one.usage += usage
    one.costs_usd.append(cost or 0.0)
    one.durations_s.append(_number(line.get("duration_s")) or 0.0)


def _rank(total: Total) -> tuple[float, int, tuple[str, ...]]:
    return -total.cost_usd, -total.usage.total_tokens, total.key


def _cost(line: Line, price: Price) -> float | None:
    """The cost a line states, or for the older form the one that `price` finds; None if it is unknown."""
    if "cost_usd" in line:
        return _number(line["cost_usd"])
    found = price(line)
    return None if found is None else _number(found["total_cost"])


def _number(value: object) -> float | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _value(name: Field, day: str, line: Line, owner: Callable[[str], str]) -> str:
    match name:
        case "day":
            return day
        case "provider":
            return str(line.get("provider") or owner(str(line.get("model") or "")))
        case "context" | "model" | "segment":
            return str(line.get(name) or _NONE)
