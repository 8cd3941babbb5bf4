"""Places in line at a limit, on a clock of the test's own: who has them when their owner could not ask for a while."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muse.journal.policy_config import CallPolicy, Limit
from muse.policies import rate_limiter
from muse.policies.deadline import Deadline
from muse.policies.execution import Call
from muse.policies.rate_limiter import RateLimiter
from muse.policies.shared_state import SharedStateBusy, write
from muse.types.messages import Route
from muse.types.provider_spec import Tier
from tests.journal_folder import JournalFolder

ROUTE = Route("app.tides", "openai", "a-model", Tier.FLASH, "")
LIMIT = Limit("providers.limits[0]", in_flight=1)


class Line:
    """Calls at a limit of one in flight; `at_s` is the time, `is_busy` whether another process is writing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at_s = 1_000.0
        self.is_busy = False
        self.step = RateLimiter([LIMIT])

        def asked(action: Callable[[Any], object]) -> object:
            if self.is_busy:
                raise SharedStateBusy
            return write(action)

        monkeypatch.setattr(rate_limiter, "write", asked)
        monkeypatch.setattr(rate_limiter, "time", SimpleNamespace(monotonic=lambda: self.at_s))

    def call(self) -> Call:
        return Call("app.tides", (ROUTE,), CallPolicy(), Deadline.after(600))

    def wait_s(self, call: Call) -> float:
        return self.step.before(call, ROUTE)

    def wait_s_when_busy(self, call: Call) -> float:
        self.is_busy = True
        wait_s = self.wait_s(call)
        self.is_busy = False
        return wait_s


@pytest.fixture
def line(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> Line:
    return Line(monkeypatch)


def test_a_call_that_found_the_file_busy_for_long_is_not_put_at_the_end_of_the_line(line: Line) -> None:
    sent, first, second = line.call(), line.call(), line.call()
    assert line.wait_s(sent) == 0
    assert line.wait_s(first) > 0
    for _ in range(100):
        line.at_s += 0.1
        assert line.wait_s_when_busy(first) > 0
    assert line.wait_s(second) > 0, "the one place is taken; the places of those who did not ask are deleted"
    assert line.wait_s(first) > 0
    line.step.after(sent, ROUTE, None)
    assert line.wait_s(second) > 0, "it came second"
    line.at_s += rate_limiter._LONGEST_SLOT_TURN_S
    assert line.wait_s(first) == 0


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(4)), gone_s=st.sampled_from([0.1, 2.9, 3.1, 60]))
def test_who_asks_again_after_any_time_has_the_place_of_its_coming(
    journal: JournalFolder, order: list[int], gone_s: float
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        line = Line(patch)
        sent, waiting = line.call(), [line.call() for _ in range(5)]
        assert line.wait_s(sent) == 0
        for call in waiting[:4]:
            assert line.wait_s(call) > 0
        line.at_s += gone_s
        for place in (4, *order):  # the newcomer, then all others in any order
            assert line.wait_s(waiting[place]) > 0
        line.step.after(sent, ROUTE, None)
        for place, call in enumerate(waiting):
            line.at_s += rate_limiter._LONGEST_SLOT_TURN_S
            assert all(line.wait_s(later) > 0 for later in waiting[place + 1 :])
            assert line.wait_s(call) == 0
            line.step.after(call, ROUTE, None)
