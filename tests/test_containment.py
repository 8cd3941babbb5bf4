"""One broken plug-in or provider file takes nothing else down: each command, each page and other context works."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import BaseRoute, Mount, Route

from apps.agents.queries import list_personas
from apps.host.app_factory import make_site
from muse import cli
from tests.journal_folder import ROOT, JournalFolder, run
from tests.pages import client
from tests.plugin_packages import BROKEN, install, install_broken, site

__all__ = ["site"]  # a fixture
ROUTED: dict[str, Any] = {
    "default": {"provider": "echo"},
    "contexts": {
        "insight.*": {"provider": "seagull"},
        "observe.*": {"model": "seagull-1"},
        "app.*": {"fallbacks": ["seagull"], "allow": ["echo", "seagull"]},
    },
    "models": {"seagull": {"1": "seagull-large"}},
    "limits": [{"provider": "seagull", "in_flight": 1}],
}
# Each command with the exit status it has although a provider is broken; 1 is for those that say so.
COMMANDS: tuple[tuple[tuple[str, ...], int], ...] = (
    (("--help",), 0),
    (("route", "app.chat.title"), 0),
    (("route", "agent.system.default", "--explain", "--json"), 0),
    (("route", "insight.daily"), 1),
    (("route", "insight.daily", "--explain"), 1),
    (("route", "insight.daily", "--explain", "--json"), 1),
    (("routes",), 1),
    (("routes", "--json"), 1),
    (("check",), 1),
    (("check", "--json"), 1),
    (("providers",), 0),
    (("providers", "--json"), 0),
    (("providers", "--test", "echo"), 0),
    (("providers", "--test", "seagull"), 1),
    (("usage",), 0),
    (("whatif", "--set", "app.*=tier:1"), 0),
    (("whatif", "--set", "app.*=provider:seagull"), 0),
    (("agents",), 0),
    (("agent", "default", "Hello", "--no-tools"), 0),
    (("agent", "default", "Hello", "--dry-run"), 0),
    (("agent", "default", "Hello", "--no-tools", "--provider", "seagull"), 1),
    (("runs",), 0),
    (("run",), 0),
    (("batch", "list"), 0),
    (("local",), 0),
    (("docs", "--check"), 0),
)
# Those whose answer names what is broken, wherever they list or route it.
SAID_BY = (("route", "insight.daily"), ("routes",), ("check",), ("providers",), ("providers", "--test", "seagull"))
FURTHER = ("insight", "plan", "daily", "describe", "enrich", "detect", "summarize", "serve", "cortex")


@pytest.mark.parametrize("way", BROKEN)
def test_every_command_works_beside_a_broken_plugin(
    journal: JournalFolder, site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    words = install_broken(site, way)
    journal.route(**ROUTED)
    monkeypatch.chdir(ROOT)
    for command, status in (*COMMANDS, *(((name, "--help"), 0) for name in FURTHER)):
        found = cli.main(command)
        out, err = capsys.readouterr()
        assert found == status, (command, out, err)
        assert "Traceback" not in out + err
        if command in SAID_BY:
            said = " ".join((out + err).split())
            assert words in said, (command, said)
            assert "seagull-provider" in said
        if "--json" in command:
            json.loads(out)


def test_lists_of_contexts_and_personas_show_a_broken_provider_beside_its_route(
    journal: JournalFolder, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = install_broken(site, "raises")
    entry = {"provider": "seagull", "model": "gull-1"}
    journal.route(default={"provider": "echo"}, contexts={"agent.system.librarian": entry, "insight.*": entry})
    assert cli.main(["routes", "--json"]) == 1
    rows = {row["context"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["insight.*"].items() >= entry.items()
    assert words in rows["insight.*"]["problem"]
    assert "problem" not in rows["detect.created"]
    assert cli.main(["routes"]) == 1
    assert "insight.*: seagull gull-1: " in " ".join(capsys.readouterr().out.split())
    assert cli.main(["agents", "--json"]) == 0
    personas = {row["persona"]: row for row in json.loads(capsys.readouterr().out)}
    assert words in personas["librarian"]["problem"]
    assert personas["default"]["problem"] == ""
    assert cli.main(["agents"]) == 0
    assert words in " ".join(capsys.readouterr().out.split())
    assert words in next(row for row in list_personas() if row.name == "librarian").problem


def _pages(routes: list[BaseRoute], above: str = "") -> Iterator[str]:
    """Every address that needs nothing filled in."""
    for route in routes:
        if isinstance(route, Mount) and "{" not in route.path:
            yield from _pages(list(route.routes), above + route.path)
        elif isinstance(route, Route) and "{" not in route.path and "GET" in (route.methods or ()):
            yield above + route.path


@pytest.mark.parametrize("way", BROKEN)
def test_every_page_works_beside_a_broken_plugin(journal: JournalFolder, site: Path, way: str) -> None:
    words = install_broken(site, way)
    journal.route(**ROUTED)
    found = make_site()
    pages = client(journal, site=found)
    seen = {address: pages.get(address) for address in sorted(set(_pages(found.routes)))}
    assert len(seen) > 15
    failed = {address: answer.status_code for address, answer in seen.items() if answer.status_code >= 500}
    assert failed == {}
    settings = unescape(seen["/app/settings/"].text)
    assert "cannot be used" in settings
    assert words in settings
    listed = seen["/app/settings/api/providers"].json()
    assert "seagull" in {row["name"] for row in listed["providers"]}
    assert listed["api_keys"]["seagull"] is False
    test = pages.post("/app/settings/provider/seagull/test", headers={"HX-Request": "true"})
    assert test.status_code < 500


ODD: dict[str, dict[str, Any]] = {
    "malformed default": {"default": {"provider": 5}},
    "unknown default": {"default": {"provider": "nobody", "model": "x"}},
    "no default": {"default": ["openai"]},
    "row like a built-in": {"default": {"provider": "openai"}, "compatible": {"openai": {"base_url": "http://x/v1"}}},
    "malformed row": {"default": {"provider": "harbour"}, "compatible": {"harbour": {"base_url": 7}}},
    "malformed entries": {"default": {"provider": "echo"}, "contexts": {"*": {"provider": []}, "insight.*": "x"}},
}


@pytest.mark.parametrize("name", ODD)
def test_commands_and_pages_work_beside_what_leaves_open_who_serves(
    journal: JournalFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    journal.route(**ODD[name])
    monkeypatch.chdir(ROOT)
    for command, _ in COMMANDS:
        assert cli.main(command) in (0, 1, 2), command
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
    found = make_site()
    pages = client(journal, site=found)
    for address in sorted(set(_pages(found.routes))):
        assert pages.get(address).status_code < 500, address


# Files in muse/providers


PLAIN = '''
"""A provider as the guide has it: three functions, and what they need of muse at the top."""

import os
import time
import traceback

from muse.agents import JSONEventCallback, parse_agent_events_to_turns
from muse.models import log_token_usage
from think.utils import create_mcp_client

__all__ = ["generate", "agenerate", "run_agent"]


def generate(contents, model, temperature=0.3, max_output_tokens=8192 * 2, system_instruction=None, json_output=False,
             thinking_budget=None, timeout_s=None, context=None, **kwargs):
    if not os.getenv("ACME_API_KEY"):
        raise ValueError("ACME_API_KEY not found in environment")
    text = f"{model} says: {contents}"
    log_token_usage(model=model, usage={"input_tokens": 2, "output_tokens": 3, "total_tokens": 5}, context=context)
    return text


async def agenerate(contents, model, **options):
    return generate(contents, model, **options)


async def run_agent(config, on_event=None):
    callback = JSONEventCallback(on_event)
    callback.emit({"event": "start", "prompt": config["prompt"], "model": config["model"], "provider": "acme"})
    text = generate(config["prompt"], config["model"])
    callback.emit({"event": "finish", "result": text, "usage": {}})
    return text
'''
_TRY = """
import asyncio, json, sys
from muse import agents, cli, models, providers
found = {}
for name in json.loads(sys.argv[1]):
    try:
        found[name] = models.generate("Hello", f"a.{name}")
    except Exception as error:
        found[name] = [type(error).__name__, str(error)]
