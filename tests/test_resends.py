"""Shows that a request whose kept connection had ended is sent again as an attempt like any other, or not at all."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from muse import models
from muse.errors import LimitReached, ProviderDown
from muse.policies import circuit_breaker
from muse.providers import backend_of
from tests.desk import CONTEXT, QUESTION, WAYS, Desk
from tests.loopback.behaviours import Close
from tests.loopback.outcomes import TEXT
from tests.provider_cases import FAMILY, Case

OPENAI, *_ = FAMILY
every_way = pytest.mark.parametrize("way", WAYS)
every_wire = pytest.mark.parametrize("case", FAMILY, ids=[case.name for case in FAMILY])


def route(desk: Desk, case: Case = OPENAI, **sections: Any) -> None:
    desk.reach(case)
    rules = sections.pop("rules", {})
    desk.journal.route(default={"provider": case.name, "model": case.model, **rules}, **sections)


def ask_on_one_connection(desk: Desk, way: str, times: int) -> list[Any]:
    """So many calls in a row that may use one kept connection, each with its reply or its error."""
    if way in ("sync", "stream"):
        return [_outcome(desk, way) for _ in range(times)]
    return asyncio.run(_ask_in_loop(way, times))


def _outcome(desk: Desk, way: str) -> Any:
    try:
        return desk.ask(way)
    except (ProviderDown, LimitReached) as error:
        return error


async def _ask_in_loop(way: str, times: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(times):
        try:
            found.append(await _ask_async(way))
        except (ProviderDown, LimitReached) as error:
            found.append(error)
    return found


async def _ask_async(way: str) -> Any:
    if way == "async":
        return await models.areply(QUESTION, CONTEXT)
    async with await models.astream(QUESTION, CONTEXT) as stream:
        return await stream.reply()


def codes(desk: Desk) -> list[str | None]:
    return [line.get("error", {}).get("code") for line in desk.journal.lines()]


@every_way
@every_wire
def test_each_sending_has_its_line(desk: Desk, case: Case, way: str) -> None:
    route(desk, case)
    desk.play(case, "text", Close(), "text")
    _, second = ask_on_one_connection(desk, way, 2)
    assert second.text == TEXT
    assert codes(desk) == [None, "stale_connection", None]
    assert len(desk.server.requests) == 3
    lost, answered = desk.journal.lines()[1:]
    assert (lost["call_id"], lost["attempt"], lost["error"]["class"]) == (second.call_id, 1, "ProviderDown")
    assert (answered["call_id"], answered["attempt"]) == (second.call_id, 2)
    assert [attempt.error for attempt in second.attempts] == ["ProviderDown", None]


@every_way
def test_a_call_without_retries_is_sent_once(desk: Desk, way: str) -> None:
    route(desk, rules={"retries": 0})
    desk.play(OPENAI, "text", Close(), "text")
    _, second = ask_on_one_connection(desk, way, 2)
    assert isinstance(second, ProviderDown)
    assert (second.code, second.retryable) == ("stale_connection", True)
    assert len(desk.server.requests) == len(desk.journal.lines()) == 2


@every_way
def test_the_second_sending_counts_under_limits(desk: Desk, way: str) -> None:
    route(desk, rules={"on_limit": "raise"}, limits=[{"match": {"provider": "openai"}, "requests_per_minute": 2}])
    desk.play(OPENAI, "text", Close(), "text")
    _, second = ask_on_one_connection(desk, way, 2)
    assert isinstance(second, ProviderDown | LimitReached)
    assert len(desk.server.requests) == 2


@every_way
def test_it_is_no_failure_of_the_provider(desk: Desk, way: str) -> None:
    route(desk, breaker={"failures": 1, "cool_down_s": 60})
    desk.play(OPENAI, "text", Close(), "text")
    _, second = ask_on_one_connection(desk, way, 2)
    assert second.text == TEXT
    assert dict(circuit_breaker.circuit_states()) == {}


def test_it_goes_past_other_kept_connections(desk: Desk) -> None:
    route(desk)

    async def ask() -> None:
        await asyncio.gather(*(models.areply(QUESTION, CONTEXT) for _ in range(4)))
        desk.play(OPENAI, Close())
        await models.areply(QUESTION, CONTEXT)

    asyncio.run(ask())
    *before, last = [request.connection for request in desk.server.requests]
    assert last not in before
    assert codes(desk).count("stale_connection") == 1


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_provider_that_is_asked_directly_sends_again_once(desk: Desk, way: str) -> None:
    route(desk)
    desk.play(OPENAI, "text", Close(), "text", Close())
    backend: Any = backend_of("openai")

    async def several() -> list[str]:
        return [await backend.agenerate(QUESTION, OPENAI.model) for _ in range(2)]

    texts = [backend.generate(QUESTION, OPENAI.model) for _ in range(2)] if way == "sync" else asyncio.run(several())
    assert texts == [TEXT] * 2
    (_, lost, answered) = desk.journal.lines()
    assert (lost["call_id"], lost["attempt"]) == (answered["call_id"], 1)
    assert answered["attempt"] == 2
    assert len(desk.server.requests) == 3


def test_under_a_hostile_server_the_log_has_as_many_lines_as_the_server_saw_requests(desk: Desk) -> None:
    route(desk, rules={"retries": 2}, breaker={"failures": 10_000})
    chance = random.Random(20261201)
    desk.play(OPENAI, *(Close() if chance.random() < 0.2 else "text" for _ in range(600)))

    async def ask() -> None:
        gate = asyncio.Semaphore(20)

        async def one() -> None:
            async with gate:
                try:
                    await models.areply(QUESTION, CONTEXT)
                except ProviderDown:
                    return

        await asyncio.gather(*(one() for _ in range(300)))

    asyncio.run(ask())
    lines = desk.journal.lines()
    assert len(lines) == len(desk.server.requests)
    assert "stale_connection" in codes(desk)
    assert len({(line["call_id"], line["attempt"]) for line in lines}) == len(lines)
