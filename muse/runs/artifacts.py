"""Where a run's result is kept besides its log: a file in a day's folder, written whole; it knows no run."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

from muse.journal import paths
from muse.journal.storage import atomic_files
from muse.types.errors import ConfigError


def artifact_path(save: str, day: str | None = None) -> Path:
    """The file `save` of a day's folder (today if None); nothing is made yet.

    Raises:
        ConfigError: the day is none, or the file would lie outside of the day's folder.
    """
    folder = _folder_of(day)
    parts = PurePosixPath(save).parts
    is_plain = bool(parts) and ".." not in parts and "\0" not in save and not save.endswith("/")
    if not is_plain or PurePosixPath(save).is_absolute() or PureWindowsPath(save).anchor:
        raise ConfigError("save", repr(save), "a file name in the day's folder, such as 'insights/review.md'")
    path = folder / save
    if not path.resolve().is_relative_to(folder.resolve()):  # through a symbolic link
        raise ConfigError("save", f"{save!r}, which leads to {path.resolve()}", f"a file below {folder}")
    return path


def save_artifact(text: str, path: Path) -> None:
    """Write a result to its place, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    atomic_files.make_folder(path.parent)
    atomic_files.write_atomic(path, text if text.endswith("\n") else text + "\n")


def _folder_of(day: str | None) -> Path:
    try:
        return paths.journal_path() / day if day and paths.is_day(day) else paths.day_path(day)
    except ValueError as exc:
        raise ConfigError("day", repr(day), "a date of the form YYYYMMDD, such as 20261103") from exc
