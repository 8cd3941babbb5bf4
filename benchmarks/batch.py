"""Batches: a whole one against the raw SDK with a semaphore, its memory, its ledger, and the machinery of a request.

The raw caller makes a task for each request, lets a semaphore pass so many at a time, and takes the answers as they
come: what a sensible user of the SDK writes.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterator
from statistics import median
from typing import Any

from benchmarks import callers
from benchmarks.memory import peak_mib
from benchmarks.report import Table, at_most, ratio
from benchmarks.world import Json, World, serving
from muse import batch as batches
from muse.batch import Batch, BatchRequest

_PROVIDER = "openai"
_CALLS, _QUICK_CALLS = 5_000, 1_000
_GOALS = {(0, 100): 2.5, (0, 500): 3.0, (50, 100): 2.0, (50, 500): 2.8}
_MEMORY_GOAL, _LEDGER_GOAL, _MACHINERY_GOAL = 1.05, 1.3, 1.2
_SIZES = (1_000, 20_000, 100_000)
_AT_ONCE = 100
_IN_FLIGHT, _SLOW_MS = (100, 500), 50
_NOTE = (
    "Requests a second on the clock, from the first added to the last drained, in processes that take turns; one"
    " provider (openai), which a loopback server on the same cores plays. Memory: the peak of the process."
)
_LEDGER_NOTE = (
    "The same batch in memory, and with every request and result in SQLite before it is handed over; time on the clock."
)
_MACHINERY_NOTE = (
    "CPU microseconds a request with a call that only gives way once; plain is a semaphore with `as_completed`."
    " Flat: the largest batch to the smallest."
)


def measure(*, side: str, calls: int = 0, in_flight: int = _AT_ONCE, blocks: int = 1) -> Json:
    """One batch in this process, or the machinery of many."""
    if side == "machinery":
        return asyncio.run(_machinery(calls, blocks))
    return asyncio.run(_whole(side, calls, in_flight))


async def _whole(side: str, calls: int, in_flight: int) -> Json:
    """Seconds of a whole batch, and the peak of memory."""
    await (callers.raw_async if side == "raw" else callers.ours_async)(_PROVIDER, callers.PROMPT)()  # makes the client
    started_s = time.perf_counter()
    if side == "raw":
        texts = [text async for text in _raw(calls, in_flight)]
    else:
        ledger = f"benchmark-{time.time_ns()}" if side == "ledger" else None
        texts = [text async for text in _ours(calls, in_flight, ledger)]
    taken_s = time.perf_counter() - started_s
    if len(texts) != calls or not all(texts):
        raise ValueError(f"{side}: found {sum(map(bool, texts))} answers, expected {calls}")
    return {"taken_s": taken_s, "peak": peak_mib()}


async def _ours(calls: int, in_flight: int, ledger: str | None) -> AsyncIterator[str | None]:
    batch = Batch(max_concurrent=in_flight, ledger=ledger)
    batch.feed(BatchRequest(callers.PROMPT, f"bench.{_PROVIDER}") for _ in range(calls))
    async for request in batch.drain_batch():
        yield request.response
    batch.close()


async def _raw(calls: int, in_flight: int) -> AsyncIterator[str]:
    call, limit = callers.raw_async(_PROVIDER, callers.PROMPT), asyncio.Semaphore(in_flight)

    async def one() -> str:
        async with limit:
            return str(await call())

    for done in asyncio.as_completed([one() for _ in range(calls)]):
        yield await done


async def _machinery(calls: int, blocks: int) -> Json:
    """CPU microseconds a request by block: added, fed, and with a semaphore and `as_completed`."""
    batches.agenerate = _give_way
    contestants = {"add": _added, "feed": _fed, "plain": _plain}
    spent: dict[str, list[float]] = {name: [] for name in contestants}
    for block in range(-1, blocks):  # the first round warms up
        for name, run in contestants.items():
            gc.collect()
            started_s = time.process_time()
            await run(calls if block >= 0 else 100)
            if block >= 0:
                spent[name].append((time.process_time() - started_s) / calls * 1e6)
    return spent


async def _give_way(**options: Any) -> str:
    await asyncio.sleep(0)
    return str(options["contents"])


async def _added(calls: int) -> None:
    batch = Batch(max_concurrent=_AT_ONCE)
    for _ in range(calls):
        batch.add(BatchRequest(callers.PROMPT, "bench.openai"))
    async for _ in batch.drain_batch():
        continue


async def _fed(calls: int) -> None:
    batch = Batch(max_concurrent=_AT_ONCE)
    batch.feed(BatchRequest(callers.PROMPT, "bench.openai") for _ in range(calls))
    async for _ in batch.drain_batch():
        continue


async def _plain(calls: int) -> None:
    limit = asyncio.Semaphore(_AT_ONCE)

    async def one() -> str:
        async with limit:
            return await _give_way(contents=callers.PROMPT, context="bench.openai", temperature=0.3)

    for done in asyncio.as_completed([one() for _ in range(calls)]):
        await done


def tables(world: World) -> Iterator[Table]:
    """The whole batch, its ledger, its machinery."""
    calls = _QUICK_CALLS if world.quick else _CALLS
    rows: list[list[str]] = []
    ledger: list[list[str]] = []
    for latency_ms in (0, _SLOW_MS):
        with serving("--latency-ms", str(latency_ms)) as url:
            rows += [_whole_row(world, url, latency_ms, in_flight, calls) for in_flight in _IN_FLIGHT]
            if latency_ms == _SLOW_MS:
                ledger = [_ledger_row(world, url, latency_ms, in_flight, calls) for in_flight in _IN_FLIGHT]
    columns = ("latency, in flight", "muse / raw", "goal", "muse /s", "raw /s", "memory", "memory goal")
    yield Table(f"Batch of {calls:,}", columns, rows, _NOTE)
    yield Table(
        "Batch with a ledger", ("latency, in flight", "ledger / memory", "goal", "ledger /s"), ledger, _LEDGER_NOTE
    )
    yield _machinery_table(world)


def _turns(world: World, url: str, sides: tuple[str, str], calls: int, in_flight: int) -> list[list[Json]]:
    """What each of two sides measured, in processes that take turns."""
    rounds = [
        [world.measure("batch", url=url, side=side, calls=calls, in_flight=in_flight) for side in sides]
        for _ in range(world.blocks(4))
    ]
    return [list(side) for side in zip(*rounds, strict=True)]


def _taken(measured: list[Json]) -> list[float]:
    return [one["taken_s"] for one in measured]


def _whole_row(world: World, url: str, latency_ms: int, in_flight: int, calls: int) -> list[str]:
    ours, raw = _turns(world, url, ("ours", "raw"), calls, in_flight)
    faster = ratio(_taken(raw), _taken(ours))
    memory = ratio([one["peak"] for one in ours], [one["peak"] for one in raw])
    goal = _GOALS[latency_ms, in_flight]
    rates = [f"{calls / median(_taken(side)):,.0f}" for side in (ours, raw)]
    met = f"≥ {goal:g}: {'met' if faster >= goal else 'missed'}"
    name = f"{latency_ms} ms, {in_flight}"
    return [name, f"{faster:.2f}", met, *rates, f"{memory:.2f}", at_most(memory, _MEMORY_GOAL)]


def _ledger_row(world: World, url: str, latency_ms: int, in_flight: int, calls: int) -> list[str]:
    kept, ours = _turns(world, url, ("ledger", "ours"), calls, in_flight)
    slower = ratio(_taken(kept), _taken(ours))
    name = f"{latency_ms} ms, {in_flight}"
    return [name, f"{slower:.2f}", at_most(slower, _LEDGER_GOAL), f"{calls / median(_taken(kept)):,.0f}"]


def _machinery_table(world: World) -> Table:
    spent = {size: world.measure("batch", side="machinery", calls=size, blocks=world.blocks(6)) for size in _SIZES}
    rows = []
    for size, blocks in spent.items():
        added, fed = (ratio(blocks[name], blocks["plain"]) for name in ("add", "feed"))
        figures = [f"{median(blocks[name]):.1f}" for name in ("add", "feed", "plain")]
        rows.append([f"{size:,}", f"{added:.2f}", f"{fed:.2f}", at_most(max(added, fed), _MACHINERY_GOAL), *figures])
    rises = [median(spent[_SIZES[-1]][name]) / median(spent[_SIZES[0]][name]) for name in ("add", "feed", "plain")]
    flat = at_most(max(rises[:2]), _MACHINERY_GOAL)
    rows.append(["flat", "", "", flat, *(f"{rise:.2f}" for rise in rises)])
    columns = ("requests", "add / plain", "feed / plain", "goal", "add µs", "feed µs", "plain µs")
    return Table("Batch: machinery", columns, rows, _MACHINERY_NOTE)
