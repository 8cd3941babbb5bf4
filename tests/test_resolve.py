"""What callers rely on of muse.models: constants, the order of rules, tiers, reasons, and whose a model is."""

from __future__ import annotations

import pytest

from muse import models
from muse.errors import ConfigError, UnknownProviderError
from muse.journal.config_loader import load
from tests.journal_folder import ROOT, JournalFolder


def test_the_constants_that_callers_rely_on() -> None:
    assert (models.TIER_PRO, models.TIER_FLASH, models.TIER_LITE) == (1, 2, 3)
    assert (models.DEFAULT_PROVIDER, models.DEFAULT_TIER) == ("google", 2)
    constants = {
        "google": (models.GEMINI_PRO, models.GEMINI_FLASH, models.GEMINI_LITE),
        "openai": (models.GPT_5, models.GPT_5_MINI, models.GPT_5_NANO),
        "anthropic": (models.CLAUDE_OPUS_4, models.CLAUDE_SONNET_4, models.CLAUDE_HAIKU_4),
    }
    for provider, names in constants.items():
        assert models.PROVIDER_DEFAULTS[provider] == dict(zip((1, 2, 3), names, strict=True))


def test_a_journal_without_a_config_goes_to_google_at_the_contexts_tier(journal: JournalFolder) -> None:
    assert models.resolve_provider("no.such.context") == ("google", models.GEMINI_FLASH)
    assert models.resolve_provider("") == models.resolve_provider(None) == ("google", models.GEMINI_FLASH)
    assert models.resolve_provider("observe.describe.frame") == ("google", models.GEMINI_LITE)
    assert models.resolve_provider("insight.anything") == ("google", models.GEMINI_FLASH)


def test_the_order_is_exact_glob_registry_default(journal: JournalFolder) -> None:
    journal.route(
        default={"provider": "anthropic", "tier": 1},
        contexts={
            "observe.describe.frame": {"provider": "openai"},
            "observe.*": {"provider": "google", "tier": 1},
            "observe.describe.*": {"provider": "anthropic", "tier": 3},
        },
    )
    assert models.resolve_provider("observe.describe.frame") == ("openai", models.GPT_5_NANO)
    assert models.resolve_provider("observe.describe.chart") == ("anthropic", models.CLAUDE_HAIKU_4)
    assert models.resolve_provider("observe.enrich") == ("google", models.GEMINI_PRO)
    assert models.resolve_provider("detect.created") == ("anthropic", models.CLAUDE_HAIKU_4)
    assert models.resolve_provider("something.else") == ("anthropic", models.CLAUDE_OPUS_4)


def test_an_edit_counts_at_the_next_call(journal: JournalFolder) -> None:
    for turn in range(50):
        journal.route(default={"provider": "openai", "tier": turn % 3 + 1})
        assert models.resolve_provider("x")[1] == models.PROVIDER_DEFAULTS["openai"][turn % 3 + 1]


