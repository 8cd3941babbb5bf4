"""An estimate of what another journal.json would have changed: which calls go elsewhere, at which price.

The tokens are those that were logged. Models count tokens differently, and another model writes longer or shorter
answers. Both sides use today's prices.

Entry point: `compare`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from msgspec import Struct

from muse.journal import config_loader
from muse.journal.config import Config
from muse.providers import specs
from muse.routing import contexts
from muse.routing.contexts import ContextInfo
from muse.routing.fallbacks import resolve_fallbacks
from muse.routing.router import Router
from muse.types.errors import ConfigError
from muse.types.messages import Route
from muse.types.provider_spec import ProviderSpec
from muse.types.usage import Usage
from muse.usage_index.index import LogIndex, log_index
from muse.usage_index.queries import Days, days_since, sums_by_context
from muse.usage_index.writer import KEPT, OVERNIGHT, OWN
from muse.usage_log import prices
from muse.usage_log.totals import NONE, UsageTotal

# The context that `log_token_usage` derives from its caller: such a call was not routed by muse.
_ELSEWHERE = re.compile(r".*\.[^.:]+:\d+", re.DOTALL)

Used = Mapping[tuple[str, str], UsageTotal]


class RouteChange(Struct, frozen=True):
    """The calls of one context that would have gone elsewhere.

    Attributes:
        context: The context.
        calls: The number of calls.
        from_provider: The provider before the change.
        from_model: The model before the change.
        to_provider: The provider after the change; "" if there is a `problem`.
        to_model: The model after the change.
        cost_before_usd: Dollars at today's prices for the logged tokens, before the change.
        cost_after_usd: Dollars at today's prices for the logged tokens, after the change.
        unpriced: Calls for which one of the two models has no known price. They are in neither cost.
        problem: Why the context cannot be routed after the change.
    """

    context: str
    calls: int
    from_provider: str
    from_model: str
    to_provider: str
    to_model: str
    cost_before_usd: float = 0.0
    cost_after_usd: float = 0.0
    unpriced: int = 0
    problem: str = ""


class WhatIf(Struct, frozen=True):
    """The effect of a change, the most money first.

    Attributes:
        rows: The contexts whose calls would have gone elsewhere.
        days: The days that were compared.
        calls: All logged calls of the days.
        moved: Calls that would have gone elsewhere. The next three counts are calls that stay.
        own_model: Calls whose caller named the model.
        kept: Calls that the cache answered.
        elsewhere: Calls logged by code that calls a model without muse.
        overnight: Moved calls that a batch service answered.
        no_context: Moved calls without a context, which follow the default.
        cost_before_usd: The cost of moved calls before the change.
        cost_after_usd: The cost of moved calls after the change.
        unpriced: Moved calls that are in neither cost.
        is_complete: False while the log is still being indexed.
    """

    rows: tuple[RouteChange, ...]
    days: Days
    calls: int = 0
    moved: int = 0
    own_model: int = 0
    kept: int = 0
    elsewhere: int = 0
    overnight: int = 0
    no_context: int = 0
    cost_before_usd: float = 0.0
    cost_after_usd: float = 0.0
    unpriced: int = 0
    is_complete: bool = True


class _BeforeAfter(NamedTuple):
    """The routers before and after the change, and the known providers."""

    before: Router
    after: Router
    specs: Mapping[str, ProviderSpec]


def compare(
    before: Config,
    after: Config,
    *,
    since: str = "7d",
    index: LogIndex | None = None,
    most_s: float | None = 1.0,
    known_specs: Mapping[str, ProviderSpec] | None = None,
) -> WhatIf:
    """Return which calls of the log since `since` would have gone elsewhere with `after` than with `before`.

    Args:
        before: The current configuration.
        after: The changed configuration.
        since: "7d" or a day YYYYMMDD.
        index: The index of the usage log; None means that of the journal in force.
        most_s: The most seconds to read new lines of the log first; None reads to the end.
        known_specs: The providers, if not those of `before` and `after`.

    Raises:
        ConfigError: `since` has another form.
        OSError: The log cannot be read.
    """
    days = days_since(since)
    found = index or log_index()
    progress = found.refresh(most_s)
    known = contexts.registry(config_loader.load()).contexts
    used = sums_by_context(found, days)
    there = {**specs(before), **specs(after)} if known_specs is None else known_specs
    return route_changes(
        used, before, after, days=days, known=known, known_specs=there, is_complete=progress.is_complete
    )


def route_changes(
    used: Used,
    before: Config,
    after: Config,
    *,
    days: Days,
    known: Mapping[str, ContextInfo],
    known_specs: Mapping[str, ProviderSpec],
    environ: Mapping[str, str] | None = None,
    is_complete: bool = True,
) -> WhatIf:
    """Return the comparison for given usage by context (`muse.usage_index.queries.sums_by_context`)."""
    environ = os.environ if environ is None else environ
    sides = _BeforeAfter(Router(before, known, known_specs), Router(after, known, known_specs), known_specs)
    routed = {key: total for key, total in used.items() if key[1] not in (OWN, KEPT) and not _is_elsewhere(key[0])}
    by_context: dict[str, dict[str, UsageTotal]] = {}
    for (context, how), total in routed.items():
        by_context.setdefault(context, {})[how] = total
    rows = [move for context, totals in by_context.items() if (move := _move(context, totals, sides, environ))]
    rows.sort(key=lambda move: (-max(move.cost_before_usd, move.cost_after_usd), -move.calls, move.context))
    moved = {move.context for move in rows}
    return WhatIf(
        tuple(rows),
        days,
        calls=sum(total.calls for total in used.values()),
        moved=sum(move.calls for move in rows),
        own_model=sum(total.calls for (_, how), total in used.items() if how == OWN),
        kept=sum(total.calls for (_, how), total in used.items() if how == KEPT),
        elsewhere=sum(total.calls for (context, how), total in used.items() if not how and _is_elsewhere(context)),
        overnight=sum(total.calls for (context, how), total in routed.items() if how == OVERNIGHT and context in moved),
        no_context=sum(move.calls for move in rows if move.context == NONE),
        cost_before_usd=math.fsum(move.cost_before_usd for move in rows),
        cost_after_usd=math.fsum(move.cost_after_usd for move in rows),
        unpriced=sum(move.unpriced for move in rows),
        is_complete=is_complete,
    )


def _is_elsewhere(context: str) -> bool:
    return _ELSEWHERE.fullmatch(context) is not None


def _move(
    context: str, totals: Mapping[str, UsageTotal], sides: _BeforeAfter, environ: Mapping[str, str]
) -> RouteChange | None:
    """Return where the calls of a context would have gone; None if the route is unchanged."""
    calls = sum(total.calls for total in totals.values())
    now, _ = _routed(sides.before, context, environ)
    then, problem = _routed(sides.after, context, environ)
    old, new = _named(now), _named(then)
    if old == new:
        return None
    if now is None or then is None:
        return RouteChange(context, calls, *old, *new, problem=problem)
    before_usd = after_usd = 0.0
    unpriced = 0
    for how, total in totals.items():
        paid = [_price(route, how, total, sides.specs) for route in (now, then)]
        if paid[0] is None or paid[1] is None:
            unpriced += total.calls
        else:
            before_usd, after_usd = before_usd + paid[0], after_usd + paid[1]
    return RouteChange(context, calls, *old, *new, before_usd, after_usd, unpriced)


def _named(route: Route | None) -> tuple[str, str]:
    return ("", "") if route is None else (route.provider, route.model)


def _routed(router: Router, context: str, environ: Mapping[str, str]) -> tuple[Route | None, str]:
    """Return `(route, "")`, or `(None, reason)` if there is no route."""
    try:
        return resolve_fallbacks(router.route("" if context == NONE else context, environ), router, environ).targets[
            0
        ], ""
    except ConfigError as exc:
        return None, str(exc)


def _price(route: Route, how: str, total: UsageTotal, known: Mapping[str, ProviderSpec]) -> float | None:
    """Return today's price in dollars of some calls' tokens on a route; None if no price is known."""
    spec = known[route.provider]
    usage: Usage = total.usage
    if spec.free or not usage.total_tokens:
        return 0.0
    cost = prices.cost_of(route.model, usage, spec.price_id, calls=max(1, total.calls))
    if cost is None:
        return None
    return cost.total_cost * ((spec.batch_price or 1.0) if how == OVERNIGHT else 1.0)
