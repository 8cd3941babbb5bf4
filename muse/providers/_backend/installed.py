"""Providers of installed packages: entry points of the group `muse.providers`, found without an import.

Entry point: `find`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from muse.journal.entry_points import find_entry_points
from muse.providers._backend.loader import LoadedProvider, ProviderSource, load, refused
from muse.types.errors import PluginError
from muse.types.provider_names import normalize_name

GROUP = "muse.providers"


class Plugin(Struct, frozen=True, eq=False):
    """One entry point: the provider's name, its package and version, its target, and the function that imports it."""

    name: str
    package: str
    version: str
    target: str
    import_it: Callable[[], Any]

    @property
    def source(self) -> ProviderSource:
        """Return the origin of the plug-in's code, for error messages."""
        remedy = f"Update or remove that package (pip uninstall {self.package}), or route to another provider"
        return ProviderSource(self.name, self.package, self.version, self.target, remedy)

    def loaded(self) -> LoadedProvider:
        """Import the plug-in; if that fails, return a refused provider."""
        return load(self.source, self.import_it)


_found: tuple[tuple[str, ...], Mapping[str, tuple[Plugin, ...]]] | None = None


def find(*, at_once: bool = False) -> Mapping[str, tuple[Plugin, ...]]:
    """Return the plug-ins by folded name; one name has several plug-ins if several packages claim it.

    The search runs once for each value of `sys.path`, and again if `at_once`.
    """
    global _found
    path = tuple(sys.path)
    if _found is None or _found[0] != path or at_once:
        plugins: dict[str, tuple[Plugin, ...]] = {}
        for plugin in sorted(_installed(), key=lambda plugin: (plugin.name, plugin.package)):
            key = normalize_name(plugin.name)
            plugins[key] = (*plugins.get(key, ()), plugin)
        if _found is None or _found[0] != path or _targets(_found[1]) != _targets(plugins):
            _found = (path, plugins)
    return _found[1]


def _targets(plugins: Mapping[str, tuple[Plugin, ...]]) -> list[tuple[str, str, str, str]]:
    return [(one.name, one.package, one.version, one.target) for row in plugins.values() for one in row]


def _installed() -> list[Plugin]:
    found = {}
    for point in find_entry_points(GROUP):
        try:
            package, version = (point.dist.name, point.dist.version) if point.dist else ("an unknown package", "")
        except Exception as exc:  # noqa: BLE001 - the parser of unreadable metadata may raise anything
            package, version = f"a package with unreadable metadata ({exc})", ""
        plugin = Plugin(point.name, package or "an unnamed package", version or "", point.value, point.load)
        found[(plugin.name, plugin.package, plugin.target)] = plugin
    return list(found.values())


def clash(plugin: Plugin, reason: str) -> PluginError:
    """Return the error for a plug-in whose name is already taken."""
    remedy = f"Remove that package (pip uninstall {plugin.package}), or rename the entry point in it"
    return PluginError(plugin.name, plugin.package, plugin.version, reason, remedy)


def both_refused(plugins: tuple[Plugin, ...]) -> LoadedProvider:
    """Return the refused provider for a name that several packages claim."""
    first = plugins[0]
    packages = " and ".join(f"{plugin.package} {plugin.version}".strip() for plugin in plugins)
    return refused(first.name, clash(first, f"{packages} bring a provider of this name"))
