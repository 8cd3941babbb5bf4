"""The course of a call, played by hand: which tries and waits it asks for, without a clock or a provider."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from muse.errors import (
    AuthError,
    BlockedReply,
    ContentsError,
    InterruptedReply,
    LimitReached,
    MissingKeyError,
    MuseError,
    ProviderDown,
    ProviderError,
    ProviderTimeout,
    QuotaError,
    RateLimitError,
    RequestError,
    TruncatedReply,
)
from muse.journal.policy_config import CallPolicy
from muse.policies.deadline import Deadline
from muse.policies.execution import Call, Fallback, Outcome, Send, Sleep, execution_plan
from muse.policies.resend_guard import STALE
from muse.types.messages import Assistant, Attempt, Reply, Route
from muse.types.provider_spec import Tier
from muse.types.usage import Usage

NAMES = ("openai", "anthropic", "local")
REPLY = Reply("The tide turns at six.", Assistant(), Usage(), "stop", "a model", "a provider")


def target(name: str) -> Route:
    return Route("app.tides", name, f"{name}-model", Tier.FLASH, f"target {name}")


def call(names: Sequence[str] = NAMES[:1], rules: CallPolicy | None = None, timeout_s: float = 60) -> Call:
    return Call("app.tides", tuple(map(target, names)), rules or CallPolicy(), Deadline.after(timeout_s))


def down(**further: float) -> ProviderError:
    return ProviderDown("it is down", status=503, retryable=True, **further)  # type: ignore[arg-type]


class Played:
    """What a course asked for, and what came of it."""

    def __init__(self, made: Call, outcomes: Sequence[Outcome], steps: Sequence[object] = ()) -> None:
        self.tries: list[Send] = []
        self.waits: list[float] = []
        self.reply: Reply | None = None
        self.error: BaseException | None = None
        going = execution_plan(made, steps)  # type: ignore[arg-type]
        left = list(outcomes)
        try:
            action = next(going)
            while True:
                if isinstance(action, Sleep):
                    self.waits.append(action.seconds)
                    action = going.send(None)
                else:
                    self.tries.append(action)
                    action = going.send(left.pop(0))
        except StopIteration as end:
            self.reply = end.value
        except MuseError as exc:
            self.error = exc

    @property
    def asked(self) -> list[str]:
        return [action.route.provider for action in self.tries]


def test_an_answer_ends_the_course() -> None:
    played = Played(call(), [REPLY])
    assert (played.asked, played.waits, played.reply) == (["openai"], [], REPLY)


@pytest.mark.parametrize("error", [down(), RateLimitError("slowly", retryable=True), InterruptedReply("broke off")])
def test_a_passing_failure_is_tried_again_after_a_growing_wait(error: Exception) -> None:
    played = Played(call(), [error, error, REPLY])
    assert played.asked == ["openai"] * 3
    assert 0.25 <= played.waits[0] <= 0.5 <= played.waits[1] <= 1.0
    assert played.reply is not None


def stale() -> ProviderDown:
    return ProviderDown("connection failed", code=STALE, retryable=True)


def test_after_a_kept_connection_that_had_ended_a_new_one_is_tried_without_waiting() -> None:
    played = Played(call(), [stale(), down(), REPLY])
    assert [one.on_new_connection for one in played.tries] == [False, True, False]
    assert len(played.waits) == 1
    assert played.reply is not None


def test_such_a_try_counts_among_the_retries() -> None:
    assert len(Played(call(rules=CallPolicy(retries=0)), [stale()]).tries) == 1
    assert len(Played(call(rules=CallPolicy(retries=1)), [stale(), stale()]).tries) == 2


@pytest.mark.parametrize(
    "error",
    [
        QuotaError("used up", status=429, retryable=True),
        AuthError("no", status=401),
        RequestError("what?", status=400),
        ContentsError("nothing to send"),
        BlockedReply("no"),
        InterruptedReply("broke off"),
    ],
)
def test_what_does_not_pass_is_not_tried_again(error: Exception) -> None:
    if isinstance(error, InterruptedReply):
        error.__cause__ = RequestError("what?", status=400)
    played = Played(call(), [error])
    assert played.asked == ["openai"]
    assert played.error is error


def test_the_provider_is_given_the_time_it_asks_for() -> None:
    played = Played(call(), [down(retry_after_s=7.5), REPLY])
    assert played.waits == [7.5]


def test_a_wait_beyond_the_time_of_the_call_is_not_begun() -> None:
    played = Played(call(), [down(retry_after_s=3_600.0)])
    assert played.waits == []
    assert isinstance(played.error, ProviderDown)


def test_retries_are_as_many_as_the_rules_say() -> None:
    assert len(Played(call(), [down()] * 3).tries) == 3
    assert len(Played(call(rules=CallPolicy(retries=0)), [down()]).tries) == 1
    assert len(Played(call(rules=CallPolicy(retries=4)), [down()] * 5).tries) == 5


@pytest.mark.parametrize(
    "error",
    [
        MissingKeyError("X_API_KEY"),
        AuthError("no", status=401),
        QuotaError("used up"),
        LimitReached("too much"),
        ProviderDown("down", retryable=False),
    ],
)
def test_what_another_provider_can_mend_goes_down_the_ladder(error: MuseError) -> None:
    played = Played(call(NAMES[:2]), [error, REPLY])
    assert played.asked == ["openai", "anthropic"]
    assert played.reply is not None


@pytest.mark.parametrize(
    ("error", "word"), [(BlockedReply("no"), "blocked"), (TruncatedReply("cut", text="The"), "truncated")]
)
def test_blocked_and_truncated_answers_fall_back_only_if_asked_for(error: MuseError, word: str) -> None:
    assert Played(call(NAMES[:2]), [error]).error is error
    rules = CallPolicy(fallback_on=(word,))  # type: ignore[arg-type]
    assert Played(call(NAMES[:2], rules), [error, REPLY]).asked == ["openai", "anthropic"]


def test_a_request_that_nobody_would_take_stays_on_the_first_rung() -> None:
    played = Played(call(NAMES), [ContentsError("nothing to send")])
    assert played.asked == ["openai"]


def test_if_all_fail_the_first_error_is_raised_with_the_others_attached() -> None:
    first, second, third = QuotaError("first"), QuotaError("second"), QuotaError("third")
    for number, error in enumerate((first, second, third)):
        error.attempts = (Attempt(NAMES[number], "m", 0.1, Usage(), "QuotaError"),)
    played = Played(call(NAMES), [first, second, third])
    assert played.error is first
    assert first.others == (second, third)
    assert [attempt.provider for attempt in first.attempts] == list(NAMES)
    assert first.__notes__ == ["then: second", "then: third"]


def test_a_reply_bears_every_try_before_it() -> None:
    error = down()
    error.attempts = (Attempt("openai", "m", 0.1, Usage(), "ProviderDown"),)
    served = Attempt("anthropic", "m", 0.2, Usage())
    reply = Reply("Six.", Assistant(), Usage(), "stop", "m", "anthropic", attempts=(served,))
    played = Played(call(NAMES[:2], CallPolicy(retries=0)), [error, reply])
    assert played.reply is not None
    assert played.reply.attempts == (error.attempts[0], served)


def test_the_last_rung_keeps_a_share_of_the_time() -> None:
    played = Played(call(NAMES[:2], timeout_s=100), [QuotaError("first"), REPLY])
    first, last = played.tries
    assert 70 < first.deadline.remaining_s() <= 75
    assert 95 < last.deadline.remaining_s() <= 100


def test_a_step_down_is_told_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Fallback] = []
    made = call(NAMES[:2])
    made.on_fallback = told.append
    Played(made, [QuotaError("used up"), REPLY])
    assert [(step.failed.provider, step.next.provider) for step in told] == [("openai", "anthropic")]
    said = "app.tides: openai openai-model could not answer (used up); going on with anthropic anthropic-model"
    assert [record.getMessage() for record in caplog.records] == [f"{said} (target anthropic)"]


class Gate:
    """A step that lets a try through after some waits, and remembers what it is told."""

    def __init__(self, *waits: float) -> None:
        self.waits = list(waits)
        self.told: list[Outcome | None] = []
        self.left = 0

    def before(self, _call: Call, _route: Route) -> float:
        return self.waits.pop(0) if self.waits else 0.0

    def after(self, _call: Call, _route: Route, outcome: Outcome | None) -> None:
        self.told.append(outcome)

    def leave(self, _call: Call) -> None:
        self.left += 1


def test_a_step_is_asked_until_it_lets_the_try_through_and_told_of_it_once() -> None:
    gate = Gate(0.1, 0.2)
    played = Played(call(), [REPLY], [gate])
    assert played.waits == [0.1, 0.2]
    assert gate.told == [REPLY]


def test_a_step_that_would_keep_the_call_beyond_its_time_ends_the_rung() -> None:
    gate, inner = Gate(1_000.0), Gate()
    played = Played(call(), [], [gate, inner])
    assert isinstance(played.error, LimitReached)
    assert (gate.told, gate.left, inner.told, inner.left) == ([], 1, [], 0)


def silent() -> ProviderTimeout:
    return ProviderTimeout("no answer within its share", code="timeout", retryable=True)


def test_time_that_the_rungs_below_leave_is_given_to_the_one_that_had_too_little() -> None:
    played = Played(call(NAMES[:2], CallPolicy(retries=0)), [silent(), MissingKeyError("ANTHROPIC_API_KEY"), REPLY])
    assert played.asked == ["openai", "anthropic", "openai"]
    assert played.tries[2].deadline.remaining_s() > played.tries[0].deadline.remaining_s()
    assert played.reply is not None


def test_a_rung_is_gone_back_to_once() -> None:
    played = Played(call(NAMES[:2], CallPolicy(retries=0)), [silent(), AuthError("no", status=401), silent()])
    assert played.asked == ["openai", "anthropic", "openai"]
    assert isinstance(played.error, ProviderTimeout)


@pytest.mark.parametrize(
    "error",
    [down(), ProviderTimeout("504", status=504), ProviderTimeout("stalled", code="stalled"), AuthError("no")],
    ids=["down", "504", "stalled", "key"],
)
def test_more_time_is_given_to_none_that_did_not_lack_it(error: Exception) -> None:
    played = Played(call(NAMES[:2], CallPolicy(retries=0)), [error, AuthError("no", status=401)])
    assert played.asked == ["openai", "anthropic"]


def test_a_limit_that_is_to_be_told_at_once_is_not_waited_for_in_the_end() -> None:
    rules = CallPolicy(retries=0, on_limit="raise")
    played = Played(call(NAMES[:2], rules), [LimitReached("full"), AuthError("no", status=401)])
    assert played.asked == ["openai", "anthropic"]


def test_no_try_begins_in_the_last_moment_of_a_share_while_there_is_another_rung() -> None:
    gate = Gate(72.0)  # of the 75 s that the first target has
    played = Played(call(NAMES[:2], timeout_s=100), [REPLY], [gate])
    assert played.asked == ["anthropic"]
    last = Gate(97.0)
    assert Played(call(timeout_s=100), [REPLY], [last]).asked == ["openai"]


def test_no_retry_begins_in_the_last_moment_of_a_share_while_there_is_another_rung() -> None:
    played = Played(call(NAMES[:2], timeout_s=100), [down(retry_after_s=72.0), REPLY])
    assert played.asked == ["openai", "anthropic"]


def test_a_course_that_is_given_up_lets_go_of_its_steps() -> None:
    gate = Gate()
    going = execution_plan(call(), [gate])
    assert isinstance(next(going), Send)
    going.close()
    assert gate.told == [None]
