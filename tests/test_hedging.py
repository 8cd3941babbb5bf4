"""Shows that a call whose target keeps silent asks the next one too, takes the first answer, and logs every attempt."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from muse import models
from muse.calls.hedging import stop_background
from muse.errors import AuthError, ProviderDown, ProviderTimeout
from muse.models import AgentModel
from muse.policies.execution import Fallback
from muse.types.messages import Request, User
from tests.desk import CONTEXT, QUESTION, Desk
from tests.loopback.behaviours import Answer, Hang
from tests.loopback.outcomes import TEXT
from tests.provider_cases import FAMILY

OPENAI, ANTHROPIC, GOOGLE = FAMILY
every_way = pytest.mark.parametrize("way", ["sync", "async"])


@pytest.fixture(autouse=True)
def _no_loop_left() -> Any:
    yield
    stop_background()


def route(desk: Desk, *fallbacks: str, **rules: Any) -> None:
    desk.reach(OPENAI, ANTHROPIC, GOOGLE)
    rules = {"retries": 0, "hedge_s": 0.05, "timeout_s": 60, **rules}
    desk.journal.route(
        default={"provider": "openai", "model": OPENAI.model, "fallbacks": list(fallbacks or ["anthropic"]), **rules}
    )


def errors_by_provider(desk: Desk) -> dict[str, str | None]:
    return {line["provider"]: line.get("error", {}).get("class") for line in desk.journal.lines()}


@every_way
def test_where_the_first_keeps_silent_the_second_answers(desk: Desk, way: str) -> None:
    route(desk)
    desk.play(OPENAI, Hang())
    reply = desk.ask(way)
    assert (reply.provider, reply.text) == ("anthropic", TEXT)
    assert errors_by_provider(desk) == {"openai": "CancelledError", "anthropic": None}
    assert {line["call_id"] for line in desk.journal.lines()} == {reply.call_id}
    assert sorted(line["attempt"] for line in desk.journal.lines()) == [1, 2]


@every_way
def test_what_the_one_that_lost_cost_is_unknown_and_not_nothing(desk: Desk, way: str) -> None:
    route(desk)
    desk.play(OPENAI, Hang())
    desk.ask(way)
    (lost,) = [line for line in desk.journal.lines() if line["provider"] == "openai"]
    assert (lost["cost_usd"], lost["estimated"]) == (None, True)
    assert lost["usage"]["input_tokens"] > 0


@every_way
def test_the_request_that_lost_is_closed(desk: Desk, way: str) -> None:
    route(desk)
    desk.play(OPENAI, Hang())
    desk.ask(way)
    (lost,) = [request.connection for request in desk.server.requests if b"anthropic" not in request.head.lower()]
    assert desk.server.wait_until(lambda server: not server.is_open(lost))


@every_way
def test_a_quick_answer_is_asked_for_once(desk: Desk, way: str) -> None:
    route(desk, hedge_s=30)
    assert desk.ask(way).provider == "openai"
    assert len(desk.server.requests) == 1


@every_way
def test_a_failure_is_followed_at_once(desk: Desk, way: str) -> None:
    route(desk, hedge_s=30)
    desk.play(OPENAI, "error_500")
    reply = desk.ask(way)
    assert reply.provider == "anthropic"
    assert [attempt.error for attempt in reply.attempts] == ["ProviderDown", None]


@every_way
def test_one_that_was_hedged_may_still_win(desk: Desk, way: str) -> None:
    route(desk)
    desk.play(OPENAI, Hang())
    desk.play(ANTHROPIC, "error_500")
    desk.play(GOOGLE, "text")
    route(desk, "anthropic", "google")
    assert desk.ask(way).provider == "google"
    assert errors_by_provider(desk) == {"openai": "CancelledError", "anthropic": "ProviderDown", "google": None}


@every_way
def test_if_all_fail_the_error_is_that_of_the_first(desk: Desk, way: str) -> None:
    route(desk, hedge_s=30)
    desk.play(OPENAI, "error_500")
    desk.play(ANTHROPIC, "error_529")
    error = desk.fail(way)
    assert isinstance(error, ProviderDown)
    assert error.provider == "openai"
    assert len(error.others) == 1
    assert [attempt.provider for attempt in error.attempts] == ["openai", "anthropic"]


@every_way
def test_what_no_other_target_can_mend_ends_the_call(desk: Desk, way: str) -> None:
    route(desk, hedge_s=30)
    desk.play(OPENAI, Answer({"error": {"message": "bad request", "type": "invalid_request_error"}}, 400))
    assert desk.fail(way).attempts[0].provider == "openai"
    assert len(desk.server.requests) == 1


@every_way
def test_if_all_keep_silent_the_call_ends_with_its_time(desk: Desk, way: str) -> None:
    route(desk, timeout_s=0.5)
    desk.play(OPENAI, Hang())
    desk.play(ANTHROPIC, Hang())
    assert isinstance(desk.fail(way), ProviderTimeout)
    assert errors_by_provider(desk) == {"openai": "ProviderTimeout", "anthropic": "ProviderTimeout"}


@every_way
def test_without_a_ladder_nothing_is_hedged(desk: Desk, way: str) -> None:
    desk.reach(OPENAI)
    desk.journal.route(default={"provider": "openai", "model": OPENAI.model, "hedge_s": 0.001})
    assert desk.ask(way).provider == "openai"
    assert len(desk.server.requests) == 1


async def test_a_sync_call_within_a_loop_is_hedged_too(desk: Desk) -> None:
    route(desk)
    desk.play(OPENAI, Hang())
    assert models.generate(QUESTION, CONTEXT) == TEXT


async def test_a_turn_of_an_agent_is_hedged_and_says_so(desk: Desk) -> None:
    route(desk)
    desk.play(OPENAI, Hang())
    told: list[Fallback] = []
    request = Request(OPENAI.model, (User((QUESTION,)),), timeout_s=60)
    reply = await AgentModel("openai", OPENAI.model, told.append).ask(request, CONTEXT)
    assert reply.provider == "anthropic"
    ((step),) = told
    assert (step.failed.provider, step.next.provider) == ("openai", "anthropic")
    assert "still waited for" in str(step.error)


async def test_a_call_that_is_cancelled_leaves_no_request_behind(desk: Desk) -> None:
    route(desk)
    desk.play(OPENAI, Hang())
    desk.play(ANTHROPIC, Hang())
    task = asyncio.create_task(models.areply(QUESTION, CONTEXT))
    assert await asyncio.to_thread(desk.server.wait_until, lambda server: len(server.requests) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert errors_by_provider(desk) == {"openai": "CancelledError", "anthropic": "CancelledError"}


def test_threads_that_hedge_at_once_do_not_stand_in_each_others_way(desk: Desk) -> None:
    route(desk)
    desk.play(OPENAI, *[Hang()] * 8)

    async def several() -> list[str]:
        return await asyncio.gather(*(asyncio.to_thread(models.generate, QUESTION, CONTEXT) for _ in range(8)))

    assert asyncio.run(several()) == [TEXT] * 8


def test_a_wrong_key_goes_down_the_ladder_as_ever(desk: Desk) -> None:
    route(desk, hedge_s=30)
    desk.play(OPENAI, Answer({"error": {"message": "no", "code": "invalid_api_key"}}, 401))
    reply = desk.ask("sync")
    assert reply.provider == "anthropic"
    assert [attempt.error for attempt in reply.attempts] == [AuthError.__name__, None]
