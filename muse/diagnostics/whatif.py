"""What another journal.json would have changed: which calls had gone elsewhere, at which price; it writes nothing.

An estimate: the tokens are those that were counted, and models count differently (each has a tokenizer of its own, and
another model writes longer or shorter answers). Prices are those of today, on both sides.
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

# How `log_token_usage` names a caller: the call went by no route of muse.
_ELSEWHERE = re.compile(r".*\.[^.:]+:\d+", re.DOTALL)

Used = Mapping[tuple[str, str], UsageTotal]


class RouteChange(Struct, frozen=True):
    """The calls of one context that would have gone elsewhere.

    Costs are dollars at today's prices for the tokens that were counted; `unpriced` counts calls for which one of the
    two models has no known price (they are in neither cost). `problem` says why the context could not be routed after
    the change; `to_provider` is empty then.
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
    """What a change would have moved, most money first.

    `calls` counts all logged calls of the days, `moved` those that would have gone elsewhere. The others stay:
    `own_model` were made with a model that their caller named, `kept` were answered from the cache, `elsewhere` were
    logged by code that calls a model without muse. Of the moved ones `overnight` came from a batch service, and
    `no_context` bear no context and follow the default. `is_complete` is False while the log is still being read.
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
    """The routers before and after the change, and the providers there are."""

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
    """Which calls of the log since then `after` would have sent elsewhere than `before`.

    `since` is "7d" or a day YYYYMMDD. What is new in the log is read first, for at most `most_s` seconds (None: to its
    end). `known_specs` are the providers there are, where that is not what journal.json says now.

    Raises:
        ConfigError: `since` is of another form.
        OSError: the log cannot be read.
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
    """The same, of what each context used (`muse.usage_index.queries.sums_by_context`)."""
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
    """Where the calls of a context would have gone; None if where they go now."""
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
    """`(route, "")`, or `(None, why there is none)`."""
    try:
        return resolve_fallbacks(router.route("" if context == NONE else context, environ), router, environ).targets[
            0
        ], ""
    except ConfigError as exc:
        return None, str(exc)


def _price(route: Route, how: str, total: UsageTotal, known: Mapping[str, ProviderSpec]) -> float | None:
    """Dollars for the tokens of some calls on a route, today; None where no price is known."""
    spec = known[route.provider]
    usage: Usage = total.usage
    if spec.free or not usage.total_tokens:
        return 0.0
    cost = prices.cost_of(route.model, usage, spec.price_id, calls=max(1, total.calls))
    if cost is None:
        return None
    return cost.total_cost * ((spec.batch_price or 1.0) if how == OVERNIGHT else 1.0)
