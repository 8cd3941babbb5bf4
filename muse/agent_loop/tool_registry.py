"""The tools there are, in packs, found where they stand and by entry point; it knows no MCP and no tool by name.

A tool module has `PACK` (the name of its pack) and `TOOLS` (a tuple of `LocalTool`). It stands beside this package, as
`think/tools.py` or `apps/<app>/tools.py`, or as `<app>/tools.py` in a folder of apps that journal.json names; or
another package names it in the entry point group `muse.agent_loop.toolset`.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from msgspec import Struct

from muse.agent_loop.module_loader import code_claim, module_of
from muse.journal import config_loader
from muse.journal.entry_points import find_entry_points
from muse.journal.trust.consent import TrustError, is_trusted
from muse.types.errors import ConfigError

log = logging.getLogger(__name__)

GROUP = "muse.agent_loop.toolset"

_HOUSE = Path(__file__).resolve().parent.parent.parent
_PLACES = ("think/tools.py", "apps/[!_.]*/tools.py")
# What importing a broken module raises; such a module is left out with a warning, and the others are offered.
_BROKEN = (ImportError, SyntaxError, AttributeError, NameError, TypeError, ValueError, LookupError, OSError)


class LocalTool(Struct, frozen=True):
    """A function that a model may call; its name, signature and docstring are what the model gets to read.

    `destructive` and `idempotent` say of a tool that changes something whether it can lose something, and whether
    calling it again changes nothing more.
    """

    function: Callable[..., Any]
    title: str
    read_only: bool = False
    destructive: bool = False
    idempotent: bool = False

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__

    @property
    def description(self) -> str:
        """The function's docstring."""
        return inspect.getdoc(self.function) or ""


class ToolModule(Struct, frozen=True):
    """Tools that are named together."""

    name: str
    tools: tuple[LocalTool, ...]


def tool_modules() -> Mapping[str, tuple[str, ...]]:
    """The names of the tools of each pack."""
    return MappingProxyType({pack.name: tuple(tool.name for tool in pack.tools) for pack in find_tool_modules()})


def find_tool_modules() -> tuple[ToolModule, ...]:
    """Every pack there is, in order of its name; of two tools with one name the first stays."""
    found: dict[str, list[LocalTool]] = {}
    owners: dict[str, str] = {}
    for name, importing in _modules().items():
        module = _load(name, importing)
        if module is None:
            continue
        pack, tools = module
        for tool in tools:
            owner = owners.setdefault(tool.name, name)
            if owner == name:
                found.setdefault(pack, []).append(tool)
            else:
                log.warning("tool %s of %s is left out: %s has one of that name", tool.name, name, owner)
    return tuple(ToolModule(name, tuple(tools)) for name, tools in sorted(found.items()))


def _modules() -> Mapping[str, Callable[[], ModuleType]]:
    """How to import each tool module, by its name: those beside this package first, which need no installation."""
    standing = (path for place in _PLACES for path in sorted(_HOUSE.glob(place)))
    names = [".".join(path.relative_to(_HOUSE).with_suffix("").parts) for path in standing]
    names += sorted(point.module for point in find_entry_points(GROUP))
    return {name: partial(_named, name) for name in names} | {
        str(path): partial(module_of, path, f"muse_app_{path.parent.name}.tools") for path in _further()
    }


def _named(name: str) -> ModuleType:
    return import_module(name)


def _further() -> Iterator[Path]:
    """The tool modules of the apps in folders that journal.json names; none while that file cannot be read."""
    try:
        snapshot = config_loader.load()
    except ConfigError as exc:
        log.warning("%s; tools of further folders are left out", exc)
        return
    project = snapshot.config.descriptors.project
    for folder in snapshot.config.descriptors.apps:
        for path in sorted(Path(os.path.dirname(snapshot.path), folder).glob("[!_.]*/tools.py")):
            if project and not is_trusted(claim := code_claim(path.parent, project)):
                log.warning("%s; its tools are left out", TrustError(claim))
            else:
                yield path


def _load(name: str, importing: Callable[[], ModuleType]) -> tuple[str, tuple[LocalTool, ...]] | None:
    """`(pack, tools)` of a module; None, with a warning, if it has none."""
    try:
        module = importing()
        pack, tools = module.PACK, tuple(module.TOOLS)
    except _BROKEN as exc:
        log.warning("tools of %s are left out: it cannot be loaded (%s: %s)", name, type(exc).__name__, exc)
        return None
    bad = next((tool for tool in tools if not isinstance(tool, LocalTool)), None)
    if not isinstance(pack, str) or not pack or bad is not None:
        log.warning("%s: found PACK %r and a tool %r, expected a name and LocalTool values", name, pack, bad)
        return None
    return pack, tools
