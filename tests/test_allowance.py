"""What providers say of the room that is left: read from headers, honoured by retries and by who comes next."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muse import models
from muse.policies.rate_limit_headers import PAIRS, reset_s, retry_after_s, span_s
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


def _soon(form: str) -> str:
    return (datetime.now(UTC) + timedelta(seconds=40)).strftime(form)


@pytest.mark.parametrize(
    "form",
    [
        "%a, %d %b %Y %H:%M:%S GMT",
        "%A, %d-%b-%y %H:%M:%S GMT",
        "%a %b %d %H:%M:%S %Y",
        "%a %b %e %H:%M:%S %Y",
        "%a, %d %b %Y %H:%M:%S -0000",
        "%a, %d %b %Y %H:%M:%S +0000",
        "%Y-%m-%dT%H:%M:%SZ",
        "%Y-%m-%dT%H:%M:%S",
    ],
)
def test_retry_after_is_read_in_every_form_of_a_date(form: str) -> None:
    assert 37 < (retry_after_s({"retry-after": _soon(form)}) or 0) <= 40


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12", 12),
        (" 0.25 ", 0.25),
        ("-3", 0),
        ("34.07s", 34.07),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0),
        ("Sun Nov  6 08:49:37 1994", 0),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("Sun, 99 Nov 1994 08:49:37 GMT", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_moment_or_nothing(text: str, seconds: float | None) -> None:
    assert retry_after_s({"retry-after": text}) == seconds


def test_milliseconds_win_and_an_unreadable_wait_leaves_the_allowance_to_say() -> None:
    assert retry_after_s({"retry-after-ms": "1500", "retry-after": "30"}) == 1.5
    used_up = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "9"}
    assert retry_after_s({"retry-after": "soon", **used_up}) == 9


@given(st.datetimes(datetime(1995, 1, 1), datetime(2090, 1, 1)))
def test_the_three_forms_of_one_date_are_one_moment(moment: datetime) -> None:
    """The form with two digits for the year can tell years apart within 50 of now only."""
    now = datetime.now(UTC)
    then = moment.replace(microsecond=0, tzinfo=UTC)
    if abs(then.year - now.year) >= 50:
        then = then.replace(year=now.year + (then.year - now.year) % 50, day=min(then.day, 28))
    wanted = max(0.0, (then - now).total_seconds())
    for form in ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"):
        assert span_s(then.strftime(form)) == pytest.approx(wanted, abs=5)


@pytest.mark.parametrize("unit", [1, 1_000])
@pytest.mark.parametrize("names", [("x-ratelimit-remaining", "x-ratelimit-reset"), next(iter(PAIRS.items()))])
def test_a_reset_is_also_a_moment_of_the_epoch(names: tuple[str, str], unit: int) -> None:
    left, reset = names
    assert 8 < (reset_s({left: "0", reset: str(int((time.time() + 10) * unit))}) or 0) <= 10
    assert reset_s({left: "0", reset: str(int((time.time() - 10) * unit))}) == 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("59", 59), ("0.5", 0.5), ("1m30s", 90), ("1m 30s", 90), ("500µs", 0.0005), ("1.5h", 5400), ("2d", 172_800)],
)
def test_a_span_is_plain_seconds_or_a_duration(text: str, seconds: float) -> None:
    assert span_s(text) == pytest.approx(seconds)


def test_a_hold_is_of_one_address_only(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.reach(OPENAI)
    desk.journal.route(default={"provider": "openai", "model": OPENAI.model, "retries": 0})
    desk.play(OPENAI, Answer({"error": {"message": "slow down"}}, 429, {"retry-after": "60"}), "text")
    desk.fail("sync")
    monkeypatch.setenv(OPENAI.url_env, f"{desk.server.url}/v1/?tenant=2")
    begun = time.monotonic()
    assert models.generate(QUESTION, CONTEXT, timeout_s=30) == TEXT
    assert time.monotonic() - begun < 30


def test_a_reset_without_what_is_left_counts_only_where_nothing_else_says_when() -> None:
    assert retry_after_s({"x-ratelimit-reset": "40"}) == 40
    assert retry_after_s({"x-ratelimit-reset-requests": "2s", "x-ratelimit-reset-tokens": "1m30s"}) == 60
    assert retry_after_s({"retry-after": "3", "x-ratelimit-reset": "40"}) == 3
    used_up = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2s"}
    assert retry_after_s(used_up | {"x-ratelimit-reset": "40"}) == 2
    assert retry_after_s({"x-ratelimit-remaining": "7", "x-ratelimit-reset": "40"}) is None
