"""The registry of providers: what is declared, what plugs in from outside, what journal.json adds, what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from muse import models, providers, testing
from muse.errors import UnknownProviderError
from muse.providers import PROVIDER_METADATA, PROVIDER_REGISTRY, compatible
from muse.types.messages import Image
from muse.types.provider_spec import Capabilities, Tier
from tests import journal_folder
from tests.desk import CONTEXT, QUESTION, Desk
from tests.journal_folder import JournalFolder
from tests.loopback.outcomes import TEXT
from tests.provider_cases import GATEWAY, GATEWAYS

SDKS = ("openai", "anthropic", "google.genai", "xllamacpp", "mcp", "aiohttp", "httpx2")
BUILT_IN = {"google", "openai", "anthropic", "local", "echo", *compatible.ROWS}


def test_what_stands_in_the_folder_is_registered() -> None:
    assert set(PROVIDER_REGISTRY) == set(PROVIDER_METADATA) == BUILT_IN
    assert list(PROVIDER_REGISTRY)[:3] == ["google", "openai", "anthropic"]
    assert PROVIDER_METADATA["google"] == {"label": "Google (Gemini)", "env_key": "GOOGLE_API_KEY"}
    assert PROVIDER_METADATA["openai"] == {"label": "OpenAI (GPT)", "env_key": "OPENAI_API_KEY"}
    assert PROVIDER_METADATA["anthropic"] == {"label": "Anthropic (Claude)", "env_key": "ANTHROPIC_API_KEY"}


def test_the_rows_of_the_checklist_are_there() -> None:
    assert {"openrouter", "lobechat", "mindbridge", "ollama", "digitalocean", "azure"} <= set(compatible.ROWS)


def test_the_list_is_the_metadata_with_names(journal: JournalFolder) -> None:
    listed = providers.get_provider_list()
    assert listed[0] == {"name": "google", "label": "Google (Gemini)", "env_key": "GOOGLE_API_KEY"}
    assert {row["name"]: {"label": row["label"], "env_key": row["env_key"]} for row in listed} == PROVIDER_METADATA


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_module_has_the_seeds_three_functions(name: str, journal: JournalFolder) -> None:
    module = providers.get_provider_module(name)
    assert module.__all__ == ["generate", "agenerate", "run_agent"]
    assert all(callable(vars(module)[function]) for function in module.__all__)
    assert providers.get_provider_module(name) is module
    assert providers.backend_of(name).spec.name == name


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_provider_declares_what_it_can(name: str) -> None:
    spec = providers.specs()[name]
    assert isinstance(spec.capabilities, Capabilities)
    assert {"streaming", "system_prompt", "message_history"} <= set(spec.capabilities.names())
    assert set(spec.tiers) <= set(Tier)
    assert spec.model_env == f"{name.upper()}_MODEL"
    family = spec.profile(spec.tiers.get(2, "any-model"))
    assert family.images == spec.capabilities.vision
    assert family.files == spec.capabilities.files


def test_unknown_names_are_told_the_valid_ones(journal: JournalFolder) -> None:
    with pytest.raises(ValueError, match=r"Unknown provider: 'x'\. Valid providers: anthropic, .*openai") as caught:
        providers.get_provider_module("x")
    assert isinstance(caught.value, UnknownProviderError)
    journal.route(contexts={"a.b": {"provider": "nowhere"}})
    with pytest.raises(ValueError, match=r"Unknown provider: 'nowhere'.*providers\.contexts\['a\.b'\]"):
        models.generate("Hello", "a.b")


_NO_SDK = """
import json, sys
from muse import models, providers
known = {name: spec.capabilities.names() for name, spec in providers.specs().items()}
modules = [providers.get_provider_module(name) for name in known]
models.resolve_provider("insight.daily")
print(json.dumps([known, sorted(set(sys.modules) & set(json.loads(sys.argv[1])))]))
"""


def test_capabilities_and_routes_are_known_without_any_sdk(journal: JournalFolder) -> None:
    known, loaded = json.loads(journal_folder.run(_NO_SDK, json.dumps(SDKS)))
    assert set(known) == BUILT_IN
    assert "vision" in known["google"]
    assert loaded == []


def test_a_missing_sdk_is_said_with_the_way_to_get_it(desk: Desk) -> None:
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name == "anthropic":
            raise ModuleNotFoundError("No module named 'anthropic'", name="anthropic")
sys.meta_path.insert(0, Refuse())
from muse import models
try:
    models.generate("Hello", "a.b", model="claude-haiku-4-5", api_key="sk-of-no-one")
except ValueError as error:
    print(error)
"""
    assert "pip install 'muse-router[anthropic]'" in journal_folder.run(code)
    assert desk.last_line()["error"]["class"] == "UnavailableError"


def test_a_module_in_sys_modules_is_honoured(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    own = ModuleType("muse.providers.openai")
    own.generate = lambda contents, model, **_: f"{model}: {contents}"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "muse.providers.openai", own)
    assert providers.get_provider_module("openai") is own
    journal.route(default={"provider": "openai", "model": "gpt-mine"})
    assert models.generate("Hello", "a.b") == "gpt-mine: Hello"


# journal.json's own endpoints


