"""Whether a call after 40 idle seconds opens a new connection: muse and the raw SDK, sync and async."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from benchmarks import callers
from benchmarks.report import Table
from benchmarks.world import PROVIDERS, Json, World, serving

_IDLE_S = 40.0
_NOTE = (
    "Connections that the second call opens. Over TLS each costs a handshake: two round trips and about a millisecond"
    " of CPU. The SDKs let go of idle connections after 5 s, muse after 300 s."
)


def measure(side: str, address: str, idle_s: float) -> Json:
    """How many connections the call after the pause opened, for each provider and kind."""
    return asyncio.run(_measure(side, address, idle_s))


async def _measure(side: str, address: str, idle_s: float) -> Json:
    make, make_async = (callers.ours, callers.ours_async) if side == "ours" else (callers.raw, callers.raw_async)
    calls: dict[str, Callable[[], Awaitable[object]]] = {}
    for provider in PROVIDERS:
        calls[f"{provider} sync"] = _awaitable(make(provider, callers.PROMPT))
        calls[f"{provider} async"] = make_async(provider, callers.PROMPT)
    for call in calls.values():
        await call()
    await asyncio.sleep(idle_s)
    opened = {}
    watcher = http.client.HTTPConnection(urlsplit(address).netloc)
    _connections(watcher)
    for name, call in calls.items():
        before = _connections(watcher)
        await call()
        opened[name] = _connections(watcher) - before
    return opened


def _awaitable(call: Callable[[], object]) -> Callable[[], Awaitable[object]]:
    async def awaited() -> object:
        return call()

    return awaited


def _connections(watcher: http.client.HTTPConnection) -> int:
    """How many connections the server has seen; the watcher's own is opened once."""
    watcher.request("GET", "/_loopback")
    return int(json.loads(watcher.getresponse().read())["connections"])


def tables(world: World) -> Iterator[Table]:
    """One row for each provider and kind."""
    sides = ("ours", "raw")
    with serving() as first, serving() as second, ThreadPoolExecutor(2) as pool:
        ours, raw = pool.map(
            lambda side, url: world.measure("idle", url=url, side=side, idle_s=_IDLE_S, address=url),
            sides,
            (first, second),
        )
    rows = [
        [name, str(count), f"none: {'met' if count == 0 else 'missed'}", str(raw[name])] for name, count in ours.items()
    ]
    yield Table(f"After {_IDLE_S:.0f} s idle", ("call", "muse opens", "goal", "raw opens"), rows, _NOTE)
