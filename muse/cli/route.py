"""`muse route`: who answers one context, and with `--explain` which rule decided what; it makes no call."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from msgspec import to_builtins

from muse import models
from muse.cli._terminal import terminal
from muse.policies.usage_status import LimitStatus
from muse.providers import obstacle_to
from muse.routing.explain import FIELDS, decisions, describe_rule, policies, rules
from muse.routing.fallbacks import FallbackChain
from muse.routing.router import Explanation
from muse.types.messages import Route

HELP = "Print which provider, model and tier answer a context."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The context, and how much to say of it."""
    parser.add_argument("context", metavar="CONTEXT", help="such as observe.describe.frame; '' asks for the default")
    parser.add_argument(
        "--explain", action="store_true", help="every rule that matches, what it gives, what overrules it"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the route; 0, or 1 if its provider cannot be used."""
    found = models.explain(args.context)
    below = models.fallback_chain(args.context)
    problem = obstacle_to(found.route.provider)
    status = 0 if problem is None else 1
    statuses = models.limit_statuses(below) if args.explain else ()
    if args.json:
        shown = _as_json(found, below) | ({} if problem is None else {"problem": str(problem)})
        terminal.print_json(shown | (_explained(found, below, statuses) if args.explain else {}))
        return status
    line = f"{found.route.context or '(no context)'} -> {_answer(found.route)}"
    if not args.explain:
        then = "".join(f", then {target.provider} {target.model}" for target in below.targets[1:])
        terminal.say(f"{line}, by {found.route.reason}{then}")
    else:
        terminal.say(line, "bold")
    if problem is not None:
        terminal.say(str(problem), "red")
    if args.explain:
        _explain(found, below, statuses)
    return status


def _explain(found: Explanation, below: FallbackChain, statuses: Sequence[LimitStatus]) -> None:
    """Print what decides the route, what bounds its calls, and every rule that matches."""
    print()
    bounds = ((row.kind, f"{row.selects}: {row}" if row.selects else str(row), row.where) for row in statuses)
    terminal.align([*decisions(found), *policies(below), *bounds])
    print("\nRules that match, strongest first:\n")
    terminal.align(list(rules(found)))


def _answer(route: Route) -> str:
    return f"{route.provider} {route.model} (tier {int(route.tier)}, {route.tier.name.lower()})"


def _as_json(found: Explanation, below: FallbackChain) -> dict[str, Any]:
    route = found.route
    return {
        "context": route.context,
        "provider": route.provider,
        "model": route.model,
        "tier": int(route.tier),
        "reason": route.reason,
        "fallbacks": [{"provider": target.provider, "model": target.model} for target in below.targets[1:]],
    }


def _explained(found: Explanation, below: FallbackChain, statuses: Sequence[LimitStatus]) -> dict[str, Any]:
    """What `--explain` adds, in values that JSON has."""
    return {
        "policies": {
            name: {"value": to_builtins(getattr(below.rules, name)), "where": where}
            for name, where in below.rule_sources.items()
        },
        "limits": [_bound(row) for row in statuses if row.kind == "limit"],
        "budgets": [_bound(row) for row in statuses if row.kind == "budget"],
        "never_tried": [str(problem) for problem in below.skipped],
        "won": dict(found.rule_sources),
        "rules": [
            {
                "where": layer.where,
                "says": dict(describe_rule(layer.entry)),
                "gives": [field for field in FIELDS if found.rule_sources[field] == layer.where],
                "shadowed": layer.shadowed,
            }
            for layer in found.layers
        ],
    }


def _bound(row: LimitStatus) -> dict[str, Any]:
    return {
        "where": row.where,
        "selects": row.selects,
        "unit": row.unit,
        "window": row.window,
        "most": row.most,
        "used": row.used,
        "left": row.left,
        "state": row.state,
        "ends": row.ends and row.ends.isoformat(),
        "degrade_at": row.degrade_at,
        "unpriced": row.unpriced,
    }
