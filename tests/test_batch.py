"""Shows what the batch class promises: order, bounds, errors as results, cancellation that leaves nothing running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from muse import batch as batches
from muse import testing
from muse.batch import Batch, BatchRequest
from muse.errors import ConfigError, ContentsError, ProviderDown
from muse.types.usage import Usage
from tests.batch_calls import CONTEXT, Calls, ask, drained
from tests.journal_folder import JournalFolder


@pytest.fixture(name="calls")
def _calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    monkeypatch.setattr(batches, "agenerate", calls)
    return calls


@pytest.fixture(name="at_once")
def _at_once(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked; every call is answered in the next turn of the loop."""
    asked: list[str] = []

    async def answer(**options: Any) -> str:
        asked.append(options["contents"])
        await asyncio.sleep(0)
        if isinstance(options["contents"], Exception):
            raise options["contents"]
        return str(options["contents"]).upper()

    monkeypatch.setattr(batches, "agenerate", answer)
    return asked


async def test_results_come_in_the_order_in_which_calls_end(calls: Calls) -> None:
    batch = Batch()
    ask(batch, "a", "b", "c")
    drain = batch.drain_batch()
    await calls.until(3)
    came = []
    for name in ("c", "a", "b"):
        calls.end(name)
        came.append((await anext(drain)).response)
    assert came == ["C", "A", "B"]
    assert [request async for request in drain] == []
    assert batch.is_drained()


async def test_a_request_that_no_reply_tells_of_notes_the_model_that_was_asked_for(
    at_once: list[str], journal: JournalFolder
) -> None:
    journal.route(default={"provider": "echo", "model": "routed"})
    batch = Batch()
    for contents, model in (("a", "own"), ("b", None), (ValueError("no"), "own")):
        batch.add(batch.create(contents=contents, context=CONTEXT, model=model))
    done = {str(request.contents): request async for request in batch.drain_batch()}
    assert {name: request.model_used for name, request in done.items()} == {"a": "own", "b": "routed", "no": "own"}
    journal.route(default={"provider": "nobody"})
    batch.add(batch.create(contents="c", context=CONTEXT))
    (request,) = [request async for request in batch.drain_batch()]
    assert (request.response, request.model_used, request.error) == ("C", None, None)


async def test_a_request_starts_when_it_is_added_and_not_when_it_is_drained(calls: Calls) -> None:
    batch = Batch()
    ask(batch, "a")
    assert not batch.is_drained()
    await calls.until(1)
    calls.end("a")
    assert [request.response for request in await drained(batch)] == ["A"]


async def test_never_more_calls_than_allowed_are_under_way(calls: Calls) -> None:
    batch = Batch(max_concurrent=3)
    ask(batch, *"abcdefgh")
    done = 0
    async for _ in _ending_all(batch, calls):
        done += 1
    assert done == 8
    assert calls.most == 3


async def _ending_all(batch: Batch, calls: Calls) -> AsyncIterator[BatchRequest]:
    drain = batch.drain_batch()
    while not batch.is_drained():
        await calls.until(1)
        calls.end()
        yield await anext(drain)
    async for request in drain:
        yield request


async def test_only_what_is_set_goes_along_and_all_of_it_by_keyword(at_once: list[str], calls: Calls) -> None:
    plain, full = Batch(), Batch(client="theirs")
    plain.add(BatchRequest("a", CONTEXT))
    full.add(BatchRequest("b", CONTEXT, "m-1", 0.7, 99, "Be brief.", True, 0, "kept", 5.0))
    await calls.until(2)
    common = {"contents", "context", "temperature", "max_output_tokens", "system_instruction", "json_output"}
    first, second = calls.asked
    assert set(first) == common | {"thinking_budget", "timeout_s"}
    assert (first["temperature"], first["max_output_tokens"]) == (0.3, 16_384)
    assert second == {
        "contents": "b",
        "context": CONTEXT,
        "model": "m-1",
        "temperature": 0.7,
        "max_output_tokens": 99,
        "system_instruction": "Be brief.",
        "json_output": True,
        "thinking_budget": 0,
        "cached_content": "kept",
        "timeout_s": 5.0,
        "client": "theirs",
    }
    await plain.cancel()
    await full.cancel()


async def test_errors_are_results(calls: Calls) -> None:
    batch = Batch()
    ask(batch, "down", "odd", "nameless", "fine")
    await calls.until(4)
    calls.end("down", ProviderDown("no answer", provider="openai"))
    calls.end("odd", KeyError("tide"))
    calls.end("nameless", RuntimeError())
    calls.end("fine")
    came = {request.contents: request for request in await drained(batch)}
    assert (came["down"].error, came["down"].response) == ("openai: no answer", None)
    assert isinstance(came["down"].exception, ProviderDown)
    assert came["odd"].error == "'tide'"
    assert came["nameless"].error == "RuntimeError"
    assert came["fine"].error is None
    assert all(request.duration is not None and request.duration > 0 for request in came.values())
    assert (batch.tally.done, batch.tally.failed) == (1, 3)


