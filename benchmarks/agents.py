"""Agents: what a turn of the loop costs over the raw SDK, and when the first request of `muse agent` is on the wire."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from statistics import median

from benchmarks import tool_loops
from benchmarks.blocks import AsyncCall, take_turns_async
from benchmarks.callers import PROMPT
from benchmarks.first_answer import RAW
from benchmarks.report import Table, at_most, ratio
from benchmarks.tool_server import TOOL_TURNS
from benchmarks.world import PROVIDERS, ROOT, Json, World, addresses, serving
from muse.models import PROVIDER_DEFAULTS
from tests.loopback.server import LoopbackServer

_TURNS = TOOL_TURNS + 1
_LOOP_GOAL = 1.1
_FIRST_GOAL = 1.3
_LOOP_NOTE = (
    f"CPU time a turn of a run with four tools: {TOOL_TURNS} turns of two calls, and one of text. muse: `run_agent`,"
    " its tools over an MCP session in memory that is opened for the run. raw: the SDK's typed method in a loop by"
    " hand, the tools called as plain functions; raw with MCP: the same, the tools over a session as muse's. The"
    " difference of the two is what the mcp package takes for the calls themselves: the loop, which the goal is about,"
    " is muse without it."
)
_FIRST_NOTE = (
    "Milliseconds from the start of a process until the server has the whole first request; medians over processes that"
    " took turns. muse: `muse agent default`, which offers the journal's own tools. raw: import and one call, no tools."
)


def measure(provider: str, blocks: int, runs: int) -> Json:
    """Microseconds a run by block, of muse's loop and of the two by hand."""
    return asyncio.run(_measure(provider, blocks, runs))


async def _measure(provider: str, blocks: int, runs: int) -> Json:
    server = tool_loops.server()
    loop = await tool_loops.loop_of(provider, server)
    contestants: Mapping[str, AsyncCall] = {
        "ours": tool_loops.ours(provider, server),
        "raw": tool_loops.raw(loop),
        "raw_over_mcp": tool_loops.raw_over_mcp(loop, server),
    }
    said = {name: await contestant() for name, contestant in contestants.items()}
    if len(set(said.values())) != 1:
        raise ValueError(f"{provider}: found {said}, expected the same text from all three")
    return await take_turns_async(contestants, blocks, runs)


def tables(world: World) -> Iterator[Table]:
    """The loop, then the way to the first request."""
    columns = (
        *("loop", "loop / raw", "goal", "muse / raw with MCP", "muse / raw"),
        *("muse µs", "raw µs", "raw with MCP µs"),
    )
    with serving(module="benchmarks.tool_server") as url:
        rows = [_loop_row(world, provider, url) for provider in PROVIDERS]
    yield Table("Agent: a turn of the loop", columns, rows, _LOOP_NOTE)
    starts = ("provider", "muse / raw", "goal", "muse ms", "raw ms")
    yield Table("Agent: first request", starts, [_first_row(world, name) for name in PROVIDERS], _FIRST_NOTE)


def _loop_row(world: World, provider: str, url: str) -> list[str]:
    spent = world.measure("agents", url=url, provider=provider, blocks=world.blocks(16), runs=3)
    blocks = zip(spent["ours"], spent["raw"], spent["raw_over_mcp"], strict=True)
    loop = ratio([ours - (over_mcp - raw) for ours, raw, over_mcp in blocks], spent["raw"])
    return [
        provider,
        f"{loop:.2f}",
        at_most(loop, _LOOP_GOAL),
        f"{ratio(spent['ours'], spent['raw_over_mcp']):.2f}",
        f"{ratio(spent['ours'], spent['raw']):.2f}",
        *(f"{median(spent[name]) / _TURNS:.0f}" for name in ("ours", "raw", "raw_over_mcp")),
    ]


def _first_row(world: World, provider: str) -> list[str]:
    commands = {
        "ours": ["-m", "muse", "agent", "default", PROMPT, "--provider", provider],
        "raw": ["-c", RAW[provider], f"bench.{provider}", PROVIDER_DEFAULTS[provider][2]],
    }
    spent: dict[str, list[float]] = {name: [] for name in commands}
    with LoopbackServer() as server:
        environment = world.environment(**addresses(server.url))
        _until_first_request(server, commands["ours"], environment)  # byte code and prices are made
        for _ in range(world.blocks(12)):
            for name, command in commands.items():
                spent[name].append(_until_first_request(server, command, environment))
    by_clock = ratio(spent["ours"], spent["raw"])
    figures = (f"{median(spent[name]) * 1e3:.0f}" for name in ("ours", "raw"))
    return [provider, f"{by_clock:.2f}", at_most(by_clock, _FIRST_GOAL), *figures]


def _until_first_request(server: LoopbackServer, command: list[str], environment: Mapping[str, str]) -> float:
    """Seconds from the start of a Python process until the server has read its first request."""
    server.reset()
    started_s = time.monotonic()
    subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, check=True, stdin=subprocess.DEVNULL, capture_output=True
    )
    return server.requests[0].arrived_s - started_s
