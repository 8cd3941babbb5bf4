"""Paths of the journal: its folder, the journal.json in force, and the folders of days.

Entry points: `journal_path`, `config_path`, `day_path`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from muse.journal.storage.atomic_files import home_folder, make_folder

_KEPT_FOLDERS = 32
_LOOK_AGAIN_S = 1.0

_nearest: dict[str, tuple[str, float]] = {}


def journal_path() -> Path:
    """Return the journal folder: `$JOURNAL_PATH`, or `journal/` beside the nearest journal.json, or the data folder."""
    return Path(journal_name())


def journal_name() -> str:
    """Return `journal_path` as text, for code that runs at every call."""
    named = _named()
    if named:
        return named
    near = _nearest_config()
    if near:
        return os.path.join(os.path.dirname(near), "journal")
    data_home = os.environ.get("XDG_DATA_HOME", "")
    if not os.path.isabs(data_home):  # a relative one would be taken from the working folder: a stranger's, maybe
        data_home = os.path.join(home_folder(), ".local", "share")
    return os.path.join(data_home, "muse", "journal")


def config_path() -> str:
    """Return the path of the journal.json in force.

    That is `$JOURNAL_PATH/config/journal.json`; without `JOURNAL_PATH` the nearest journal.json from the working folder
    upwards.
    """
    named = _named()
    if named:
        return os.path.join(named, "config", "journal.json")
    return _nearest_config() or os.path.join(journal_name(), "config", "journal.json")


def is_project(path: str) -> bool:
    """Return True if a journal.json, or a file in its folder, belongs to a project and not to the user's configuration.

    A project's is the nearest one from the working folder upwards. Files of `$JOURNAL_PATH` and of the data folder are
    the user's own.
    """
    return not _named() and os.path.dirname(path) == os.path.dirname(_nearest_config() or os.sep)


def working_folder() -> str:
    """Return the working folder; the root if it was deleted while the process runs."""
    try:
        return os.getcwd()
    except OSError:
        return os.path.abspath(os.sep)


def day_path(day: str | None = None) -> Path:
    """Return the folder of a day `YYYYMMDD` (today if None); it is created if it is missing.

    Raises:
        ValueError: `day` is not of the form YYYYMMDD.
    """
    name = day if day is not None else time.strftime("%Y%m%d")
    if not is_day(name):
        raise ValueError(f"day: found {day!r}, expected a date of the form YYYYMMDD, such as 20261103")
    path = journal_path() / name
    make_folder(path)
    return path


def is_day(name: str) -> bool:
    """Return True if `name` is a real date of the form YYYYMMDD."""
    if len(name) != 8 or not (name.isascii() and name.isdigit()):
        return False
    try:
        time.strptime(name, "%Y%m%d")
    except ValueError:
        return False
    return True


def _named() -> str | None:
    """Return `$JOURNAL_PATH`; a relative value is taken from the working folder."""
    named = os.environ.get("JOURNAL_PATH")
    return named if not named or os.path.isabs(named) else os.path.abspath(named)


def _nearest_config() -> str | None:
    """Return the nearest journal.json from the working folder upwards, looked up at most once a second."""
    here = working_folder()
    known = _nearest.get(here)
    now = time.monotonic()
    if known is not None and now < known[1]:
        return known[0] or None
    found = ""
    place = here
    while not found:
        candidate = os.path.join(place, "journal.json")
        if os.path.isfile(candidate):
            found = candidate
        above = os.path.dirname(place)
        if above == place:
            break
        place = above
    if len(_nearest) >= _KEPT_FOLDERS:
        _nearest.clear()
    _nearest[here] = (found, now + _LOOK_AGAIN_S)
    return found or None
