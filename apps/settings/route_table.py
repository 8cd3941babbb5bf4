"""Who would serve every context under a state of journal.json, and how that differs from another; it writes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

from apps.settings.limit_fields import in_force
from muse.errors import ConfigError
from muse.journal import config_loader
from muse.journal.config import Config
from muse.journal.config_loader import Snapshot
from muse.journal.policy_config import RULES
from muse.providers import backend_of, get_provider_list, specs
from muse.routing import explain
from muse.routing.contexts import ContextInfo, Registry, registry
from muse.routing.fallbacks import FallbackChain, resolve_fallbacks
from muse.routing.glob_overlap import is_glob
from muse.routing.router import Explanation, Router
from muse.routing.unreachable_rules import config_path_of
from muse.types.provider_spec import ProviderSpec

OWN_GROUP = "Rules of your own"


class Plan(Struct, frozen=True):
    """How one context is served: its fallback chain with the reasons, or the `problem` that stands in the way."""

    name: str
    found: Explanation | None = None
    below: FallbackChain | None = None
    problem: str = ""
    limits: tuple[tuple[str, str], ...] = ()

    @property
    def served(self) -> str:
        """Who answers, in words: `google gemini-3.1-flash-lite, then local smollm2`."""
        if self.below is None:
            return self.problem
        return ", then ".join(f"{target.provider} {target.model}" for target in self.below.targets)

    @property
    def provider(self) -> str | None:
        """Who is asked first."""
        return None if self.found is None else self.found.route.provider

    @property
    def tier(self) -> int | None:
        """The tier of its route."""
        return None if self.found is None else int(self.found.route.tier)

    @property
    def rules(self) -> Mapping[str, Any]:
        """The rules for its calls that some entry says."""
        if self.below is None:
            return {}
        said = {name: value for name, _, value in _said(self.below)}
        return {name: said[name] for name in RULES if name in said and name != "fallbacks"}

    def decisions(self) -> list[tuple[str, str, str]]:
        """For provider, model and tier, and each rule of its calls: name, value, why it is that one."""
        if self.found is None or self.below is None:
            return []
        limits = (("limit", words, where) for words, where in self.limits)
        return [*explain.decisions(self.found), *explain.policies(self.below), *limits]

    def layers(self) -> list[tuple[str, str, str, str]]:
        """Every rule that matches: rank, place, what it says, what comes of it."""
        return [] if self.found is None else list(explain.rules(self.found))


class Plans:
    """The plans of every context under one state of journal.json."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.registry: Registry = registry(snapshot)
        self.config = snapshot.config
        self.specs = specs_under(snapshot.config)
        self._router = Router(snapshot.config, self.registry.contexts, self.specs)

    def names(self) -> Iterator[str]:
        """Every known context, then the rules of journal.json that are for none of these names."""
        yield from dict.fromkeys((*self.registry.contexts, *self.config.contexts))

    def plan(self, name: str) -> Plan:
        """How a context is served; "" is the default."""
        try:
            found = self._router.explain(name, os.environ)
        except ConfigError as exc:
            return Plan(name, problem=str(exc))
        limits = in_force(self.config, name, found.route.provider, found.route.model)
        try:
            return Plan(name, found, resolve_fallbacks(found.route, self._router, os.environ), limits=limits)
        except ConfigError as exc:
            return Plan(name, found, problem=str(exc))

    def info(self, name: str) -> ContextInfo | None:
        """What is declared of a context; None of a rule of the person's own."""
        return self.registry.contexts.get(name)

    def models(self) -> list[str]:
        """The names of all models that are named anywhere, for suggestions."""
        named = {model for spec in self.specs.values() for model in spec.tiers.values()}
        named |= {model for tiers in self.config.models.values() for model in tiers.values()}
        named |= {entry.model for entry in (self.config.default, *self.config.contexts.values()) if entry.model}
        return sorted(named)


class Row(Struct, frozen=True):
    """One context as the page lists it."""

    plan: Plan
    label: str
    group: str
    has_rule: bool
    place: str


class Move(Struct, frozen=True):
    """A context that another state of journal.json would serve otherwise."""

    name: str
    before: Plan
    after: Plan

    @property
    def rules(self) -> list[str]:
        """The rules of its calls that change, in words."""
        old, new = self.before.rules, self.after.rules
        names = [name for name in RULES if old.get(name) != new.get(name)]
        said = [f"{name}: {old.get(name, 'not said')} → {new.get(name, 'not said')}" for name in names]
        before, after = ([words for words, _ in plan.limits] for plan in (self.before, self.after))
        gone = [f"limit no more: {words}" for words in before if words not in after]
        return [*said, *gone, *(f"limit: {words}" for words in after if words not in before)]


def grouped(plans: Plans) -> list[tuple[str, list[Row]]]:
    """Every context by its group, in the order in which groups are declared; the person's own rules last."""
    groups: dict[str, list[Row]] = {}
    for name in plans.names():
        info = plans.info(name)
        row = Row(
            plans.plan(name),
            info.label if info else ("Pattern" if is_glob(name) else "Context"),
            info.group if info else OWN_GROUP,
            name in plans.config.contexts,
            config_path_of(name),
        )
        groups.setdefault(row.group, []).append(row)
    own = groups.pop(OWN_GROUP, [])
    rows = [(group, sorted(found, key=lambda row: row.plan.name)) for group, found in groups.items()]
    return [*rows, (OWN_GROUP, own)] if own else rows


def moves(before: Plans, after: Plans) -> list[Move]:
    """The default and every context that two states serve differently."""
    names = dict.fromkeys(("", *before.names(), *after.names()))
    pairs = (Move(name, before.plan(name), after.plan(name)) for name in names)
    return [move for move in pairs if _says(move.before) != _says(move.after)]


def _says(plan: Plan) -> tuple[object, ...]:
    bounds = plan.below.bounds if plan.below else ()
    places = tuple(sorted(bound.where for bound in bounds))
    return plan.served, plan.tier, tuple(sorted(plan.rules.items())), places, tuple(words for words, _ in plan.limits)


def _said(below: FallbackChain) -> Iterator[tuple[str, str, str]]:
    """Each rule with its place and value."""
    for name, value, where in explain.policies(below):
        yield name, where, value


def specs_under(config: Config) -> Mapping[str, ProviderSpec]:
    """What every provider declares under a configuration that may not be the one in force."""
    known = specs(config)
    in_force = config_loader.load().config.gateways
    further = (row["name"] for row in get_provider_list() if row["name"] not in known and row["name"] not in in_force)
    return {**known, **{name: backend_of(name).spec for name in further}}
