"""Sums over the usage log by any of its fields, from its index. Entry points: `sums`, `grouped`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from muse.usage_index.aggregate import UsageAggregate, latency_s, unpack
from muse.usage_index.index import LogIndex
from muse.usage_index.writer import COARSE, FINE, KEPT, OVERNIGHT, OWN, SEGMENT
from muse.usage_log import ledger
from muse.usage_log.totals import Field, UsageTotal, sort_by_cost

Days = tuple[int, int]
_NAMES: tuple[Field, ...] = ("context", "provider", "model", "segment")
_LAST_DAY = 99_999_999
# The last days of a log, which are likely to grow.
_FRESH_DAYS = 2
_TALLIES = """
SELECT t.day, k.context, k.provider, k.model, k.segment, k.how, t.body
FROM tallies t CROSS JOIN keys k ON k.id = t.key
WHERE t.level = :level AND t.day BETWEEN :first AND :last
    AND (:context = '' OR k.context = :context) AND (:provider = '' OR k.provider = :provider)
    AND (:model = '' OR k.model = :model) AND (:segment = '' OR k.segment = :segment)
"""
_FILES = "SELECT day, begun, done, checksum FROM files WHERE day BETWEEN ? AND ? ORDER BY day"


class UsageFilter(Struct, frozen=True):
    """A filter for lines: a range of days (numbers such as 20261103), and optionally a context, provider and so on."""

    days: Days
    context: str = ""
    provider: str = ""
    model: str = ""
    segment: str = ""

    def named(self) -> dict[Field, str]:
        """Return the fields that the filter sets, with their values."""
        values: dict[Field, str] = dict(
            zip(_NAMES, (self.context, self.provider, self.model, self.segment), strict=True)
        )
        return {name: value for name, value in values.items() if value}

    def bound(self) -> dict[str, str]:
        """Return the value of each field, "" if the filter does not set it."""
        return {
            "context": self.context,
            "provider": self.provider,
            "model": self.model,
            "segment": self.segment,
        }


class UsageSum(Struct, frozen=True):
    """The sum of some lines: `total` as in `muse usage`, with further counts for the dashboard's page.

    Attributes:
        key: The values of the fields that the lines are grouped by.
        total: The sum.
        estimated: Lines whose token counts are estimates.
        kept: Answers from the cache.
        overnight: Answers of a batch service.
        own: Calls whose caller named the model.
        latencies: The durations of live calls, within 10 %, as in `UsageAggregate`.
    """

    key: tuple[str, ...]
    total: UsageTotal
    estimated: int = 0
    kept: int = 0
    overnight: int = 0
    own: int = 0
    latencies: int = 0

    @property
    def p50_s(self) -> float | None:
        """The median duration in seconds."""
        return latency_s(self.latencies, 0.5)

    @property
    def p95_s(self) -> float | None:
        """The 95th percentile of the durations in seconds."""
        return latency_s(self.latencies, 0.95)


class UsageSums(Struct, frozen=True):
    """Sums by key, most expensive first (days in order), and the sum of all lines."""

    by: tuple[Field, ...]
    rows: tuple[UsageSum, ...]
    total: UsageSum


class _RunningSum(Struct):
    """A sum under construction; `hows` counts the calls that were not simply routed."""

    tally: UsageAggregate
    hows: dict[str, int]

    def count(self, hows: Mapping[str, int]) -> None:
        """Add calls by how they came about."""
        for how, calls in hows.items():
            self.hows[how] = self.hows.get(how, 0) + calls

    def sum(self, key: tuple[str, ...] = ()) -> UsageSum:
        """Return the current sum."""
        tally, hows = self.tally, self.hows
        counted = (hows.get(KEPT, 0), hows.get(OVERNIGHT, 0), hows.get(OWN, 0))
        return UsageSum(key, tally.total(key), tally.estimated, *counted, tally.latencies)


class Groups(Struct):
    """Sums that can be merged further, by some of the fields they are grouped by."""

    by: tuple[Field, ...]
    groups: dict[tuple[str, ...], _RunningSum]

    def sums(self, by: Iterable[Field] | None = None) -> UsageSums:
        """Return the sums by some of the fields, or by all of them."""
        fields = self.by if by is None else tuple(by)
        places = [self.by.index(name) for name in fields]
        whole = _RunningSum(UsageAggregate(), {})
        merged: dict[tuple[str, ...], _RunningSum] = {}
        for key, group in self.groups.items():
            part = tuple(key[place] for place in places)
            for one in (whole, merged.setdefault(part, _RunningSum(UsageAggregate(), {}))):
                one.tally.merge(group.tally)
                one.count(group.hows)
        rows = [group.sum(key) for key, group in merged.items()]
        return UsageSums(fields, tuple(sort_groups(rows, fields)), whole.sum())


def sums(index: LogIndex, where: UsageFilter, by: Iterable[Field] = ()) -> UsageSums:
    """Return sums of the indexed lines; the figures equal those of `muse usage`."""
    return grouped(index, where, by).sums()


def grouped(index: LogIndex, where: UsageFilter, by: Iterable[Field]) -> Groups:
    """Return the indexed lines in groups, from which sums by several fields can be made.

    The groups of all but the last two logged days are cached while their logs are unchanged, since only the last ones
    are likely to grow.
    """
    fields = tuple(by)
    files = index.rows(_FILES, where.days)
    if len(files) <= _FRESH_DAYS:
        return _grouped(index, where, fields)
    last = files[-1 - _FRESH_DAYS][0]
    past, fresh = replace(where, days=(where.days[0], last)), replace(where, days=(last + 1, where.days[1]))
    stamp = tuple(files[:-_FRESH_DAYS])
    found = index.kept((past, fields), stamp, lambda: _grouped(index, past, fields))
    return _joined(found, _grouped(index, fresh, fields))


def _joined(*parts: Groups) -> Groups:
    """Return the groups of several parts as one."""
    groups: dict[tuple[str, ...], _RunningSum] = {}
    for part in parts:
        for key, group in part.groups.items():
            one = groups.get(key)
            if one is None:
                one = groups[key] = _RunningSum(UsageAggregate(), {})
            one.tally.merge(group.tally)
            one.count(group.hows)
    return Groups(parts[0].by, groups)


def _grouped(index: LogIndex, where: UsageFilter, fields: tuple[Field, ...]) -> Groups:
    places = tuple(-1 if name == "day" else _NAMES.index(name) for name in fields)
    groups: dict[tuple[str, ...], _RunningSum] = {}
    for day, names, how, body in _tallies(index, where, fields):
        tally = unpack(body)
        key = tuple(f"{day:08}" if place < 0 else names[place] for place in places)
        group = groups.get(key)
        if group is None:
            group = groups[key] = _RunningSum(UsageAggregate(), {})
        group.tally.merge(tally)
        if how:
            group.count({how: tally.calls})
    for group in groups.values():
        group.tally.settle()
    return Groups(fields, groups)


def sort_groups(rows: Iterable[UsageSum], by: tuple[Field, ...]) -> list[UsageSum]:
    """Return the sums sorted as in `muse usage`: most expensive first, days in order."""
    return sorted(rows, key=lambda row: sort_by_cost(row.total, by))


def _tallies(
    index: LogIndex, where: UsageFilter, by: tuple[Field, ...]
) -> Iterator[tuple[int, tuple[str, ...], str, bytes]]:
    """Yield `(day, names, how, body)` of the coarsest tallies that answer the query."""
    touched = {*where.named(), *by} - {"day"}
    level = COARSE if "segment" not in touched else SEGMENT if touched == {"segment"} else FINE
    values = {**where.bound(), "level": level, "first": where.days[0], "last": where.days[1]}
    for day, context, provider, model, segment, how, body in index.rows(_TALLIES, values):
        yield day, (context, provider, model, segment), how, body


def sums_by_context(index: LogIndex, days: Days) -> dict[tuple[str, str], UsageTotal]:
    """Return `{(context, how): total}`: the usage of each context, split by how its calls came about.

    `how` is one of `OWN`, `OVERNIGHT` and `KEPT` of `muse.usage_index.writer`, or "" for a routed call.
    """
    found: dict[tuple[str, str], UsageAggregate] = {}
    for _, names, how, body in _tallies(index, UsageFilter(days), ("context",)):
        found.setdefault((names[0], how), UsageAggregate()).merge(unpack(body))
    return {key: tally.total(key) for key, tally in found.items()}


def contexts_of(index: LogIndex, days: Days) -> set[str]:
    """Return the contexts of the lines of some days."""
    return {names[0] for _, names, _, _ in _tallies(index, UsageFilter(days), ("context",))}


def days_since(text: str) -> Days:
    """Return the days that "7d" (the last 7, including today) or a day YYYYMMDD stands for, without an upper end.

    Raises:
        ConfigError: The text is neither.
    """
    return int(ledger.first_day(text)), _LAST_DAY


def days_of(index: LogIndex) -> list[int]:
    """Return the days that have lines, in order."""
    return [row[0] for row in index.rows("SELECT day FROM files ORDER BY day")]


def count_bad_lines(index: LogIndex, days: Days) -> int:
    """Return how many lines are neither blank nor a JSON object, as `muse usage` counts them."""
    sql = "SELECT coalesce(sum(bad + pending), 0) FROM files WHERE day BETWEEN ? AND ?"
    return int(index.rows(sql, days)[0][0])
