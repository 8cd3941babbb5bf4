"""The execution plan of one logical call: sends, sleeps and fallbacks, as a generator without I/O.

The caller performs each `Send` and `Sleep` that the plan yields, in a thread or in an event loop, and sends the outcome
back. So sync and async share one plan, and it is tested without a clock. Entry point: `execution_plan`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from muse.journal.policy_config import DEFAULT_RETRIES, CallPolicy
from muse.policies.deadline import Deadline
from muse.policies.resend_guard import STALE
from muse.policies.retry import backoff_s, is_transient
from muse.types.errors import (
    AnswerTooLarge,
    AuthError,
    BlockedReply,
    CircuitOpen,
    DeadlineExceeded,
    InterruptedReply,
    LimitReached,
    MissingKeyError,
    MuseError,
    NotFoundError,
    ProviderDown,
    ProviderTimeout,
    QuotaError,
    RateLimitError,
    TruncatedReply,
    UnavailableError,
)
from muse.types.messages import Attempt, Reply, Route

log = logging.getLogger(__name__)

# What of a call's time is kept for the last target of its fallback chain.
_KEPT = 0.25
# The least part of a call's time with which a try is begun on a target that has others below it.
_USEFUL = 0.05
# Room may come before it was reckoned with, and a place in line is kept by asking.
ASK_AGAIN_S = 1.0
# What another provider may mend: the one asked is down, limited or without a usable key, or a limit of ours is reached.
_FALLBACK_ERRORS = (
    *(AnswerTooLarge, AuthError, NotFoundError, ProviderDown, ProviderTimeout, QuotaError, RateLimitError),
    *(MissingKeyError, UnavailableError, CircuitOpen, LimitReached),
)


class Send(Struct, frozen=True):
    """To be done: ask this route, within this time. The answer is a `Reply` or the exception that came.

    `on_new_connection` says that the try before found its kept connection closed.
    """

    route: Route
    deadline: Deadline
    on_new_connection: bool = False


class Sleep(Struct, frozen=True):
    """To be done: wait so long. The answer is None."""

    seconds: float


Outcome = Reply | Exception
ExecutionPlan = Generator[Send | Sleep, Outcome | None, Reply]


class Fallback(Struct, frozen=True):
    """A step down the fallback chain, as the agent's events and whoever else wants to know are told."""

    context: str
    failed: Route
    error: Exception
    next: Route


def _own_address(_route: Route) -> str:
    return ""


class Call(Struct, eq=False):
    """One logical call as policies see it; `tokens` is what it may use at most, for limits.

    What a provider says of the key that a caller brought (`has_own_key`) is no news of the journal's own. `address`
    gives the endpoint that a route leads to, "" for the SDK's own.
    """

    context: str
    targets: tuple[Route, ...]
    rules: CallPolicy
    deadline: Deadline
    tokens: int = 0
    has_own_key: bool = False
    on_fallback: Callable[[Fallback], None] | None = None
    address: Callable[[Route], str] = _own_address


class Policy(Protocol):
    """A policy around each try."""

    def before(self, call: Call, route: Route) -> float:
        """How many seconds it will take until the try may go out, as far as can be told; 0: it may.

        Raises:
            LimitError: it may not.
        """

    def after(self, call: Call, route: Route, outcome: Outcome | None) -> None:
        """A try that was let through is over; None: it was given up."""

    def leave(self, call: Call) -> None:
        """A try that was not let through is not waited for any more."""


def execution_plan(call: Call, steps: Sequence[Policy]) -> ExecutionPlan:
    """Ask target after target, each with its retries, until one gives a reply.

    Raises:
        MuseError: the first target's error, with the others in `others` and every try in `attempts`.
    """
    attempts: list[Attempt] = []
    errors: list[Exception] = []
    places, late = deque(range(len(call.targets))), list[int]()
    is_second = False
    while True:
        place = places.popleft()
        limit = _deadline_for_target(call, len(places))
        outcome = yield from _run_target(call, call.targets[place], limit, steps, attempts)
        if isinstance(outcome, Reply):
            return _with(outcome, attempts) if attempts else outcome
        errors.append(outcome)
        is_share_over = limit is not call.deadline and _is_late(outcome, call.rules)
        if is_share_over and not is_second:
            late.append(place)
        if not places and late and call.deadline.remaining_s() > _useful_s(call):
            places.extend(late)  # the targets below left some of the time that was kept for them
            late, is_second = [], True
        goes_on = should_fall_back(outcome, call.rules) or (is_share_over and call.deadline.remaining_s() > 0)
        if not places or not goes_on:
            raise final_error(errors, attempts)
        step = Fallback(call.context, call.targets[place], outcome, call.targets[places[0]])
        report_fallback(step, call.on_fallback)


def _run_target(
    call: Call, route: Route, limit: Deadline, steps: Sequence[Policy], attempts: list[Attempt]
) -> Generator[Send | Sleep, Outcome | None, Outcome]:
    """One target with its retries; the attempts that failed are added to `attempts`."""
    tries, is_stale = 0, False
    while True:
        tries += 1
        outcome = yield from _send(call, Send(route, limit, is_stale), steps)
        if isinstance(outcome, Reply):
            return outcome
        if isinstance(outcome, MuseError):
            attempts += outcome.attempts
        is_stale = _is_stale(outcome)
        pause_s = _pause_s(call, outcome, tries, limit)
        if pause_s is None:
            return outcome
        if pause_s:
            yield Sleep(pause_s)


