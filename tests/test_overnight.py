"""The overnight lane with the real SDKs over the loopback batch services: answers, failures of items and of jobs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from msgspec.structs import replace as changed

from muse import providers
from muse.batching.provider_batches.submitter import Item, window_s
from muse.errors import (
    AuthError,
    ConfigError,
    ContentsError,
    MuseError,
    NotFoundError,
    ProviderDown,
    ProviderError,
    ProviderTimeout,
    RateLimitError,
    RequestError,
    TruncatedReply,
)
from muse.providers._backend.backend import ProviderBackend
from muse.types.messages import Reply
from muse.usage_log import prices
from tests.loopback.batch_forms import reply_text
from tests.loopback.batch_jobs import Ending, Fault, Job, Script
from tests.loopback.outcomes import SERVED
from tests.provider_batch_helpers import CONTEXT, Night, items_for, texts
from tests.provider_cases import FAMILY, GATEWAYS, Case

every = pytest.mark.parametrize("case", FAMILY, ids=str)
OPENAI, ANTHROPIC, GOOGLE = FAMILY


def code_of(outcome: object) -> tuple[str | None, bool]:
    """Code and retryability of a provider's error."""
    assert isinstance(outcome, ProviderError), outcome
    return outcome.code, outcome.retryable


@every
async def test_each_request_gets_its_own_answer(case: Case, provider_lane: Night) -> None:
    items = items_for(case, 7)
    outcomes = await provider_lane.run(items)
    assert texts(outcomes, [item.key for item in items]) == [reply_text(f"Question {n}?") for n in range(7)]
    reply = outcomes[items[3].key]
    assert isinstance(reply, Reply)
    assert (reply.provider, reply.model, reply.route) == (case.name, SERVED[case.wire], items[3].origin.route)
    assert len(provider_lane.server.jobs[case.name]) == 1


@every
async def test_it_costs_half_and_every_item_has_its_line(case: Case, provider_lane: Night) -> None:
    provider_lane.server.plan(case.name, Script(fates={1: "error_400", 2: "truncated"}))
    outcomes = await provider_lane.run(items_for(case, 5))
    reply = outcomes[f"{case.name}-0"]
    assert isinstance(reply, Reply)
    listed = prices.cost_of(reply.model, reply.usage, case.name)
    assert listed is not None
    assert reply.cost_usd == pytest.approx(listed.total_cost / 2)
    lines = provider_lane.journal.lines()
    assert len(lines) == 5
    assert {line["lane"] for line in lines} == {"overnight"}
    assert {(line["context"], line["segment"], line["route"]) for line in lines} == {(CONTEXT, "20261120", "a test")}
    assert len({line["batch_item"] for line in lines}) == 5
    assert sorted(line["error"]["class"] for line in lines if "error" in line) == ["RequestError", "TruncatedReply"]
    assert sum(line["cost_usd"] == pytest.approx(reply.cost_usd) for line in lines) == 3


@every
async def test_an_item_that_fails_does_not_fail_the_others(case: Case, provider_lane: Night) -> None:
    fates = {0: "error_400", 2: "error_503", 3: "truncated", 5: "missing"}
    provider_lane.server.plan(case.name, Script(fates=fates))
    outcomes = await provider_lane.run(items_for(case, 7))
    kinds = [type(outcomes[f"{case.name}-{number}"]) for number in range(7)]
    assert kinds == [RequestError, Reply, ProviderDown, TruncatedReply, Reply, ProviderDown, Reply]
    assert code_of(outcomes[f"{case.name}-0"])[1] is False
    assert code_of(outcomes[f"{case.name}-2"])[1] is True
    assert code_of(outcomes[f"{case.name}-5"]) == ("batch_missing", True)


@pytest.mark.parametrize("case", [OPENAI, ANTHROPIC], ids=str)
async def test_what_was_done_before_the_expiry_stays(case: Case, provider_lane: Night) -> None:
    provider_lane.server.plan(case.name, Script(ending="expired", fates=dict.fromkeys(range(3, 6), "expired")))
    outcomes = await provider_lane.run(items_for(case, 6))
    assert len(texts(outcomes, [f"{case.name}-{number}" for number in range(3)])) == 3
    late = [outcomes[f"{case.name}-{number}"] for number in range(3, 6)]
    assert [type(error) for error in late] == [ProviderTimeout] * 3
    assert {code_of(error) for error in late} == {("batch_expired", True)}


