"""The policies in force, in their order: what a call passes before its first try and around each; it makes no call.

The cache is looked at first, since what it gives costs nothing, then budgets. Around each try stand the breaker, limits
of the day, what the model has shown to bear, and the limits of the minute and in flight. What journal.json does not ask
for is not imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Protocol

from muse.journal.policy_config import Limit, ModelForTier, Policies, PriceFn
from muse.policies.adaptive_concurrency import AdaptiveConcurrency
from muse.policies.circuit_breaker import CircuitBreaker
from muse.policies.execution import Policy
from muse.routing.fallbacks import FallbackChain
from muse.types.messages import Reply, Request, Route

# What a model bears was learned from its answers, whatever journal.json says meanwhile.
_adaptive = AdaptiveConcurrency()


class _BudgetEnforcer(Protocol):
    def within_budget(self, context: str) -> bool: ...
    def downgrade(self, targets: tuple[Route, ...], model_at: ModelForTier) -> tuple[Route, ...]: ...


class PolicyPipeline:
    """The policies of one state of journal.json."""

    def __init__(self, policies: Policies, assess: PriceFn) -> None:
        self.policies = policies
        self.counts_tokens = any(limit.tokens_per_minute for limit in policies.limits)
        self.steps: tuple[Policy, ...] = tuple(_steps(policies, assess))
        self._budget_enforcer = _budget_enforcer(policies, assess)
        self._assess = assess
        self._log_is_read = not (policies.budgets or _day_limits(policies))

    def read_log(self) -> None:
        """Read the token log up to now, if budgets or limits of the day are counted from it and it is not read yet.

        The first reading of a long log takes seconds, what is added to it later is read in a moment: done before the
        clock of the first call starts.
        """
        if not self._log_is_read:
            from muse.policies.budget import read_log  # 5 ms, and only who sets budgets or limits pays it

            read_log(self.policies, self._assess)
            self._log_is_read = True

    async def aread_log(self) -> None:
        """As `read_log`, in a thread: other calls of the loop go on meanwhile."""
        if not self._log_is_read:
            import asyncio  # a coroutine runs, so it is loaded

            await asyncio.to_thread(self.read_log)

    def targets(self, chain: FallbackChain, model_at: ModelForTier) -> tuple[Route, ...]:
        """Who is asked, with budgets taken into account.

        Raises:
            BudgetExceeded: one of the context's budgets is spent.
        """
        budget_enforcer = self._budget_enforcer
        if (
            budget_enforcer is None
            or chain.rules.interactive
            or budget_enforcer.within_budget(chain.targets[0].context)
        ):
            return chain.targets
        return budget_enforcer.downgrade(chain.targets, model_at)

    def find(self, request: Request, route: Route, address: str, cache_s: float) -> tuple[Reply | None, bytes]:
        """`(the kept answer to a request, the key to keep a new one under)`; no key if nothing can be kept.

        `address` is where the request would go: another endpoint of the same name gives other answers.
        """
        from muse.policies import cache  # 3 ms, and only who keeps answers pays it

        kept = cache.cache(self.policies.cache_mb)
        if kept is None:
            return None, b""
        key = cache.key_of(request, route, address)
        return (kept.find(key, cache_s) if key else None), key

    def keep(self, key: bytes, reply: Reply) -> None:
        """Keep an answer under a key that `find` gave."""
        from muse.policies import cache  # 3 ms, and only who keeps answers pays it

        kept = cache.cache(self.policies.cache_mb)
        if kept is not None:
            kept.keep(key, reply)


def _steps(policies: Policies, assess: PriceFn) -> Iterator[Policy]:
    if policies.breaker.failures:
        yield CircuitBreaker(policies.breaker)
    if policies.limits:
        from muse.policies.budget import DayLimiter  # 5 ms, and only who sets limits pays it
        from muse.policies.rate_limiter import RateLimiter

        if day_limits := _day_limits(policies):
            yield DayLimiter(day_limits, assess)
        yield _adaptive  # before what processes share: who waits there must not hold what others could use
        yield RateLimiter(policies.limits)
    else:
        yield _adaptive


def _day_limits(policies: Policies) -> tuple[Limit, ...]:
    return tuple(limit for limit in policies.limits if limit.tokens_per_day or limit.usd_per_day)


def _budget_enforcer(policies: Policies, assess: PriceFn) -> _BudgetEnforcer | None:
    if not policies.budgets:
        return None
    from muse.policies.budget import BudgetEnforcer  # 5 ms, and only who sets budgets pays it

    return BudgetEnforcer(policies.budgets, assess)


_pipeline: PolicyPipeline | None = None


def _forget() -> None:
    """A child process has no calls under way, and no share in what its parent took."""
    global _pipeline, _adaptive
    _pipeline, _adaptive = None, AdaptiveConcurrency()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget)


def policy_pipeline(policies: Policies, assess: PriceFn) -> PolicyPipeline:
    """The stack for what journal.json says; the same one while that does not change.

    `assess` tells whose a line of the token log is and what it cost, where the line does not say so.
    """
    global _pipeline
    if _pipeline is None or (_pipeline.policies is not policies and _pipeline.policies != policies):
        _pipeline = PolicyPipeline(policies, assess)
    return _pipeline
