"""Providers of installed packages: when they are loaded, whom they may serve, and what a name that is taken does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from muse import agents, cli, models, providers
from muse.errors import ConfigError, PluginError, ProviderError, UnknownProviderError
from muse.routing.fallbacks import FallbackChain
from tests.desk import Desk
from tests.journal_folder import JournalFolder
from tests.plugin_packages import BROKEN, DECLARED, GOOD, install, install_broken, site
from tests.provider_cases import FAMILY

__all__ = ["site"]  # a fixture
HELLO = "seagull-1 says: Hello"


def _declared(folder: Path, name: str = "seagull", **options: Any) -> None:
    install(folder, name, DECLARED.format(name=name) + GOOD.replace("{name}", name), **options)


def _ladder(context: str) -> FallbackChain:
    return models.fallback_chain(context)


@pytest.mark.parametrize("way", BROKEN)
async def test_every_call_to_a_broken_plugin_says_what_is_wrong(journal: JournalFolder, site: Path, way: str) -> None:
    words = install_broken(site, way)
    journal.route(default={"provider": "echo"}, contexts={"a.b": {"provider": "seagull"}})
    for _ in range(2):
        with pytest.raises(PluginError) as caught:
            models.generate("Hello", "a.b")
        error = caught.value
        assert (error.name, error.package, error.version) == ("seagull", "seagull-provider", "1.0")
        assert words in error.reason
        assert "pip uninstall seagull-provider" in error.remedy
        for part in (error.name, error.package, error.version, error.reason, error.remedy):
            assert part in str(error)
    with pytest.raises(PluginError):
        await models.agenerate("Hello", "a.b")
    with pytest.raises(PluginError):
        models.stream("Hello", "a.b")
    with pytest.raises(PluginError):
        await models.astream("Hello", "a.b")
    with pytest.raises(PluginError):
        models.generate_object("Hello", "a.b", {"type": "object"})
    module = providers.get_provider_module("seagull")
    assert module.__all__ == ["generate", "agenerate", "run_agent"]
    with pytest.raises(PluginError):
        module.generate("Hello", "seagull-1")
    with pytest.raises(PluginError):
        await module.agenerate("Hello", "seagull-1")
    events: list[dict[str, Any]] = []
    assert not await agents.run({"prompt": "Hello", "provider": "seagull", "disable_mcp": True}, events.append)
    assert [event["event"] for event in events] == ["error"]
    assert words in events[0]["error"]
    assert models.generate("Hello", "c.d") == "Hello", "all other contexts go on"
    assert isinstance(providers.problem_of("seagull"), PluginError)


@pytest.mark.parametrize("line", ["seagull", "[", "seagull = not a target!", "= x", "seagull ="])
def test_a_malformed_list_of_entry_points_costs_its_package_alone(
    journal: JournalFolder, site: Path, line: str
) -> None:
    install(site, "heron")
    install(site, "gull", package="aaa-gull")
    (site / "aaa_gull-1.0.dist-info" / "entry_points.txt").write_text(f"[muse.providers]\n{line}\n", encoding="utf-8")
    journal.route(default={"provider": "heron", "model": "heron-1"})
    assert models.generate("Hello", "a.b") == "heron-1 says: Hello"
    assert "heron" in {row["name"] for row in providers.get_provider_list()}
    assert cli.main(["--help"]) == cli.main(["providers"]) == 0


def test_a_package_without_metadata_costs_itself_alone(journal: JournalFolder, site: Path) -> None:
    install(site, "heron")
    install_broken(site, "raises")
    (site / "seagull_provider-1.0.dist-info" / "METADATA").unlink()
    journal.route(default={"provider": "heron", "model": "heron-1"}, contexts={"c.*": {"provider": "seagull"}})
    assert models.generate("Hello", "a.b") == "heron-1 says: Hello"
    with pytest.raises(PluginError):
        models.generate("Hello", "c.d")


def test_a_broken_plugin_is_imported_once(journal: JournalFolder, site: Path, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    seen.write_text("")
    count = f"from pathlib import Path\nseen = Path({str(seen)!r})\nseen.write_text(seen.read_text() + '.')\n"
    install(site, "seagull", count + "raise ValueError")
    journal.route(default={"provider": "seagull", "model": "x"})
    for _ in range(3):
        with pytest.raises(PluginError):
            models.generate("Hello", "a.b")
    assert seen.read_text() == "."


def test_a_broken_plugin_gives_way_to_a_fallback(journal: JournalFolder, site: Path) -> None:
    install_broken(site, "raises")
    journal.route(contexts={"a.*": {"provider": "seagull", "fallbacks": ["echo"]}})
    assert models.reply("Hello", "a.b").provider == "echo"


@pytest.mark.parametrize(
    "section",
    [
        {"contexts": {"a.b": {"provider": "seagull", "model": "seagull-1"}}},
        {"contexts": {"a.*": {"model": "seagull-1"}}},
        {"contexts": {"a.*": {"model": "wing-1"}}},
        {"default": {"model": "seagull-1"}},
        {"default": {"provider": "seagull", "model": "seagull-1"}},
        {"contexts": {"a.*": {"provider": "google", "fallbacks": ["seagull"]}}},
        {"contexts": {"a.*": {"provider": "google", "fallbacks": [{"model": "seagull-1"}]}}},
        {"contexts": {"a.*": {"provider": "google", "fallbacks": [{"provider": "seagull", "tier": 1}]}}},
        {"default": {"provider": "echo", "fallbacks": ["seagull"]}},
    ],
)
def test_a_plugin_that_journal_json_names_is_loaded(journal: JournalFolder, site: Path, section: Any) -> None:
    _declared(site)
    journal.route(**section)
    assert "seagull" in {target.provider for target in _ladder("a.b").targets}


def test_a_fallback_to_a_plugin_is_used(journal: JournalFolder, site: Path) -> None:
    _declared(site)
    journal.route(contexts={"a.*": {"provider": "google", "retries": 0, "fallbacks": ["seagull"]}})
    assert models.generate("Hello", "a.b") == HELLO


@pytest.mark.parametrize("says", [{"allow": ["seagull"]}, {"allow": ["seagull", "echo"]}])
def test_a_plugin_that_a_bound_names_is_known(journal: JournalFolder, site: Path, says: dict[str, Any]) -> None:
    _declared(site)
    journal.route(
        default={"provider": "google"}, contexts={"a.*": says}, limits=[{"provider": "seagull", "in_flight": 1}]
    )
    assert "seagull" in providers.specs()
    with pytest.raises(ConfigError, match="routed to google"):
        models.generate("Hello", "a.b")


@pytest.mark.parametrize("model", ["seagull-1", "wing-7"])
def test_a_models_name_leads_to_the_plugin_whose_prefix_it_has(journal: JournalFolder, site: Path, model: str) -> None:
    _declared(site)
    journal.route(default={"provider": "google"})
    assert models.get_model_provider(model) == "seagull"
    assert models.generate("Hello", "a.b", model=model) == f"{model} says: Hello"
    assert models.resolve("a.b", model=model).provider == "seagull"


@pytest.mark.parametrize("model", ["wing-7", "WING-7"])
def test_a_model_that_two_plugins_claim_alike_goes_to_neither(journal: JournalFolder, site: Path, model: str) -> None:
    _declared(site, "seagull")
    _declared(site, "heron")
    journal.route(default={"provider": "echo"}, contexts={"c.*": {"model": model}})
    for ask in (lambda: models.generate("Hello", "a.b", model=model), lambda: models.generate("Hello", "c.d")):
        with pytest.raises(UnknownProviderError, match="'heron or seagull'"):
            ask()
    assert models.get_model_provider("heron-1") == "heron"
    assert models.generate("Hello", "a.b", model="seagull-2") == "seagull-2 says: Hello"


@pytest.mark.parametrize(
    ("body", "words"),
    [("raise SystemExit(3)", "SystemExit 3"), ("return None", "gave NoneType"), ("return 5", "gave int")],
)
async def test_what_a_plugin_does_at_a_call_costs_that_call_alone(
    journal: JournalFolder, site: Path, body: str, words: str
) -> None:
    functions = "def generate(contents, model, **o):\n    {0}\nasync def agenerate(contents, model, **o):\n    {0}\n"
    install(site, "seagull", functions.format(body) + "async def run_agent(config, on_event=None):\n    exit(3)\n")
    journal.route(default={"provider": "echo"}, contexts={"a.*": {"provider": "seagull", "model": "g", "retries": 0}})
    with pytest.raises(ProviderError, match=words):
        models.generate("Hello", "a.b")
    with pytest.raises(ProviderError, match=words):
        await models.agenerate("Hello", "a.b")
    events: list[dict[str, Any]] = []
    asked = {"prompt": "Hello", "provider": "seagull", "model": "g", "disable_mcp": True}
    assert not await agents.run(asked, events.append)
    assert "SystemExit 3" in events[-1]["error"]
    assert models.generate("Hello", "c.d") == "Hello"


def test_a_switch_in_the_environment_loads_a_plugin(
    journal: JournalFolder, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _declared(site)
    journal.route(default={"provider": "echo"})
    assert models.resolve_provider("a.b")[0] == "echo"
    monkeypatch.setenv("MUSE_PROVIDER", "seagull")
    assert models.resolve_provider("a.b") == ("seagull", "seagull-1")
    monkeypatch.setenv("MUSE_PROVIDER", "nobody")
    with pytest.raises(UnknownProviderError, match="MUSE_PROVIDER"):
        models.resolve_provider("a.b")


@pytest.mark.parametrize("name", ["openai", "OpenAI", "OPENAI"])
def test_a_plugin_named_like_a_builtin_serves_nobody_and_neither_does_the_builtin(
    desk: Desk, site: Path, name: str
) -> None:
    install(site, name, package="lookalike")
    desk.use(FAMILY[0])
    with pytest.raises(PluginError, match=r"lookalike 1\.0") as caught:
        models.generate("Hello", "a.b")
    assert "the name of a built-in provider" in caught.value.reason
    assert "pip uninstall lookalike" in caught.value.remedy
    with pytest.raises(PluginError):
        models.generate("Hello", "a.b", model="gpt-5-mini")
    assert desk.server.requests == []


def test_two_plugins_of_one_name_are_both_refused(journal: JournalFolder, site: Path) -> None:
    _declared(site, package="one-gull")
    _declared(site, package="other-gull")
    journal.route(default={"provider": "seagull", "model": "x"})
    with pytest.raises(PluginError, match=r"one-gull 1\.0 and other-gull 1\.0"):
        models.generate("Hello", "a.b")


def test_a_plugin_named_like_a_row_of_journal_json_is_refused_with_it(desk: Desk, site: Path) -> None:
    _declared(site, "harbour")
    row = {"base_url": f"{desk.server.url}/v1", "models": {"2": "dyke-7b"}}
    desk.journal.route(default={"provider": "harbour"}, compatible={"harbour": row})
    with pytest.raises(PluginError, match="an endpoint in journal"):
        models.generate("Hello", "a.b")
    assert desk.server.requests == []


def test_a_plugin_takes_no_model_that_a_builtin_claims(journal: JournalFolder, site: Path) -> None:
    code = (
        DECLARED.format(name="seagull")
        .replace('"wing-"', '"gpt-6-luna-", "claude-"')
        .replace('"seagull-1"}', '"gpt-6-luna"}')
    )
    install(site, "seagull", code + GOOD.replace("{name}", "seagull"))
    journal.route(default={"provider": "seagull"})
    assert models.resolve_provider("a.b") == ("seagull", "gpt-6-luna"), "it is asked for by name"
    assert models.get_model_provider("gpt-6-luna") == models.get_model_provider("gpt-6-luna-2") == "openai"
    assert models.get_model_provider("claude-x") == "anthropic"
