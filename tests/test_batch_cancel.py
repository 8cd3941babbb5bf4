"""Shows how a batch ends before its time, with nothing left running, and how it feels its way to a provider's limit."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

import pytest

from muse import batch as batches
from muse.batch import Batch, BatchRequest
from muse.batching.concurrency import ConcurrencyLimit
from muse.errors import RateLimitError
from tests.batch_calls import CONTEXT, Calls, ask, drained, turns


@pytest.fixture(name="calls")
def _calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    monkeypatch.setattr(batches, "agenerate", calls)
    return calls


def _others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


async def test_closing_the_generator_cancels_the_calls_and_draining_again_asks_them_again(calls: Calls) -> None:
    batch = Batch(max_concurrent=2)
    ask(batch, "a", "b", "c")
    drain = batch.drain_batch()
    await calls.until(2)
    calls.end("a")
    await anext(drain)
    await drain.aclose()
    assert _others() == set()
    assert calls.under_way == {}
    assert not batch.is_drained()
    again = asyncio.create_task(drained(batch))
    await calls.until(2)
    for name in ("b", "c"):
        calls.end(name)
    assert {request.response for request in await again} == {"B", "C"}


async def test_a_cancelled_task_leaves_nothing_running(calls: Calls) -> None:
    batch = Batch()

    async def use() -> None:
        ask(batch, "a", "b")
        await drained(batch)

    task = asyncio.create_task(use())
    await calls.until(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(calls.cancelled) == ["a", "b"]
    assert _others() == set()


async def test_leaving_the_loop_and_draining_on_keeps_what_is_under_way(calls: Calls) -> None:
    batch = Batch()
    ask(batch, "a", "b")
    await calls.until(2)
    calls.end("a")
    async for request in batch.drain_batch():
        assert request.response == "A"
        break
    rest = asyncio.create_task(drained(batch))
    gc.collect()
    await calls.until(1)
    calls.end("b")
    assert [request.response for request in await rest] == ["B"]


async def test_cancel_ends_everything_and_those_that_drain(calls: Calls) -> None:
    batch = Batch(max_concurrent=2)
    requests = ask(batch, "a", "b", "c")
    draining = asyncio.create_task(drained(batch))
    await calls.until(2)
    await batch.cancel()
    assert await draining == []
    assert [request.state for request in requests] == ["cancelled"] * 3
    assert batch.is_drained()
    assert _others() == set()
    ask(batch, "d")
    await calls.until(1)
    calls.end("d")
    assert [request.response for request in await drained(batch)] == ["D"]


async def test_stop_lets_calls_under_way_finish_and_begins_no_other(calls: Calls) -> None:
    batch = Batch(max_concurrent=1)
    ask(batch, "a", "b")
    await calls.until(1)
    batch.stop()
    calls.end("a")
    assert [request.response for request in await drained(batch)] == ["A"]
    assert [asked["contents"] for asked in calls.asked] == ["a"]


async def test_the_end_of_its_block_cancels_a_batch(calls: Calls) -> None:
    async with Batch() as batch:
        ask(batch, "a")
        await calls.until(1)
    assert calls.cancelled == ["a"]


def test_a_loop_that_ends_takes_the_calls_along(calls: Calls) -> None:
    async def leave() -> None:
        ask(Batch(), "a")
        await calls.until(1)

    asyncio.run(leave())
    assert calls.cancelled == ["a"]


async def test_a_rate_limit_halves_the_calls_of_an_automatic_batch(calls: Calls) -> None:
    batch = Batch(max_concurrent="auto")
    batch.feed(BatchRequest(f"q{number}", CONTEXT) for number in range(200))
    draining = asyncio.create_task(drained(batch))
    await calls.until(4)
    await turns()
    assert calls.most == 4
    while calls.most < 16:
        calls.end()
        await turns(9)
    calls.end(answer=RateLimitError("slow down", provider="openai"))
    for _ in range(7):
        await turns(9)
        calls.end()
    await turns(9)
    assert len(calls.under_way) == 8
    await batch.cancel()
    await draining


def test_a_pace_halves_once_for_all_the_calls_that_were_under_way() -> None:
    concurrency = ConcurrencyLimit("auto")
    for _ in range(28):
        concurrency.succeeded()
    assert concurrency.limit == 32
    began_s = time.perf_counter()
    for _ in range(10):
        concurrency.limited(began_s)
    assert concurrency.limit == 16
    concurrency.limited(time.perf_counter())
    assert concurrency.limit == 8
    for _ in range(8):
        concurrency.succeeded()
    assert concurrency.limit == 9


def test_a_pace_stays_between_its_bounds() -> None:
    concurrency = ConcurrencyLimit("auto")
    for _ in range(2_000):
        concurrency.succeeded()
    assert concurrency.limit == 512
    for _ in range(20):
        concurrency.limited(time.perf_counter())
    assert concurrency.limit == 1
    assert ConcurrencyLimit(7).limit == 7
