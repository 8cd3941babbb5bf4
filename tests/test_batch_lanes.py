"""A batch by way of the providers' batch services, what is left of it live: one kind of result, nothing paid twice."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterable
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import pytest

from muse import batch as batches
from muse import cli
from muse.batch import Batch, BatchRequest
from muse.batching.provider_batches import lane as nights
from muse.batching.provider_batches.submitter import ProviderBatchSubmitter
from muse.batching.store.store import Store
from muse.errors import AuthError, ConfigError, ProviderError, RequestError
from tests.journal_folder import start
from tests.loopback.batch_forms import reply_text
from tests.loopback.batch_jobs import Script
from tests.loopback.outcomes import TEXT
from tests.provider_batch_helpers import QUICK, Night
from tests.provider_cases import FAMILY, Case

OPENAI, ANTHROPIC, GOOGLE = FAMILY
CONTEXT = "app.tides"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nights, "RHYTHM", QUICK)


def use(provider_lane: Night, case: Case, **contexts: dict[str, str]) -> None:
    """Route everything to one provider, and `contexts` elsewhere."""
    named = {name.replace("_", "."): entry for name, entry in contexts.items()}
    provider_lane.journal.route(default={"provider": case.name, "model": case.model}, contexts=named)


async def drained(batch: Batch, prompts: Iterable[str], context: str = CONTEXT) -> dict[str, BatchRequest]:
    """What comes of these prompts, by prompt."""
    batch.feed(batch.create(contents=prompt, context=context) for prompt in prompts)
    found = {request.contents: request async for request in batch.drain_batch()}
    batch.close()
    return found


def prompts(count: int) -> list[str]:
    return [f"Question {number}?" for number in range(count)]


@pytest.mark.parametrize("case", FAMILY, ids=str)
async def test_results_are_those_of_live_calls_at_half_the_cost(case: Case, provider_lane: Night) -> None:
    use(provider_lane, case)
    slow = await drained(Batch(ledger="slow", lane="overnight"), prompts(6))
    live = await drained(Batch(ledger="live"), prompts(1))
    assert {prompt: request.response for prompt, request in slow.items()} == {p: reply_text(p) for p in prompts(6)}
    one, other = slow["Question 0?"], live["Question 0?"]
    assert (one.model_used, one.provider_used, one.usage) == (other.model_used, other.provider_used, other.usage)
    assert (one.state, one.error, len(one.attempts)) == ("done", None, 1)
    assert other.cost_usd is not None
    assert one.cost_usd == pytest.approx(other.cost_usd / 2)
    assert len(provider_lane.server.jobs[case.name]) == 1
    assert [line.get("lane") for line in provider_lane.journal.lines()] == ["overnight"] * 6 + [None]


async def test_requests_that_are_added_one_by_one_go_out_when_somebody_drains(provider_lane: Night) -> None:
    use(provider_lane, OPENAI)
    batch = Batch(ledger="a", lane="overnight")
    requests = [batch.create(contents=prompt, context=CONTEXT) for prompt in prompts(3)]
    for request in requests:
        batch.add(request)
    assert provider_lane.server.steps == []
    found = [request async for request in batch.drain_batch()]
    assert {id(request) for request in found} == {id(request) for request in requests}
    assert batch.is_drained()
    batch.add(batch.create(contents="One more?", context=CONTEXT))
    assert [request.response async for request in batch.drain_batch()] == [reply_text("One more?")]
    batch.close()
    assert len(provider_lane.server.jobs["openai"]) == 2


async def test_what_is_in_the_ledger_is_not_asked_again(provider_lane: Night) -> None:
    use(provider_lane, OPENAI)
    await drained(Batch(ledger="a", lane="overnight"), prompts(3))
    again = await drained(Batch(ledger="a", lane="overnight"), prompts(4))
    assert [request.restored for request in again.values()] == [True, True, True, False]
    assert [len(job.requests) for job in provider_lane.server.jobs["openai"].values()] == [3, 1]


async def test_auto_asks_live_what_has_no_batch_service(provider_lane: Night) -> None:
    use(provider_lane, OPENAI, app_echo={"provider": "echo", "model": "echo-1"})
    batch = Batch(ledger="a", lane="auto")
    for context in (CONTEXT, "app.echo"):
        batch.add(batch.create(contents="Hello?", context=context))
    found = {request.context: request async for request in batch.drain_batch()}
    batch.close()
    assert found[CONTEXT].response == reply_text("Hello?")
    assert found["app.echo"].provider_used == "echo"
    assert provider_lane.server.count("openai_make") == 1


@pytest.mark.parametrize("fate", ["expired", "missing", "error_503"])
async def test_auto_finishes_stragglers_live(fate: str, provider_lane: Night) -> None:
    use(provider_lane, OPENAI)
    provider_lane.server.plan("openai", Script(fates={1: fate}))
    found = await drained(Batch(ledger="a", lane="auto", deadline=timedelta(days=2)), prompts(3))
    assert [found[prompt].response for prompt in prompts(3)] == [
        reply_text("Question 0?"),
        TEXT,
        reply_text("Question 2?"),
    ]
    assert len(provider_lane.server.requests) == 1  # one live call


async def test_auto_does_not_ask_again_what_cannot_be_mended(provider_lane: Night) -> None:
    use(provider_lane, OPENAI)
    provider_lane.server.plan("openai", Script(fates={1: "error_400"}))
    found = await drained(Batch(ledger="a", lane="auto"), prompts(3))
    assert isinstance(found["Question 1?"].exception, RequestError)
    assert provider_lane.server.requests == []


async def test_overnight_fails_what_expires_and_the_next_run_can_ask_it_again(provider_lane: Night) -> None:
    use(provider_lane, ANTHROPIC)
    provider_lane.server.plan("anthropic", Script(fates={1: "expired"}))
    found = await drained(Batch(ledger="a", lane="overnight"), prompts(3))
    late = found["Question 1?"].exception
    assert isinstance(late, ProviderError)
    assert late.code == "batch_expired"
    again = await drained(Batch(ledger="a", lane="overnight", retry_failed=True), prompts(3))
    assert [request.state for request in again.values()] == ["done"] * 3


async def test_a_near_deadline_is_kept_by_live_calls(provider_lane: Night) -> None:
    use(provider_lane, OPENAI)
    found = await drained(Batch(ledger="a", lane="auto", deadline=3600), prompts(3))
    assert [request.state for request in found.values()] == ["done"] * 3
    assert provider_lane.server.steps == []


async def test_a_deadline_ends_the_night(provider_lane: Night) -> None:
    use(provider_lane, OPENAI)
    provider_lane.server.plan("openai", Script(polls=10_000, done_at_cancel=1))
    found = await drained(Batch(ledger="a", lane="overnight", deadline=0.3), prompts(3))
    assert sorted(request.state for request in found.values()) == ["done", "failed", "failed"]
    assert provider_lane.server.count("openai_cancel") == 1


async def test_a_refused_key_puts_the_requests_off(provider_lane: Night) -> None:
    use(provider_lane, OPENAI)
    provider_lane.server.plan("openai", Script(polls=3, poll_faults=("error_401",)))
    found = await drained(Batch(ledger="a", lane="auto"), prompts(2))
    assert {request.state for request in found.values()} == {"deferred"}
    assert {type(request.exception) for request in found.values()} == {AuthError}
    again = await drained(Batch(ledger="a", lane="auto"), prompts(2))
    assert {request.state for request in again.values()} == {"done"}
    assert provider_lane.server.count("openai_make") == 1


async def test_an_answer_that_does_not_fit_is_sent_back_live(provider_lane: Night) -> None:
    use(provider_lane, OPENAI)
    provider_lane.server.script("openai", ["json"])
    batch = Batch(ledger="a", lane="overnight")
    schema = {"type": "object", "required": ["tide"], "properties": {"tide": {"type": "string"}}}
    batch.add(batch.create(contents="Tide?", context=CONTEXT, json_schema=schema))
    found = [request async for request in batch.drain_batch()]
    batch.close()
    assert json.loads(found[0].response or "")["tide"] == "low"
    assert len(found[0].attempts) == 2


async def test_leaving_the_drain_leaves_the_job_and_a_later_one_has_its_results(provider_lane: Night) -> None:
    use(provider_lane, OPENAI)
    provider_lane.server.plan("openai", Script(polls=3))
    batch = Batch(ledger="a", lane="overnight")
    batch.feed(batch.create(contents=prompt, context=CONTEXT) for prompt in prompts(3))
    made = threading.Event()
    provider_lane.server.on_step = lambda step: made.set() if step == "openai_look" else None
    draining = asyncio.create_task(drained(batch, ()))
    await asyncio.to_thread(made.wait, 20)
    draining.cancel()
    await asyncio.wait({draining})
    found = [request.response async for request in batch.drain_batch()]
    batch.close()
    assert sorted(map(str, found)) == [reply_text(prompt) for prompt in prompts(3)]
    assert len(provider_lane.server.jobs["openai"]) == 1


async def test_stopping_leaves_the_job_for_the_next_run(provider_lane: Night) -> None:
    use(provider_lane, OPENAI)
    provider_lane.server.plan("openai", Script(polls=3))
    batch = Batch(ledger="a", lane="overnight")
    loop = asyncio.get_running_loop()
    provider_lane.server.on_step = lambda step: loop.call_soon_threadsafe(batch.stop) if step == "openai_look" else None  # type: ignore[assignment,return-value]
    assert await drained(batch, prompts(3)) == {}
    provider_lane.server.on_step = None
    found = await drained(Batch(ledger="a", lane="overnight"), prompts(3))
    assert [request.state for request in found.values()] == ["done"] * 3
    assert provider_lane.server.count("openai_make") == 1
    assert provider_lane.server.count("openai_cancel") == 0


async def test_a_job_whose_results_are_all_kept_is_let_go_by_the_next_run(provider_lane: Night) -> None:
    use(provider_lane, OPENAI)
    provider_lane.server.plan("openai", Script(polls=30))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await drained(Batch(ledger="a", lane="overnight"), prompts(1))
    store = Store("a")
    async with aclosing(ProviderBatchSubmitter(store.connection, rhythm=QUICK).run(())) as answers:
        nights.keep(store, await anext(answers))  # and then the kill
        store.commit()
    store.close()
    with pytest.raises(ConfigError, match="has jobs"):
        Batch(ledger="a")
    found = await drained(Batch(ledger="a", lane="overnight"), prompts(1))
    assert [request.restored for request in found.values()] == [True]
    Batch(ledger="a").close()
    assert len(provider_lane.journal.lines()) == 1
    assert provider_lane.server.count("openai_make") == 1


async def test_what_is_at_a_service_is_shown(provider_lane: Night, capsys: pytest.CaptureFixture[str]) -> None:
    use(provider_lane, OPENAI)
    provider_lane.server.plan("openai", Script(polls=10_000))
    batch = Batch(ledger="a", lane="overnight")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await drained(batch, prompts(3))
    batch.close()
    assert cli.main(["batch", "show", "a"]) == 0
    said = capsys.readouterr().out
    assert "at openai: gpt-5-mini, 3 requests, running, 0 done (openai1)" in said
    assert "muse batch cancel a" in said


async def test_a_live_batch_does_not_ask_what_is_at_a_service(provider_lane: Night) -> None:
    use(provider_lane, OPENAI)
    provider_lane.server.plan("openai", Script(polls=10_000, done_at_cancel=1))
    batch = Batch(ledger="a", lane="overnight")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await drained(batch, prompts(3))
    batch.close()
    with pytest.raises(ConfigError, match="ledger 'a' has jobs at batch services"):
        Batch(ledger="a")
    store = Store("a")
    assert await nights.cancel(store) == 1
    store.close()
    found = await drained(Batch(ledger="a"), prompts(3))
    assert [request.state for request in found.values()] == ["done"] * 3
    assert [request.restored for request in found.values()].count(True) == 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"lane": "overnight"}, "without a ledger"),
        ({"lane": "auto"}, "without a ledger"),
        ({"lane": "later", "ledger": "a"}, "'later'"),
        ({"deadline": 5.0}, "one for live calls"),
        ({"lane": "auto", "ledger": "a", "deadline": -1.0}, "a number of seconds above 0"),
    ],
)
def test_a_lane_that_cannot_be_is_refused(options: dict[str, object], text: str, provider_lane: Night) -> None:
    with pytest.raises(ConfigError, match=text):
        Batch(**options)  # type: ignore[arg-type]


CHILD = """
import asyncio, sys
from muse.batch import Batch
from muse.batching.provider_batches import lane
from tests.provider_batch_helpers import QUICK