def test_a_variable_counts_at_the_next_call(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert models.resolve_provider("x")[0] == "google"
    monkeypatch.setenv("MUSE_PROVIDER", "openai")
    assert models.resolve_provider("x") == ("openai", models.GPT_5_MINI)
    monkeypatch.setenv("OPENAI_MODEL", "gpt-of-the-environment")
    assert models.resolve_provider("x") == ("openai", "gpt-of-the-environment")


def test_models_of_ones_own_stand_for_a_tier(journal: JournalFolder) -> None:
    journal.route(models={"google": {"2": "gemini-mine"}})
    assert models.resolve_provider("x") == ("google", "gemini-mine")
    assert models.resolve_model_for_provider("observe.describe.frame", "google") == models.GEMINI_LITE


@pytest.mark.parametrize(("named", "expected"), [({"1": "one"}, "one"), ({"1": "one", "2": "two"}, "two")])
def test_a_tier_without_a_model_falls_to_the_more_capable_one(
    journal: JournalFolder, named: dict[str, str], expected: str
) -> None:
    journal.route(
        compatible={"weir": {"base_url": "http://127.0.0.1:1", "models": named}},
        contexts={"x": {"provider": "weir", "tier": 3}},
    )
    assert models.resolve_provider("x") == ("weir", expected)
    assert models.resolve_model_for_provider("observe.enrich", "weir") == expected


def test_a_provider_without_a_model_says_where_to_name_one(journal: JournalFolder) -> None:
    journal.route(compatible={"weir": {"base_url": "http://127.0.0.1:1", "models": {"3": "lite"}}})
    with pytest.raises(ConfigError, match=r"providers\.models\['weir'\].*WEIR_MODEL"):
        models.resolve_model_for_provider("insight.daily", "weir")


@pytest.mark.parametrize("tier", [99, "flash", True, 0, None], ids=repr)
def test_a_tier_that_is_none_warns_and_becomes_the_default(
    journal: JournalFolder, caplog: pytest.LogCaptureFixture, tier: object
) -> None:
    journal.route(default={"provider": "google", "tier": tier}, contexts={"x": {"tier": tier}})
    assert models.resolve_provider("x") == models.resolve_provider("y") == ("google", models.GEMINI_FLASH)
    assert "providers.contexts['x'].tier" in caplog.text
    assert "providers.default.tier" in caplog.text


def test_an_unknown_provider_raises_and_names_the_valid_ones(journal: JournalFolder) -> None:
    journal.route(default={"provider": "gogle", "tier": 2}, contexts={"x": {"provider": "openai"}})
    assert models.resolve_provider("x")[0] == "openai"
    for call in (models.resolve_provider, models.route, models.explain):
        with pytest.raises(UnknownProviderError, match=r"Unknown provider: 'gogle'. Valid providers: .*google.*openai"):
            call("y")
    with pytest.raises(ValueError, match="Unknown provider"):
        models.resolve_model_for_provider("x", "gogle")


def test_a_route_carries_its_reason(journal: JournalFolder) -> None:
    journal.route(contexts={"agent.*": {"provider": "openai"}})
    assert models.route("agent.system.default").reason == "providers.contexts['agent.*']"
    assert models.route("detect.created").reason == "providers.default"
    assert models.route("no.such").reason == "providers.default"
    assert models.explain("agent.system.default").route == models.route("agent.system.default")


def test_a_model_of_the_call_takes_the_provider_it_belongs_to(journal: JournalFolder) -> None:
    for model, provider in ((models.CLAUDE_OPUS_4, "anthropic"), ("gpt-of-tomorrow", "openai"), ("nobodys", "google")):
        call = models.prepare_call("hi", "x", {"model": model})
        assert call.request.model == model
        assert [(target.model, target.provider) for target in call.chain.targets] == [(model, provider)]


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("gemini-of-tomorrow", "google"),
        ("GPT-4o", "openai"),
        ("o3-mini", "openai"),
        ("Claude-Sonnet-4-20250514", "anthropic"),
        ("", "unknown"),
        ("llama-3", "unknown"),
        ("my-gpt", "unknown"),
    ],
)
def test_a_model_tells_its_provider_by_its_beginning(model: str, provider: str) -> None:
    assert models.get_model_provider(model) == provider


def test_every_default_model_tells_its_provider() -> None:
    for provider in ("google", "openai", "anthropic"):
        assert {models.get_model_provider(name) for name in models.PROVIDER_DEFAULTS[provider].values()} == {provider}


def test_the_example_journal_routes_every_context_it_names(
    journal: JournalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_PATH", str(ROOT / "fixtures" / "journal"))
    snapshot = load()
    assert snapshot.problems == ()
    for context in [*snapshot.config.contexts, *models.get_context_registry()]:
        assert models.route(context).provider in {"google", "openai", "anthropic", "local"}