def _deadline_for_target(call: Call, below: int) -> Deadline:
    """The time of a target with so many below it.

    The last one keeps a quarter of the call's time, those above have equal parts of what is left before that.
    """
    if not below:
        return call.deadline
    left_s = call.deadline.remaining_s()
    before_last_s = left_s - _KEPT * call.deadline.timeout_s
    return Deadline.within(before_last_s / below if before_last_s > 0 else left_s / (below + 1))


def _useful_s(call: Call) -> float:
    """The seconds that a try needs at least to be worth it, where others can be asked in its place."""
    return _USEFUL * call.deadline.timeout_s


def _end_s(call: Call, limit: Deadline) -> float:
    """How many seconds from now on a try of a target may begin."""
    return limit.remaining_s() - (0.0 if limit is call.deadline else _useful_s(call))


def _is_late(error: Exception, rules: CallPolicy) -> bool:
    """Whether a target had too little time, so that it may do with more of it."""
    if isinstance(error, LimitReached):
        return rules.on_limit != "raise"
    if isinstance(error, ProviderTimeout):
        return error.status is None and error.code != "stalled"
    return isinstance(error, DeadlineExceeded)


def _pause_s(call: Call, error: Exception, tries: int, limit: Deadline) -> float | None:
    """How long to wait before this target is tried again; None if it is not."""
    retries = DEFAULT_RETRIES if call.rules.retries is None else call.rules.retries
    if tries > retries or not is_transient(error):
        return None
    pause_s = 0.0 if _is_stale(error) else backoff_s(error, tries)
    return pause_s if pause_s < _end_s(call, limit) else None


def _is_stale(error: Exception) -> bool:
    """Whether a kept connection had ended before an answer began: the provider is well, and a new one will do."""
    return isinstance(error, ProviderDown) and error.code == STALE


def should_fall_back(error: Exception, rules: CallPolicy) -> bool:
    """Whether another provider may do what this one could not."""
    asked = rules.fallback_on or ()
    if isinstance(error, BlockedReply):
        return "blocked" in asked
    if isinstance(error, TruncatedReply):
        return "truncated" in asked
    if isinstance(error, InterruptedReply) and isinstance(error.__cause__, MuseError):
        return should_fall_back(error.__cause__, rules)
    return isinstance(error, _FALLBACK_ERRORS) or is_transient(error)


def _send(call: Call, asked: Send, steps: Sequence[Policy]) -> Generator[Send | Sleep, Outcome | None, Outcome]:
    """One try, let through by every step and reported to those that let it through."""
    outcome: Outcome | None = None
    route, passed = asked.route, 0
    try:
        for step in steps:
            pause_s = step.before(call, route)
            if pause_s > 0:
                yield from _wait_for_admission(call, route, asked.deadline, step, pause_s)
            passed += 1
        outcome = yield asked
    except MuseError as exc:  # a step's own, since what a try raised was sent
        return exc
    finally:
        if passed < len(steps):
            steps[passed].leave(call)
        for step in steps if passed == len(steps) else steps[:passed]:
            step.after(call, route, outcome)
    return outcome or ProviderDown("no answer, and no error either", provider=route.provider, model=route.model)


def _wait_for_admission(
    call: Call, route: Route, limit: Deadline, step: Policy, pause_s: float
) -> Generator[Sleep, Outcome | None, None]:
    """Wait until a step lets the try through.

    Raises:
        LimitError: it does not, or not before the time is over.
    """
    while pause_s > 0:
        if pause_s >= _end_s(call, limit):
            raise _no_room(route, pause_s)
        yield Sleep(min(pause_s, ASK_AGAIN_S))
        pause_s = step.before(call, route)


def _no_room(route: Route, pause_s: float) -> LimitReached:
    text = f"{route.provider} {route.model}: a limit leaves no room before the call's time is over"
    return LimitReached(f"{text}; the next is in {pause_s:.3g} s", retry_after_s=pause_s)


def report_fallback(step: Fallback, on_fallback: Callable[[Fallback], None] | None) -> None:
    """A step down is never silent: one line in the log, and word to whoever listens."""
    log.warning(
        "%s: %s %s could not answer (%s); going on with %s %s (%s)",
        step.context or "a call without a context",
        step.failed.provider,
        step.failed.model,
        step.error,
        step.next.provider,
        step.next.model,
        step.next.reason,
    )
    if on_fallback is not None:
        on_fallback(step)


def _with(reply: Reply, attempts: list[Attempt]) -> Reply:
    return replace(reply, attempts=(*attempts, *reply.attempts))


def final_error(errors: Sequence[Exception], attempts: Sequence[Attempt]) -> Exception:
    """The error of a call: that of its first target, which bears those of the others and every attempt."""
    first = errors[0]
    if isinstance(first, MuseError):
        first.attempts = tuple(attempts)
        first.others = tuple(errors[1:])
    for other in errors[1:]:
        first.add_note(f"then: {other}")
    return first
