"""What is put into the registry's dictionaries at run time counts from the next call on, until it is taken out."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest

from muse import models, providers
from muse.errors import UnknownProviderError
from muse.models import CONTEXT_DEFAULTS, PROVIDER_DEFAULTS
from muse.providers import PROVIDER_METADATA, PROVIDER_REGISTRY
from tests.journal_folder import JournalFolder

ACME = {1: "acme-large", 2: "acme-medium", 3: "acme-small"}


@pytest.fixture
def acme(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module with the seed's three functions, registered as the guide says."""
    module = ModuleType("acme_module")
    module.generate = lambda contents, model, **_: f"{model}: {contents}"  # type: ignore[attr-defined]

    async def agenerate(contents: Any, model: str, **_: Any) -> str:
        return f"{model}: {contents}"

    module.agenerate = module.run_agent = agenerate  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "acme_module", module)
    monkeypatch.setitem(PROVIDER_REGISTRY, "acme", "acme_module")
    monkeypatch.setitem(PROVIDER_DEFAULTS, "acme", dict(ACME))
    monkeypatch.setitem(PROVIDER_METADATA, "acme", {"label": "Acme", "env_key": "ACME_API_KEY"})
    return module


async def test_a_provider_registered_at_run_time_is_one_like_any_other(
    acme: ModuleType, journal: JournalFolder
) -> None:
    journal.route(default={"provider": "acme"}, contexts={"c.*": {"tier": 3}})
    assert models.resolve_provider("a.b") == ("acme", "acme-medium")
    assert models.resolve_provider("c.d") == ("acme", "acme-small")
    assert models.resolve_model_for_provider("a.b", "acme", tier=1) == "acme-large"
    assert models.get_model_provider("acme-large") == "acme"
    assert models.generate("Hello", "a.b") == await models.agenerate("Hello", "a.b") == "acme-medium: Hello"
    assert providers.get_provider_module("acme") is acme
    assert {"name": "acme", "label": "Acme", "env_key": "ACME_API_KEY"} in providers.get_provider_list()
    assert (providers.specs()["acme"].label, providers.specs()["acme"].env_key) == ("Acme", "ACME_API_KEY")


def test_it_is_unknown_before_and_after(journal: JournalFolder, acme: ModuleType) -> None:
    journal.route(default={"provider": "acme"})
    assert models.resolve_provider("a.b")[0] == "acme"
    del PROVIDER_REGISTRY["acme"]
    for _ in range(2):
        with pytest.raises(UnknownProviderError, match="'acme'"):
            models.resolve_provider("a.b")
    PROVIDER_REGISTRY["acme"] = "acme_module"
    assert models.resolve_provider("a.b")[0] == "acme"


def test_models_of_a_built_in_provider_are_replaced_and_come_back(journal: JournalFolder) -> None:
    journal.route(default={"provider": "google", "tier": 1})
    before = models.resolve_provider("a.b")
    with patch.dict(PROVIDER_DEFAULTS, {"google": {1: "gemini-next", 2: "b", 3: "c"}}):
        assert models.resolve_provider("a.b") == ("google", "gemini-next")
        PROVIDER_DEFAULTS["google"][1] = "gemini-after-next"
        assert models.resolve_provider("a.b") == ("google", "gemini-after-next")
    assert models.resolve_provider("a.b") == before
    with patch.dict(PROVIDER_DEFAULTS, {"ollama": {2: "llama"}}):
        assert models.resolve_model_for_provider("a.b", "ollama", tier=3) == "llama"
    with pytest.raises(ValueError, match="no model for tier"):
        models.resolve_model_for_provider("a.b", "ollama", tier=3)


def test_defaults_list_only_providers_with_tiers_each_complete() -> None:
    assert set(PROVIDER_DEFAULTS) == {"google", "openai", "anthropic", "echo", "local", "openrouter"}
    assert all(set(tiers) == {1, 2, 3} and all(tiers.values()) for tiers in PROVIDER_DEFAULTS.values())


def test_contexts_put_in_at_run_time_count(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.route(default={"provider": "openai"})
    assert models.route("tides.turn").tier == 2
    monkeypatch.setitem(CONTEXT_DEFAULTS, "tides.*", {"tier": 1, "label": "Tides", "group": "Sea"})
    assert models.resolve_provider("tides.turn") == ("openai", models.GPT_5)
    assert models.get_context_registry()["tides.*"] == {"tier": 1, "label": "Tides", "group": "Sea"}
    CONTEXT_DEFAULTS["tides.*"]["tier"] = 3
    assert models.resolve_provider("tides.turn") == ("openai", models.GPT_5_NANO)
    monkeypatch.delitem(CONTEXT_DEFAULTS, "tides.*")
    assert models.route("tides.turn").tier == 2
    monkeypatch.setitem(CONTEXT_DEFAULTS, "observe.enrich", {"tier": 1, "label": "Enrich", "group": "Observe"})
    assert models.route("observe.enrich").tier == 1


@pytest.mark.parametrize("row", [None, "tier 1", {"tier": 99}, {"tier": "flash", "label": 7}, {}])
def test_a_context_row_that_is_none_costs_itself_alone(
    journal: JournalFolder, monkeypatch: pytest.MonkeyPatch, row: Any
) -> None:
    monkeypatch.setitem(CONTEXT_DEFAULTS, "tides.*", row)
    assert models.route("tides.turn").tier == 2
    assert models.route("observe.describe.frame").tier == 3


def test_a_registered_module_that_is_broken_is_contained(
    journal: JournalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROVIDER_REGISTRY, "acme", "a_module_that_is_not_there")
    journal.route(default={"provider": "echo"}, contexts={"a.*": {"provider": "acme"}})
    assert models.generate("Hello", "b.c") == "Hello"
    with pytest.raises(ValueError, match=r"'acme'.*a_module_that_is_not_there"):
        models.generate("Hello", "a.b")
