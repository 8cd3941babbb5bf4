"""How much of each limit and budget of a context is used, what is left, and when it begins anew; it makes no call."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Literal

from msgspec import Struct

from muse.journal.policy_config import Budget, Limit, Policies, PriceFn
from muse.policies.shared_state import is_alive, read
from muse.policies.spend import Spend, SpendKey, next_window, spend_since, window_start
from muse.types.formatting import format_usd, pluralize

Unit = Literal["usd", "requests", "tokens", "calls"]
Window = Literal["minute", "day", "week", "month", "at once"]
State = Literal["open", "degraded", "used up"]


class LimitStatus(Struct, frozen=True):
    """One amount of a limit or budget as it stands now.

    `most` and `used` are in `unit`; `used` of a budget counts calls without a known price (`unpriced` of them) as the
    budget says. `ends` is when a calendar window begins anew, None for a minute and for calls at once. From the share
    `degrade_at` on a budget sends calls one tier down; 1 means never.
    """

    where: str
    kind: Literal["limit", "budget"]
    unit: Unit
    window: Window
    most: float
    used: float
    selects: str = ""
    ends: datetime | None = None
    degrade_at: float = 1.0
    unpriced: int = 0

    @property
    def left(self) -> float:
        """What may still be used, in `unit`; never below 0."""
        return max(0.0, self.most - self.used)

    @property
    def state(self) -> State:
        """Whether calls go out as they are, one tier down, or not at all."""
        if self.used >= self.most:
            return "used up"
        return "degraded" if self.degrade_at < 1 and self.used >= self.degrade_at * self.most else "open"

    def __str__(self) -> str:
        """`$0.37 of $0.50 a month used, $0.13 left until Tue 01 Dec 2026`."""
        span = self.window if self.window == "at once" else f"a {self.window}"
        until = f" until {self.ends:%a %d %b %Y}" if self.ends else ""
        used, most, left = map(self._amount, (self.used, self.most, self.left))
        said = f"{used} of {most} {span} used, {left} left{until}"
        further = {"open": "", "degraded": "calls go one tier down", "used up": "calls are refused or wait"}[self.state]
        if self.degrade_at < 1 and self.state == "open":
            further = f"one tier down from {self.degrade_at:.0%} on"
        unpriced = f"{pluralize(self.unpriced, 'call')} without a known price" if self.unpriced else ""
        return "; ".join(part for part in (said, further, unpriced) if part)

    def _amount(self, amount: float) -> str:
        return format_usd(amount) if self.unit == "usd" else f"{amount:,.0f} {self.unit}"


def limit_statuses(
    policies: Policies, context: str, provider: str, model: str, assess: PriceFn
) -> tuple[LimitStatus, ...]:
    """Every amount that bounds a call of `context` to a provider's model, in the order of journal.json, limits first.

    `assess` tells whose a line of the usage log is and what it cost, where the line does not say so.

    Raises:
        OSError: the usage log cannot be read.
    """
    limits = [limit for limit in policies.limits if limit.selects(context, provider, model)]
    budgets = [budget for budget in policies.budgets if fnmatchcase(context, budget.context)]
    return (*_limits(limits, assess), *_budgets(budgets, assess))


def all_limit_statuses(policies: Policies, assess: PriceFn) -> tuple[LimitStatus, ...]:
    """Every amount of every limit and budget, whatever it is for, in the order of journal.json, limits first.

    Raises:
        OSError: the usage log cannot be read.
    """
    return (*_limits(policies.limits, assess), *_budgets(policies.budgets, assess))


def _budgets(budgets: Sequence[Budget], assess: PriceFn) -> Iterator[LimitStatus]:
    for budget in budgets:
        since = window_start(budget.window)

        def counts(key: SpendKey, budget: Budget = budget, since: str = since) -> bool:
            return key.day >= since and fnmatchcase(key.context, budget.context)

        spent = spend_since(since, assess).total(counts)
        used = spent.usd + spent.unpriced * budget.unpriced_usd
        yield LimitStatus(
            budget.where,
            "budget",
            "usd",
            budget.window,
            budget.usd,
            used,
            budget.context,
            next_window(budget.window),
            budget.degrade_at,
            spent.unpriced,
        )


def _limits(limits: Sequence[Limit], assess: PriceFn) -> Iterator[LimitStatus]:
    shared = _shared() if any(_is_shared(limit) for limit in limits) else {}
    for limit in limits:
        selects = ", ".join(glob for glob in (limit.provider, limit.model, limit.context) if glob != "*")
        requests, tokens, slots = shared.get(limit.key, (0.0, 0.0, 0.0))
        day = _spent_today(limit, assess) if limit.tokens_per_day or limit.usd_per_day else Spend()
        ends = next_window("day")
        amounts: tuple[tuple[float | None, float, Unit, Window, datetime | None], ...] = (
            (limit.requests_per_minute, requests, "requests", "minute", None),
            (limit.tokens_per_minute, tokens, "tokens", "minute", None),
            (limit.in_flight, slots, "calls", "at once", None),
            (limit.tokens_per_day, day.tokens, "tokens", "day", ends),
            (limit.usd_per_day, day.usd, "usd", "day", ends),
        )
        for most, used, unit, window, end in amounts:
            if most is not None:
                yield LimitStatus(limit.where, "limit", unit, window, most, used, selects, end, unpriced=day.unpriced)


def _spent_today(limit: Limit, assess: PriceFn) -> Spend:
    since = window_start("day")

    def counts(key: SpendKey) -> bool:
        return key.day >= since and limit.selects(key.context, key.provider, key.model)

    return spend_since(since, assess).total(counts)


def _is_shared(limit: Limit) -> bool:
    return bool(limit.requests_per_minute or limit.tokens_per_minute or limit.in_flight)


def _shared() -> Mapping[str, tuple[float, float, float]]:
    """`(requests, tokens, calls under way)` by a limit's key, of all processes on the journal."""
    now = time.monotonic()
    found: dict[str, tuple[float, float, float]] = {}
    for key, until, requests, tokens in read("SELECT key, until, requests, tokens FROM spent"):
        if until > now:
            before = found.get(key, (0.0, 0.0, 0.0))
            found[key] = (before[0] + requests, before[1] + tokens, before[2])
    for key, process, slots in read("SELECT key, process, slots FROM holders"):
        if slots > 0 and is_alive(process):
            before = found.get(key, (0.0, 0.0, 0.0))
            found[key] = (before[0], before[1], before[2] + slots)
    return found
