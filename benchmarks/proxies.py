"""CPU time of a call where proxy variables are set: none, `NO_PROXY=*`, and through a proxy on this machine."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

from benchmarks import callers
from benchmarks.blocks import AsyncCall, Call, in_turn, take_turns_async
from benchmarks.report import Table, at_most, ratio
from benchmarks.world import PROVIDERS, Json, World, serving

_IN_FLIGHT = (1, 10, 100)
_CALLS_A_BLOCK = 100
_NO_PROXY_GOAL, _PROXY_GOAL = 1.05, 1.25
_VARIABLES = ("NO_PROXY", "HTTP_PROXY")
_NOTE = (
    "CPU time a call of the client process. Rows differ in the proxy variables alone: none, `NO_PROXY=*`, `HTTP_PROXY`"
    " with a proxy on this machine. muse and the raw SDK go through the same proxy; sync callers are threads."
)


def measure(provider: str, kind: str, in_flight: int, proxy: str, blocks: int) -> Json:
    """Microseconds a call by block, of muse in each environment and of the raw SDK through the proxy."""
    environments = {"none": {}, "no_proxy": {"NO_PROXY": "*"}, "proxy": {"HTTP_PROXY": proxy}}
    calls = max(1, _CALLS_A_BLOCK // in_flight)
    if kind == "sync":
        made: dict[str, Call] = {
            name: _within(given, callers.ours(provider, callers.PROMPT)) for name, given in environments.items()
        }
        _set(environments["proxy"])  # the SDK looks at the variables when its client is made
        made["raw"] = _within(environments["proxy"], callers.raw(provider, callers.PROMPT))
        return _take_turns(made, blocks, calls, in_flight)
    return asyncio.run(_measure_async(provider, environments, blocks, calls, in_flight))


async def _measure_async(
    provider: str, environments: Mapping[str, Mapping[str, str]], blocks: int, calls: int, in_flight: int
) -> Json:
    made: dict[str, AsyncCall] = {
        name: _within(given, callers.ours_async(provider, callers.PROMPT)) for name, given in environments.items()
    }
    _set(environments["proxy"])
    made["raw"] = _within(environments["proxy"], callers.raw_async(provider, callers.PROMPT))
    return await take_turns_async(made, blocks, calls, in_flight)


def _within(variables: Mapping[str, str], call: Callable[[], Any]) -> Callable[[], Any]:
    """The call, made with these variables alone; blocks take turns, so they mostly stand already."""

    def made() -> Any:
        _set(variables)
        return call()

    return made


def _set(variables: Mapping[str, str]) -> None:
    for name in _VARIABLES:
        wanted = variables.get(name)
        if os.environ.get(name) == wanted:
            continue
        if wanted is None:
            del os.environ[name]
        else:
            os.environ[name] = wanted


def _take_turns(contestants: Mapping[str, Call], blocks: int, calls: int, threads: int) -> Json:
    """As `blocks.take_turns`, with so many threads that make `calls` calls each."""
    spent: Json = {name: [] for name in contestants}
    with ThreadPoolExecutor(threads) as pool:
        for block in range(-1, blocks):  # the first round warms up
            for name, call in in_turn(contestants, block):
                took = _block(pool, call, calls, threads)
                spent[name] += [took] if block >= 0 else []
    return spent


def _block(pool: ThreadPoolExecutor, call: Call, calls: int, threads: int) -> float:
    """Microseconds of CPU a call, of one block."""
    gc.collect()
    started_s = time.process_time()
    list(pool.map(lambda _: [call() for _ in range(calls)], range(threads)))
    return (time.process_time() - started_s) / (calls * threads) * 1e6


def tables(world: World) -> Iterator[Table]:
    """One table: what the variables cost."""
    columns = ("call", "in flight", "NO_PROXY=* / none", "goal", "through a proxy / none", "goal ", "muse / raw there")
    with serving(module="tests.loopback.proxy") as proxy:
        rows = [
            _row(world, proxy, provider, kind, in_flight)
            for provider in PROVIDERS
            for kind in ("sync", "async")
            for in_flight in _IN_FLIGHT
        ]
    yield Table("Proxy variables", (*columns, "none µs", "NO_PROXY=* µs", "through a proxy µs"), rows, _NOTE)


def _row(world: World, proxy: str, provider: str, kind: str, in_flight: int) -> list[str]:
    spent = world.measure(
        "proxies", provider=provider, kind=kind, in_flight=in_flight, proxy=proxy, blocks=world.blocks(12)
    )
    exempt, through = ratio(spent["no_proxy"], spent["none"]), ratio(spent["proxy"], spent["none"])
    return [
        f"{provider} {kind}",
        str(in_flight),
        f"{exempt:.2f}",
        at_most(exempt, _NO_PROXY_GOAL),
        f"{through:.2f}",
        at_most(through, _PROXY_GOAL),
        f"{ratio(spent['proxy'], spent['raw']):.2f}",
        *(f"{median(spent[name]):.0f}" for name in ("none", "no_proxy", "proxy")),
    ]