async def test_a_call_that_cancels_itself_is_a_failed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def cancelled(**options: Any) -> str:
        raise asyncio.CancelledError

    monkeypatch.setattr(batches, "agenerate", cancelled)
    batch = Batch()
    ask(batch, "a", "b")
    assert [request.error for request in await drained(batch)] == ["CancelledError"] * 2


async def test_requests_may_be_added_while_draining_and_after(at_once: list[str]) -> None:
    batch = Batch()
    ask(batch, "a")
    came = []
    async for request in batch.drain_batch():
        came.append(request.response)
        if len(came) < 3:
            ask(batch, f"more{len(came)}")
    assert came == ["A", "MORE1", "MORE2"]
    assert batch.is_drained()
    ask(batch, "later")
    assert [request.response for request in await drained(batch)] == ["LATER"]


async def test_an_updated_request_is_asked_again_as_it_is_now(at_once: list[str]) -> None:
    batch = Batch()
    (request,) = ask(batch, "a")
    request.frame = 7  # type: ignore[attr-defined]
    seen = []
    async for done in batch.drain_batch():
        seen.append(done.response)
        if len(seen) == 1:
            batch.update(done, contents="b", temperature=0.9)
            assert (done.response, done.duration, done.state) == (None, None, "waiting")
    assert seen == ["A", "B"]
    assert (request.temperature, vars(request)["frame"]) == (0.9, 7)


async def test_a_result_from_before_an_update_does_not_count(calls: Calls) -> None:
    batch = Batch()
    (request,) = ask(batch, "old")
    await calls.until(1)
    batch.update(request, contents="new")
    await calls.until(2)
    calls.end("new")
    calls.end("old")
    assert [done.response for done in await drained(batch)] == ["NEW"]


async def test_usage_cost_model_and_attempts_come_with_the_response(journal: JournalFolder) -> None:
    journal.route(default={"provider": "echo"})
    batch = Batch()
    with testing.script(testing.Say("Six.", usage=Usage(10, 5)), ProviderDown("gone")):
        ask(batch, "When?", "And then?")
        came = {request.state: request for request in await drained(batch)}
    done, failed = came["done"], came["failed"]
    assert (done.response, done.model_used, done.provider_used, done.cost_usd) == ("Six.", "echo-1", "echo", 0.0)
    assert (done.usage.input_tokens, done.usage.output_tokens, len(done.attempts)) == (10, 5, 1)
    assert failed.attempts
    assert failed.attempts[0].error == "ProviderDown"
    assert (batch.tally.tokens, batch.tally.cost_usd) == (15, 0.0)


async def test_contents_that_cannot_be_sent_are_a_failed_request(journal: JournalFolder) -> None:
    journal.route(default={"provider": "echo"})
    batch = Batch()
    ask(batch, "")
    (request,) = await drained(batch)
    assert isinstance(request.exception, ContentsError)


async def test_an_answer_that_does_not_fit_its_schema_is_sent_back_once(journal: JournalFolder) -> None:
    journal.route(default={"provider": "echo"})
    schema = {"type": "object", "properties": {"hour": {"type": "integer"}}, "required": ["hour"]}
    batch = Batch(max_concurrent=1)
    with testing.script('{"hour": "six"}', '```json\n{"hour": 6}\n```', "six", "seven") as script:
        for text in ("When?", "And then?"):
            batch.add(batch.create(contents=text, context=CONTEXT, json_schema=schema))
        first, second = await drained(batch)
    assert (first.response, first.error, first.usage.requests, len(first.attempts)) == ('{"hour": 6}', None, 2, 2)
    assert "does not fit" in str(script.requests[1].turns[-1])
    assert second.state == "failed"
    assert second.usage.requests == 2


async def test_waiting_until_drained_ends_with_the_last_result_taken(calls: Calls) -> None:
    batch = Batch()
    ask(batch, "a")
    draining = asyncio.create_task(drained(batch))
    waiting = asyncio.create_task(batch.wait_until_drained())
    await calls.until(1)
    assert not waiting.done()
    calls.end("a")
    await waiting
    assert batch.is_drained()
    assert len(await draining) == 1
    await Batch().wait_until_drained()


async def test_waiting_does_not_hang_where_nobody_drains(at_once: list[str]) -> None:
    batch = Batch()
    ask(batch, "a", "b")
    await batch.wait_until_drained()
    assert not batch.is_drained()
    assert len(await drained(batch)) == 2


@pytest.mark.parametrize("wrong", [0, -1, True, 2.5, "many"])
def test_a_senseless_number_of_calls_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="max_concurrent: found"):
        Batch(max_concurrent=wrong)


def test_adding_needs_a_running_loop() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        Batch().add(BatchRequest("a", CONTEXT))


def test_a_batch_serves_one_loop_after_the_other(at_once: list[str]) -> None:
    batch = Batch()

    async def once(name: str) -> list[str | None]:
        ask(batch, name)
        return [request.response for request in await drained(batch)]

    assert [asyncio.run(once(name)) for name in "ab"] == [["A"], ["B"]]


async def test_a_ledger_name_that_is_no_file_name_is_refused(journal: JournalFolder) -> None:
    with pytest.raises(ConfigError, match=r"ledger: found '\.\./x'"):
        Batch(ledger="../x")
