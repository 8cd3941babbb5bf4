"""Policies with real SDKs on the loopback server: retries, fallback chains, breakers, budgets, cache."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any

import pytest

from muse import models
from muse.errors import (
    BudgetExceeded,
    CircuitOpen,
    ConfigError,
    LimitReached,
    MissingKeyError,
    ProviderDown,
    ProviderTimeout,
    RateLimitError,
)
from muse.policies import circuit_breaker
from muse.usage_log import ledger
from tests.desk import CONTEXT, QUESTION, WAYS, Desk
from tests.loopback.behaviours import Answer, Delay, Hang
from tests.loopback.outcomes import TEXT
from tests.provider_cases import FAMILY

OPENAI, ANTHROPIC, GOOGLE = FAMILY
every_way = pytest.mark.parametrize("way", WAYS)


def route(desk: Desk, *, others: tuple[Any, ...] = (ANTHROPIC,), **rules: Any) -> None:
    """Route everything to openai, with keys for `others` too, under `rules`; top-level sections go beside."""
    desk.reach(OPENAI, *others)
    sections = {name: rules.pop(name) for name in ("limits", "budgets", "breaker", "cache") if name in rules}
    desk.journal.route(default={"provider": "openai", "model": OPENAI.model, **rules}, **sections)


def busy(retry_after: str | None = None) -> Answer:
    body = {"error": {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}}
    return Answer(body, 429, {"retry-after": retry_after} if retry_after else {})


@every_way
def test_a_passing_failure_is_tried_again_and_every_try_has_its_line(desk: Desk, way: str) -> None:
    route(desk)
    desk.play(OPENAI, "error_500", "text")
    reply = desk.ask(way)
    assert reply.text == TEXT
    lines = desk.journal.lines()
    assert [line.get("error", {}).get("class") for line in lines] == ["ProviderDown", None]
    assert [attempt.error for attempt in reply.attempts] == ["ProviderDown", None]


@every_way
def test_a_used_up_quota_is_not_tried_again(desk: Desk, way: str) -> None:
    route(desk)
    desk.play(OPENAI, "error_quota")
    desk.fail(way)
    assert len(desk.journal.lines()) == 1


def test_retry_after_is_honoured(desk: Desk) -> None:
    route(desk)
    desk.play(OPENAI, busy("1"), "text")
    begun = time.monotonic()
    desk.ask("sync")
    assert time.monotonic() - begun >= 1


@every_way
def test_a_ladder_goes_on_with_the_next_provider_and_says_so(
    desk: Desk, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    route(desk, retries=0, fallbacks=["anthropic"])
    desk.play(OPENAI, "error_500")
    reply = desk.ask(way)
    assert (reply.provider, reply.text) == ("anthropic", TEXT)
    assert [attempt.provider for attempt in reply.attempts] == ["openai", "anthropic"]
    lines = desk.journal.lines()
    assert [line["provider"] for line in lines] == ["openai", "anthropic"]
    assert lines[1]["route"] == "providers.default.fallbacks[0]"
    said = [record.getMessage() for record in caplog.records if "going on with" in record.getMessage()]
    assert len(said) == 1
    assert CONTEXT in said[0]


@every_way
def test_a_missing_key_goes_down_the_ladder(desk: Desk, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    route(desk, fallbacks=[{"provider": "anthropic", "tier": 3}])
    monkeypatch.delenv("OPENAI_API_KEY")
    reply = desk.ask(way)
    assert reply.provider == "anthropic"
    assert reply.route is not None
    assert reply.route.model == models.CLAUDE_HAIKU_4


def test_a_callers_own_key_is_shown_to_the_provider_it_is_for_and_to_no_other(desk: Desk) -> None:
    route(desk, retries=0, fallbacks=["anthropic"])
    desk.play(OPENAI, "error_500")
    desk.ask("sync", api_key="sk-own-key-of-the-caller")
    shown = [json.dumps(dict(request.headers)) for request in desk.server.requests]
    assert "sk-own-key-of-the-caller" in shown[0]
    assert "sk-own-key-of-the-caller" not in shown[1]


def test_if_all_rungs_fail_the_first_error_is_raised(desk: Desk) -> None:
    route(desk, retries=0, fallbacks=["anthropic", "local"])
    desk.play(OPENAI, "error_500")
    desk.play(ANTHROPIC, "error_529")
    desk.journal.route(default={"provider": "openai", "model": OPENAI.model, "retries": 0, "fallbacks": ["anthropic"]})
    error = desk.fail("sync")
    assert isinstance(error, ProviderDown)
    assert error.provider == "openai"
    assert [type(other) for other in error.others] == [ProviderDown]
    assert [attempt.provider for attempt in error.attempts] == ["openai", "anthropic"]


@pytest.mark.parametrize("rule", [{"local_only": True}, {"allow": ["google"]}])
def test_a_bound_refuses_a_route_beyond_it(desk: Desk, rule: dict[str, Any]) -> None:
    route(desk, **rule)
    error = desk.fail("sync")
    assert isinstance(error, ConfigError)
    assert f"providers.default.{next(iter(rule))}" in str(error)
    assert not desk.server.requests


def test_a_bound_holds_against_fallbacks_stronger_rules_and_the_calls_own_model(desk: Desk) -> None:
    desk.reach(OPENAI, ANTHROPIC, GOOGLE)
    desk.journal.route(
        contexts={
            "app.*": {"allow": ["google", "openai"], "fallbacks": ["anthropic", "google"], "retries": 0},
            "app.tides.*": {"provider": "openai", "model": OPENAI.model},
        }
    )
    desk.play(OPENAI, "error_500")
    assert desk.ask("sync", context="app.tides.turn").provider == "openai"  # a shadowed glob gives no fallback chain
    refused = desk.fail("sync", context="app.tides.turn", model=ANTHROPIC.model)
    assert isinstance(refused, ConfigError)
    assert {request.path.split("/")[1] for request in desk.server.requests} == {"v1"}


def test_a_timeout_is_kept_with_retries_and_a_ladder(desk: Desk) -> None:
    route(desk, fallbacks=["anthropic"], breaker={"failures": 0})
    desk.play(OPENAI, Hang())
    desk.play(ANTHROPIC, Hang())
    begun = time.monotonic()
    error = desk.fail("sync", timeout_s=1)
    assert time.monotonic() - begun >= 0.9
    assert isinstance(error, ProviderTimeout)
    assert len(error.others) == 1
    given = [re.search(r"no answer within ([\d.]+) s", str(one)) for one in (error, *error.others)]
    assert [match is not None and float(match[1]) <= bound for match, bound in zip(given, (0.75, 0.26), strict=True)]


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_a_stream_without_a_first_piece_goes_down_the_ladder(desk: Desk, way: str) -> None:
    route(desk, retries=0, first_token_s=0.3, fallbacks=["anthropic"])
    desk.play(OPENAI, Hang())
    begun = time.monotonic()
    assert desk.ask(way).provider == "anthropic"
    assert time.monotonic() - begun < 300, "the call has 600 s"
    assert desk.journal.lines()[0]["error"]["class"] == "ProviderTimeout"


def test_a_model_that_keeps_failing_is_left_alone_and_tried_again_later(desk: Desk) -> None:
    route(desk, retries=0, breaker={"failures": 2, "cool_down_s": 0.5})
    desk.play(OPENAI, "error_500", "error_500", "text")
    desk.fail("sync")
    desk.fail("sync")
    assert isinstance(desk.fail("sync"), CircuitOpen)
    assert len(desk.server.requests) == 2
    assert [state.failures for _, state in circuit_breaker.circuit_states()] == [2]
    time.sleep(0.55)
    assert desk.ask("sync").text == TEXT
    assert list(circuit_breaker.circuit_states()) == []


def test_an_open_breaker_goes_down_the_ladder(desk: Desk) -> None:
    route(desk, retries=0, breaker={"failures": 1}, fallbacks=["anthropic"])
    desk.play(OPENAI, "error_500")
    assert desk.ask("sync").provider == "anthropic"
    assert desk.ask("sync").provider == "anthropic"
    assert [request.path for request in desk.server.requests].count("/v1/responses") == 1


def test_a_limit_raises_where_that_is_asked_for(desk: Desk) -> None:
    route(desk, on_limit="raise", limits=[{"provider": "openai", "requests_per_minute": 2}])
    desk.ask("sync")
    desk.ask("sync")
    error = desk.fail("sync")
    assert isinstance(error, LimitReached)
    assert "providers.limits[0] (openai, 2 requests a minute)" in str(error)
    assert 50 < (error.retry_after_s or 0) <= 61


def test_a_limit_that_leaves_no_room_in_time_ends_the_call_or_goes_down_the_ladder(desk: Desk) -> None:
    limits = [{"provider": "openai", "requests_per_minute": 1}]
    route(desk, limits=limits, fallbacks=["anthropic"])
    assert desk.ask("sync", timeout_s=40).provider == "openai"
    assert desk.ask("sync", timeout_s=40).provider == "anthropic"


def test_calls_in_flight_are_bounded(desk: Desk) -> None:
    route(desk, limits=[{"in_flight": 2}])
    desk.play(OPENAI, *[Delay(0.2, "text")] * 6)

    async def all_of_them() -> float:
        begun = time.monotonic()
        await asyncio.gather(*(models.areply(QUESTION, CONTEXT) for _ in range(6)))
        return time.monotonic() - begun

    assert asyncio.run(all_of_them()) >= 0.6
    assert len(desk.server.requests) == 6


def spend(usd: float | None, *, context: str = CONTEXT, count: int = 1, tokens: int = 100) -> None:
    for _ in range(count):
        entry = {"context": context, "provider": "openai", "model": "m", "usage": {"total_tokens": tokens}}
        ledger.append({**entry, "cost_usd": usd})


def test_a_budget_degrades_then_refuses_and_says_what_was_spent_on_what(desk: Desk) -> None:
    desk.reach(OPENAI)
    desk.journal.route(default={"provider": "openai", "tier": 1}, budgets=[{"context": "app.*", "usd": 1}])
    assert models.reply(QUESTION, CONTEXT).route.model == models.GPT_5  # type: ignore[union-attr]
    spend(0.85)
    time.sleep(0.25)
    downgrade = models.reply(QUESTION, CONTEXT).route
    assert downgrade is not None
    assert downgrade.model == models.GPT_5_MINI
    assert "85% of providers.budgets[0]" in downgrade.reason
    spend(0.2)
    time.sleep(0.25)
    with pytest.raises(BudgetExceeded, match=r"of \$1.00 a day are spent on app\.\* \(app\.tides\.turn on m \$1\.05"):
        models.reply(QUESTION, CONTEXT)


def test_a_budget_protects_who_is_interactive_and_counts_unpriced_calls(desk: Desk) -> None:
    desk.reach(OPENAI)
    desk.journal.route(
        default={"provider": "openai"},
        contexts={"app.chat": {"interactive": True}},
        budgets=[{"usd": 0.05, "unpriced_usd": 0.02}],
    )
    spend(None, count=3)
    with pytest.raises(BudgetExceeded, match=r"3 calls without a known price count \$0\.02 each"):
        models.reply(QUESTION, CONTEXT)
    assert models.reply(QUESTION, "app.chat").text == TEXT


def test_dollars_and_tokens_a_day_are_limited(desk: Desk) -> None:
    route(desk, on_limit="raise", limits=[{"context": "app.*", "tokens_per_day": 150}])
    spend(0.0, tokens=200)
    error = desk.fail("sync")
    assert isinstance(error, LimitReached)
    assert "200 tokens" in str(error)


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_kept_answer_needs_no_call_and_costs_nothing(desk: Desk, way: str) -> None:
    route(desk, cache_s=60)
    first = desk.ask(way)
    again = desk.ask(way)
    assert (again.text, again.cost_usd, again.usage.total_tokens) == (first.text, 0.0, 0)
    assert len(desk.server.requests) == 1
    assert [line.get("cache") for line in desk.journal.lines()] == [None, "hit"]
    desk.ask(way, contents="Another question")
    desk.ask(way, temperature=0.9)
    assert len(desk.server.requests) == 3


def test_a_kept_answer_grows_old(desk: Desk) -> None:
    route(desk, cache_s=0.2)
    desk.ask("sync")
    time.sleep(0.25)
    desk.ask("sync")
    assert len(desk.server.requests) == 2


def test_without_a_ladder_a_missing_key_is_what_it_was(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    route(desk)
    monkeypatch.delenv("OPENAI_API_KEY")
    assert isinstance(desk.fail("sync"), MissingKeyError)


def test_a_busy_model_is_sent_less_at_once(desk: Desk) -> None:
    route(desk, retries=6)
    desk.play(OPENAI, *[busy()] * 4)

    async def all_of_them() -> None:
        await asyncio.gather(*(models.areply(QUESTION, CONTEXT) for _ in range(12)))

    asyncio.run(all_of_them())
    assert sum("error" not in line for line in desk.journal.lines()) == 12
    assert RateLimitError.__name__ in {line["error"]["class"] for line in desk.journal.lines() if "error" in line}
