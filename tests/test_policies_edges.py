"""Policies where they meet: time after waits, misspelt bounds, threads, forks, budgets together, bad fallbacks."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from muse import models, testing
from muse.calls.log_pricing import provider_and_cost
from muse.diagnostics import check
from muse.errors import (
    BudgetExceeded,
    CircuitOpen,
    ConfigError,
    DeadlineExceeded,
    LimitReached,
    MuseError,
    ProviderDown,
)
from muse.policies.shared_state import NAME, SharedStateBusy, process, shared_state, write
from muse.policies.spend import SpendTracker, window_start
from muse.providers import backend_of
from muse.usage_log import ledger
from tests.desk import CONTEXT, QUESTION, Desk
from tests.journal_folder import UNMEASURED, JournalFolder, run
from tests.loopback.behaviours import Hang
from tests.loopback.outcomes import TEXT
from tests.provider_cases import FAMILY

OPENAI, ANTHROPIC, GOOGLE = FAMILY


class _Slow:
    """A step at which ten seconds go by: the clock is moved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._waits = [0.001]

    def before(self, _call: object, _route: object) -> float:
        if not self._waits:
            return 0.0
        real = time.monotonic
        self._monkeypatch.setattr(time, "monotonic", lambda: real() + 10)
        return self._waits.pop()

    def after(self, *_: object) -> None: ...

    def leave(self, *_: object) -> None: ...


