"""The limits and budgets that are for one context or pattern alone, as flat fields beside its entry; no form, no file.

They stand in `providers.limits` and `providers.budgets`, in rows that select by nothing but that context.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from apps.settings.config_state import Standing
from apps.settings.entry_form import Delta
from muse import models
from muse.calls import log_pricing
from muse.errors import ConfigError
from muse.journal.config import Config
from muse.journal.policy_config import Budget
from muse.policies.usage_status import LimitStatus as Used
from muse.policies.usage_status import all_limit_statuses, limit_statuses
from muse.types.formatting import format_usd

# The first part of a flat name, and the list in which such rows stand.
LISTS: Mapping[str, str] = {"limit": "limits", "budget": "budgets"}
_SELECTORS = ("context", "provider", "model")


def flat(providers: object, pattern: str | None) -> dict[str, Any]:
    """What the rows of a pattern (None: of all calls) say: `{"limit.usd_per_day": 5, "budget.usd": 20}`."""
    found: dict[str, Any] = {}
    for kind, name in LISTS.items():
        rows = providers.get(name) if isinstance(providers, Mapping) else None
        row = _row(rows, pattern)
        found |= {f"{kind}.{key}": value for key, value in (row or {}).items() if key not in _SELECTORS}
    return found


def split(delta: Delta) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """A form's delta as `(that of the entry, that of its limit and its budget by kind)`."""
    entry: dict[str, Any] = {}
    amounts: dict[str, dict[str, Any]] = {}
    for name, value in delta.items():
        kind, dot, key = name.partition(".")
        if dot and kind in LISTS:
            amounts.setdefault(kind, {})[key] = value
        else:
            entry[name] = value
    return entry, amounts


def change(providers: dict[str, Any], pattern: str | None, kind: str, delta: Delta) -> None:
    """Change the row of a pattern in its list, make it if it is missing, take it out if it says nothing any more.

    Raises:
        ConfigError: something else than a list stands there.
    """
    name = LISTS[kind]
    rows = providers.get(name, [])
    if not isinstance(rows, list):
        raise ConfigError(f"providers.{name}", type(rows).__name__, "a list [...]; mend it in the raw JSON")
    row = _row(rows, pattern)
    if row is None:
        row = {} if pattern is None else {"context": pattern}
        rows = [*rows, row]
    for key, value in delta.items():
        row.pop(key, None) if value is None else row.update({key: value})
    if not set(row).difference(_SELECTORS):
        rows = [other for other in rows if other is not row]
    if rows:
        providers[name] = rows
    else:
        providers.pop(name, None)


def in_force(config: Config, context: str, provider: str, model: str) -> tuple[tuple[str, str], ...]:
    """The limits and budgets that count for a call: `(in words, where it stands)`."""
    limits = (limit for limit in config.policies.limits if limit.selects(context, provider, model))
    budgets = (budget for budget in config.policies.budgets if fnmatchcase(context, budget.context))
    return (
        *((limit.described(), limit.where) for limit in limits),
        *((_words(budget), budget.where) for budget in budgets),
    )


def used(now: Standing, context: str | None) -> tuple[Used, ...]:
    """What is used of the limits and budgets of a context, or of all of them (None).

    Raises:
        OSError: the token log cannot be read.
    """
    policies = now.config.policies
    if context is None:
        return all_limit_statuses(policies, log_pricing.provider_and_cost)
    try:
        route = models.route(context)
    except ConfigError:
        return ()
    return limit_statuses(policies, context, route.provider, route.model, log_pricing.provider_and_cost)


def count_of(config: Config) -> int:
    """How many amounts there are: one of each budget, and those of each limit."""
    per_limit = ("requests_per_minute", "tokens_per_minute", "in_flight", "tokens_per_day", "usd_per_day")
    limits = (getattr(limit, name) is not None for limit in config.policies.limits for name in per_limit)
    return len(config.policies.budgets) + sum(limits)


def _words(budget: Budget) -> str:
    scope = "" if budget.context == "*" else f"{budget.context}, "
    return f"{scope}{format_usd(budget.usd)} a {budget.window}"


def _row(rows: object, pattern: str | None) -> dict[str, Any] | None:
    """The first row that selects by nothing but that pattern."""
    wanted = "*" if pattern is None else pattern
    for row in rows if isinstance(rows, list) else ():
        if not isinstance(row, dict) or row.get("context", "*") != wanted:
            continue
        if row.get("provider", "*") == "*" and row.get("model", "*") == "*":
            return row
    return None
