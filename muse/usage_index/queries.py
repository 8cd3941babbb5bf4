"""Sums over the token log by any of its fields, out of its index; it knows no page."""

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
    """Which lines: of days from first to last (numbers such as 20261103), and of one context, provider and so on."""

    days: Days
    context: str = ""
    provider: str = ""
    model: str = ""
    segment: str = ""

    def named(self) -> dict[Field, str]:
        """The fields that are bound, with what they are bound to."""
        values: dict[Field, str] = dict(
            zip(_NAMES, (self.context, self.provider, self.model, self.segment), strict=True)
        )
        return {name: value for name, value in values.items() if value}

    def bound(self) -> dict[str, str]:
        """What each field is bound to, "" if to nothing."""
        return {
            "context": self.context,
            "provider": self.provider,
            "model": self.model,
            "segment": self.segment,
        }


class UsageSum(Struct, frozen=True):
    """The sum of some lines: `total` as `muse usage` has it, and what its page shows beside.

    `estimated`, `kept`, `overnight` and `own` count lines: token counts that are estimates, answers out of the cache,
    answers of a batch service, calls whose model its caller named. `latencies` are those of a `Tally`: durations of
    calls that were answered there and then, within 10 %.
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
        """Seconds that half of the calls did not exceed."""
        return latency_s(self.latencies, 0.5)

    @property
    def p95_s(self) -> float | None:
        """Seconds that 95 % of the calls did not exceed."""
        return latency_s(self.latencies, 0.95)


class UsageSums(Struct, frozen=True):
    """Sums by key, dearest first (days in order), and that of all lines."""

    by: tuple[Field, ...]
    rows: tuple[UsageSum, ...]
    total: UsageSum


class _RunningSum(Struct):
    """A sum while it grows; `hows` counts the calls that were not simply routed."""

    tally: UsageAggregate
    hows: dict[str, int]

    def count(self, hows: Mapping[str, int]) -> None:
        """Add calls by how they came about."""
        for how, calls in hows.items():
            self.hows[how] = self.hows.get(how, 0) + calls

    def sum(self, key: tuple[str, ...] = ()) -> UsageSum:
        """The sum as it stands."""
        tally, hows = self.tally, self.hows
        counted = (hows.get(KEPT, 0), hows.get(OVERNIGHT, 0), hows.get(OWN, 0))
        return UsageSum(key, tally.total(key), tally.estimated, *counted, tally.latencies)


class Groups(Struct):
    """Sums that can be put together further: by some of the fields they are grouped by."""

    by: tuple[Field, ...]
    groups: dict[tuple[str, ...], _RunningSum]

    def sums(self, by: Iterable[Field] | None = None) -> UsageSums:
        """The sums by some of the fields, or by all of them."""
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
    """Sums of the lines that are indexed; the same figures as `muse usage`."""
    return grouped(index, where, by).sums()


def grouped(index: LogIndex, where: UsageFilter, by: Iterable[Field]) -> Groups:
    """The lines that are indexed in groups, of which sums by several fields can be made.

    What was found of days that have gone is kept while their logs stay as they are: only the last ones change.
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
    """Groups of several parts as one."""
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
    """Dearest first, days in order, as `muse usage` has them."""
    return sorted(rows, key=lambda row: sort_by_cost(row.total, by))


def _tallies(
    index: LogIndex, where: UsageFilter, by: tuple[Field, ...]
) -> Iterator[tuple[int, tuple[str, ...], str, bytes]]:
    """`(day, names, how, body)` of the coarsest tallies that tell what is asked."""
    touched = {*where.named(), *by} - {"day"}
    level = COARSE if "segment" not in touched else SEGMENT if touched == {"segment"} else FINE
    values = {**where.bound(), "level": level, "first": where.days[0], "last": where.days[1]}
    for day, context, provider, model, segment, how, body in index.rows(_TALLIES, values):
        yield day, (context, provider, model, segment), how, body


def sums_by_context(index: LogIndex, days: Days) -> dict[tuple[str, str], UsageTotal]:
    """`{(context, how): total}`: what each context used, apart by how its calls came about (see `book`)."""
    found: dict[tuple[str, str], UsageAggregate] = {}
    for _, names, how, body in _tallies(index, UsageFilter(days), ("context",)):
        found.setdefault((names[0], how), UsageAggregate()).merge(unpack(body))
    return {key: tally.total(key) for key, tally in found.items()}


def contexts_of(index: LogIndex, days: Days) -> set[str]:
    """The contexts of the lines of some days."""
    return {names[0] for _, names, _, _ in _tallies(index, UsageFilter(days), ("context",))}


def days_since(text: str) -> Days:
    """The days that "7d" (the last 7, with today) or a day YYYYMMDD stands for, up to today or later.

    Raises:
        ConfigError: it is neither.
    """
    return int(ledger.first_day(text)), _LAST_DAY


def days_of(index: LogIndex) -> list[int]:
    """The days that have lines, in order."""
    return [row[0] for row in index.rows("SELECT day FROM files ORDER BY day")]


def count_bad_lines(index: LogIndex, days: Days) -> int:
    """How many lines are neither blank nor a JSON object, as `muse usage` counts them."""
    sql = "SELECT coalesce(sum(bad + pending), 0) FROM files WHERE day BETWEEN ? AND ?"
    return int(index.rows(sql, days)[0][0])
