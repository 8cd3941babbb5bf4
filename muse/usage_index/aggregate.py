"""Sums of usage-log lines that can be stored and merged without rounding errors. Entry point: `UsageAggregate`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct, field

from muse.types.usage import Usage
from muse.usage_log.totals import UsageTotal, is_unpriced

# Latencies are counted in steps of a quarter of an octave (19 %) from a millisecond to some 12 hours.
_FIRST_S = 0.001
_STEPS = 4
_MOST_STEPS = 4 * 26
_LONGEST_S = _FIRST_S * 2 ** (_MOST_STEPS // _STEPS)
# Each step's count is a digit of one large number, so that one addition merges all steps.
_DIGIT_BITS = 40
_DIGIT = (1 << _DIGIT_BITS) - 1
_COUNTS = 9  # the first fields of a UsageAggregate
_MOST_COUNT = 1 << 62


class UsageAggregate(Struct, array_like=True):
    """A growing sum of lines.

    Costs (US dollars) and durations (seconds) are lists of numbers whose exact sum equals that of the lines, so that
    the order and grouping of additions do not matter. `latencies` counts calls by duration step: each count is a digit
    of a number in base 2^40.
    """

    calls: int = 0
    failed: int = 0
    unpriced: int = 0
    estimated: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    costs_usd: list[float] = field(default_factory=list)
    durations_s: list[float] = field(default_factory=list)
    latencies: int = 0

    def merge(self, other: UsageAggregate) -> None:
        """Add the counts of another sum."""
        self.calls += other.calls
        self.failed += other.failed
        self.unpriced += other.unpriced
        self.estimated += other.estimated
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.cached_tokens += other.cached_tokens
        self.cache_write_tokens += other.cache_write_tokens
        self.reasoning_tokens += other.reasoning_tokens
        self.costs_usd += other.costs_usd
        self.durations_s += other.durations_s
        self.latencies += other.latencies

    def count(self, usage: Usage, cost_usd: float | None, duration_s: float | None) -> None:
        """Add the counts of one line; a `cost_usd` of None means that no price is known."""
        self.calls += 1
        self.unpriced += is_unpriced(usage, cost_usd)
        self.input_tokens += usage.input_tokens
        self.output_tokens += usage.output_tokens
        self.cached_tokens += usage.cached_tokens
        self.cache_write_tokens += usage.cache_write_tokens
        self.reasoning_tokens += usage.reasoning_tokens
        if cost_usd:
            self.costs_usd.append(cost_usd)
        if duration_s:
            self.durations_s.append(duration_s)

    def time(self, duration_s: float) -> None:
        """Count the duration of a call."""
        self.latencies += 1 << (_step_of(duration_s) * _DIGIT_BITS)

    def settle(self) -> None:
        """Reduce the lists of the exact sums to few numbers, so that the sum is small and quick to merge."""
        self.costs_usd, self.durations_s = _quantize(self.costs_usd), _quantize(self.durations_s)

    def usage(self) -> Usage:
        """Return the tokens of all lines."""
        return Usage(
            self.input_tokens,
            self.output_tokens,
            self.cached_tokens,
            self.cache_write_tokens,
            self.reasoning_tokens,
            self.calls,
            self.estimated > 0,
        )

    def total(self, key: tuple[str, ...] = ()) -> UsageTotal:
        """Return the sum as `muse usage` has it."""
        return UsageTotal(
            key,
            self.calls,
            self.failed,
            self.unpriced,
            self.usage(),
            math.fsum(self.costs_usd),
            math.fsum(self.durations_s),
        )


def latency_s(latencies: int, share: float) -> float | None:
    """Return the seconds that `share` of the timed calls did not exceed, within 10 %; None if there are none.

    `latencies` are those of a `UsageAggregate`.
    """
    first = _first_step(latencies)
    counts = []
    digits = latencies >> (first * _DIGIT_BITS)
    while digits:
        counts.append(digits & _DIGIT)
        digits >>= _DIGIT_BITS
    rank = max(1, math.ceil(share * sum(counts)))
    for step, calls in enumerate(counts, first):
        rank -= calls
        if rank <= 0:
            return float(_FIRST_S * 2 ** ((step + 0.5) / _STEPS))
    return None


def _first_step(latencies: int) -> int:
    """Return the first step that has a call."""
    return max(0, (latencies & -latencies).bit_length() - 1) // _DIGIT_BITS


def _quantize(values: Sequence[float]) -> list[float]:
    """Return a few numbers with the same exact sum as all of `values`."""
    parts: list[float] = []
    while rest := math.fsum([*values, *(-part for part in parts)]):
        parts.append(rest)
    return parts


def _step_of(duration_s: float) -> int:
    if duration_s <= _FIRST_S:
        return 0
    return int(math.log2(min(duration_s, _LONGEST_S) / _FIRST_S) * _STEPS)


class _Packed(Struct, array_like=True):
    """The stored form of a sum: counts beyond 64 bits as text, latencies as digits from the first nonzero one."""

    counts: list[int | str]
    costs_usd: list[float]
    durations_s: list[float]
    first_step: int
    latencies: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Packed).decode


def pack(tally: UsageAggregate) -> bytes:
    """Return a sum as bytes for `unpack`."""
    tally.settle()
    counts = [count if count < _MOST_COUNT else str(count) for count in msgspec.structs.astuple(tally)[:_COUNTS]]
    digits = tally.latencies
    first_step = _first_step(digits)
    digits >>= first_step * _DIGIT_BITS
    body = digits.to_bytes((digits.bit_length() + 7) // 8, "little")
    return _encode(_Packed(counts, tally.costs_usd, tally.durations_s, first_step, body))


def unpack(body: bytes) -> UsageAggregate:
    """Return the sum that `pack` encoded."""
    packed = _decode(body)
    digits = int.from_bytes(packed.latencies, "little") << (packed.first_step * _DIGIT_BITS)
    values: list[Any] = [*map(int, packed.counts), packed.costs_usd, packed.durations_s, digits]
    return UsageAggregate(*values)
