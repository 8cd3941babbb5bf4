"""Peak memory of a process: many calls one after the other, and 500 in flight; muse and the raw SDK."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator
from pathlib import Path

from benchmarks import callers
from benchmarks.blocks import AsyncCall
from benchmarks.report import Table
from benchmarks.world import PROVIDERS, Json, World

_IN_FLIGHT = 500
_NOTE = (
    "Peak resident memory of a process that makes nothing but these calls. Grown: how much of it came after the first"
    " tenth of the calls; a leak would show there."
)


def measure(provider: str, side: str, calls: int, in_flight: int) -> Json:
    """Peak resident mebibytes after a tenth of the calls and after all; `in_flight` 0 is one after the other."""
    if in_flight:
        make = callers.ours_async if side == "ours" else callers.raw_async
        return asyncio.run(_fly(make(provider, callers.PROMPT), calls // in_flight, in_flight))
    call = (callers.ours if side == "ours" else callers.raw)(provider, callers.PROMPT)
    for _ in range(calls // 10):
        call()
    early = peak_mib()
    for _ in range(calls - calls // 10):
        call()
    return {"early": early, "peak": peak_mib()}


async def _fly(call: AsyncCall, rounds: int, in_flight: int) -> Json:
    early = 0.0
    for _ in range(rounds):
        await asyncio.gather(*(call() for _ in range(in_flight)))
        early = early or peak_mib()
    return {"early": early, "peak": peak_mib()}


def peak_mib() -> float:
    """The peak of this program; Linux's `ru_maxrss` would count the process that started it, too."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text(encoding="utf-8").partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def tables(world: World) -> Iterator[Table]:
    """One row for each provider and way of calling."""
    sequential = 1_000 if world.quick else 10_000
    ways = ((f"{sequential:,} sync", sequential, 0), (f"{_IN_FLIGHT} in flight", 10 * _IN_FLIGHT, _IN_FLIGHT))
    columns = ("calls", "muse / raw", "muse MiB", "raw MiB", "muse grown", "raw grown")
    rows = [_row(world, provider, *way) for provider in PROVIDERS for way in ways]
    yield Table("Memory", columns, rows, _NOTE)


def _row(world: World, provider: str, name: str, calls: int, in_flight: int) -> list[str]:
    ours, raw = (
        world.measure("memory", provider=provider, side=side, calls=calls, in_flight=in_flight)
        for side in ("ours", "raw")
    )
    peaks = [f"{side['peak']:.0f}" for side in (ours, raw)]
    grown = [f"{side['peak'] - side['early']:.1f}" for side in (ours, raw)]
    return [f"{provider} {name}", f"{ours['peak'] / raw['peak']:.2f}", *peaks, *grown]
