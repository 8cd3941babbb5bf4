"""Installed packages that bring providers, written to a folder of a test: good ones, and broken ones of every kind."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

GOOD = """
def generate(contents, model, **options):
    return f"{model} says: {contents}"

async def agenerate(contents, model, **options):
    return generate(contents, model, **options)

async def run_agent(config, on_event=None):
    text = generate(config["prompt"], config["model"])
    on_event({"event": "start", "prompt": config["prompt"], "model": config["model"], "provider": "{name}"})
    on_event({"event": "finish", "result": text})
    return text
"""
DECLARED = (
    "from muse.types.provider_spec import ProviderSpec\n"
    'SPEC = ProviderSpec("{name}", "A {name}", "", {{1: "{name}-1"}}, prefixes=("{name}-", "wing-"),'
    " key_required=False)\n"
)
_SPEC = "from muse.types.provider_spec import ProviderSpec\n"

BROKEN: Mapping[str, tuple[str | None, str]] = {
    "raises": ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
    "exits": ("import sys\nsys.exit(3)", "SystemExit 3"),
    "syntax": ("def generate(:\n", "SyntaxError"),
    "missing": ("import a_package_that_is_not_installed", "No module named 'a_package_that_is_not_installed'"),
    "circular": ("import {module}_too", "circular import"),
    "bare": ("NOTHING = True", "no function generate"),
    "partial": ("def generate(contents, model, **options):\n    return 'x'", "no function agenerate"),
    "nowhere": (None, "No module named"),
    "attribute": ("def __getattr__(name):\n    raise OSError('no disk')", "OSError: no disk"),
    "interrupts": ("class Stop(BaseException): ...\nraise Stop('now')", "Stop: now"),
    "misnamed": (
        _SPEC + "SPEC = ProviderSpec('openai', 'O', '', {{1: 'x'}})" + GOOD.replace("{", "{{").replace("}", "}}"),
        "named 'openai'",
    ),
    "misdeclared": (
        _SPEC + "SPEC = ProviderSpec('{name}', 'O', '', tiers=None)" + GOOD.replace("{", "{{").replace("}", "}}"),
        "ValidationError",
    ),
    "speechless": ("class Odd(Exception):\n    def __str__(self): raise ValueError\nraise Odd", "Odd"),
}
"""What the module of a broken plug-in holds (None: there is no module), and what its error says."""


def install(
    site: Path, name: str, code: str | None = None, *, package: str | None = None, target: str | None = None
) -> None:
    """Write an installed package that brings the provider `name`; `code` is its module (a good one if left out)."""
    package = package or f"{name.strip().lower()}-provider"
    module = package.replace("-", "_")
    info = site / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (site / f"{module}.py").write_text(GOOD.replace("{name}", name) if code is None else code, encoding="utf-8")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[muse.providers]\n{name} = {target or module}\n", encoding="utf-8")


def install_broken(site: Path, way: str, name: str = "seagull") -> str:
    """Write an installed package that is broken in one way; what its error says."""
    code, words = BROKEN[way]
    module = f"{name}_provider"
    whole = (code or "").format(name=name, module=module)
    install(site, name, whole)
    if code is None:
        (site / f"{module}.py").unlink()
    if way == "circular":
        (site / f"{module}_too.py").write_text(f"from {module} import generate", encoding="utf-8")
    return words


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on `sys.path` for packages; what was imported from it is forgotten at the end."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr("muse.providers._plugins", {})
    monkeypatch.setattr("muse.providers._merged", None)
    monkeypatch.setattr("muse.providers._wants_all", False)
    for name in [name for name in sys.modules if name.endswith(("_provider", "_provider_too"))]:
        monkeypatch.delitem(sys.modules, name)
    return folder
