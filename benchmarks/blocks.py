"""CPU time of several contestants in one process, measured in blocks that take turns; it knows no contestant.

Blocks A B C C B A A B C ... lie close together in time, so what else the machine does falls on all of them alike, and
the ratio of neighbours says more than any figure alone; none runs always behind the same other one. `process_time`
counts this process with all its threads.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

Call = Callable[[], object]
AsyncCall = Callable[[], Awaitable[object]]

_WARM_UP_CALLS = 20

_T = TypeVar("_T")


def in_turn(contestants: Mapping[str, _T], block: int) -> list[tuple[str, _T]]:
    """The contestants in the order of a block: each second one is run backwards."""
    order = list(contestants.items())
    return order[::-1] if block % 2 else order


def take_turns(contestants: Mapping[str, Call], blocks: int, calls: int) -> dict[str, list[float]]:
    """Microseconds of CPU a call, for each contestant and block."""
    for call in contestants.values():
        for _ in range(min(calls, _WARM_UP_CALLS)):
            call()
    spent: dict[str, list[float]] = {name: [] for name in contestants}
    for block in range(blocks):
        for name, call in in_turn(contestants, block):
            gc.collect()
            started_s = time.process_time()
            for _ in range(calls):
                call()
            spent[name].append((time.process_time() - started_s) / calls * 1e6)
    return spent


async def take_turns_async(
    contestants: Mapping[str, AsyncCall], blocks: int, calls: int, in_flight: int = 1
) -> dict[str, list[float]]:
    """As `take_turns`, awaited; `in_flight` callers make `calls` calls each, one after the other."""
    spent: dict[str, list[float]] = {name: [] for name in contestants}
    for block in range(-1, blocks):  # the first round warms up
        for name, call in in_turn(contestants, block):
            gc.collect()
            started_s = time.process_time()
            await asyncio.gather(*(_repeat(call, calls) for _ in range(in_flight)))
            if block >= 0:
                spent[name].append((time.process_time() - started_s) / (calls * in_flight) * 1e6)
    return spent


async def _repeat(call: AsyncCall, calls: int) -> None:
    for _ in range(calls):
        await call()
