"""Dollars for contexts, and tokens and dollars a day: what is left decides whether a call goes out, and on which tier.

Sums come from the token log (`muse.policies.spend`), so they are those of all processes and of what was spent before
this one began. A limit can be overrun by the calls that are under way when it is reached.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from muse.journal.policy_config import Budget, Limit, ModelForTier, Policies, PriceFn
from muse.policies.execution import Call, Outcome
from muse.policies.spend import LOOK_AGAIN_S, Spend, SpendKey, SpendTracker, next_window, spend_since, window_start
from muse.types import formatting
from muse.types.errors import BudgetExceeded, LimitReached
from muse.types.messages import Route
from muse.types.provider_spec import Tier

_MOST_NAMED = 4
_MOST_KEYS = 10_000


class _CachedSpend(Struct, frozen=True):
    """A sum as of a generation of the log's sums."""

    generation: int
    since: str
    spent: Spend
    usd: float


def read_log(policies: Policies, assess: PriceFn) -> None:
    """Read the token log up to now, from the beginning of the longest window on that a budget or a day's limit has."""
    spend_since(
        min(window_start(window) for window in ("day", *(budget.window for budget in policies.budgets))), assess
    )


class BudgetEnforcer:
    """The budgets of one state of journal.json."""

    def __init__(self, budgets: Sequence[Budget], assess: PriceFn) -> None:
        self._budgets = budgets
        self._assess = assess
        self._kept: dict[str, _CachedSpend] = {}
        self._fine_until_s: dict[str, float] = {}

    def within_budget(self, context: str) -> bool:
        """Whether a moment ago nothing stood in the way of a context."""
        return time.monotonic() < self._fine_until_s.get(context, 0.0)

    def downgrade(self, targets: tuple[Route, ...], model_at: ModelForTier) -> tuple[Route, ...]:
        """The targets of a call under what is left of its budgets: as they are, or a tier down.

        Raises:
            BudgetExceeded: one of them is spent.
        """
        context = targets[0].context
        wanted = [budget for budget in self._budgets if fnmatchcase(context, budget.context)]
        spent = [(budget, self._spent(budget).usd) for budget in wanted]
        for budget, usd in spent:
            if usd >= budget.usd:
                raise BudgetExceeded(_refusal(budget, usd, self._book(budget)))
        for budget, usd in spent:
            if budget.degrade_at < 1 and usd >= budget.degrade_at * budget.usd:
                why = f"one tier down: {usd / budget.usd:.0%} of {budget.where} is spent"
                return tuple(_lower_tier(target, why, model_at) for target in targets)
        _remember_fine(self._fine_until_s, context)
        return targets

    def _book(self, budget: Budget) -> SpendTracker:
        """The sums of the log, from the beginning of the longest window on."""
        return spend_since(min(window_start(other.window) for other in (budget, *self._budgets)), self._assess)

    def _spent(self, budget: Budget) -> _CachedSpend:
        since = window_start(budget.window)
        book = self._book(budget)
        kept = self._kept.get(budget.where)
        if kept is None or kept.generation != book.generation or kept.since != since:
            spent = book.total(lambda key: key.day >= since and fnmatchcase(key.context, budget.context))
            kept = _CachedSpend(book.generation, since, spent, spent.usd + spent.unpriced * budget.unpriced_usd)
            self._kept[budget.where] = kept
        return kept


class DayLimiter:
    """Tokens and dollars a day by provider, model and context."""

    def __init__(self, limits: Sequence[Limit], assess: PriceFn) -> None:
        self._assess = assess
        self._limits = limits
        self._kept: dict[str, _CachedSpend] = {}
        self._fine_until_s: dict[tuple[str, str, str], float] = {}

    def before(self, call: Call, route: Route) -> float:
        """0 while the day's sums are below the limits, else the seconds until midnight.

        Raises:
            LimitReached: a limit is reached, and the context asks to be told.
        """
        key = (call.context, route.provider, route.model)
        if self._fine_until_s.get(key, 0.0) > time.monotonic():
            return 0.0
        for limit in self._limits:
            if not limit.selects(call.context, route.provider, route.model):
                continue
            spent = self._spent(limit)
            over_tokens = limit.tokens_per_day is not None and spent.tokens >= limit.tokens_per_day
            if over_tokens or (limit.usd_per_day is not None and spent.usd >= limit.usd_per_day):
                wait_s = _until_midnight_s()
                if call.rules.on_limit != "raise" and wait_s < call.deadline.remaining_s():
                    return wait_s
                said = f"{spent.tokens:,} tokens and {formatting.format_usd(spent.usd)} are spent today"
                raise LimitReached(f"{limit.where} ({limit.described()}): {said}", retry_after_s=wait_s)
        _remember_fine(self._fine_until_s, key)
        return 0.0

    def after(self, call: Call, route: Route, outcome: Outcome | None) -> None:
        """The token log has what the try cost."""

    def leave(self, call: Call) -> None:
        """There is no line to stand in."""

    def _spent(self, limit: Limit) -> Spend:
        since = window_start("day")
        book = spend_since(since, self._assess)
        kept = self._kept.get(limit.where)
        if kept is None or kept.generation != book.generation or kept.since != since:
            spent = book.total(lambda key: key.day >= since and limit.selects(key.context, key.provider, key.model))
            kept = self._kept[limit.where] = _CachedSpend(book.generation, since, spent, spent.usd)
        return kept.spent


def _remember_fine(fine_until_s: dict[Any, float], key: object) -> None:
    """Do not look again before the sums are read anew."""
    if len(fine_until_s) > _MOST_KEYS:
        fine_until_s.clear()
    fine_until_s[key] = time.monotonic() + LOOK_AGAIN_S


def _lower_tier(route: Route, why: str, model_at: ModelForTier) -> Route:
    """A route one tier cheaper, where its provider has another model there; a model of no tier stays."""
    tier = next((tier for tier in reversed(Tier) if model_at(route.provider, tier) == route.model), Tier.LITE)
    if tier == Tier.LITE:
        return route
    model = model_at(route.provider, tier + 1)
    if model is None or model == route.model:
        return route
    return replace(route, model=model, tier=Tier(tier + 1), reason=f"{route.reason}, {why}")


def _refusal(budget: Budget, usd: float, book: SpendTracker) -> str:
    """What was spent on what, when it begins anew, and what to do."""
    since = window_start(budget.window)

    def name(key: SpendKey) -> tuple[str, str] | None:
        counts = key.day >= since and fnmatchcase(key.context, budget.context)
        return (key.context or "(none)", key.model) if counts else None

    sums = sorted(book.by(name).items(), key=lambda row: -row[1].usd)
    named = [
        f"{context} on {model} {formatting.format_usd(spent.usd)} in {spent.calls:,} calls"
        for (context, model), spent in sums
    ]
    further = [f"and {len(named) - _MOST_NAMED} more"] if len(named) > _MOST_NAMED else []
    unpriced = sum(spent.unpriced for _, spent in sums)
    if unpriced:
        further.append(
            f"{unpriced:,} calls without a known price count {formatting.format_usd(budget.unpriced_usd)} each"
        )
    what = "; ".join(named[:_MOST_NAMED] + further)
    most = formatting.format_usd(budget.usd)
    return (
        f"{budget.where}: {formatting.format_usd(usd)} of {most} a {budget.window}"
        f" are spent on {budget.context} ({what})."
        f" Raise its usd, mark the context as interactive, or wait until {next_window(budget.window):%a %d %b %Y}"
    )


def _until_midnight_s() -> float:
    return max((next_window("day") - datetime.now()).total_seconds(), 1.0)