@pytest.mark.parametrize(
    ("ending", "code"), [("expired", "batch_expired"), ("failed", "JOB_STATE_FAILED")], ids=["expired", "failed"]
)
async def test_a_gemini_job_without_results_leaves_each_item_to_be_finished_live(
    ending: Ending, code: str, provider_lane: Night
) -> None:
    provider_lane.server.plan("google", Script(ending=ending))
    outcomes = await provider_lane.run(items_for(GOOGLE, 3))
    assert {code_of(outcome) for outcome in outcomes.values()} == {(code, True)}
    assert len(provider_lane.journal.lines()) == 3


async def test_a_job_refused_for_one_line_names_that_one(provider_lane: Night) -> None:
    provider_lane.server.plan("openai", Script(ending="failed", refused_line=2))
    outcomes = await provider_lane.run(items_for(OPENAI, 4))
    assert type(outcomes["openai-1"]) is RequestError
    others = [outcomes[f"openai-{number}"] for number in (0, 2, 3)]
    assert {code_of(error) for error in others} == {("invalid_request", True)}


@every
async def test_a_server_that_fails_at_looks_and_downloads_is_asked_again(case: Case, provider_lane: Night) -> None:
    faults: tuple[Fault, ...] = ("error_500", "lost", "error_429")
    provider_lane.server.plan(case.name, Script(polls=5, poll_faults=faults, fetch_faults=("error_500", "lost")))
    outcomes = await provider_lane.run(items_for(case, 3))
    assert len(texts(outcomes, list(outcomes))) == 3
    assert len(provider_lane.journal.lines()) == 3


@pytest.mark.parametrize("case", [OPENAI, ANTHROPIC], ids=str)
@pytest.mark.parametrize("falls_back", [True, False], ids=["falls_back", "stays"])
async def test_a_broken_line_costs_at_most_its_own_answer(case: Case, falls_back: bool, provider_lane: Night) -> None:
    provider_lane.server.plan(case.name, Script(fates={1: "broken"}, falls_back=falls_back))
    outcomes = await provider_lane.run(items_for(case, 4))
    assert len(texts(outcomes, [f"{case.name}-{number}" for number in (0, 2, 3)])) == 3
    if falls_back:
        assert texts(outcomes, [f"{case.name}-1"]) == [reply_text("Question 1?")]
    else:
        assert code_of(outcomes[f"{case.name}-1"]) == ("batch_missing", True)
    assert len(provider_lane.journal.lines()) == 4


