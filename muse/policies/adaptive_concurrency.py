"""How many calls one model is sent at once: as many as come, until it says it is too much; it knows no other process.

The first 429 halves what was in flight; each further one halves that, at most once in the time a call takes. Every
success lets in a little more (one more for each round of calls, as TCP grows), until the ceiling is twice what first
was too much, and then there is none. A try that takes much longer than the model's usual answer no longer counts
against the ceiling: servers that keep silent would otherwise hold every place of a low one. `Retry-After` keeps all
calls of the model back, not only the one that was told, and so does, for a moment, an answer whose headers say that an
allowance is used up. Limits that hold for all processes are `providers.limits`.
"""

from __future__ import annotations

import threading
import time
from itertools import takewhile

from msgspec import Struct

from muse.policies.execution import ASK_AGAIN_S, Call, Outcome
from muse.policies.rate_limit_headers import pop_reset
from muse.types.errors import RateLimitError
from muse.types.messages import Reply, Route

_TURN_S = 0.02
_LONGEST_S = 0.25
# What a wrong header may cost at most.
_LONGEST_HOLD_S = 300.0
_SETTLING_S = 1.0
# After so many times the usual time of an answer a try no longer counts against the ceiling.
_OVERDUE = 4.0
_SHORTEST_OVERDUE_S = 2.0
# The usual time of an answer before there has been one.
_USUAL_S = 2.5
# The weight of the newest answer in that time.
_NEWEST = 0.1


class _ModelConcurrency(Struct):
    """The calls of one model in this process, and what bounds them.

    `began` says when each try under way was let through, the oldest first (monotonic seconds), `usual_s` how long an
    answer takes; `waiting` says in the order of arrival when each will ask again, `address` which endpoint the bounds
    are of.
    """

    began: dict[int, float] = {}
    usual_s: float = 0.0
    ceiling: float = 0.0
    first_too_many: int = 0
    halved_s: float = 0.0
    held_until_s: float = 0.0
    waiting: dict[int, float] = {}
    address: str = ""


class AdaptiveConcurrency:
    """Keeps each model's calls below what it has shown to bear."""

    def __init__(self) -> None:
        self._flows: dict[tuple[str, str], _ModelConcurrency] = {}
        self._lock = threading.RLock()  # the collector may end a stream in the middle of this

    def before(self, call: Call, route: Route) -> float:
        """0 if the model bears one more call now, else how long that will take."""
        key = (route.provider, route.model)
        with self._lock:
            flow = self._flows.get(key)
            if flow is None:
                flow = self._flows[key] = _ModelConcurrency()
            elif flow.ceiling or flow.held_until_s:
                _set_ceiling(flow, call.address(route))
                wait_s = _wait_s(flow, id(call))
                if wait_s > 0:
                    flow.waiting[id(call)] = time.monotonic() + min(wait_s, ASK_AGAIN_S)
                    return wait_s
                flow.waiting.pop(id(call), None)
            flow.began[id(call)] = time.monotonic()
        return 0.0

    def after(self, call: Call, route: Route, outcome: Outcome | None) -> None:
        """Learn from how a try went."""
        hold_s = pop_reset()
        with self._lock:
            flow = self._flows[route.provider, route.model]
            if (hold_s or isinstance(outcome, RateLimitError)) and not call.has_own_key:
                _set_ceiling(flow, call.address(route))
            if hold_s and not call.has_own_key:
                flow.held_until_s = max(flow.held_until_s, time.monotonic() + hold_s)
            if isinstance(outcome, Reply):
                _record_duration(flow, outcome)
                if flow.ceiling:
                    _grow(flow)
            elif isinstance(outcome, RateLimitError) and not call.has_own_key:
                _shrink(flow, outcome)
            flow.began.pop(id(call), None)

    def leave(self, call: Call) -> None:
        """Give up a place in line."""
        with self._lock:
            for flow in self._flows.values():
                flow.waiting.pop(id(call), None)


def _set_ceiling(flow: _ModelConcurrency, address: str) -> None:
    """Forget the bounds of another endpoint: journal.json or a variable may have moved the provider since."""
    if flow.address != address:
        flow.address = address
        flow.ceiling, flow.first_too_many, flow.held_until_s = 0.0, 0, 0.0


def _wait_s(flow: _ModelConcurrency, caller: int) -> float:
    """0 if a call may go out: there is room, and nobody who came before is about to ask for it."""
    now = time.monotonic()
    if now < flow.held_until_s:
        return flow.held_until_s - now
    flow.held_until_s = 0.0
    free = int(flow.ceiling) - _in_flight(flow, now) if flow.ceiling else len(flow.waiting) + 1
    earlier = takewhile(lambda other: other != caller, flow.waiting)
    ahead = sum(flow.waiting[other] <= now + _TURN_S for other in earlier)
    return 0.0 if ahead < free else min(_TURN_S * (ahead + 1 - max(free, 0)), _LONGEST_S)


def _in_flight(flow: _ModelConcurrency, now: float) -> int:
    """The tries under way that take no more than a few times as long as an answer usually does."""
    overdue_s = now - max(_OVERDUE * (flow.usual_s or _USUAL_S), _SHORTEST_OVERDUE_S)
    overdue = sum(1 for _ in takewhile(lambda began_s: began_s < overdue_s, flow.began.values()))
    return len(flow.began) - overdue


def _record_duration(flow: _ModelConcurrency, reply: Reply) -> None:
    """Keep the usual time of an answer, which a single slow one moves by little."""
    if reply.attempts:
        took_s = reply.attempts[-1].duration_s
        usual_s = flow.usual_s or took_s
        flow.usual_s = usual_s + _NEWEST * (min(took_s, _OVERDUE * usual_s) - usual_s)


def _shrink(flow: _ModelConcurrency, error: RateLimitError) -> None:
    now = time.monotonic()
    if error.retry_after_s:
        flow.held_until_s = max(flow.held_until_s, now + min(error.retry_after_s, _LONGEST_HOLD_S))
    if now - flow.halved_s < _SETTLING_S:
        return
    flow.halved_s = now
    in_flight = max(1, _in_flight(flow, now))
    flow.first_too_many = flow.first_too_many or in_flight
    flow.ceiling = max(1.0, min(flow.ceiling or in_flight, in_flight) / 2)


def _grow(flow: _ModelConcurrency) -> None:
    flow.ceiling += 1 / flow.ceiling
    if flow.ceiling >= 2 * flow.first_too_many:
        flow.ceiling, flow.first_too_many = 0.0, 0