lane.RHYTHM = QUICK

async def main():
    batch = Batch(ledger="a", lane="overnight")
    batch.feed(batch.create(contents=f"Question {number}?", context="app.tides") for number in range(20))
    async for request in batch.drain_batch():
        print(request.contents, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("step", ["upload", "make", "look", "results"])
async def test_a_batch_killed_on_its_way_is_taken_up(step: str, provider_lane: Night) -> None:
    use(provider_lane, OPENAI)
    process = []

    def kill(at: str) -> None:
        if at == f"openai_{step}" and process[0].poll() is None:
            process[0].kill()
            process[0].wait()

    provider_lane.server.on_step = kill
    process.append(start(CHILD))
    process[0].communicate(timeout=60)
    provider_lane.server.on_step = None
    found = await drained(Batch(ledger="a", lane="overnight"), prompts(20))
    assert {request.response for request in found.values()} == {reply_text(prompt) for prompt in prompts(20)}
    assert len(provider_lane.server.jobs["openai"]) == 1
    assert len(provider_lane.journal.lines()) == 20


def test_the_command_sends_a_file_overnight(
    provider_lane: Night, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    use(provider_lane, GOOGLE)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts(4)), encoding="utf-8")
    out = tmp_path / "out.jsonl"
    asked = ["batch", "run", str(rows), "--context", CONTEXT, "--output", str(out), "--lane", "auto"]
    assert cli.main([*asked, "--deadline", "36h", "--ledger", "a"]) == 0
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert {line["response"] for line in lines} == {reply_text(prompt) for prompt in prompts(4)}
    assert provider_lane.server.count("google_make") == 1
    assert cli.main(["batch", "cancel", "a"]) == 0
    assert batches.Batch(ledger="a").ledger is not None
    capsys.readouterr()


def test_the_command_refuses_odd_deadlines(
    provider_lane: Night, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a"}\n', encoding="utf-8")
    assert cli.main(["batch", "run", str(rows), "--context", CONTEXT, "--lane", "auto", "--deadline", "soon"]) == 2
    assert "36h" in capsys.readouterr().err