async def test_a_broken_line_of_a_gemini_file_does_too(provider_lane: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muse.providers._batch.google._INLINE_BYTES", 0)
    provider_lane.server.plan("google", Script(fates={1: "broken"}, falls_back=True))
    outcomes = await provider_lane.run(items_for(GOOGLE, 4))
    assert len(texts(outcomes, list(outcomes))) == 4
    assert provider_lane.server.count("google_upload") == 1
    assert provider_lane.server.count("google_results") == 2


@every
async def test_requests_are_split_by_what_a_job_may_hold(case: Case, provider_lane: Night) -> None:
    items = items_for(case, 40)
    outcomes = await provider_lane.run(items, provider_lane.lane(upload_bytes=2_000))
    assert len(texts(outcomes, [item.key for item in items])) == 40
    sizes = [len(job.requests) for job in provider_lane.server.jobs[case.name].values()]
    assert sum(sizes) == 40
    assert len(sizes) > 1


async def test_providers_and_models_get_jobs_of_their_own(provider_lane: Night) -> None:
    mixed = [items_for(case, 2) for case in (*FAMILY, replace(OPENAI, model="gpt-5-nano"))]
    for other in mixed[3]:
        mixed[0].append(Item(f"nano-{other.key}", other.request, other.origin))
    outcomes = await provider_lane.run(mixed[0] + mixed[1] + mixed[2])
    assert len(texts(outcomes, list(outcomes))) == 8
    assert [len(provider_lane.server.jobs[case.name]) for case in FAMILY] == [2, 1, 1]


@every
async def test_a_job_that_is_too_much_now_is_sent_later(case: Case, provider_lane: Night) -> None:
    provider_lane.server.plan(case.name, Script(submit_faults=("error_429",)))
    # the services ask for a second; the rhythm of a night would wait as long
    outcomes = await provider_lane.run(items_for(case, 2))
    assert len(texts(outcomes, list(outcomes))) == 2
    assert provider_lane.server.count(f"{case.name}_list") == 0


@every
async def test_a_job_that_is_refused_fails_its_items_once(case: Case, provider_lane: Night) -> None:
    provider_lane.server.plan(case.name, Script(submit_faults=("error_400",)))
    lane = provider_lane.lane()
    outcomes = await provider_lane.run(items_for(case, 2), lane)
    assert {type(outcome) for outcome in outcomes.values()} == {RequestError}
    assert len(provider_lane.journal.lines()) == 2
    assert provider_lane.lane().jobs == []


@every
@pytest.mark.parametrize("fault", ["unanswered", "lost"])
async def test_a_broken_connection_at_sending_never_makes_two_jobs(
    case: Case, fault: Fault, provider_lane: Night
) -> None:
    provider_lane.server.plan(case.name, Script(submit_faults=(fault,)))
    outcomes = await provider_lane.run(items_for(case, 3))
    assert len(texts(outcomes, list(outcomes))) == 3
    assert len(provider_lane.server.jobs[case.name]) == 1


@every
async def test_a_job_is_looked_for_on_every_page(
    case: Case, provider_lane: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"muse.providers._batch.{case.name}._PAGE", 1)
    others = (make(provider_lane, case) for _ in range(3))
    provider_lane.server.plan(case.name, Script(submit_faults=("unanswered",)))
    provider_lane.server.on_step = lambda step: next(others, None) if step.endswith("_list") else None
    outcomes = await provider_lane.run(items_for(case, 3))
    assert len(texts(outcomes, list(outcomes))) == 3
    assert provider_lane.server.count(f"{case.name}_make") == 1
    assert provider_lane.server.count(f"{case.name}_list") >= 2


def make(provider_lane: Night, case: Case) -> None:
    """A job of somebody else, made just now."""
    jobs = provider_lane.server.jobs[case.name]
    jobs[f"other{len(jobs)}"] = Job(f"other{len(jobs)}", "theirs", [("theirs-0", {})], Script())


async def test_another_batch_of_the_same_size_is_not_taken_for_ours(provider_lane: Night) -> None:
    await provider_lane.run(items_for(ANTHROPIC, 3))  # over: its results tell whose it is
    provider_lane.server.plan("anthropic", Script(submit_faults=("unanswered",)))
    outcomes = await provider_lane.run(items_for(ANTHROPIC, 3, first=10))
    assert texts(outcomes, list(outcomes)) != []
    assert len(provider_lane.server.jobs["anthropic"]) == 2


@every
async def test_cancelling_gives_what_is_done_and_says_so_of_the_rest(case: Case, provider_lane: Night) -> None:
    provider_lane.server.plan(case.name, Script(polls=10_000, done_at_cancel=2))
    lane = provider_lane.lane()
    provider_lane.server.on_step = lambda step: lane.cancel() if step.endswith("_look") else None
    outcomes = await provider_lane.run(items_for(case, 5), lane)
    done = [outcome for outcome in outcomes.values() if isinstance(outcome, Reply)]
    left = [outcome for outcome in outcomes.values() if not isinstance(outcome, Reply)]
    assert len(done) == (0 if case is GOOGLE else 2)
    assert {code_of(error) for error in left} == {("batch_cancelled", True)}
    assert provider_lane.server.count(f"{case.name}_cancel") == 1


async def test_the_deadline_cancels_what_is_left(provider_lane: Night) -> None:
    provider_lane.server.plan("openai", Script(polls=10_000, done_at_cancel=1))
    outcomes = await provider_lane.run(items_for(OPENAI, 3), deadline_s=0.2)
    assert [type(outcomes[f"openai-{number}"]) for number in range(3)] == [Reply, ProviderError, ProviderError]
    assert provider_lane.server.count("openai_cancel") == 1


async def test_a_job_that_is_gone_says_so(provider_lane: Night) -> None:
    provider_lane.server.on_step = lambda step: (
        provider_lane.server.jobs["openai"].clear() if step.endswith("_look") else None
    )
    outcomes = await provider_lane.run(items_for(OPENAI, 2))
    assert {type(outcome) for outcome in outcomes.values()} == {NotFoundError}
    assert len(provider_lane.journal.lines()) == 2


async def test_a_key_that_no_longer_works_leaves_the_job_for_another_run(provider_lane: Night) -> None:
    provider_lane.server.plan("openai", Script(polls=3, poll_faults=("error_401",)))
    items = items_for(OPENAI, 2)
    refused = await provider_lane.run(items)
    assert {type(outcome) for outcome in refused.values()} == {AuthError}
    assert provider_lane.journal.lines() == []
    outcomes = await provider_lane.run(items)
    assert len(texts(outcomes, list(outcomes))) == 2
    assert provider_lane.server.count("openai_make") == 1


async def test_a_provider_without_a_batch_service_is_named(provider_lane: Night) -> None:
    outcomes = await provider_lane.run(items_for(GATEWAYS[0], 1))
    error = outcomes["openrouter-0"]
    assert isinstance(error, ConfigError)
    assert "google, openai, anthropic" in str(error)


async def test_a_request_larger_than_a_job_is_refused_alone(provider_lane: Night) -> None:
    small, large = items_for(OPENAI, 2)
    large = Item(large.key, changed(large.request, system="x" * 5_000), large.origin)
    outcomes = await provider_lane.run([small, large], provider_lane.lane(upload_bytes=1_000))
    assert isinstance(outcomes[small.key], Reply)
    assert isinstance(outcomes[large.key], ContentsError)


async def test_what_the_items_raise_comes_out_as_it_is(provider_lane: Night) -> None:
    def items() -> Iterator[Item]:
        yield from items_for(OPENAI, 2)
        raise LookupError("no more rows")

    with pytest.raises(LookupError, match="no more rows"):
        await provider_lane.run(items())
    assert provider_lane.server.count("openai_make") == 0


async def test_after_a_cancellation_nothing_goes_out(provider_lane: Night) -> None:
    lane = provider_lane.lane()
    lane.cancel()
    outcomes = await provider_lane.run(items_for(OPENAI, 3), lane)
    assert {code_of(outcome) for outcome in outcomes.values()} == {("batch_cancelled", True)}
    assert provider_lane.server.steps == []


async def test_a_slow_reader_gets_no_answer_twice(provider_lane: Night) -> None:
    provider_lane.server.plan("openai", Script(fates={5: "broken"}, falls_back=True))
    lane = provider_lane.lane()
    taken: list[str] = []
    async for answer in lane.run(items_for(OPENAI, 600)):
        taken.append(answer.key)
        if len(taken) < 20:
            await asyncio.sleep(0.005)
    assert len(set(taken)) == len(taken) == 600
    assert len(provider_lane.journal.lines()) == 600
    lane.close()


async def test_a_missing_key_is_told_for_each_item(provider_lane: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    outcomes = await provider_lane.run(items_for(OPENAI, 2))
    assert {type(outcome).__name__ for outcome in outcomes.values()} == {"MissingKeyError"}


async def test_no_key_stands_in_the_file(provider_lane: Night) -> None:
    await provider_lane.run(items_for(OPENAI, 2))
    assert OPENAI.key.encode() not in provider_lane.path.read_bytes()


@every
async def test_discarding_deletes_at_the_service(case: Case, provider_lane: Night) -> None:
    await provider_lane.run(items_for(case, 2))
    lane = provider_lane.lane()
    assert await lane.discard() == 1
    assert lane.jobs == []
    deleted = "openai_delete_file" if case is OPENAI else f"{case.name}_delete"
    assert provider_lane.server.count(deleted) >= 1
    lane.close()


@pytest.mark.parametrize("name", sorted(providers.PROVIDER_REGISTRY))
def test_who_has_a_batch_price_has_a_batch_service(name: str) -> None:
    backend = providers.backend_of(name)
    assert isinstance(backend, ProviderBackend)
    assert (backend.spec.batch_price is not None) == (backend.provider.native_batch() is not None)
    assert (window_s(name) is not None) == (backend.spec.batch_price is not None)


@every
async def test_a_line_of_results_that_makes_no_sense_is_an_error(case: Case) -> None:
    backend = providers.backend_of(case.name)
    assert isinstance(backend, ProviderBackend)
    native = backend.provider.native_batch()
    assert native is not None
    name = "key" if case is GOOGLE else "custom_id"
    for line in (b"[1]", b"", b"{", b'{"response": {}}', b"\xff\xfe"):
        assert native.unwrap(line, "m")[0] == ""
    for rest in ({}, {"response": 5}, {"response": {"body": 3}}, {"result": {"type": "odd"}}, {"result": {}}):
        told, outcome = native.unwrap(json.dumps({name: "muse-1-0", **rest}).encode(), "m")
        assert isinstance(outcome, MuseError) or (case is GOOGLE and outcome == rest["response"])
        assert told in {"", "muse-1-0"}


def test_a_rate_limit_inside_the_results_can_be_retried() -> None:
    backend = providers.backend_of("openai")
    assert isinstance(backend, ProviderBackend)
    native = backend.provider.native_batch()
    assert native is not None
    body = {"error": {"code": "rate_limit_exceeded", "message": "slow down"}}
    line = {"custom_id": "a", "response": {"status_code": 429, "body": body}, "error": None}
    _, outcome = native.unwrap(json.dumps(line).encode(), "gpt-5-mini")
    assert isinstance(outcome, RateLimitError)
    assert outcome.retryable
