"""Routing: total, deterministic, free of order but for the named tie rule, and bounded whatever the globs are."""

from __future__ import annotations

import random
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from muse.journal.config import Config, Entry
from muse.routing import router as routing
from muse.routing.contexts import ContextInfo
from muse.routing.router import PatternIndex, Router
from muse.types.messages import Route
from muse.types.provider_spec import ProviderSpec, Tier

SPECS = {
    "alder": ProviderSpec(
        "alder", "Alder", "", {1: "alder-one", 2: "alder-two", 3: "alder-three"}, prefixes=("alder-",)
    ),
    "birch": ProviderSpec("birch", "Birch", "", {1: "birch-one", 2: "birch-two"}, prefixes=("birch-",)),
    "cedar": ProviderSpec("cedar", "Cedar", "", {1: "cedar-one"}, prefixes=("cedar-", "c")),
}
MODELS = ["alder-two", "alder-9", "birch-one", "cedar-one", "elsewhere"]

segment = st.sampled_from(["a", "b", "ab", "aa", "x"])
dotted = st.lists(segment, min_size=1, max_size=3).map(".".join)
glob = st.text(alphabet="ab.x*?[]!-", min_size=1, max_size=7)
patterns = dotted | dotted.map(lambda text: text + ".*") | glob
contexts = st.none() | st.just("") | dotted | glob | st.text(max_size=5)
tiers = st.sampled_from(list(Tier))
entries = st.builds(
    Entry,
    provider=st.none() | st.sampled_from(list(SPECS)),
    tier=st.none() | tiers,
    model=st.none() | st.sampled_from(MODELS),
)
overrides = st.dictionaries(patterns, entries, max_size=6)
known = st.dictionaries(patterns, tiers, max_size=5).map(
    lambda rows: {name: ContextInfo(name, tier, name, "Group", "test") for name, tier in rows.items()}
)
defaults = st.builds(Entry, provider=st.sampled_from(list(SPECS)), tier=tiers, model=st.none() | st.just("alder-9"))
tables = st.dictionaries(
    st.sampled_from(list(SPECS)), st.dictionaries(st.sampled_from([1, 2, 3]), st.just("named"), max_size=2), max_size=2
)
configs = st.builds(Config, default=defaults, contexts=overrides, models=tables)
environs = st.fixed_dictionaries(
    {}, optional={"MUSE_PROVIDER": st.sampled_from(list(SPECS)), "BIRCH_MODEL": st.just("birch-of-the-environment")}
)


# --- an implementation that tries every rule, to compare with --------------------------------------------------------


def naive_route(
    config: Config, registry: Mapping[str, ContextInfo], context: str | None, environ: Mapping[str, str]
) -> tuple[str, str, Tier]:
    """`(provider, model, tier)` by the sentences of the contract, without any index."""
    rules = [entry for _, entry in _naive_rules(config, registry, context or "", environ)]
    provider_at = next(i for i, rule in enumerate(rules) if rule.provider)
    tier_at = next(i for i, rule in enumerate(rules) if rule.tier)
    model_at = next((i for i, rule in enumerate(rules) if rule.model), None)
    provider, tier = rules[provider_at].provider, rules[tier_at].tier
    assert provider is not None
    assert tier is not None
    if model_at is not None and model_at <= tier_at:
        model = rules[model_at].model or ""
        owner = rules[model_at].provider or next((name for name in SPECS if model.startswith(f"{name}-")), None)
        if provider_at >= model_at or owner in (None, provider):
            return owner or provider, model, tier
    return provider, naive_model(config, provider, tier, environ), tier


def _naive_rules(
    config: Config, registry: Mapping[str, ContextInfo], context: str, environ: Mapping[str, str]
) -> list[tuple[str, Entry]]:
    known_tiers = {name: Entry(tier=info.tier) for name, info in registry.items()}
    rules: list[tuple[str, Entry]] = []
    for table in (dict(config.contexts), known_tiers) if context else ():
        if context in table:
            rules.append((context, table[context]))
        best = most_specific(list(table), context)
        if best is not None and best != context:
            rules.append((best, table[best]))
    if "MUSE_PROVIDER" in environ:
        rules.append(("MUSE_PROVIDER", Entry(provider=environ["MUSE_PROVIDER"])))
    return [*rules, ("default", config.default)]


