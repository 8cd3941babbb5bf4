"""Shows that a batch by way of batch services pays once for what is added again, and nothing for a bad schema."""

from __future__ import annotations

import asyncio
import threading

import pytest

from muse.batch import Batch, BatchRequest
from muse.batching.provider_batches import lane as nights
from muse.batching.store.store import Store
from muse.errors import ConfigError
from tests.loopback.batch_forms import reply_text
from tests.loopback.batch_jobs import Script
from tests.provider_batch_helpers import QUICK, Night
from tests.provider_cases import FAMILY

OPENAI = FAMILY[0]
CONTEXT = "app.tides"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, provider_lane: Night) -> None:
    monkeypatch.setattr(nights, "RHYTHM", QUICK)
    provider_lane.journal.route(default={"provider": OPENAI.name, "model": OPENAI.model})


async def _drained(batch: Batch) -> list[tuple[str | None, bool]]:
    async with asyncio.timeout(180):
        return [(request.response, request.restored) async for request in batch.drain_batch()]


def _request(text: str) -> BatchRequest:
    request = BatchRequest(text, CONTEXT)
    request.fid = 7  # type: ignore[attr-defined]
    return request


def _states() -> dict[str, int]:
    store = Store("a", must_exist=True)
    states = {one.state: one.items for one in store.sums()}
    store.close()
    return states


async def test_what_is_added_twice_goes_out_once(provider_lane: Night) -> None:
    for run in range(2):
        batch, request = Batch(ledger="a", lane="overnight"), _request("Tide?")
        batch.add(request)
        batch.update(request)
        assert await _drained(batch) == [(reply_text("Tide?"), run > 0)]
        batch.close()
        assert _states() == {"done": 1}
    assert [len(job.requests) for job in provider_lane.server.jobs["openai"].values()] == [1]


@pytest.mark.parametrize("new", ["Old?", "New?"])
async def test_an_update_of_what_is_at_a_service_keeps_its_place(provider_lane: Night, new: str) -> None:
    provider_lane.server.plan("openai", Script(polls=3))
    made, batch, request = threading.Event(), Batch(ledger="a", lane="overnight", key="fid"), _request("Old?")
    provider_lane.server.on_step = lambda step: made.set() if step == "openai_look" else None
    batch.add(request)
    draining = asyncio.create_task(_drained(batch))
    await asyncio.to_thread(made.wait, 20)
    batch.update(request, contents=new)
    assert await draining == [(reply_text(new), False)]
    batch.close()
    assert _states() == {"done": 1}
    again = Batch(ledger="a", lane="overnight", key="fid")
    again.add(_request("Old?"))
    assert await _drained(again) == [(reply_text(new), True)]
    again.close()
    assert len(provider_lane.server.jobs["openai"]) == (1 if new == "Old?" else 2)


async def test_a_stopped_request_that_is_added_again_has_the_answer_that_is_under_way(provider_lane: Night) -> None:
    provider_lane.server.plan("openai", Script(polls=3))
    batch, request = Batch(ledger="a", lane="overnight"), _request("Tide?")
    loop = asyncio.get_running_loop()
    stopping = [batch.stop]
    provider_lane.server.on_step = lambda step: (
        loop.call_soon_threadsafe(stopping.pop()) if step == "openai_look" and stopping else None  # type: ignore[assignment]
    )
    batch.add(request)
    assert await _drained(batch) == []
    batch.add(request)
    assert await _drained(batch) == [(reply_text("Tide?"), False)]
    batch.close()
    assert len(provider_lane.server.jobs["openai"]) == 1


async def test_a_schema_that_is_none_is_not_sent(provider_lane: Night) -> None:
    batch = Batch(ledger="a", lane="overnight")
    batch.add(BatchRequest("Tide?", CONTEXT, json_schema={"type": "nonsense"}))
    (request,) = [request async for request in batch.drain_batch()]
    batch.close()
    assert isinstance(request.exception, ConfigError)
    assert provider_lane.server.steps == []
    assert provider_lane.server.requests == []
