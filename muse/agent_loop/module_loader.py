"""Code outside of packages: modules out of files, the nearest Makefile, and which consent a project's code needs."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from glob import glob
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

from muse.journal.trust.consent import digest_of
from muse.types.trust_claim import Claim

_MAKEFILES = ("GNUmakefile", "makefile", "Makefile")  # in the order in which make looks for them
_MOST_FILES = 5_000
# A line of a Makefile that includes files; make joins lines that end with a backslash, which is done before.
_INCLUDE = re.compile(r"^ *(?:include|-include|sinclude)\s+([^#\n]+)", re.MULTILINE)
_PARTS_OF_MAKEFILES = (".mk", ".mak", ".make")


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
    """Return the claim of a Makefile out of which a persona lets an agent run targets, with the files it includes."""
    does = "is read by make, which runs the commands it names with $(shell ...), to find the targets of a persona"
    return Claim(str(path.parent), path.name, does, digest_of(_digests_of(path)))


def _digests_of(makefile: Path) -> dict[str, str]:
    """Return the digests of a Makefile and of what it includes, by path; names with wildcards are looked for.

    Where a name has a variable in it, every file of the folder that is named like a part of a Makefile is taken.

    Raises:
        OSError: a file cannot be read, or there are too many to be looked through.
    """
    digests: dict[str, str] = {}
    waiting = [makefile]
    while waiting:
        path = waiting.pop()
        if str(path) in digests or not path.is_file():
            continue
        if len(digests) >= _MOST_FILES:
            raise OSError(f"{makefile} includes more than the {_MOST_FILES} files that are looked through")
        content = path.read_bytes()
        digests[str(path)] = digest_of(content)
        text = content.decode("utf-8", errors="replace").replace("\\\n", " ")
        waiting += [found for line in _INCLUDE.findall(text) for found in _included(line, makefile.parent)]
    return digests


def _included(line: str, folder: Path) -> Iterator[Path]:
    """Yield the files that the words of an `include` line may name; make takes them from `folder`."""
    if "$" in line:
        yield from (path for path in _tree(folder) if path.suffix in _PARTS_OF_MAKEFILES or path.name in _MAKEFILES)
    for word in line.split():
        if "$" not in word and "\0" not in word:
            yield from (Path(found) for found in glob(os.path.join(folder, os.path.expanduser(word))))


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
    yield from sorted(path for path in _tree(app) if "__pycache__" not in path.parts or _counts_unchecked(path))


def _tree(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, also through links to folders, each folder once.

    Raises:
        OSError: there are so many that they cannot be looked through.
    """
    seen: set[str] = set()
    count = 0
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for name in names:
            count += 1
            if count > _MOST_FILES:
                raise OSError(f"{folder} holds more than the {_MOST_FILES} files that are looked through")
            if (path := Path(place, name)).is_file():
                yield path


def _counts_unchecked(path: Path) -> bool:
    """Whether compiled code in a cache is run whatever the source beside it says: its header names no time."""
    if path.suffix != ".pyc":
        return False
    with path.open("rb") as file:
        return file.read(8)[4:] != bytes(4)