def naive_model(config: Config, provider: str, tier: int, environ: Mapping[str, str]) -> str:
    """A tier without a model falls to the more capable one; `<NAME>_MODEL` stands where journal.json names none."""
    for level in range(tier, 0, -1):
        named = config.models.get(provider, {}).get(level) or environ.get(f"{provider.upper()}_MODEL")
        if named or level in SPECS[provider].tiers:
            return named or SPECS[provider].tiers[level]
    raise AssertionError("every provider of these tests has a model at tier 1")


def most_specific(table: list[str], context: str) -> str | None:
    """The glob of `table` that counts for `context`."""
    hits = [pattern for pattern in table if set(pattern) & set("*?[") and fnmatchcase(context, pattern)]
    return min(hits, key=lambda pattern: (*specificity(pattern), table.index(pattern)), default=None)


def specificity(pattern: str) -> tuple[int, int]:
    """`(-literal characters, wildcards)`, counted character by character."""
    literals = wildcards = at = 0
    while at < len(pattern):
        end = _class_end(pattern, at) if pattern[at] == "[" else -1
        if end > 0 or pattern[at] in "*?":
            wildcards += 1
        else:
            literals += 1
        at = end if end > 0 else at + 1
    return -literals, wildcards


def _class_end(pattern: str, at: int) -> int:
    """Where the class that opens at `at` is over; -1 if it never closes. `]` first in it is a member (see fnmatch)."""
    start = at + 2 if pattern[at + 1 : at + 2] == "!" else at + 1
    return pattern.find("]", start + 1 if pattern[start : start + 1] == "]" else start) + 1 or -1


def route_of(config: Config, registry: Mapping[str, ContextInfo], context: str | None, environ: Any = None) -> Route:
    return Router(config, registry, SPECS).route(context, environ or {})


# --- laws --------------------------------------------------------------------------------------------------------


@given(configs, known, contexts, environs)
@example(Config(contexts={"[!]": Entry("birch"), "[]": Entry("cedar")}), {}, "[!]", {})
@example(Config(contexts={"[]a]*": Entry("birch"), "?*": Entry("cedar")}), {}, "]b", {})
def test_every_context_has_a_route_and_it_is_the_naive_one(
    config: Config, registry: Mapping[str, ContextInfo], context: str | None, environ: Mapping[str, str]
) -> None:
    found = route_of(config, registry, context, environ)
    assert (found.provider, found.model, found.tier) == naive_route(config, registry, context, environ)
    assert found.context == (context or "")
    assert found.reason


@given(configs, known, contexts, environs)
def test_the_same_question_has_the_same_answer(
    config: Config, registry: Mapping[str, ContextInfo], context: str | None, environ: Mapping[str, str]
) -> None:
    router = Router(config, registry, SPECS)
    explained = router.explain(context, environ)
    assert explained == router.explain(context, environ) == Router(config, registry, SPECS).explain(context, environ)
    assert explained.route == router.route(context, environ)
    assert set(explained.rule_sources) == {"provider", "tier", "model"}


@given(configs, known, contexts, st.randoms(use_true_random=False))
def test_the_order_of_rules_counts_only_between_equally_specific_ones(
    config: Config, registry: Mapping[str, ContextInfo], context: str | None, chance: random.Random
) -> None:
    for table in (config.contexts, registry):
        hits = [specificity(pattern) for pattern in table if fnmatchcase(context or "", pattern)]
        assume(len(set(hits)) == len(hits))
    shuffled = Config(config.default, _shuffled(config.contexts, chance), config.models)
    before = route_of(config, registry, context)
    assert route_of(shuffled, _shuffled(registry, chance), context) == before


def _shuffled(table: Mapping[str, Any], chance: random.Random) -> dict[str, Any]:
    rows = list(table.items())
    chance.shuffle(rows)
    return dict(rows)


def test_between_equally_specific_globs_the_earlier_in_the_file_wins() -> None:
    rows = {"a.?b": Entry("birch"), "a.b?": Entry("cedar")}
    assert route_of(Config(contexts=rows), {}, "a.bb").provider == "birch"
    assert route_of(Config(contexts=dict(reversed(rows.items()))), {}, "a.bb").provider == "cedar"


