"""Which entries of `providers.contexts` can never matter, and to whom they lose; pure: it knows no file."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from msgspec.structs import replace

from muse.journal.config import Config
from muse.journal.lenient_parser import Problem
from muse.journal.policy_config import CallPolicy
from muse.routing.contexts import ContextInfo
from muse.routing.glob_overlap import is_glob, overlap, sample_match
from muse.routing.router import Explanation, MatchedRule, Router
from muse.types.provider_spec import ProviderSpec, Tier


def find_unreachable_rules(
    config: Config, contexts: Mapping[str, ContextInfo], specs: Mapping[str, ProviderSpec], used: Collection[str] = ()
) -> Iterator[Problem]:
    """A problem for each entry that matches no known context, and for each that loses every field to others.

    `used` are contexts beyond the known ones, such as those found in code. A glob matches a known pattern if some
    context could be of both forms; whether it wins there is tried with one such context.
    """
    known = [*contexts, *(name for name in used if name not in contexts)]
    patterns = [name for name in known if is_glob(name)]
    router = _lenient_router(config, contexts, specs)
    own = (name for name in config.contexts if not is_glob(name) and _is_known(name, known, patterns))
    seen = _Seen()
    samples = (sample_match(pattern) for pattern in config.contexts if is_glob(pattern))
    open_ended = (name for name in samples if _is_known(name, known, patterns))
    for name in dict.fromkeys((*known, *own, *open_ended)):
        seen.add(router.explain(name, {}))
    for pattern in config.contexts:
        where = config_path_of(pattern)
        if where in seen.winners:
            continue
        if not _meets(pattern, known, patterns):
            yield Problem(where, "a pattern that matches no known context", "one that matches some (muse routes)")
        elif where in seen.losers:
            others = " and ".join(sorted(seen.losers[where])[:3])
            yield Problem(where, f"a rule that never decides anything: {others} always do", "one that can win")


def config_path_of(pattern: str) -> str:
    """Where an entry of `providers.contexts` stands, as routes and problems spell it."""
    return f"providers.contexts[{pattern!r}]"


class _Seen:
    """Who won and who lost over the contexts tried so far; a loser's entry lists who was heard in its place."""

    def __init__(self) -> None:
        self.winners: set[str] = set()
        self.losers: dict[str, set[str]] = {}

    def add(self, found: Explanation) -> None:
        """Count one more context."""
        rule_sources = {*found.rule_sources.values(), *(layer.where for layer in found.layers if _rules_calls(layer))}
        self.winners |= rule_sources
        named = {layer.where for layer in found.layers}
        for layer in found.layers:
            if layer.where not in rule_sources:
                self.losers.setdefault(layer.where, set()).update(rule_sources & named)


def _rules_calls(layer: MatchedRule) -> bool:
    """Whether a layer says how calls are made: a part of that may matter, whoever serves them."""
    return not layer.shadowed and layer.entry.rules != CallPolicy()


def _is_known(name: str, known: Collection[str], patterns: Collection[str]) -> bool:
    """Whether a context is known by its own name or by a known pattern."""
    return name in known or any(overlap(pattern, name) for pattern in patterns)


def _meets(pattern: str, known: Collection[str], patterns: Collection[str]) -> bool:
    if is_glob(pattern):
        return any(overlap(pattern, name) for name in known)
    return _is_known(pattern, known, patterns)


def _lenient_router(config: Config, contexts: Mapping[str, ContextInfo], specs: Mapping[str, ProviderSpec]) -> Router:
    """A router by which every provider that is named exists and has a model, so that only the rules decide."""
    default = replace(config.default, problem=None)
    entries = {pattern: replace(entry, problem=None) for pattern, entry in config.contexts.items()}
    config = replace(config, default=default, contexts=entries)
    names = {entry.provider for entry in (default, *entries.values()) if entry.provider} - set(specs)
    missing = {name: ProviderSpec(name, name, "", {}) for name in names}
    whole = {
        name: spec.having(tiers={tier: spec.tiers.get(tier, "") or "a model" for tier in Tier})
        for name, spec in {**specs, **missing}.items()
    }
    return Router(config, contexts, whole)
