"""A module's first sentence, read without importing it; it knows nothing of commands."""

from __future__ import annotations

import ast
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

_LONGEST = 66


def summary_of(module: str) -> str | None:
    """The first clause of a module's docstring; None where there is no readable source or no docstring."""
    spec = _find(module)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    try:
        doc = ast.get_docstring(ast.parse(Path(spec.origin).read_bytes()))
    except (OSError, SyntaxError, ValueError):
        return None
    clause = (doc or "").partition("\n")[0].partition(";")[0].rstrip(".")
    if not clause:
        return None
    clause = clause[0].lower() + clause[1:] if clause[1:2].islower() or clause[1:2] == " " else clause
    return clause if len(clause) <= _LONGEST else clause[: _LONGEST - 3].rstrip() + "..."


def _find(module: str) -> ModuleSpec | None:
    """The spec of a module, found from package to package without importing any of them."""
    path: list[str] | None = None
    name, spec = "", None
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        spec = PathFinder.find_spec(name, path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or ())
    return spec
