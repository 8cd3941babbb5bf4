"""A context becomes a `Route`: pure, no file and no network, always with its reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from fnmatch import translate
from functools import lru_cache

from msgspec import Struct
from msgspec.structs import replace

from muse.journal.config import DEFAULT_PROVIDER, Config, Entry
from muse.routing.contexts import ContextInfo
from muse.types.errors import ConfigError, UnknownProviderError
from muse.types.messages import Route
from muse.types.provider_spec import ProviderSpec, Tier, provider_of

_WILDCARD = re.compile(r"[*?[]")
# What a glob leaves open: `*`, `?` and closed classes; as fnmatch has it, `]` may be a class's first member.
_OPEN = re.compile(r"\[!?+\]?+[^\]]*\]|[*?]")
PROVIDER_ENV = "MUSE_PROVIDER"
_NO_MODEL = "unknown"
_Rank = tuple[int, int, int]


class MatchedRule(Struct, frozen=True):
    """A rule that speaks for a context: where it stands, what it says, whether a like one above silences it.

    `declared` marks what feature code registered of itself: it sets tiers, and is no reason for a provider.
    """

    where: str
    entry: Entry
    shadowed: bool = False
    declared: bool = False


class Explanation(Struct, frozen=True):
    """A route with every rule that matched: `won` says which rule gave each field, the rest are shadowed or silent."""

    route: Route
    layers: tuple[MatchedRule, ...]
    rule_sources: Mapping[str, str]


class PatternIndex:
    """Patterns by specificity: more literal characters, then fewer wildcards, then earlier in the file; no ties.

    Patterns are kept by the literal text before their first wildcard, and with the longest literal piece after it: a
    look-up compiles and tries only those of which the context has both.
    """

    def __init__(self, patterns: Iterator[str]) -> None:
        self._by_prefix: dict[str, list[tuple[_Rank, str, str]]] = {}
        for place, pattern in enumerate(patterns):
            match = _WILDCARD.search(pattern)
            if match:
                pieces = _OPEN.split(pattern)
                rank = (-sum(map(len, pieces)), len(pieces) - 1, place)
                row = (rank, max(pieces[1:], key=len, default=pattern), pattern)
                self._by_prefix.setdefault(pattern[: match.start()], []).append(row)
        self._lengths = sorted({len(prefix) for prefix in self._by_prefix}, reverse=True)

    def matches(self, context: str) -> Iterator[str]:
        """Every pattern that matches, most specific first."""
        hits = [
            (rank, pattern)
            for length in self._lengths
            if length <= len(context)
            for rank, piece, pattern in self._by_prefix.get(context[:length], ())
            if piece in context and _compiled(pattern).match(context)
        ]
        return (pattern for _, pattern in sorted(hits))


@lru_cache(maxsize=65536)
def _compiled(pattern: str) -> re.Pattern[str]:
    """A glob as fnmatch means it: case counts; its translation cannot backtrack exponentially."""
    return re.compile(translate(pattern))


class Router:
    """Routes under one configuration, set of contexts and set of specs; make a new one when any of them changes."""

    def __init__(self, config: Config, contexts: Mapping[str, ContextInfo], specs: Mapping[str, ProviderSpec]) -> None:
        self.config = config
        self.contexts = contexts
        self.specs = specs
        self._overrides = PatternIndex(iter(config.contexts))
        self._known = PatternIndex(iter(contexts))
        default = config.default
        if default.provider is None:  # it names a model alone
            default = replace(default, provider=provider_of(default.model or "", specs) or DEFAULT_PROVIDER)
        self._default = default

    def route(self, context: str | None, environ: Mapping[str, str]) -> Route:
        """Who serves `context` (None and "" get the default).

        Raises:
            UnknownProviderError: the provider that the rules lead to is not registered.
            ConfigError: it has no model for this tier or a more capable one, or the entry that decides is malformed.
        """
        return self.explain(context, environ).route

    def explain(self, context: str | None, environ: Mapping[str, str]) -> Explanation:
        """The route of `context` with every rule that matched it.

        One fold over layers: exact override, most specific glob override, exact known context, most specific known
        glob, default. The first layer that says `provider`, `tier` or `model` wins that field; a `model` yields to a
        tier or to another provider said in a layer above it, and binds to its own layer's provider, or the one its
        name belongs to.
        """
        name = context or ""
        layers = tuple(self.layers(name, environ))
        counting = [layer for layer in layers if not layer.shadowed]
        by_provider = _first(counting, lambda entry: entry.provider)
        by_tier = _first(counting, lambda entry: entry.tier)
        by_model = _first(counting, lambda entry: entry.model)
        provider, tier = counting[by_provider].entry.provider or "", counting[by_tier].entry.tier or Tier.FLASH
        rule_sources = {"provider": counting[by_provider].where, "tier": counting[by_tier].where}
        bound = self._bound_model(counting, by_provider, by_tier, by_model)
        _refuse_malformed(counting[: 1 + (by_model if bound is not None and bound[0] else by_provider)])
        if bound is not None:
            provider, model = bound[0] or provider, bound[1]
            rule_sources["model"] = counting[by_model].where
            if counting[by_model].entry.provider or provider != counting[by_provider].entry.provider:
                rule_sources["provider"] = rule_sources["model"]
            if provider not in self.specs:
                raise UnknownProviderError(provider, self.specs, path=rule_sources["provider"])
        else:
            model, rule_sources["model"] = self._model_of(
                counting, provider, tier, environ, where=rule_sources["provider"]
            )
        deciding = {by_provider, by_tier if bound is None else by_model}
        reason = next(layer.where for i, layer in enumerate(counting) if i in deciding and not layer.declared)
        route = Route(name, provider, model, tier, reason)
        return Explanation(route, layers, rule_sources)

    def tier(self, context: str | None, environ: Mapping[str, str]) -> Tier:
        """The tier of `context` alone, whoever serves it."""
        said = (layer.entry.tier for layer in self.layers(context or "", environ) if not layer.shadowed)
        return next((tier for tier in said if tier is not None), Tier.FLASH)

    def model_at(self, provider: str, tier: int, environ: Mapping[str, str], *, where: str) -> tuple[str, str]:
        """`(model, where it comes from)` of a provider at a tier; a tier without a model falls to the more capable one.

        Raises:
            UnknownProviderError: no such provider.
            ConfigError: no model at this tier or above.
        """
        spec = self.specs.get(provider)
        if spec is None:
            raise UnknownProviderError(provider, self.specs, path=where)
        named = self.config.models.get(provider, {})
        if spec.broken and not spec.tiers:  # each call to it says why; until then it has no model to name
            return named.get(int(tier), _NO_MODEL), where
        by_env = environ.get(spec.model_env)
        for level in range(int(tier), 0, -1):
            if level in named:
                return named[level], f"providers.models[{provider!r}]['{level}']"
            if by_env:
                return by_env, spec.model_env
            if level in spec.tiers:
                return spec.tiers[level], f"{provider} tier {level}"
        raise ConfigError(
            f"providers.models[{provider!r}]",
            f"no model for tier {int(tier)} or a more capable one",
            f"a model name under '{int(tier)}' (or set {spec.model_env})",
        )

    def _model_of(
        self, layers: list[MatchedRule], provider: str, tier: int, environ: Mapping[str, str], *, where: str
    ) -> tuple[str, str]:
        """As `model_at`; a provider without any model of its own serves with the one that a layer names for it."""
        try:
            return self.model_at(provider, tier, environ, where=where)
        except UnknownProviderError:
            raise
        except ConfigError:
            for layer in layers:
                named = layer.entry.model
                if named and (layer.entry.provider or provider_of(named, self.specs)) == provider:
                    return named, layer.where
            raise

    def owner_of(self, model: str) -> str | None:
        """The provider that serves a model, told by its name."""
        return provider_of(model, self.specs)

    def _bound_model(
        self, layers: list[MatchedRule], by_provider: int, by_tier: int, by_model: int
    ) -> tuple[str | None, str] | None:
        """`(provider, model)` if an explicit model wins, else None; no provider if neither rule nor name tells it."""
        if by_model < 0 or by_tier < by_model:
            return None
        entry = layers[by_model].entry
        model = entry.model or ""
        owner = entry.provider or provider_of(model, self.specs)
        said = layers[by_provider].entry.provider or ""
        if by_provider < by_model and owner not in (None, said):
            return None
        return owner, model

    def layers(self, context: str, environ: Mapping[str, str]) -> Iterator[MatchedRule]:
        """Every rule that speaks for a context, the strongest first."""
        if context:
            yield from self._rules(context)
        switched = environ.get(PROVIDER_ENV)
        if switched:
            yield MatchedRule(PROVIDER_ENV, Entry(provider=switched))
        yield MatchedRule("providers.default", self._default)

    def _rules(self, context: str) -> Iterator[MatchedRule]:
        """What journal.json and then the known contexts say of a context that has a name."""
        overrides = self.config.contexts
        if context in overrides:
            yield MatchedRule(f"providers.contexts[{context!r}]", overrides[context])
        for rank, pattern in enumerate(self._overrides.matches(context)):
            if pattern != context:
                yield MatchedRule(f"providers.contexts[{pattern!r}]", overrides[pattern], shadowed=rank > 0)
        if context in self.contexts:
            yield MatchedRule(f"context {context!r}", Entry(tier=self.contexts[context].tier), declared=True)
        for rank, pattern in enumerate(self._known.matches(context)):
            if pattern != context:
                entry = Entry(tier=self.contexts[pattern].tier)
                yield MatchedRule(f"context {pattern!r}", entry, shadowed=rank > 0, declared=True)


def _refuse_malformed(layers: list[MatchedRule]) -> None:
    """See that none of the layers down to the deciding one leaves open who is to serve.

    Raises:
        ConfigError: one does; it is named by its path.
    """
    problem = next((layer.entry.problem for layer in layers if layer.entry.problem), None)
    if problem is not None:
        raise ConfigError(problem.path, problem.found, problem.allowed)


def _first(layers: list[MatchedRule], field: Callable[[Entry], object]) -> int:
    """The index of the first layer that says a field; -1 if none does."""
    return next((i for i, layer in enumerate(layers) if field(layer.entry) is not None), -1)