def test_time_that_went_by_at_a_limit_is_not_given_to_the_try_again(
    journal: JournalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.route(default={"provider": "echo"})
    with testing.script("Six.") as script:
        call = models.prepare_call(QUESTION, CONTEXT, {"timeout_s": 30})
        call.stack.steps = (*call.stack.steps, _Slow(monkeypatch))
        call.run()
    (request,) = script.requests
    assert request.timeout_s is not None
    assert request.timeout_s <= 20


@pytest.mark.parametrize("rule", [{"local_only": "true"}, {"allow": "local"}, {"allow": ["nobody"]}, {"local_only": 1}])
def test_a_bound_that_is_not_usable_allows_nobody(desk: Desk, rule: dict[str, object]) -> None:
    desk.reach(GOOGLE)
    desk.journal.route(default={"provider": "google", "model": GOOGLE.model, **rule})
    assert isinstance(desk.fail("sync"), ConfigError)
    assert not desk.server.requests


def test_a_ladder_that_names_an_unknown_provider_with_a_model_leaves_it_out(desk: Desk) -> None:
    desk.reach(OPENAI)
    bad = {"provider": "nobody", "model": "x"}
    desk.journal.route(default={"provider": "openai", "model": OPENAI.model, "retries": 0, "fallbacks": [bad, "echo"]})
    desk.play(OPENAI, "error_500")
    assert desk.ask("sync").provider == "echo"
    assert any("nobody" in finding.found for finding in check.examine().findings)


def test_what_is_not_installed_or_has_no_address_goes_down_the_ladder(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_API_KEY", "k")
    desk.journal.route(default={"provider": "azure", "model": "m", "fallbacks": ["echo"]})
    assert desk.ask("sync").provider == "echo"


def test_a_spent_budget_refuses_whatever_another_one_would_degrade(desk: Desk) -> None:
    desk.journal.route(
        default={"provider": "echo"}, budgets=[{"context": "app.*", "usd": 10, "degrade_at": 0}, {"usd": 0.5}]
    )
    ledger.append({"context": "x", "provider": "openai", "model": "m", "usage": {"total_tokens": 1}, "cost_usd": 1})
    with pytest.raises(BudgetExceeded, match=r"providers\.budgets\[1\]"):
        models.reply(QUESTION, CONTEXT)


def test_a_degraded_call_is_never_dearer_than_the_model_it_names(desk: Desk) -> None:
    desk.reach(OPENAI)
    desk.journal.route(default={"provider": "openai", "tier": 1}, budgets=[{"usd": 10, "degrade_at": 0}])
    assert desk.ask("sync", model=models.GPT_5_NANO).model != models.GPT_5_MINI
    sent = [request.body["model"] for request in desk.server.requests]
    assert sent == [models.GPT_5_NANO]
    desk.ask("sync", model="gpt-of-tomorrow")
    assert desk.server.requests[-1].body["model"] == "gpt-of-tomorrow"


def test_a_context_may_switch_off_what_the_default_keeps(desk: Desk) -> None:
    desk.reach(OPENAI)
    desk.journal.route(
        default={"provider": "openai", "model": OPENAI.model, "cache_s": 60}, contexts={CONTEXT: {"cache_s": 0}}
    )
    for context in (CONTEXT, "app.other"):
        desk.ask("sync", context=context)
        desk.ask("sync", context=context)
    assert len(desk.server.requests) == 3


def test_a_kept_answer_is_given_though_the_budget_is_spent(desk: Desk) -> None:
    desk.reach(OPENAI)
    rule = {"provider": "openai", "model": OPENAI.model, "cache_s": 60}
    desk.journal.route(default=rule)
    desk.ask("sync")
    desk.journal.route(default=rule, budgets=[{"usd": 0.000001}])
    assert desk.ask("sync").text == TEXT
    assert isinstance(desk.fail("sync", contents="Another question"), BudgetExceeded)


def test_sums_of_the_log_are_the_same_from_any_number_of_threads(tmp_path: Path) -> None:
    today = window_start("day")
    (tmp_path / "tokens").mkdir()
    line = json.dumps({"context": "x", "usage": {"total_tokens": 2}, "cost_usd": 0.5})
    odd = [
        '{"context": 7}',
        "not json",
        '{"cost_usd": "much"}',
        '{"usage": {"total_tokens": "many"}, "context": "x"}',
        "",
    ]
    (tmp_path / "tokens" / f"{today}.jsonl").write_text("\n".join([line] * 3_000 + odd) + '\n{"torn')
    book = SpendTracker(str(tmp_path), today, provider_and_cost)
    threads = [threading.Thread(target=book.look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = book.total(lambda key: key.context == "x")
    assert (total.calls, total.tokens, total.usd) == (3_001, 6_000, 1_500.0)
    assert book.total(lambda key: key.context != "y").unpriced == 2


def test_a_child_process_takes_its_own_and_not_its_parents_stock(journal: JournalFolder) -> None:
    journal.route(default={"provider": "echo", "on_limit": "raise"}, limits=[{"requests_per_minute": 200}])
    code = """
import os
from muse import models
from muse.errors import LimitReached
def ask(most):
    done = 0
    for _ in range(most):
        try:
            models.generate("x", "x")
        except LimitReached:
            break
        done += 1
    return done
sent = ask(1)
ends = []
for _ in range(6):
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, b"%d" % ask(100))
        os._exit(0)
    ends.append(reading)
for reading in ends:
    os.wait()
    sent += int(os.read(reading, 100))
print(sent)
"""
    assert 150 <= int(run(code, **UNMEASURED)) <= 200


def test_an_answer_that_cannot_be_used_shows_that_the_provider_is_there(desk: Desk) -> None:
    desk.journal.route(default={"provider": "echo", "retries": 0}, breaker={"failures": 2})
    down = ProviderDown("down", retryable=True)
    with testing.script(down, "", down, "fine"):
        kinds = [type(desk.fail("sync")).__name__ for _ in range(3)]
        assert desk.ask("sync").text == "fine"
    assert kinds == ["ProviderDown", "EmptyReply", "ProviderDown"]


def test_an_impatient_stream_does_not_open_the_breaker(desk: Desk) -> None:
    desk.reach(OPENAI)
    desk.journal.route(
        default={"provider": "openai", "model": OPENAI.model, "retries": 0, "first_token_s": 0.1},
        breaker={"failures": 1},
    )
    desk.play(OPENAI, Hang())
    desk.fail("stream")
    assert desk.ask("sync").text == TEXT


def test_a_store_that_is_deleted_under_a_process_is_begun_anew(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.journal.route(default={"provider": "echo"}, limits=[{"in_flight": 2, "requests_per_minute": 1000}])
    for _ in range(3):
        desk.ask("sync")
        for path in desk.journal.path.glob(f"{NAME}*"):
            path.unlink()
    desk.ask("sync")
    assert shared_state().path != ":memory:"
    assert not [record for record in caplog.records if "cannot be kept" in record.getMessage()]


def test_a_store_that_others_keep_locked_delays_a_call_and_does_not_lose_it(desk: Desk) -> None:
    desk.journal.route(default={"provider": "echo"}, limits=[{"in_flight": 2}])
    desk.ask("sync")
    asked = threading.Thread(target=desk.ask, args=("sync",))
    other = sqlite3.connect(desk.journal.path / NAME, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    asked.start()
    asked.join(0.5)
    assert asked.is_alive()
    other.execute("COMMIT")
    other.close()
    asked.join(180)
    assert not asked.is_alive()


def test_a_cache_that_cannot_be_used_costs_a_call_and_not_an_answer(desk: Desk) -> None:
    desk.reach(OPENAI)
    desk.journal.route(default={"provider": "openai", "model": OPENAI.model, "cache_s": 60})
    folder = desk.journal.path / "cache"
    folder.mkdir()
    (folder / "replies.sqlite").write_bytes(b"no database" * 1_000)
    assert desk.ask("sync").text == TEXT
    for path in folder.glob("replies.sqlite*"):
        path.unlink()
    (folder / "replies.sqlite").mkdir()
    assert desk.ask("sync", contents="Another").text == TEXT


def test_waiting_at_a_limit_that_is_given_up_leaves_no_trace(desk: Desk) -> None:
    desk.journal.route(default={"provider": "echo"}, limits=[{"requests_per_minute": 1}])
    desk.ask("sync")
    with pytest.raises(LimitReached):
        models.generate(QUESTION, CONTEXT, timeout_s=0.5)
    with pytest.raises(MuseError):
        models.stream(QUESTION, CONTEXT, timeout_s=0.5)
    assert shared_state().rows("SELECT * FROM line") == []


def test_an_open_breaker_is_seen_by_a_stream_at_once(desk: Desk) -> None:
    desk.journal.route(default={"provider": "echo", "retries": 0}, breaker={"failures": 1})
    with testing.script(ProviderDown("down", retryable=True)):
        desk.fail("sync")
    with pytest.raises(CircuitOpen):
        models.stream(QUESTION, CONTEXT)


def test_the_place_in_line_of_a_killed_process_holds_nobody_up(
    journal: JournalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.route(default={"provider": "echo"}, limits=[{"in_flight": 1}])
    models.generate(QUESTION, CONTEXT)
    ((key,),) = shared_state().rows("SELECT DISTINCT key FROM holders")
    with shared_state().writing() as connection:
        values = (key, time.monotonic(), "4194304.1")  # no process has this number
        connection.execute("INSERT INTO line (key, again, process) VALUES (?, ?, ?)", values)
    waits: list[float] = []
    monkeypatch.setattr("muse.calls.execute.time.sleep", waits.append)
    models.generate(QUESTION, CONTEXT)
    assert waits == []
    assert shared_state().rows("SELECT * FROM line") == []


def test_another_process_that_writes_never_holds_up_an_event_loop(journal: JournalFolder) -> None:
    journal.route(default={"provider": "echo"}, limits=[{"in_flight": 1}])
    models.generate(QUESTION, CONTEXT)
    other = sqlite3.connect(journal.path / NAME, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    async def ask() -> int:
        for _ in range(3):
            with pytest.raises(SharedStateBusy):
                write(lambda connection: connection.execute("SELECT 1"))
        return int(shared_state()._connection.execute("PRAGMA busy_timeout").fetchone()[0])

    assert asyncio.run(ask()) <= 5
    with pytest.raises(SharedStateBusy):
        write(lambda connection: connection.execute("SELECT 1"))
    assert shared_state()._connection.execute("PRAGMA busy_timeout").fetchone()[0] >= 50
    other.execute("COMMIT")
    other.close()
    assert asyncio.run(models.agenerate(QUESTION, CONTEXT)) == QUESTION


async def test_an_sdk_that_is_long_in_loading_does_not_hold_a_call_beyond_its_time(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    desk.reach(OPENAI, ANTHROPIC)
    fallbacks = {"fallbacks": ["anthropic"], "retries": 0}
    desk.journal.route(default={"provider": "openai", "model": OPENAI.model, **fallbacks})
    desk.play(OPENAI, "error_500")
    monkeypatch.setattr(backend_of("anthropic"), "aload", never)
    with pytest.raises(ProviderDown) as caught:
        await models.areply(QUESTION, CONTEXT, timeout_s=3)
    (other,) = caught.value.others
    assert isinstance(other, DeadlineExceeded)
    assert "while the SDK of anthropic was being loaded" in str(other)


def test_where_there_is_room_for_all_in_line_nobody_waits_for_those_before(
    journal: JournalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.route(default={"provider": "echo"}, limits=[{"in_flight": 8}])
    models.generate(QUESTION, CONTEXT)
    ((key,),) = shared_state().rows("SELECT DISTINCT key FROM holders")
    with shared_state().writing() as connection:
        values = [(key, time.monotonic(), process())] * 7
        connection.executemany("INSERT INTO line (key, again, process) VALUES (?, ?, ?)", values)
    waits: list[float] = []
    monkeypatch.setattr("muse.calls.execute.time.sleep", waits.append)
    models.generate(QUESTION, CONTEXT)
    assert waits == []
