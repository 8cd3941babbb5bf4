"""One deadline for a whole call: what is left of it only shrinks, and bounds every wait."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muse.errors import DeadlineExceeded, MuseError
from muse.policies.deadline import DEFAULT_TIMEOUT_S, Deadline, time_limit, wait_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands until a test moves it."""
    now = [1000.0]
    monkeypatch.setattr("muse.policies.deadline.time.monotonic", lambda: now[0])
    return now


def test_time_left_shrinks_to_an_error(clock: list[float]) -> None:
    deadline = Deadline.after(10)
    assert deadline.left_s() == 10
    clock[0] += 9.5
    assert deadline.left_s() == 0.5
    clock[0] += 0.5
    with pytest.raises(DeadlineExceeded, match="the call's 10 s ran out"):
        deadline.left_s()
    with pytest.raises(TimeoutError):
        deadline.left_s()
    with pytest.raises(MuseError):
        deadline.left_s()


def test_no_time_given_is_ten_minutes(clock: list[float]) -> None:
    assert Deadline.after(None).left_s() == DEFAULT_TIMEOUT_S == 600


@pytest.mark.parametrize("timeout_s", [0, -1, -0.0, float("nan"), float("-inf"), float("inf"), 1e10])
def test_a_time_that_is_none_is_refused(timeout_s: float) -> None:
    with pytest.raises(ValueError, match="timeout_s: found"):
        Deadline.after(timeout_s)


def test_outside_of_a_call_a_wait_is_as_long_as_it_asks() -> None:
    assert wait_s(None) is None
    assert wait_s(3.5) == 3.5


@given(st.floats(0.01, 1000), st.none() | st.floats(0.01, 1000))
def test_a_wait_never_goes_beyond_its_call(timeout_s: float, asked_s: float | None) -> None:
    deadline = Deadline.after(timeout_s)
    with time_limit(deadline):
        waited = wait_s(asked_s)
    assert waited is not None
    assert 0 < waited <= timeout_s
    assert asked_s is None or waited <= asked_s
    assert wait_s(asked_s) == asked_s


@pytest.mark.parametrize("asked_s", [30.0, None])
def test_no_wait_begins_after_the_end_of_a_call(clock: list[float], asked_s: float | None) -> None:
    deadline = Deadline.after(1)
    clock[0] += 5
    with time_limit(deadline), pytest.raises(TimeoutError):
        wait_s(asked_s)
    assert wait_s(asked_s) == asked_s


def test_an_inner_call_has_its_own_limit_and_gives_the_outer_back(clock: list[float]) -> None:
    with time_limit(Deadline.after(10)):
        with time_limit(Deadline.after(2)):
            assert wait_s(None) == 2
        assert wait_s(None) == 10
    assert wait_s(None) is None


def test_the_limit_of_one_thread_is_not_that_of_another() -> None:
    seen: list[float | None] = []
    with time_limit(Deadline.after(10)):
        thread = threading.Thread(target=lambda: seen.append(wait_s(99)))
        thread.start()
        thread.join()
    assert seen == [99]


async def test_an_awaited_step_is_cancelled_when_the_time_is_over() -> None:
    cancelled = asyncio.Event()

    async def never() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(TimeoutError):
        await Deadline.after(0.01).bound(never())
    assert cancelled.is_set()


async def test_an_awaited_step_that_is_done_in_time_gives_its_value() -> None:
    async def answer() -> int:
        return 7

    assert await Deadline.after(10).bound(answer()) == 7


async def test_a_step_begun_too_late_is_not_left_unawaited(monkeypatch: pytest.MonkeyPatch) -> None:
    deadline = Deadline.after(1)
    late = Deadline(deadline.at_s - 100, 1)
    with pytest.raises(TimeoutError):
        await late.bound(asyncio.Event().wait())
