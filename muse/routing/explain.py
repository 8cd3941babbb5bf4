"""Why a context has its route, in words: for each field the rule that gives it, and what every rule comes to; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from muse.journal.config import Entry
from muse.journal.policy_config import RULES
from muse.routing.fallbacks import FallbackChain
from muse.routing.router import PROVIDER_ENV, Explanation, MatchedRule

FIELDS = ("provider", "model", "tier")


def decisions(found: Explanation) -> Iterator[tuple[str, str, str]]:
    """For each field its value and why it is that one."""
    route = found.route
    values = {
        "provider": route.provider,
        "model": route.model,
        "tier": f"{int(route.tier)} ({route.tier.name.lower()})",
    }
    for field in FIELDS:
        yield field, values[field], _why(found, field)


def policies(below: FallbackChain) -> Iterator[tuple[str, str, str]]:
    """For each rule of the calls its value and where it stands; targets that are never tried, and why."""
    for target in below.targets[1:]:
        yield "then", f"{target.provider} {target.model}", target.reason
    for problem in below.skipped:
        yield "never", problem.path, f"{problem.found}; expected {problem.allowed}"
    for name, where in below.rule_sources.items():
        if name != "fallbacks":
            yield name, _shown(getattr(below.rules, name)), where


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _why(found: Explanation, field: str) -> str:
    where = found.rule_sources[field]
    layer = next((layer for layer in found.layers if layer.where == where), None)
    if layer is None:
        if where == f"{found.route.provider} tier {int(found.route.tier)}":
            return f"{found.route.provider}'s own model for this tier; no rule that counts names a model"
        if where.startswith(f"{found.route.provider} tier "):
            return f"{where}: the next more capable tier that has a model"
        return f"{where}, which stands in for {found.route.provider}'s own model of the tier"
    if field == "provider" and _said(layer.entry, "provider") is None:
        return f"told by the name of the model that {where} says"
    return f"{where}, {_kind(found.route.context, layer)}"


def _kind(context: str, layer: MatchedRule) -> str:
    """What sort of rule a layer is."""
    if layer.where == "providers.default":
        return "as no rule above says one"
    if layer.where == PROVIDER_ENV:
        return "a variable of the environment"
    own = layer.where.startswith("providers.contexts[")
    if layer.where.endswith((f"[{context!r}]", f"context {context!r}")):
        return "the exact entry in journal.json" if own else "what is declared of this context"
    return "the most specific pattern of journal.json" if own else "the most specific known pattern"


def rules(found: Explanation) -> Iterator[tuple[str, str, str, str]]:
    """For each rule its rank, its place, what it says and what comes of that."""
    ranks = {layer.where: rank for rank, layer in enumerate(found.layers, 1)}
    for layer in found.layers:
        fields = [f"{name}={value}" for name, value in describe_rule(layer.entry)]
        said = ", ".join([*fields, *describe_rules(layer.entry)]) or "nothing"
        yield str(ranks[layer.where]), layer.where, said, _verdict(found, layer, ranks)


def _verdict(found: Explanation, layer: MatchedRule, ranks: Mapping[str, int]) -> str:
    """What a rule gives, and what it says in vain."""
    if layer.shadowed:
        return "shadowed: of all patterns here only the most specific one counts"
    gives = [field for field in FIELDS if found.rule_sources[field] == layer.where]
    parts = [f"gives {' and '.join(gives)}"] if gives else []
    for field, _ in describe_rule(layer.entry):
        if field not in gives:
            rank = ranks.get(found.rule_sources[field])
            parts.append(f"{field} overruled by {f'rule {rank}' if rank else 'a tier or provider above it'}")
    ruled = describe_rules(layer.entry)
    parts += [f"rules calls by {', '.join(ruled)}"] if ruled else []
    return "; ".join(parts) or "says nothing"


def describe_rule(entry: Entry) -> Iterator[tuple[str, Any]]:
    """The fields an entry says, with tiers as numbers."""
    for field in FIELDS:
        value = _said(entry, field)
        if value is not None:
            yield field, value


def describe_rules(entry: Entry) -> list[str]:
    """The rules for its calls that an entry says, by name alone."""
    return [name for name in RULES if getattr(entry.rules, name) is not None]


def _said(entry: Entry, field: str) -> str | int | None:
    match field:
        case "provider":
            return entry.provider
        case "model":
            return entry.model
        case _:
            return None if entry.tier is None else int(entry.tier)