@pytest.mark.parametrize(
    "table",
    [["*", "a.*"], ["a.?*", "a.*"], ["?.b.*", "a.b.*"], ["a.[b-d]?", "a.b?"], ["*.b.c", "a.b.*"]],
    ids=str,
)
def test_more_literal_characters_then_fewer_wildcards_win_over_the_place(table: list[str]) -> None:
    rows = {pattern: Entry(provider) for pattern, provider in zip(table, ("birch", "cedar"), strict=True)}
    config = Config(default=Entry("alder", Tier.FLASH), contexts=rows)
    expected = "birch" if table[0] == "*.b.c" else "cedar"
    assert route_of(config, {}, "a.bb" if "?" in table[1] else "a.b.c").provider == expected


@given(st.lists(patterns, unique=True, max_size=8), dotted | glob)
def test_a_look_up_finds_what_trying_every_glob_finds_most_specific_first(table: list[str], context: str) -> None:
    hits = [pattern for pattern in table if set(pattern) & set("*?[") and fnmatchcase(context, pattern)]
    assert list(PatternIndex(iter(table)).matches(context)) == sorted(
        hits, key=lambda pattern: (*specificity(pattern), table.index(pattern))
    )


@given(configs, known, dotted, st.sampled_from(list(SPECS)))
def test_an_override_of_the_provider_alone_keeps_the_tier(
    config: Config, registry: Mapping[str, ContextInfo], context: str, provider: str
) -> None:
    assume(context not in config.contexts)
    before = route_of(config, registry, context)
    changed = Config(config.default, {**config.contexts, context: Entry(provider)}, config.models)
    after = route_of(changed, registry, context)
    assert (after.tier, after.provider) == (before.tier, provider)


@given(configs, known, dotted, st.sampled_from(list(SPECS)), st.sampled_from(MODELS))
def test_a_model_binds_to_the_provider_of_its_own_rule(
    config: Config, registry: Mapping[str, ContextInfo], context: str, provider: str, model: str
) -> None:
    changed = Config(config.default, {**config.contexts, context: Entry(provider, model=model)}, config.models)
    found = route_of(changed, registry, context)
    assert (found.provider, found.model) == (provider, model)
    assert found.reason == f"providers.contexts[{context!r}]"


@pytest.mark.parametrize(("model", "provider"), [("birch-7", "birch"), ("cedar-7", "cedar"), ("elsewhere", "alder")])
def test_a_model_without_a_provider_goes_to_the_one_its_name_belongs_to(model: str, provider: str) -> None:
    config = Config(default=Entry("alder", Tier.FLASH), contexts={"a": Entry(model=model)})
    assert route_of(config, {}, "a").provider == provider


def test_a_model_goes_before_the_tier_of_its_own_rule() -> None:
    config = Config(default=Entry("alder", Tier.FLASH), contexts={"a": Entry(tier=Tier.LITE, model="alder-9")})
    assert route_of(config, {}, "a") == Route("a", "alder", "alder-9", Tier.LITE, "providers.contexts['a']")


def test_a_model_yields_to_a_tier_or_another_provider_above_it() -> None:
    glob = Entry("alder", model="alder-9")
    for above, expected in ((Entry(tier=Tier.LITE), "alder-three"), (Entry("birch"), "birch-two")):
        config = Config(default=Entry("cedar", Tier.FLASH), contexts={"a.*": glob, "a.b": above})
        assert route_of(config, {}, "a.b").model == expected
    same = Config(default=Entry("cedar", Tier.FLASH), contexts={"a.*": glob, "a.b": Entry("alder")})
    assert route_of(same, {}, "a.b").model == "alder-9"


def test_a_default_that_names_a_model_alone_goes_to_the_provider_of_that_model() -> None:
    found = route_of(Config(default=Entry(None, Tier.FLASH, "birch-7")), {}, "anything")
    assert (found.provider, found.model) == ("birch", "birch-7")


@pytest.mark.parametrize("context", ["", None])
def test_no_context_gets_the_default_whatever_the_globs_say(context: str | None) -> None:
    config = Config(default=Entry("alder", Tier.PRO), contexts={"*": Entry("birch"), "": Entry("cedar")})
    assert route_of(config, {}, context) == Route("", "alder", "alder-one", Tier.PRO, "providers.default")


