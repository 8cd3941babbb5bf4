"""CPU time of one call, sync and async, and of one request of 100 messages: muse, raw SDK, floor."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from statistics import median

from benchmarks import callers
from benchmarks.blocks import AsyncCall, take_turns, take_turns_async
from benchmarks.floor import AiohttpFloor, SocketFloor
from benchmarks.report import Table, at_most, ratio
from benchmarks.world import PROVIDERS, Json, World

_GOALS = {
    ("openai", "sync"): 0.65,
    ("openai", "async"): 0.50,
    ("anthropic", "sync"): 0.85,
    ("anthropic", "async"): 0.60,
    ("google", "sync"): 1.05,
    ("google", "async"): 0.90,
}
_MESSAGES = 100
_MESSAGES_GOALS = {"openai": 0.10}
_COLUMNS = ("call", "muse / raw", "goal", "floor / raw", "muse µs", "raw µs", "floor µs")
_NOTE = (
    "CPU time of the client process, one call after the other, client and connection kept. Ratios are medians over"
    " neighbouring blocks."
)


def measure(provider: str, kind: str, messages: int, blocks: int, calls: int) -> Json:
    """Microseconds a call by block, of muse, the raw SDK and the floor; `messages` 0 is a plain prompt."""
    contents = callers.conversation(messages) if messages else callers.PROMPT
    if kind == "sync":
        return take_turns(
            {
                "ours": callers.ours(provider, contents),
                "raw": callers.raw(provider, contents),
                "floor": SocketFloor(provider, callers.model_of(provider), contents),
            },
            blocks,
            calls,
        )
    return asyncio.run(_measure_async(provider, contents, blocks, calls))


async def _measure_async(provider: str, contents: callers.Contents, blocks: int, calls: int) -> Json:
    floor = AiohttpFloor(provider, callers.model_of(provider), contents)
    contestants: dict[str, AsyncCall] = {
        "ours": callers.ours_async(provider, contents),
        "raw": callers.raw_async(provider, contents),
        "floor": floor,
    }
    spent = await take_turns_async(contestants, blocks, calls)
    await floor.aclose()
    return spent


def tables(world: World) -> Iterator[Table]:
    """One call, then one request of 100 messages."""
    yield Table("One call", _COLUMNS, [_row(world, *key, goal=goal) for key, goal in _GOALS.items()], _NOTE)
    rows = [
        _row(world, provider, kind, messages=_MESSAGES, goal=_MESSAGES_GOALS.get(provider))
        for provider in PROVIDERS
        for kind in ("sync", "async")
    ]
    note = "The raw SDKs get what their users write: role dicts (openai, anthropic), `types.Content` (google)."
    yield Table(f"One request of {_MESSAGES} messages", _COLUMNS, rows, note)


def _row(world: World, provider: str, kind: str, *, goal: float | None, messages: int = 0) -> list[str]:
    calls = 10 if messages else 40
    spent = world.measure(
        "calls", provider=provider, kind=kind, messages=messages, blocks=world.blocks(24), calls=calls
    )
    to_raw = ratio(spent["ours"], spent["raw"])
    return [
        f"{provider} {kind}",
        f"{to_raw:.2f}",
        at_most(to_raw, goal) if goal else "",
        f"{ratio(spent['floor'], spent['raw']):.2f}",
        *(f"{median(spent[name]):.0f}" for name in ("ours", "raw", "floor")),
    ]
