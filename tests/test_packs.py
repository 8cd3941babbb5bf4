"""Shows that tools are found where they stand, and that one broken module does not take the others away."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from muse.agent_loop import tool_registry as packs_module
from muse.agent_loop.tool_registry import find_tool_modules, tool_modules
from tests.journal_folder import JournalFolder


def _house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modules: Mapping[str, str]) -> None:
    """Let tool modules stand in `apps/<name>/tools.py` of a house of its own, importable under a name of its own."""
    for name, text in modules.items():
        folder = tmp_path / "apps" / name
        folder.mkdir(parents=True)
        (folder / "tools.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr(packs_module, "_HOUSE", tmp_path)
    monkeypatch.setattr(packs_module, "GROUP", "muse.agent_loop.toolset.of.nobody")
    monkeypatch.setattr(packs_module, "import_module", lambda name: _module(tmp_path, name))


def _module(root: Path, name: str) -> Any:
    namespace: dict[str, Any] = {"__name__": name}
    path = root / Path(*name.split(".")).with_suffix(".py")
    exec(compile(path.read_text("utf-8"), str(path), "exec"), namespace)
    return type("Module", (), namespace)


_GOOD = """
from muse.agent_loop.tool_registry import LocalTool
def wave() -> str:
    "Wave."
    return "hello"
PACK, TOOLS = "greeting", (LocalTool(wave, "Wave", read_only=True),)
"""


def test_an_app_adds_its_tools_by_standing_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _house(tmp_path, monkeypatch, {"greeter": _GOOD, "_hidden": _GOOD.replace("greeting", "hidden")})
    assert tool_modules() == {"greeting": ("wave",)}


@pytest.mark.parametrize(
    "bad",
    ["import nothing_of_this_name", "PACK = ", "PACK = 'x'", "PACK, TOOLS = 'x', (print,)", "PACK, TOOLS = '', ()"],
)
def test_a_broken_tool_module_is_left_out_and_the_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, bad: str
) -> None:
    _house(tmp_path, monkeypatch, {"a_broken": bad, "greeter": _GOOD})
    assert tool_modules() == {"greeting": ("wave",)}
    assert "apps.a_broken.tools" in caplog.text


def test_of_two_tools_with_one_name_the_first_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _house(tmp_path, monkeypatch, {"first": _GOOD, "second": _GOOD.replace("greeting", "other")})
    assert tool_modules() == {"greeting": ("wave",)}
    assert "tool wave of apps.second.tools is left out" in caplog.text


def test_an_app_of_a_further_folder_brings_its_tools_too(
    journal: JournalFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, text in (("birds", _GOOD), ("_hidden", _GOOD), ("broken", "PACK = ")):
        (tmp_path / "more" / name).mkdir(parents=True)
        (tmp_path / "more" / name / "tools.py").write_text(text, encoding="utf-8")
    journal.write({"descriptors": {"apps": [str(tmp_path / "more")]}})
    assert tool_modules()["greeting"] == ("wave",)
    assert str(tmp_path / "more" / "broken" / "tools.py") in caplog.text
    function = next(pack for pack in find_tool_modules() if pack.name == "greeting").tools[0].function
    assert function() == "hello"
