"""Names that were renamed: each still works for one minor version, with a `DeprecationWarning`.

Entry points: `renamed_attributes` for names of a module, `RenamedModules` for whole modules.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# Modules that documentation told readers to import.
_RENAMED_MODULES: Mapping[str, str] = {
    "muse.batching.asker": "muse.batching.ray.actor",
    "muse.messages": "muse.types.messages",
    "muse.run_files": "muse.runs",
    "muse.run_files.control": "muse.runs.control",
    "muse.spec": "muse.types.provider_spec",
}


def renamed_attributes(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a `__getattr__` for `module` that serves old `names` (old to new) and warns."""

    def serve(name: str) -> Any:
        new = names.get(name)
        if new is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        _warn(f"{module}.{name}", f"{module}.{new}")
        return getattr(sys.modules[module], new)

    return serve


class RenamedModules:
    """A finder that comes after all others: it is asked only for modules that are not there."""

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        """Return a spec for an old name; its module has the names of the module that took its place."""
        if name not in _RENAMED_MODULES:
            return None
        _warn(name, _RENAMED_MODULES[name])
        return ModuleSpec(name, self, is_package=name == "muse.run_files")  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to the import system to create the module."""

    def exec_module(self, module: ModuleType) -> None:
        """Let the module look up its names in the one that took its place."""
        vars(module)["__getattr__"] = partial(getattr, import_module(_RENAMED_MODULES[module.__name__]))


def _warn(old: str, new: str) -> None:
    warnings.warn(f"{old} was renamed to {new}; the old name goes with 0.3", DeprecationWarning, stacklevel=3)
