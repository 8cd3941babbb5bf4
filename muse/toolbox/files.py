"""Code outside of packages: modules out of files, the nearest Makefile, and which consent a project's code needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

from muse.claim import Claim
from muse.trust import digest_of

_MAKEFILES = ("GNUmakefile", "makefile", "Makefile")  # in the order in which make looks for them
_MOST_FILES = 5_000


class _SourceLoader(SourceFileLoader):
    """Loads the source and never a `__pycache__` beside it, which could hold other code than what was read."""

    def get_code(self, fullname: str) -> CodeType | None:  # noqa: ARG002 - the signature is importlib's
        """Compile the file."""
        return self.source_to_code(self.get_data(self.path), self.path)


def module_of(path: Path, name: str) -> ModuleType:
    """The module of a file, under a name of the caller's; the file is run once in a process.

    Raises:
        ImportError: it is no Python file; else what running it raises.
    """
    known = sys.modules.get(name)
    if known is not None and known.__file__ == str(path):
        return known
    spec = spec_from_file_location(name, path, loader=_SourceLoader(name, str(path)))
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python module")
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def nearest_makefile(folder: Path) -> Path | None:
    """Return the Makefile that make would find in `folder`, else the nearest one above it."""
    places = (place / name for place in (folder, *folder.parents) for name in _MAKEFILES)
    return next((path for path in places if path.is_file()), None)


def makefile_claim(path: Path) -> Claim:
    """Return the claim of a Makefile out of which a project's persona lets an agent run targets."""
    does = "is read by make, which runs the commands it names with $(shell ...), to find the targets of a persona"
    return Claim(str(path.parent), path.name, does, digest_of(path.read_bytes()))


def code_claim(app: Path, project: str) -> Claim:
    """Return the claim of an app's folder in a project: its tools.py, routes.py and pages are run as code."""
    parts = [name for name in ("tools.py", "routes.py", "workspace.html") if (app / name).is_file()]
    inside = os.path.relpath(app, project)
    place = str(app) if inside.startswith(os.pardir) else inside
    digests = {str(path.relative_to(app)): digest_of(path.read_bytes()) for path in _files_of(app)}
    return Claim(project, place, f"is run as code ({', '.join(parts)})", digest_of(digests))


def _files_of(app: Path) -> Iterator[Path]:
    """Yield the files of an app that decide what it does, caches of compiled code left out.

    Raises:
        OSError: there are so many that they cannot be looked through.
    """
    found = sorted(path for path in app.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    if len(found) > _MOST_FILES:
        raise OSError(f"{app} holds {len(found)} files, more than the {_MOST_FILES} that are looked through")
    yield from found