def test_an_endpoint_in_journal_json_is_a_provider_until_it_is_taken_out(desk: Desk) -> None:
    case = GATEWAYS[-1]
    desk.use(case)
    row = {"name": GATEWAY, "label": GATEWAY, "env_key": case.key_env}
    assert row in providers.get_provider_list()
    assert models.resolve_provider("a.b") == (GATEWAY, case.model)
    assert models.generate(QUESTION, CONTEXT) == TEXT
    desk.journal.route(default={"provider": "echo"})
    assert row not in providers.get_provider_list()
    with pytest.raises(ValueError, match=f"Unknown provider: '{GATEWAY}'"):
        providers.get_provider_module(GATEWAY)


def test_an_edited_endpoint_counts_from_the_next_call_on(desk: Desk) -> None:
    case = GATEWAYS[-1]
    desk.use(case)
    models.generate(QUESTION, CONTEXT)
    section = case.providers(desk.server.url)
    section["compatible"][GATEWAY] |= {"base_url": f"{desk.server.url}/elsewhere/v1", "models": {"2": "dyke-9b"}}
    section["default"] = {"provider": GATEWAY}
    desk.journal.write({"providers": section})
    models.generate(QUESTION, CONTEXT)
    assert [request.path for request in desk.server.requests] == [
        "/v1/chat/completions",
        "/elsewhere/v1/chat/completions",
    ]
    assert [request.body["model"] for request in desk.server.requests] == ["dyke-7b", "dyke-9b"]


def test_an_endpoint_without_a_key_entry_needs_none(desk: Desk) -> None:
    row = {"base_url": f"{desk.server.url}/v1", "models": {"2": "dyke-7b"}}
    desk.journal.route(default={"provider": GATEWAY}, compatible={GATEWAY: row})
    assert models.generate(QUESTION, CONTEXT) == TEXT


# Plug-ins: real packages with real metadata


_PLUGIN = '''
"""A provider of the seed's form, three functions and nothing else."""

seen = []

def generate(contents, model, **options):
    seen.append((contents, model, options))
    return f"{model} says: {contents if isinstance(contents, str) else len(contents)}"

async def agenerate(contents, model, **options):
    return generate(contents, model, **options)

async def run_agent(config, on_event=None):
    return generate(config["prompt"], config["model"])
'''


@pytest.fixture
def plugin(tmp_path: Path, journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An installed package that registers the provider `seagull`."""
    site = tmp_path / "site"
    info = site / "seagull_provider-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "seagull_provider.py").write_text(_PLUGIN, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: seagull-provider\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[muse.providers]\nseagull = seagull_provider\n", encoding="utf-8")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr("muse.providers._plugins", {})
    monkeypatch.setattr("muse.providers._merged", None)
    monkeypatch.delitem(sys.modules, "seagull_provider", raising=False)
    journal.route(default={"provider": "seagull", "model": "gull-1"})
    assert models.resolve_provider("a.b") == ("seagull", "gull-1"), "found without being asked for"
    return providers.get_provider_module("seagull")


def test_a_plain_module_registers_by_one_line_of_metadata(plugin: ModuleType, journal: JournalFolder) -> None:
    assert {"name": "seagull", "label": "seagull"}.items() <= providers.get_provider_list()[-1].items()
    assert models.generate("Hello", "a.b", temperature=0.9, flavour="salt") == "gull-1 says: Hello"
    contents, model, options = plugin.seen[-1]
    assert (contents, model, options["context"], options["temperature"]) == ("Hello", "gull-1", "a.b", 0.9)
    assert options["flavour"] == "salt"


def test_a_plain_module_gets_pictures_as_bytes_and_gives_whole_replies(plugin: ModuleType) -> None:
    png = b"\x89PNG\r\n\x1a\n0000"
    reply = models.reply(["Look.", Image(png, "image/png")], "a.b", system_instruction="Be short.")
    assert plugin.seen[-1][0] == ["Look.", png]
    assert plugin.seen[-1][2]["system_instruction"] == "Be short."
    assert (reply.text, reply.provider, reply.model, reply.finish) == ("gull-1 says: 2", "seagull", "gull-1", "stop")
    assert reply.usage.estimated
    assert reply.route is not None


async def test_a_plain_module_streams_in_one_piece(plugin: ModuleType) -> None:
    with models.stream("Hello", "a.b") as stream:
        assert list(stream) == ["gull-1 says: Hello"]
        assert stream.reply.provider == "seagull"
    async with await models.astream("Hello", "a.b") as astream:
        assert [piece async for piece in astream] == ["gull-1 says: Hello"]
    assert await models.agenerate("Hello", "a.b") == "gull-1 says: Hello"


def test_muse_runs_a_plugin_from_another_folder(plugin: ModuleType, tmp_path: Path) -> None:
    environment = journal_folder.environment(PYTHONPATH=f"{journal_folder.ROOT}:{tmp_path / 'site'}")
    code = "from muse import models; print(models.generate('Hello', 'a.b'))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "gull-1 says: Hello\n"


def test_the_scripted_provider_is_one_to_route_to(journal: JournalFolder) -> None:
    journal.route(contexts={"a.*": {"provider": "echo"}})
    with testing.script("Moin."):
        assert models.generate("Hello", "a.b") == "Moin."
    assert models.generate("Hello", "a.b") == "Hello"
