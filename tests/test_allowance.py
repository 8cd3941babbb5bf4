"""What providers say of the room that is left: read from headers, honoured by retries and by who comes next."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from muse import models
from muse.policies.allowance import reset_s
from tests.desk import CONTEXT, QUESTION, WAYS, Desk
from tests.loopback.behaviours import Answer
from tests.loopback.outcomes import TEXT
from tests.loopback.scenarios import load
from tests.provider_cases import FAMILY

OPENAI = FAMILY[0]


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [("1s", 1), ("20ms", 0.02), ("6m0s", 60), ("1.5s", 1.5), ("0s", 0), ("1h2m3s", 60), ("", None), ("soon", None)],
)
def test_a_used_up_allowance_says_when_it_is_whole_again(reset: str, seconds: float | None) -> None:
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": reset}
    assert reset_s(headers) == seconds


def test_the_longest_of_several_counts_and_what_is_left_does_not() -> None:
    headers = {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "2s",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "3s",
    }
    assert reset_s(headers) == 3
    assert reset_s({**headers, "x-ratelimit-remaining-tokens": "17"}) == 2
    assert reset_s({}) is None


def test_anthropic_gives_a_moment() -> None:
    then = (datetime.now(UTC) + timedelta(seconds=7)).isoformat()
    headers = {"anthropic-ratelimit-input-tokens-remaining": "0", "anthropic-ratelimit-input-tokens-reset": then}
    assert 5 < (reset_s(headers) or 0) <= 7


def test_a_429_without_retry_after_waits_for_the_allowance(desk: Desk) -> None:
    desk.reach(OPENAI)
    desk.journal.route(default={"provider": "openai", "model": OPENAI.model})
    busy = {"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}}
    headers = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1200ms"}
    desk.play(OPENAI, Answer(busy, 429, headers), "text")
    begun = time.monotonic()
    assert models.generate(QUESTION, CONTEXT) == TEXT
    assert time.monotonic() - begun >= 1.2


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_that_used_the_last_of_it_holds_back_the_next_call(desk: Desk, way: str) -> None:
    desk.reach(OPENAI)
    desk.journal.route(default={"provider": "openai", "model": OPENAI.model})
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "600ms"}
    desk.play(OPENAI, Answer(load("openai", "text")["body"], 200, headers), "text")
    desk.ask(way)
    begun = time.monotonic()
    desk.ask(way)
    assert time.monotonic() - begun >= 0.4
