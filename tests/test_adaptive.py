"""How many calls one model is sent at once after a 429, on a clock of the test's own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muse.errors import ProviderTimeout, RateLimitError
from muse.journal.policy_config import CallPolicy
from muse.policies import adaptive_concurrency
from muse.policies.adaptive_concurrency import AdaptiveConcurrency
from muse.policies.deadline import Deadline
from muse.policies.execution import Call
from muse.types.messages import Assistant, Attempt, Reply, Route
from muse.types.provider_spec import Tier
from muse.types.usage import Usage

ROUTE = Route("app.tides", "openai", "a-model", Tier.FLASH, "")
TIMEOUT_S = 60.0


class Model:
    """A model that calls are sent to; `at_s` is the time, which only `pass_time` moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at_s = 1_000.0
        self.step = AdaptiveConcurrency()
        monkeypatch.setattr(adaptive_concurrency, "time", SimpleNamespace(monotonic=lambda: self.at_s))

    def ask(self) -> tuple[Call, float]:
        """A new call, and how long it has to wait."""
        call = Call("app.tides", (ROUTE,), CallPolicy(), Deadline.after(TIMEOUT_S))
        return call, self.step.before(call, ROUTE)

    def sent(self) -> Call:
        """A new call that is let through."""
        call, wait_s = self.ask()
        assert wait_s == 0
        return call

    def answer(self, call: Call, took_s: float) -> None:
        attempt = Attempt("openai", "a-model", took_s, Usage())
        reply = Reply("At six.", Assistant(), Usage(), "stop", "a-model", "openai", attempts=(attempt,))
        self.step.after(call, ROUTE, reply)

    def refuse(self, call: Call) -> None:
        self.step.after(call, ROUTE, RateLimitError("too many", status=429))

    def pass_time(self, seconds: float) -> None:
        self.at_s += seconds


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    return Model(monkeypatch)


def narrowed_to_one(model: Model) -> None:
    """Answers of 50 ms, then a 429 to the only call in flight: the ceiling is one."""
    model.answer(model.sent(), 0.05)
    model.refuse(model.sent())


def test_a_silent_server_does_not_hold_the_only_place(model: Model) -> None:
    narrowed_to_one(model)
    silent = model.sent()
    waiting, wait_s = model.ask()
    assert wait_s > 0
    model.pass_time(adaptive_concurrency._SHORTEST_OVERDUE_S + 0.1)
    assert model.step.before(waiting, ROUTE) == 0
    model.step.after(silent, ROUTE, ProviderTimeout("silent"))
    assert model.ask()[1] > 0, "the one that waited has the place now"


def test_a_model_that_always_takes_long_keeps_its_ceiling(model: Model) -> None:
    model.answer(model.sent(), 30)
    model.refuse(model.sent())
    model.sent()
    for _ in range(100):
        model.pass_time(1)
        call, wait_s = model.ask()
        assert wait_s > 0
        model.step.leave(call)


def test_one_slow_answer_does_not_change_what_is_usual(model: Model) -> None:
    for _ in range(20):
        model.answer(model.sent(), 1)
    model.answer(model.sent(), 600)
    model.refuse(model.sent())
    model.sent()
    model.pass_time(6)
    assert model.ask()[1] == 0


@given(hung=st.integers(1, 12))
def test_a_call_goes_out_in_time_however_many_hang(hung: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        model = Model(patch)
        narrowed_to_one(model)
        began_s = model.at_s
        for _ in range(hung):
            call, wait_s = model.ask()
            while wait_s > 0:
                model.pass_time(wait_s)
                wait_s = model.step.before(call, ROUTE)
        assert model.at_s - began_s <= hung * (
            adaptive_concurrency._SHORTEST_OVERDUE_S + adaptive_concurrency._LONGEST_S
        )
