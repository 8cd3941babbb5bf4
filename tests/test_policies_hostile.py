"""Policies against hostile circumstances: locks, interrupts, odd logs, odd answers, files that go away."""

from __future__ import annotations

import asyncio
import gc
import json
import sqlite3
import time
from contextlib import suppress
from typing import Any

import pytest

from muse import models, testing
from muse.errors import BudgetExceeded, CircuitOpen, InvalidReply, LimitReached, ProviderDown
from muse.policies import pipeline
from muse.policies.shared_state import NAME, process, shared_state
from tests.desk import CONTEXT, QUESTION, Desk
from tests.journal_folder import JournalFolder, run
from tests.loopback.behaviours import Answer
from tests.loopback.outcomes import TEXT
from tests.provider_cases import FAMILY

OPENAI = FAMILY[0]
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.mark.parametrize(
    "limits",
    [
        [{"requests_per_minute": 120, "in_flight": 8}],
        [{"requests_per_minute": 120}, {"in_flight": 8}],
        [{"requests_per_minute": 120}, {"requests_per_minute": 1_000, "tokens_per_minute": 10**9}],
    ],
    ids=["one", "two", "minutes"],
)
def test_all_of_a_limit_can_be_used_whatever_stands_beside_it(journal: JournalFolder, limits: list[Any]) -> None:
    journal.route(default={"provider": "echo", "on_limit": "raise"}, limits=limits)
    for _ in range(120):
        models.generate(QUESTION, CONTEXT)
    with pytest.raises(LimitReached):
        models.generate(QUESTION, CONTEXT)


def test_a_stream_that_the_collector_ends_within_a_transaction_owes_its_place(journal: JournalFolder) -> None:
    journal.route(default={"provider": "echo"}, limits=[{"in_flight": 2}])
    cycle: list[Any] = [models.stream(QUESTION, CONTEXT)]
    cycle.append(cycle)
    del cycle
    with shared_state().writing():
        gc.collect()
    models.generate(QUESTION, CONTEXT)
    assert shared_state().rows("SELECT slots FROM holders") == [(0,)]


def test_places_that_interrupts_left_behind_are_found(journal: JournalFolder) -> None:
    journal.route(default={"provider": "echo", "on_limit": "raise"}, limits=[{"in_flight": 3}])
    models.generate(QUESTION, CONTEXT)
    with shared_state().writing() as connection:
        connection.execute("UPDATE holders SET slots = 3 WHERE process = ?", (process(),))
    time.sleep(0.55)
    models.generate(QUESTION, CONTEXT)
    assert shared_state().rows("SELECT slots FROM holders") == [(0,)]


def test_an_interrupt_while_a_try_is_let_through_leaves_no_place_taken(
    journal: JournalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.route(default={"provider": "echo"}, limits=[{"in_flight": 1}])
    call = models.prepare_call(QUESTION, CONTEXT, {})
    limiter = call.stack.steps[-1]
    before = limiter.before

    def interrupted(*given: Any) -> float:
        before(*given)
        raise KeyboardInterrupt

    with monkeypatch.context() as changed:
        changed.setattr(limiter, "before", interrupted)
        with pytest.raises(KeyboardInterrupt):
            call.run()
    time.sleep(0.55)
    assert models.generate(QUESTION, CONTEXT, timeout_s=60) == QUESTION


@pytest.mark.parametrize("file", [NAME, "cache/replies.sqlite"])
def test_a_file_that_others_have_locked_keeps_nobody_beyond_the_time(journal: JournalFolder, file: str) -> None:
    journal.route(default={"provider": "echo", "cache_s": 60}, limits=[{"in_flight": 2}])
    run("from muse import models; models.generate('x', 'x')")
    other = sqlite3.connect(journal.path / file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    begun = time.monotonic()
    with suppress(LimitReached):
        models.generate(QUESTION, CONTEXT, timeout_s=1)
    assert time.monotonic() - begun < 60, "the file is locked for ever"
    other.execute("COMMIT")
    other.close()
    assert models.generate(QUESTION, CONTEXT, timeout_s=60) == QUESTION
    assert shared_state().path != ":memory:"


def spent(journal: JournalFolder, text: bytes) -> bool:
    """Whether a budget of a dollar a day counts a log of these bytes as spent."""
    journal.route(default={"provider": "echo"}, budgets=[{"usd": 1}])
    path = journal.tokens / time.strftime("%Y%m%d.jsonl")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text)
    try:
        models.generate(QUESTION, CONTEXT)
    except BudgetExceeded:
        return True
    return False


DEAR = json.dumps({"context": "x", "provider": "openai", "model": "m", "model_asked": "m", "usage": {}, "cost_usd": 99})


@pytest.mark.parametrize(
    "before",
    [
        b'{"context": "' + b"x" * 9_000_000 + b'"}',
        b"[" * 5_000 + b"]" * 5_000,
        b'{"cost_usd": -1e9, "provider": "p", "model_asked": "m", "context": "x", "usage": {}}',
        b'{"torn": ',
        b"\xff\xfe",
    ],
    ids=["huge", "deep", "negative", "torn", "bytes"],
)
def test_no_line_of_the_log_hides_what_stands_after_it(journal: JournalFolder, before: bytes) -> None:
    assert spent(journal, before + b"\n" + DEAR.encode() + b"\n")


def test_what_was_logged_elsewhere_counts_at_its_price(journal: JournalFolder) -> None:
    journal.route(default={"provider": "echo"}, budgets=[{"usd": 1}])
    models.log_token_usage("gpt-5", {"input_tokens": 1_000_000, "output_tokens": 1_000_000}, "x")
    with pytest.raises(BudgetExceeded, match=r"\$11\.25"):
        models.generate(QUESTION, CONTEXT)


@pytest.mark.parametrize("cost", ["99", None, True, [1]])
def test_a_cost_that_cannot_be_read_counts_as_unpriced(journal: JournalFolder, cost: object) -> None:
    line = {"context": "x", "model": "unheard-of", "usage": {"total_tokens": 5}, "cost_usd": cost}
    assert spent(journal, (json.dumps(line) + "\n").encode() * 101)


def test_a_log_that_was_written_anew_is_read_anew(journal: JournalFolder) -> None:
    assert not spent(journal, b'{"context": "x", "usage": {}}\n' * 50)
    time.sleep(0.25)
    assert spent(journal, DEAR.encode() + b"\n")


def test_processes_share_a_store_again_after_it_was_deleted(journal: JournalFolder) -> None:
    journal.route(default={"provider": "echo", "on_limit": "raise"}, limits=[{"requests_per_minute": 3}])
    models.generate(QUESTION, CONTEXT)
    for path in journal.path.glob(f"{NAME}*"):
        path.unlink()
    code = "from muse import models\nfor _ in range(3): models.generate('x', 'x')"
    run(code)
    time.sleep(0.55)
    with pytest.raises(LimitReached):
        models.generate(QUESTION, CONTEXT)


def test_a_probe_that_tells_nothing_is_given_back(desk: Desk) -> None:
    rules = {"provider": "echo", "retries": 0}
    desk.journal.route(default=rules, breaker={"failures": 1, "cool_down_s": 0.2})
    with testing.script(ProviderDown("down", retryable=True)):
        desk.fail("sync")
    time.sleep(0.3)

    async def cancelled() -> None:
        with testing.script(asyncio.CancelledError()):
            await models.areply(QUESTION, CONTEXT)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled())
    assert desk.ask("sync").text == QUESTION