events = []
asyncio.run(agents.run({"prompt": "Hi", "provider": sys.argv[2], "model": "m-1", "disable_mcp": True}, events.append))
found["events"] = [event["event"] for event in events]
found["listed"] = [row["name"] for row in providers.get_provider_list()]
found["defaults"] = sorted(models.PROVIDER_DEFAULTS)
print("RESULT" + json.dumps(found), flush=True)
for command in (["routes"], ["check"], ["providers"], ["agents"]):
    assert cli.main(command) in (0, 1)
"""


def _tree(tmp_path: Path, files: dict[str, str]) -> Path:
    """A checkout of its own with further or other files in muse/providers."""
    tree = tmp_path / "tree"
    shutil.copytree(ROOT / "muse", tree / "muse", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("think", "observe", "apps"):
        (tree / name).symlink_to(ROOT / name)
    for name, code in files.items():
        (tree / "muse" / "providers" / f"{name}.py").write_text(code, encoding="utf-8")
    return tree


def _tried(tree: Path, names: list[str], provider: str, **changes: str) -> dict[str, Any]:
    out = run(_TRY, json.dumps(names), provider, PYTHONPATH=str(tree), PYTHONWARNINGS="default", **changes)
    line = next(line for line in out.splitlines() if line.startswith("RESULT"))
    found: dict[str, Any] = json.loads(line.removeprefix("RESULT"))
    return found


def test_a_plain_module_of_the_seed_is_a_provider_by_standing_in_the_folder(
    journal: JournalFolder, tmp_path: Path
) -> None:
    tree = _tree(tmp_path, {"acme": PLAIN})
    contexts = {"a.acme": {"provider": "acme", "model": "acme-9"}, "a.named": {"model": "acme-7"}}
    journal.route(default={"provider": "echo"}, contexts=contexts)
    found = _tried(tree, ["acme", "named", "other"], "acme", ACME_API_KEY="k")
    assert found["acme"] == "acme-9 says: Hello"
    assert found["named"] == "acme-7 says: Hello"
    assert found["other"] == "Hello"
    assert found["events"] == ["start", "finish"]
    assert "acme" in found["listed"]
    assert "acme" not in found["defaults"], "it has no tiers"
    logged = [line for line in journal.lines() if line["model"] == "acme-9"]
    assert [line["usage"]["total_tokens"] for line in logged] == [5]
    assert _tried(tree, ["acme"], "acme")["acme"] == ["ValueError", "ACME_API_KEY not found in environment"]


def test_broken_files_beside_the_shipped_ones_are_contained(journal: JournalFolder, tmp_path: Path) -> None:
    names = {way: f"gull_{way}" for way in BROKEN if way not in ("nowhere", "circular")}
    files = {name: (BROKEN[way][0] or "").format(name=name, module=name) for way, name in names.items()}
    files["gull_circular"] = "from muse.providers import gull_circular_too"
    files["gull_circular_too"] = "from muse.providers.gull_circular import nothing"
    names["circular"] = "gull_circular"
    journal.route(
        default={"provider": "echo"},
        contexts={f"a.{name}": {"provider": name, "model": "m"} for name in names.values()},
    )
    found = _tried(_tree(tmp_path, files), [*names.values(), "fine"], "gull_raises")
    assert found["fine"] == "Hello"
    for way, name in names.items():
        kind, text = found[name]
        assert kind == "PluginError", (way, text)
        assert f"muse/providers/{name}.py" in text
        assert BROKEN[way][1] in text
    assert found["events"] == ["error"]
    assert set(names.values()) <= set(found["listed"])


@pytest.mark.parametrize("way", ["raises", "exits", "syntax", "bare", "missing"])
def test_a_broken_shipped_file_costs_its_own_provider_alone(journal: JournalFolder, tmp_path: Path, way: str) -> None:
    code = (BROKEN[way][0] or "").format(name="google", module="google")
    tree = _tree(tmp_path, {"google": code, "local": code})
    journal.route(
        default={"provider": "echo"},
        contexts={"a.google": {"provider": "google", "tier": 2}, "a.model": {"model": "gemini-3.8-flash"}},
    )
    found = _tried(tree, ["google", "model", "fine"], "google")
    assert found["fine"] == "Hello"
    for name in ("google", "model"):
        assert found[name][0] == "PluginError", found[name]
        assert "muse/providers/google.py" in found[name][1]
    assert {"google", "local"} <= set(found["listed"])


def test_a_good_plugin_works_beside_broken_ones(
    journal: JournalFolder, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for way in BROKEN:
        install_broken(site, way, f"gull{way}")
    install(site, "heron")
    journal.route(default={"provider": "echo"}, contexts={"agent.*": {"provider": "heron", "model": "heron-1"}})
    assert cli.main(["agent", "default", "Hello", "--no-tools"]) == 0
    assert capsys.readouterr().out == "heron-1 says: Hello\n"
    assert cli.main(["providers", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert {name for name, row in rows.items() if "problem" in row} == {f"gull{way}" for way in BROKEN}
