"""`muse route`: who answers one context, and with `--explain` which rule decided what; it makes no call."""

from __future__ import annotations

import argparse
from typing import Any

from muse import models
from muse.cli import _terminal
from muse.ladder import Ladder
from muse.messages import Route
from muse.routing import Explanation
from muse.why import FIELDS, decisions, policies, rules, says

HELP = "Print which provider, model and tier answer a context."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The context, and how much to say of it."""
    parser.add_argument("context", metavar="CONTEXT", help="such as observe.describe.frame; '' asks for the default")
    parser.add_argument(
        "--explain", action="store_true", help="every rule that matches, what it gives, what overrules it"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the route; 0."""
    found = models.explain(args.context)
    below = models.ladder_of(args.context)
    if args.json:
        _terminal.print_json(_as_json(found, below, explain=args.explain))
        return 0
    line = f"{found.route.context or '(no context)'} -> {_answer(found.route)}"
    if not args.explain:
        then = "".join(f", then {rung.provider} {rung.model}" for rung in below.rungs[1:])
        _terminal.say(f"{line}, by {found.route.reason}{then}")
        return 0
    _terminal.say(line, "bold")
    print()
    _terminal.align([*decisions(found), *policies(below)])
    print("\nRules that match, strongest first:\n")
    _terminal.align(list(rules(found)))
    return 0


def _answer(route: Route) -> str:
    return f"{route.provider} {route.model} (tier {int(route.tier)}, {route.tier.name.lower()})"


def _as_json(found: Explanation, below: Ladder, *, explain: bool) -> dict[str, Any]:
    route = found.route
    shown: dict[str, Any] = {
        "context": route.context,
        "provider": route.provider,
        "model": route.model,
        "tier": int(route.tier),
        "reason": route.reason,
        "fallbacks": [{"provider": rung.provider, "model": rung.model} for rung in below.rungs[1:]],
    }
    if explain:
        shown["policies"] = {
            name: {"value": getattr(below.rules, name), "where": where} for name, where in below.won.items()
        }
        shown["never_tried"] = [str(problem) for problem in below.left_out]
        shown["won"] = dict(found.won)
        shown["rules"] = [
            {
                "where": layer.where,
                "says": dict(says(layer.entry)),
                "gives": [field for field in FIELDS if found.won[field] == layer.where],
                "shadowed": layer.shadowed,
            }
            for layer in found.layers
        ]
    return shown
