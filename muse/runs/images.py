"""The pictures of a run's prompt: files of the journal that its request names; it sends nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from muse.journal import paths
from muse.types.content import detect_media_type
from muse.types.errors import ConfigError
from muse.types.exif_orientation import rotate_upright
from muse.types.messages import Image, Part


def read_pictures(names: Sequence[str]) -> tuple[Image, ...]:
    """The pictures at these paths below the journal folder.

    Raises:
        ConfigError: a path leads elsewhere, or to no file.
        ContentsError: a file is no picture.
    """
    return tuple(_read(name) for name in names)


def recall_pictures(names: Sequence[str], *, sees: bool) -> tuple[Part, ...]:
    """The pictures of an earlier prompt; a note stands for one that is gone, and for each if the model sees none."""
    return tuple(_recall(str(name), sees=sees) for name in names)


def _recall(name: str, *, sees: bool) -> Part:
    note = f"[picture {Path(name).name}]"
    if not sees:
        return note
    try:
        return _read(name)
    except ValueError:  # as ConfigError and ContentsError are
        return note


def _read(name: str) -> Image:
    home = paths.journal_path().resolve()
    try:
        path = (home / name).resolve()
        data = path.read_bytes() if path.is_relative_to(home) else None
    except (OSError, ValueError) as exc:
        raise ConfigError("images", f"{name!r}, which cannot be read", "a picture below the journal folder") from exc
    if data is None:
        raise ConfigError("images", f"{name!r}, outside of the journal", "a picture below the journal folder")
    media_type = detect_media_type(data, where=name)
    if not media_type.startswith("image/"):
        raise ConfigError("images", f"{name!r}, of the type {media_type}", "PNG, JPEG, GIF or WebP")
    return rotate_upright(Image(data, media_type))
