"""Shows a batch at its edges: broken feeds, calls that end everything, schemas that are none, many workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest

from muse import batch as batches
from muse.batch import Batch, BatchRequest
from muse.batching.provider_batches.lane import seconds_until
from muse.errors import ConfigError, InvalidReply
from tests.batch_calls import CONTEXT, Calls, ask, drained, turns

NONE = {"type": "nonsense"}


class Halting(BaseException):
    """What no batch expects."""


class Asked:
    """Stands at `muse.batch.agenerate`: what was asked, and an answer in the next turn of the loop."""

    def __init__(self, answer: Any = None) -> None:
        self.texts: list[str] = []
        self.answer = answer

    async def __call__(self, **options: Any) -> Any:
        """One call."""
        self.texts.append(str(options["contents"]))
        await asyncio.sleep(0)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer or str(options["contents"]).upper()


@pytest.fixture(name="asked")
def _asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked()
    monkeypatch.setattr(batches, "agenerate", asked)
    return asked


async def _soon(batch: Batch) -> list[BatchRequest]:
    async with asyncio.timeout(180):
        return await drained(batch)


async def _stream(count: int) -> AsyncIterator[BatchRequest]:
    for number in range(count):
        await asyncio.sleep(0)
        yield BatchRequest(f"q{number}", CONTEXT)


@pytest.mark.parametrize("concurrent", [1, 3, 50])
async def test_closing_the_generator_keeps_the_rest_of_an_async_feed(asked: Asked, concurrent: int) -> None:
    batch = Batch(concurrent)
    fed = batch.feed(_stream(20))
    came: list[str | None] = []
    for _ in range(4):
        drain = batch.drain_batch()
        came.append((await anext(drain)).response)
        await drain.aclose()
    came += [request.response for request in await _soon(batch)]
    assert sorted(map(str, came)) == sorted(f"Q{number}" for number in range(20))
    assert fed.done()


async def test_a_request_that_a_feed_gives_meanwhile_is_asked_when_draining_goes_on(asked: Asked) -> None:
    gate, batch = asyncio.Event(), Batch()

    async def slow() -> AsyncIterator[BatchRequest]:
        yield BatchRequest("a", CONTEXT)
        await gate.wait()
        yield BatchRequest("b", CONTEXT)
        yield BatchRequest("c", CONTEXT)

    batch.feed(slow())
    drain = batch.drain_batch()
    await anext(drain)
    await turns(20)
    await drain.aclose()
    gate.set()
    await turns(20)
    assert asked.texts == ["a"]
    assert [request.response for request in await _soon(batch)] == ["B", "C"]


async def test_cancel_ends_a_feed_that_is_waited_for(asked: Asked) -> None:
    batch = Batch()

    async def never() -> AsyncIterator[BatchRequest]:
        await asyncio.Event().wait()
        yield BatchRequest("a", CONTEXT)

    fed = batch.feed(never())
    await turns(20)
    await batch.cancel()
    assert fed.cancelled()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert await _soon(batch) == []


def test_a_feed_that_its_loop_cut_off_says_so(asked: Asked) -> None:
    batch = Batch()

    async def begin() -> None:
        async def never() -> AsyncIterator[BatchRequest]:
            await asyncio.Event().wait()
            yield BatchRequest("a", CONTEXT)

        batch.feed(never())
        await turns(20)

    asyncio.run(begin())
    with pytest.raises(RuntimeError, match="what it still had is lost"):
        asyncio.run(_soon(batch))


@pytest.mark.parametrize("problem", [Halting, GeneratorExit])
async def test_what_no_call_may_raise_ends_the_batch(monkeypatch: pytest.MonkeyPatch, problem: Any) -> None:
    monkeypatch.setattr(batches, "agenerate", Asked(problem()))
    batch = Batch(2)
    requests = ask(batch, "a", "b", "c", "d")
    with pytest.raises(problem):
        await _soon(batch)
    assert batch.is_drained()
    assert {request.state for request in requests} == {"cancelled"}


@pytest.mark.parametrize("kind", ["plain", "async"])
@pytest.mark.parametrize("problem", [asyncio.CancelledError, Halting, OSError])
async def test_whatever_a_feed_raises_comes_out_of_the_generator(asked: Asked, kind: str, problem: Any) -> None:
    def torn() -> Iterator[BatchRequest]:
        yield BatchRequest("a", CONTEXT)
        raise problem

    async def torn_later() -> AsyncIterator[BatchRequest]:
        for request in torn():
            yield request

    batch = Batch()
    batch.feed(torn() if kind == "plain" else torn_later())
    drain = batch.drain_batch()
    assert (await anext(drain)).response == "A"
    with pytest.raises(problem):
        await asyncio.wait_for(anext(drain), 10)
    assert await _soon(batch) == []


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_waiting_where_nobody_drains_ends_with_everything_asked(asked: Asked, kind: str) -> None:
    batch = Batch(2)
    batch.feed((BatchRequest(f"q{number}", CONTEXT) for number in range(60)) if kind == "plain" else _stream(60))
    async with asyncio.timeout(180):
        await batch.wait_until_drained()
    assert len(asked.texts) == 60
    assert len(await _soon(batch)) == 60


async def test_workers_come_as_there_is_work(calls: Calls) -> None:
    batch = Batch(1_000_000)
    batch.feed(BatchRequest(f"q{number}", CONTEXT) for number in range(5))
    draining = asyncio.create_task(drained(batch))
    await calls.until(5)
    assert len(asyncio.all_tasks()) < 12
    for number in range(5):
        calls.end(f"q{number}")
    assert len(await draining) == 5


@pytest.fixture(name="calls")
def _calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    monkeypatch.setattr(batches, "agenerate", calls)
    return calls


async def test_a_schema_that_is_none_costs_no_call(asked: Asked) -> None:
    batch = Batch()
    with pytest.raises(ConfigError, match="json_schema: found none that can be used"):
        batch.create(contents="a", context=CONTEXT, json_schema=NONE)
    batch.add(BatchRequest("a", CONTEXT, json_schema=NONE))
    batch.add(BatchRequest("b", CONTEXT, json_schema={"$ref": "#/$defs/missing"}))
    assert [type(request.exception) for request in await _soon(batch)] == [ConfigError] * 2
    assert asked.texts == []


async def test_an_answer_that_is_no_text_is_a_failed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def number(**options: Any) -> Any:
        return 7 if "json_schema" in options else None

    monkeypatch.setattr(batches, "agenerate", number)
    batch = Batch()
    batch.add(BatchRequest("a", CONTEXT))
    batch.add(BatchRequest("b", CONTEXT, json_schema={"type": "object"}))
    plain, formed = await _soon(batch)
    assert (plain.state, plain.error, formed.state, formed.error) == (
        "failed",
        "found None, expected text",
        "failed",
        "found int, expected text",
    )
    assert isinstance(plain.exception, InvalidReply)


@pytest.mark.parametrize("wrong", ["36h", True, 10**400, 0, -1.0, float("nan"), float("inf"), timedelta(0), None])
def test_a_senseless_deadline_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="deadline: found"):
        seconds_until(wrong)


async def test_an_update_of_a_finished_request_that_nobody_took_comes_once(asked: Asked) -> None:
    batch = Batch()
    (request,) = ask(batch, "a")
    await batch.wait_until_drained()
    batch.update(request, contents="b")
    assert [done.response for done in await _soon(batch)] == ["B"]


async def test_what_is_no_request_is_named(asked: Asked) -> None:
    batch: Any = Batch()
    with pytest.raises(TypeError, match="found str, expected a BatchRequest"):
        batch.add("a")
    batch.feed(["a"])
    with pytest.raises(TypeError, match="found str, expected a BatchRequest"):
        await _soon(batch)
