"""Circuit breaker: stop calling a model that keeps failing, in every process on the journal.

Closed, it admits all calls and counts consecutive failures. After `failures` of them it opens: calls are refused at
once, so that they fall back. After the cool-down one call of one process probes the model; its success closes the
breaker, its failure opens it for another cool-down. Failures are the provider's own: a lost connection, 5xx, silence. A
rate limit or a refusal shows that the provider is there, and a call that was abandoned early shows nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress

from msgspec import Struct

from muse.journal.policy_config import Breaker
from muse.policies.execution import Call, Outcome
from muse.policies.resend_guard import STALE
from muse.policies.shared_state import SharedStateBusy, read, store_path, write
from muse.types.errors import CircuitOpen, InterruptedReply, ProviderDown, ProviderError, ProviderTimeout, ReplyError
from muse.types.messages import Reply, Route

_LOOK_AGAIN_S = 0.25
# A call of a few seconds that gets no answer says more of the call than of the provider.
_PATIENT_S = 5.0


class CircuitState(Struct, frozen=True):
    """How a provider's model has fared: `failures` in a row, open `until` (monotonic seconds), a probe at `probe`."""

    failures: int = 0
    until: float = 0.0
    probe: float = 0.0


class CircuitBreaker:
    """The breakers of all models, as this process last saw them."""

    def __init__(self, settings: Breaker) -> None:
        self._settings = settings
        self._seen: dict[str, CircuitState] = {}
        self._look_at_s = 0.0
        self._probing: set[int] = set()
        self._patience_s = max(settings.cool_down_s, _PATIENT_S)

    def before(self, call: Call, route: Route) -> float:
        """Let a call through, or refuse it.

        Raises:
            CircuitOpen: the model is being left alone.
        """
        now = time.monotonic()
        if now >= self._look_at_s:
            self._look_at_s = now + _LOOK_AGAIN_S
            self._seen = dict(circuit_states())
        state = self._seen.get(_key(route)) if self._seen else None
        if state is None or state.failures < self._settings.failures:
            return 0.0
        if now >= state.until and self._may_probe(_key(route), now):
            self._probing.add(id(call))
            return 0.0
        tried = state.probe + self._patience_s if state.probe <= now else 0.0
        wait_s = max(state.until - now, tried - now, _LOOK_AGAIN_S)
        raise CircuitOpen(
            f"{route.provider} {route.model} failed {state.failures} times in a row and is left alone for another"
            f" {wait_s:.3g} s (see: muse providers)",
            retry_after_s=wait_s,
        )

    def after(self, call: Call, route: Route, outcome: Outcome | None) -> None:
        """Count a failure; forget all of them at a success."""
        if not (self._seen or self._probing) and isinstance(outcome, Reply):
            return  # all is well, and was
        if _is_failure(outcome, call):
            self._count(_key(route))
        elif _key(route) in self._seen and _is_success_signal(outcome):
            self._forget(_key(route))
        elif id(call) in self._probing:
            self._give_back(_key(route))
        self._probing.discard(id(call))

    def leave(self, call: Call) -> None:
        """Nobody waits here."""

    def _may_probe(self, key: str, now: float) -> bool:
        """Take the one try after a cool-down, unless another call has it; a try that never ends is given up on."""
        values = (now, key, now, now - self._patience_s, now)
        try:
            return write(lambda connection: bool(connection.execute(_PROBE, values).rowcount))
        except SharedStateBusy:
            return False

    def _count(self, key: str) -> None:
        opens = time.monotonic() + self._settings.cool_down_s
        with suppress(SharedStateBusy):  # one failure more or less
            write(lambda connection: connection.execute(_COUNT, (key, opens, opens)))
        self._look_at_s = 0.0

    def _give_back(self, key: str) -> None:
        """A try that told nothing: the next call may have it."""
        with suppress(SharedStateBusy):  # it will be late enough some time
            write(lambda connection: connection.execute("UPDATE breakers SET probe = 0 WHERE key = ?", (key,)))
        self._look_at_s = 0.0

    def _forget(self, key: str) -> None:
        with suppress(SharedStateBusy):  # the next success will do
            write(lambda connection: connection.execute("DELETE FROM breakers WHERE key = ?", (key,)))
            self._seen.pop(key, None)


_PROBE = "UPDATE breakers SET probe = ? WHERE key = ? AND until <= ? AND (probe <= ? OR probe > ?)"
_COUNT = (
    "INSERT INTO breakers VALUES (?, 1, ?, 0) ON CONFLICT (key) DO UPDATE SET"
    " failures = failures + 1, probe = 0, until = ?"
)


def circuit_states() -> Iterator[tuple[str, CircuitState]]:
    """`("provider model", state)` of every model that failed last time; nothing is made for it."""
    if not os.path.exists(store_path()):
        return
    now = time.monotonic()
    for key, failures, until, probe in read("SELECT key, failures, until, probe FROM breakers"):
        if until <= now + 1e6:  # else from before the machine was started
            yield key, CircuitState(failures, until, probe)


def _key(route: Route) -> str:
    return f"{route.provider} {route.model}"


def _is_failure(outcome: Outcome | None, call: Call) -> bool:
    if isinstance(outcome, InterruptedReply):
        return isinstance(outcome.__cause__, (ProviderDown, ProviderTimeout))
    if isinstance(outcome, ProviderTimeout):
        patience_s = call.rules.first_token_s if outcome.code == "stalled" else call.deadline.timeout_s
        return (patience_s or _PATIENT_S) >= _PATIENT_S
    return isinstance(outcome, ProviderDown) and outcome.code != STALE


def _is_success_signal(outcome: Outcome | None) -> bool:
    """Whether an outcome is the work of a provider that is there: an answer of any kind, or a refusal of its own."""
    if isinstance(outcome, ProviderError):
        return outcome.status is not None
    return isinstance(outcome, (Reply, ReplyError))
