"""CPU time of a call with 50 and with 500 calls in flight, each answered after a while: muse and the raw SDK."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from statistics import median

from benchmarks import callers
from benchmarks.blocks import take_turns_async
from benchmarks.report import Table, ratio
from benchmarks.world import PROVIDERS, Json, World, serving

_FEW, _MANY = 50, 500
_LATENCY_MS = 50
_CALLS_A_BLOCK = {_FEW: 400, _MANY: 1_000}
_NOTE = (
    "CPU time a call of the client process; every answer takes 50 ms. The rise says what a call costs more with 500 in"
    " flight than with 50; flat is 1.0."
)


def measure(provider: str, in_flight: int, blocks: int) -> Json:
    """Microseconds a call by block, of muse and the raw SDK, with that many callers at once."""
    return asyncio.run(_measure(provider, in_flight, blocks))


async def _measure(provider: str, in_flight: int, blocks: int) -> Json:
    contestants = {
        "ours": callers.ours_async(provider, callers.PROMPT),
        "raw": callers.raw_async(provider, callers.PROMPT),
    }
    return await take_turns_async(contestants, blocks, _CALLS_A_BLOCK[in_flight] // in_flight, in_flight)


def tables(world: World) -> Iterator[Table]:
    """Microseconds a call, the ratio, and how both rise from 50 to 500."""
    columns = ("provider", "in flight", "muse / raw", "muse µs", "raw µs", "muse rise", "raw rise")
    with serving("--latency-ms", str(_LATENCY_MS)) as url:
        rows = [row for provider in PROVIDERS for row in _rows(world, provider, url)]
    yield Table("Many calls in flight", columns, rows, _NOTE)


def _rows(world: World, provider: str, url: str) -> Iterator[list[str]]:
    few, many = (
        world.measure("flight", url=url, provider=provider, in_flight=count, blocks=world.blocks(8))
        for count in (_FEW, _MANY)
    )
    rises = [f"{median(many[name]) / median(few[name]):.2f}" for name in ("ours", "raw")]
    for count, spent, rise in ((_FEW, few, ["", ""]), (_MANY, many, rises)):
        figures = [f"{median(spent[name]):.0f}" for name in ("ours", "raw")]
        yield [provider, str(count), f"{ratio(spent['ours'], spent['raw']):.2f}", *figures, *rise]