def test_the_variable_stands_above_the_default_and_below_every_rule() -> None:
    config = Config(default=Entry("alder", Tier.FLASH), contexts={"a": Entry("cedar"), "b": Entry(tier=Tier.PRO)})
    environ = {"MUSE_PROVIDER": "birch"}
    assert [route_of(config, {}, context, environ).provider for context in ("a", "b", "c", "")] == [
        "cedar",
        "birch",
        "birch",
        "birch",
    ]


def test_an_explanation_names_the_winners_and_the_shadowed() -> None:
    registry = {"a.*": ContextInfo("a.*", Tier.LITE, "A", "G", "test")}
    config = Config(
        default=Entry("alder", Tier.FLASH), contexts={"a.b.*": Entry("birch"), "a.*": Entry("cedar", Tier.PRO)}
    )
    explained = Router(config, registry, SPECS).explain("a.b.c", {})
    assert [(layer.where, layer.shadowed) for layer in explained.layers] == [
        ("providers.contexts['a.b.*']", False),
        ("providers.contexts['a.*']", True),
        ("context 'a.*'", False),
        ("providers.default", False),
    ]
    assert explained.rule_sources["provider"] == "providers.contexts['a.b.*']"
    assert explained.rule_sources["tier"] == "context 'a.*'"
    assert explained.rule_sources["model"] == "birch tier 2"
    assert explained.route.model == "birch-two"


# --- bad input -----------------------------------------------------------------------------------------------------


HOSTILE = [
    "*a" * 400 + "*b",
    "?*" * 300 + "z",
    "[",
    "[a",
    "a[",
    "[!",
    "[]",
    "[z-a]",
    "[!z-a]",
    "*[z-a]*",
    "[[:alpha:]]",
]
HOSTILE += [
    "[a--z]",
    "[a&&b]*",
    "[a||b]*",
    "[~~]*",
    "[\\]*",
    "(a|b)*",
    "a{1,2}*",
    "^a$*",
    "\\*",
    "*\n*",
    "[^a]*",
    "\ud800*",
]


@pytest.mark.parametrize("pattern", HOSTILE, ids=ascii)
def test_a_hostile_glob_is_tried_in_bounded_work_and_as_fnmatch_means_it(pattern: str) -> None:
    for context in ("a" * 10_000, "observe.enrich", pattern, "[", "z", "\ud800"):
        found = route_of(Config(default=Entry("alder", Tier.FLASH), contexts={pattern: Entry("birch")}), {}, context)
        expected = "birch" if context == pattern or fnmatchcase(context, pattern) else "alder"
        assert found.provider == expected


def test_a_context_of_ten_kilobytes_has_a_route() -> None:
    config = Config(default=Entry("alder", Tier.FLASH), contexts={"a.*": Entry("birch"), "*.z": Entry("cedar")})
    assert route_of(config, {}, "a." + "x" * 10_000).provider == "birch"
    assert route_of(config, {}, "x" * 10_000 + ".z").provider == "cedar"
    assert route_of(config, {}, "é\n\0" * 4000).provider == "alder"


MANY = {
    "by their beginnings": ("p{}.*", "p77777.x"),
    "by their ends": ("*.p{}", "x.p77777"),
    "in the middle": ("*.p{}.*", "x.p77777.y"),
    "behind a common beginning": ("insight.?*.p{}", "insight.x.p77777"),
    "behind a class": ("[a-z].p{}?", "x.p77777y"),
}


@pytest.mark.parametrize(("form", "context"), MANY.values(), ids=MANY.keys())
def test_a_route_among_a_hundred_thousand_patterns_compiles_a_handful(form: str, context: str) -> None:
    rows = {form.format(number): Entry(tier=Tier.LITE) for number in range(100_000)}
    rows[form.format(77777)] = Entry("birch")
    router = Router(Config(default=Entry("alder", Tier.FLASH), contexts=rows), {}, SPECS)
    routing._compiled.cache_clear()
    assert router.route(context, {}).provider == "birch"
    assert router.route("quite.another", {}).provider == "alder"
    assert routing._compiled.cache_info().misses <= 10
