"""Resolve a context to its fallback chain: the route, its fallback targets, the call policy. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from muse.journal.lenient_parser import Problem
from muse.journal.policy_config import RULES, CallPolicy, FallbackTarget
from muse.routing.router import MatchedRule, Router
from muse.types.errors import ConfigError, UnknownProviderError
from muse.types.messages import Route
from muse.types.provider_spec import ProviderSpec, Tier


class ProviderConstraint(Struct, frozen=True):
    """Who may serve a context, and which rule says so."""

    where: str
    providers: frozenset[str]


class FallbackChain(Struct, frozen=True):
    """Providers to try in order, with the call policy.

    `rule_sources` maps each field of the policy to the rule of journal.json that set it.

    `skipped` are the targets that are never tried, each with the reason.
    """

    targets: tuple[Route, ...]
    rules: CallPolicy
    rule_sources: Mapping[str, str]
    bounds: tuple[ProviderConstraint, ...] = ()
    skipped: tuple[Problem, ...] = ()

    def with_primary(self, route: Route) -> FallbackChain:
        """The same fallback chain for a call that names its own model.

        Raises:
            ConfigError: a bound keeps the context from that model's provider.
        """
        check_constraints(route, self.bounds)
        return replace(self, targets=(route, *(target for target in self.targets[1:] if not _is_same(target, route))))


def resolve_fallbacks(route: Route, router: Router, environ: Mapping[str, str]) -> FallbackChain:
    """The fallback chain of a route's context.

    One fold, as for the route itself: the strongest layer that says a rule gives it. `allow` and `local_only` are
    bounds: each layer that says one holds, whatever stands above it.

    Raises:
        ConfigError: the route leads where a bound forbids it.
    """
    layers = tuple(router.layers(route.context, environ))
    rules, rule_sources = _folded(layers)
    bounds = tuple(_bounds(layers, router.specs))
    check_constraints(route, bounds)
    targets = [route]
    skipped: list[Problem] = []
    for place, target in enumerate(rules.fallbacks or ()):
        where = f"{rule_sources['fallbacks']}.fallbacks[{place}]"
        try:
            found = _routed(target, route, router, environ, where)
            check_constraints(found, bounds)
        except ConfigError as exc:
            skipped.append(Problem(where, exc.found, exc.allowed))
            continue
        if any(_is_same(found, above) for above in targets):
            asked = f"{found.provider} {found.model}, which is asked before it"
            skipped.append(Problem(where, asked, "a provider or model that is not"))
        else:
            targets.append(found)
    return FallbackChain(tuple(targets), rules, rule_sources, bounds, tuple(skipped))


def check_constraints(route: Route, bounds: Sequence[ProviderConstraint]) -> None:
    """See that a route stays within its bounds.

    Raises:
        ConfigError: it does not.
    """
    for bound in bounds:
        if route.provider not in bound.providers:
            found = f"{route.context or 'the default'} routed to {route.provider} (by {route.reason})"
            allowed = f"{' or '.join(sorted(bound.providers)) or 'no provider'}: route it there, or change that rule"
            raise ConfigError(bound.where, found, allowed)


def _folded(layers: Sequence[MatchedRule]) -> tuple[CallPolicy, Mapping[str, str]]:
    said: dict[str, Any] = {}
    rule_sources: dict[str, str] = {}
    for layer in layers:
        rules = layer.entry.rules
        if layer.shadowed or rules == _SILENT:
            continue
        for name in RULES:
            value = getattr(rules, name)
            if value is not None and name not in said:
                said[name], rule_sources[name] = value, layer.where
    return (CallPolicy(**said) if said else _SILENT), rule_sources


_SILENT = CallPolicy()


def _bounds(layers: Sequence[MatchedRule], specs: Mapping[str, ProviderSpec]) -> Iterator[ProviderConstraint]:
    """What every layer says of who may serve, shadowed ones too."""
    for layer in layers:
        rules = layer.entry.rules
        if rules.local_only:
            yield ProviderConstraint(
                f"{layer.where}.local_only", frozenset(name for name, spec in specs.items() if spec.is_local)
            )
        if rules.allow is not None:
            yield ProviderConstraint(f"{layer.where}.allow", frozenset(rules.allow))


def _routed(target: FallbackTarget, route: Route, router: Router, environ: Mapping[str, str], where: str) -> Route:
    """A target as a route; what it leaves open is that of the context.

    Raises:
        ConfigError: no such provider, or no model of it at this tier.
    """
    tier = target.tier or route.tier
    provider = target.provider or (router.owner_of(target.model) if target.model else None) or route.provider
    if provider not in router.specs:
        raise UnknownProviderError(provider, router.specs, path=where)
    model = target.model or router.model_at(provider, tier, environ, where=where)[0]
    return Route(route.context, provider, model, Tier(tier), where)


def _is_same(one: Route, other: Route) -> bool:
    return (one.provider, one.model) == (other.provider, other.model)
