"""Copies scripts for pages out of the packages that carry them, when muse is built or installed; no page runs it."""

from __future__ import annotations

import shutil
from importlib.metadata import files
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("apps/host/static/vendor")

# What lies in FOLDER, and the package and file that it is taken from. chart.js is a bundle, and its parts want their
# licences beside them; that of htmx (0BSD) asks for nothing.
_PARTS = ("chart.js", "chartjs-adapter-date-fns", "date-fns", "kurkle-color")
TAKEN = {
    "chart.js": ("chartkick", "chartkick/django/static/chartkick/Chart.bundle.js"),
    "htmx.min.js": ("django-htmx", "django_htmx/static/django_htmx/htmx-2.min.js"),
    **{f"LICENSE-{part}.txt": ("chartkick", f"chartkick/licenses/LICENSE-{part}.txt") for part in _PARTS},
}


class Scripts(BuildHookInterface[Any]):
    """The build's hook."""

    def initialize(self, _version: str, _build_data: dict[str, Any]) -> None:
        """Copy every script; a missing package ends the build with its name.

        Raises:
            FileNotFoundError: a package does not carry the script.
        """
        folder = Path(self.root) / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        for name, (package, path) in TAKEN.items():
            found = next((file for file in files(package) or () if str(file) == path), None)
            if found is None:
                raise FileNotFoundError(f"{package} has no file {path}: choose another version of it in pyproject.toml")
            shutil.copyfile(str(found.locate()), folder / name)
