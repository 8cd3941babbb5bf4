"""The map of the house, out of its files: each with the sentence it opens with; it imports none of them.

A folder that is a package stands for the files in it; their own sentences are one folder further down.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("muse", "think", "observe", "apps")


def rooms(house: Path, package: str) -> Iterator[tuple[str, str]]:
    """`(path below the house, what it is)` of each file and folder of a package, in order of their names."""
    for path in sorted((house / package).iterdir()):
        file = path / "__init__.py" if path.is_dir() else path
        if file.suffix == ".py" and file.is_file() and path.name not in ("__init__.py", "__main__.py"):
            yield f"{package}/{path.name}{'/' if path.is_dir() else ''}", sentence(file)


def sentence(file: Path) -> str:
    """The first line of what a Python file says about itself, without its full stop.

    Raises:
        SyntaxError: it is no Python.
        OSError: it cannot be read.
    """
    said = ast.get_docstring(ast.parse(file.read_bytes(), str(file))) or ""
    return said.partition("\n")[0].rstrip(".")
