"""Sums over the lines of the token log; pure: it reads no file, and a price comes from the function it is given."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct, field

from muse.types.usage import Usage, parse_usage

Field = Literal["context", "model", "provider", "day", "segment"]
FIELDS: tuple[Field, ...] = ("context", "model", "provider", "day", "segment")
Line = Mapping[str, Any]
Price = Callable[[Line], Mapping[str, Any] | None]
NONE = "(none)"
# So large that sums stay finite, and no cost, duration or time since 1970 comes near.
_LARGEST = 1e15


class UsageTotal(Struct, frozen=True):
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

    def counts(self) -> dict[str, int | float]:
        """The numbers by name, in the order in which they are shown."""
        usage = self.usage
        return {
            "calls": self.calls,
            "failed": self.failed,
            "unpriced": self.unpriced,
            "input_tokens": usage.input_tokens,
            "cached_tokens": usage.cached_tokens,
            "output_tokens": usage.output_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
            "total_tokens": usage.total_tokens,
            "cost_usd": round(self.cost_usd, 10),
            "duration_s": round(self.duration_s, 3),
        }


class UsageSummary(Struct, frozen=True):
    """Totals by key, dearest first (days in order, then dearest first), and the total of all lines."""

    by: tuple[Field, ...]
    rows: tuple[UsageTotal, ...]
    total: UsageTotal


class _Accumulator(Struct):
    """A total while it grows; costs are summed exactly at the end, so that the order of lines does not count."""

    calls: int = 0
    failed: int = 0
    unpriced: int = 0
    usage: Usage = Usage()
    costs_usd: list[float] = field(default_factory=list)
    durations_s: list[float] = field(default_factory=list)

    def total(self, key: tuple[str, ...] = ()) -> UsageTotal:
        """The sum as it stands."""
        cost, duration = math.fsum(self.costs_usd), math.fsum(self.durations_s)
        return UsageTotal(key, self.calls, self.failed, self.unpriced, self.usage, cost, duration)


def summarize(
    lines: Iterable[tuple[str, Line]], by: Iterable[Field], *, price: Price, owner: Callable[[str], str]
) -> UsageSummary:
    """Sum `(day, line)` pairs by one or more fields.

    A line without `cost_usd` (the older form) is priced by `price`, one without `provider` belongs to `owner(model)`.
    """
    fields = tuple(by)
    whole = _Accumulator()
    groups: dict[tuple[str, ...], _Accumulator] = {}
    for day, line in lines:
        key = tuple(field_value(name, day, line, owner) for name in fields)
        usage, cost = parse_usage(line.get("usage")), line_cost(line, price)
        for one in (whole, groups.setdefault(key, _Accumulator())):
            _add(one, line, usage, cost)
    rows = [one.total(key) for key, one in groups.items()]
    rows.sort(key=lambda total: sort_by_cost(total, fields))
    return UsageSummary(fields, tuple(rows), whole.total())


def _add(one: _Accumulator, line: Line, usage: Usage, cost: float | None) -> None:
    one.calls += 1
    one.failed += bool(line.get("error"))
    one.unpriced += is_unpriced(usage, cost)
    one.usage += usage
    one.costs_usd.append(cost or 0.0)
    one.durations_s.append(finite(line.get("duration_s")) or 0.0)


def sort_by_cost(total: UsageTotal, by: Sequence[Field]) -> tuple[str, float, int, tuple[str, ...]]:
    """What totals are sorted by: days in order, then the dearest first."""
    day = total.key[by.index("day")] if "day" in by else ""
    return day, -total.cost_usd, -total.usage.total_tokens, total.key


def is_unpriced(usage: Usage, cost_usd: float | None) -> bool:
    """Whether a call used tokens at a price that nobody knows."""
    return cost_usd is None and usage.total_tokens > 0


def line_cost(line: Line, price: Price) -> float | None:
    """The cost a line states, or for the older form the one that `price` finds; None if it is unknown.

    A stated null is 0 where `price` finds 0 today: older lines of free providers, such as the embedded model, have it.
    """
    stated = line.get("cost_usd")
    if stated is not None:
        return finite(stated)
    found = price(line)
    cost = None if found is None else finite(found["total_cost"])
    return cost if "cost_usd" not in line or cost == 0 else None


def finite(value: object) -> float | None:
    """A number that can be summed; None for anything else, and for one beyond all dollars, seconds and times."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    return float(value) if -_LARGEST <= value <= _LARGEST else None


def field_value(name: Field, day: str, line: Line, owner: Callable[[str], str]) -> str:
    """What a line says of a field it is grouped by."""
    match name:
        case "day":
            return day
        case "provider":
            return str(line.get("provider") or owner(str(line.get("model") or "")))
        case "context" | "model" | "segment":
            return str(line.get(name) or NONE)
