"""Whether files of a folder lie in it once links are followed, so that none outside of a journal is read by way of one.

A hard link cannot be told from the file itself: who can make one in the journal has the right to read the file already.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from muse.types.errors import ConfigError

log = logging.getLogger(__name__)

LEADS_OUT = "a link that leads out of the project"
IN_PROJECT = "a file in the project: copy it there"

_told: set[str] = set()
_MOST_TOLD = 1_000


def is_inside(path: str | os.PathLike[str], home: str | os.PathLike[str]) -> bool:
    """Return whether `path`, which begins with `home`, stays in it when links are followed.

    `home` itself may be a link. Costs one `lstat` for each part of the path below `home`; only a link costs more.
    """
    place, root = os.fspath(path), os.fspath(home).rstrip(os.sep)
    if not place.startswith(f"{root}{os.sep}") or os.pardir in place[len(root) :].split(os.sep):
        return _resolves_inside(place, root)
    while len(place) > len(root):
        if os.path.islink(place):
            return _resolves_inside(os.fspath(path), root)
        place = os.path.dirname(place)
    return True


def inside(paths: Iterable[Path], home: Path) -> Iterator[Path]:
    """Yield those of `paths` that stay in `home`; one warning names each that does not."""
    for path in paths:
        if is_inside(path, home):
            yield path
        else:
            warn_escaping_link(path)


def warn_escaping_link(path: str | os.PathLike[str]) -> None:
    """Log, once in a process, that a link is not followed."""
    name = os.fspath(path)
    if name not in _told and len(_told) < _MOST_TOLD:
        _told.add(name)
        log.warning("%s leads out of the journal and is not read; to have it read, copy the file there", name)


def escapes_folder(path: str | os.PathLike[str], project: str) -> bool:
    """Return whether a file that `project` names is a link out of it, to what its author could not have copied there.

    A file in a folder elsewhere that the project names is none. Without a project nothing leads out.
    """
    place = os.fspath(path)
    return bool(project) and not is_inside(place, os.path.dirname(place)) and not _resolves_inside(place, project)


def require_within(path: str | os.PathLike[str], project: str) -> None:
    """Refuse to read a file of `project` that is a link out of it.

    Raises:
        ConfigError: it is one.
    """
    if escapes_folder(path, project):
        raise ConfigError(os.fspath(path), LEADS_OUT, IN_PROJECT)


def _resolves_inside(path: str, root: str) -> bool:
    real, home = os.path.realpath(path), os.path.realpath(root)
    return real == home or real.startswith(home.rstrip(os.sep) + os.sep)