def test_an_open_breaker_says_how_long_it_will_be(desk: Desk) -> None:
    desk.journal.route(default={"provider": "echo", "retries": 0}, breaker={"failures": 1, "cool_down_s": 20})
    with testing.script(ProviderDown("down", retryable=True)):
        desk.fail("sync")
    error = desk.fail("sync")
    assert isinstance(error, CircuitOpen)
    assert 15 < error.retry_after_s <= 20


@pytest.mark.parametrize("header", ["999999999", "inf", "1e400", "Fri, 20 Nov 2099 09:30:00 GMT"])
def test_no_header_stops_a_model_for_good(desk: Desk, header: str) -> None:
    desk.reach(OPENAI)
    desk.journal.route(default={"provider": "openai", "model": OPENAI.model, "retries": 0})
    desk.play(OPENAI, Answer({"error": {"message": "slowly"}}, 429, {"retry-after": header}))
    desk.fail("sync")
    flow = pipeline._adaptive._flows["openai", OPENAI.model]
    assert flow.held_until_s - time.monotonic() <= 300


def test_what_a_provider_says_of_a_callers_own_key_holds_nobody_else_back(desk: Desk) -> None:
    desk.reach(OPENAI)
    desk.journal.route(default={"provider": "openai", "model": OPENAI.model, "retries": 0})
    desk.play(OPENAI, Answer({"error": {"message": "slowly"}}, 429, {"retry-after": "60"}))
    desk.fail("sync", api_key="sk-of-the-caller-alone")
    assert desk.ask("sync", timeout_s=50).text == TEXT


def test_an_answer_that_does_not_fit_is_not_kept(desk: Desk) -> None:
    desk.journal.route(default={"provider": "echo", "cache_s": 60})
    with testing.script("no", "still no"), pytest.raises(InvalidReply):
        models.generate_object(QUESTION, CONTEXT, SCHEMA)
    with testing.script('{"n": 5}'):
        assert models.generate_object(QUESTION, CONTEXT, SCHEMA) == {"n": 5}
    assert models.generate_object(QUESTION, CONTEXT, SCHEMA) == {"n": 5}


def test_an_endpoint_of_another_address_gives_its_own_answers(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.reach(OPENAI)
    desk.journal.route(default={"provider": "openai", "model": OPENAI.model, "cache_s": 60})
    desk.ask("sync")
    monkeypatch.setenv("OPENAI_BASE_URL", desk.server.url.replace("127.0.0.1", "localhost") + "/v1")
    desk.ask("sync")
    assert len(desk.server.requests) == 2


def test_a_request_that_cannot_be_a_key_is_asked_all_the_same(desk: Desk) -> None:
    desk.journal.route(default={"provider": "echo", "cache_s": 60})
    assert desk.ask("sync", seed=2**70).text == QUESTION


def test_an_answer_larger_than_the_cache_leaves_the_others(desk: Desk) -> None:
    desk.journal.route(default={"provider": "echo", "cache_s": 60}, cache={"max_mb": 0.01})
    with testing.script("short"):
        desk.ask("sync", contents="one")
    with testing.script("long " * 5_000):
        desk.ask("sync", contents="two")
    assert desk.ask("sync", contents="one").text == "short"
