"""Shows how a batch takes requests from iterables: only as it can ask them, plain ones and async ones."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from muse import batch as batches
from muse.batch import Batch, BatchRequest
from tests.batch_calls import CONTEXT, Calls, turns


class Taken:
    """An endless source that counts what was taken from it."""

    def __init__(self) -> None:
        self.count = 0

    def __iter__(self) -> Iterator[BatchRequest]:
        while True:
            self.count += 1
            yield BatchRequest(f"q{self.count}", CONTEXT)

    async def later(self) -> AsyncIterator[BatchRequest]:
        """As an async one."""
        for request in self:
            await asyncio.sleep(0)
            yield request


@pytest.fixture(name="answering", autouse=True)
def _answering(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(**options: Any) -> str:
        await asyncio.sleep(0)
        return str(options["contents"]).upper()

    monkeypatch.setattr(batches, "agenerate", answer)


async def _count(batch: Batch) -> int:
    count = 0
    async for _ in batch.drain_batch():
        count += 1
    return count


async def test_everything_that_is_fed_comes_out() -> None:
    batch = Batch()
    fed = batch.feed(BatchRequest(f"q{number}", CONTEXT) for number in range(500))
    assert await _count(batch) == 500
    assert fed.done()
    batch.feed([BatchRequest("one more", CONTEXT)])
    assert await _count(batch) == 1


async def test_several_sources_and_single_requests_go_side_by_side() -> None:
    batch = Batch()
    batch.feed(BatchRequest(f"a{number}", CONTEXT) for number in range(50))
    batch.add(BatchRequest("b", CONTEXT))

    async def later() -> AsyncIterator[BatchRequest]:
        for number in range(50):
            yield BatchRequest(f"c{number}", CONTEXT)

    batch.feed(later())
    assert await _count(batch) == 101


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_nothing_is_taken_while_results_wait_to_be_drained(kind: str) -> None:
    taken, batch = Taken(), Batch(max_concurrent=4)
    batch.feed(taken if kind == "plain" else taken.later())
    await turns()
    assert taken.count <= 3 * 4 + 1
    drain = batch.drain_batch()
    for drained in range(1, 100):
        await anext(drain)
        assert taken.count <= drained + 3 * 4 + 1
    await drain.aclose()
    await batch.cancel()


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_only_as_many_are_taken_as_can_be_asked(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls()
    monkeypatch.setattr(batches, "agenerate", calls)
    taken, batch = Taken(), Batch(max_concurrent=4)
    batch.feed(taken if kind == "plain" else taken.later())
    await calls.until(4)
    await turns()
    assert taken.count <= 4 + 1
    await batch.cancel()


async def test_a_stream_is_asked_while_it_still_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, gate = Batch(), asyncio.Event()

    async def slow() -> AsyncIterator[BatchRequest]:
        yield BatchRequest("first", CONTEXT)
        await gate.wait()
        yield BatchRequest("second", CONTEXT)

    batch.feed(slow())
    drain = batch.drain_batch()
    assert (await anext(drain)).response == "FIRST"
    assert not batch.is_drained()
    gate.set()
    assert (await anext(drain)).response == "SECOND"
    assert [request async for request in drain] == []


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_what_an_iterable_raises_comes_after_the_results(kind: str) -> None:
    def torn() -> Iterator[BatchRequest]:
        yield BatchRequest("a", CONTEXT)
        raise OSError("the disk is gone")

    async def torn_later() -> AsyncIterator[BatchRequest]:
        for request in torn():
            yield request

    batch = Batch()
    batch.feed(torn() if kind == "plain" else torn_later())
    drain = batch.drain_batch()
    assert (await anext(drain)).response == "A"
    with pytest.raises(OSError, match="the disk is gone"):
        await anext(drain)
    assert batch.is_drained()
    assert await _count(batch) == 0


async def test_cancel_ends_a_feed() -> None:
    taken, batch = Taken(), Batch()
    fed = batch.feed(taken)
    drain = batch.drain_batch()
    await anext(drain)
    await batch.cancel()
    assert fed.cancelled()
    so_far = taken.count
    assert len([request async for request in drain]) <= so_far
    assert taken.count == so_far


async def test_closing_the_generator_keeps_the_rest_of_a_feed() -> None:
    batch = Batch(max_concurrent=3)
    batch.feed(BatchRequest(f"q{number}", CONTEXT) for number in range(40))
    drain = batch.drain_batch()
    first = await anext(drain)
    await drain.aclose()
    assert first.response
    assert await _count(batch) == 39


async def test_twenty_thousand_requests_need_no_more_memory_than_a_thousand() -> None:
    async def peak(count: int) -> int:
        batch = Batch(max_concurrent=20)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        batch.feed(BatchRequest("q", CONTEXT) for _ in range(count))
        assert await _count(batch) == count
        return tracemalloc.get_traced_memory()[1] - before

    tracemalloc.start()
    try:
        few = await peak(1_000)
        assert await peak(20_000) < few + 200_000
    finally:
        tracemalloc.stop()


async def test_the_tally_knows_how_many_are_to_come() -> None:
    batch = Batch(max_concurrent=2)
    batch.feed([BatchRequest(f"q{number}", CONTEXT) for number in range(30)])
    batch.feed((BatchRequest(f"q{number}", CONTEXT) for number in range(20)), total=20)
    assert batch.tally.expected == 50
    drain = batch.drain_batch()
    await anext(drain)
    assert batch.tally.expected == 50
    assert batch.tally.left_s is not None
    async for _ in drain:
        continue
    assert (batch.tally.expected, batch.tally.ended, batch.tally.left_s) == (50, 50, 0.0)
