"""Pictures that come with a message: seen to be whole, kept beside the conversation; it sends none to a model."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from apps.host.uploads import Upload
from muse.errors import MuseError
from muse.journal.storage.atomic_files import make_folder

MOST_PICTURES = 4
MOST_BYTES = 10_000_000
ENDINGS = {"image/png": "png", "image/jpeg": "jpg", "image/gif": "gif", "image/webp": "webp"}


class PictureError(MuseError, ValueError):
    """A picture cannot go with a message; the text says what would be right."""


def require_whole(pictures: Sequence[Upload]) -> None:
    """Unpack each picture once, as a broken one would stand in the way of every later turn.

    Raises:
        PictureError: one cannot be unpacked to its end.
    """
    for picture in pictures:
        try:
            with Image.open(io.BytesIO(picture.data)) as image:
                image.load()
        except (OSError, SyntaxError, ValueError) as exc:
            raise PictureError(f"{picture.name}: found only a part of a picture ({exc}), expected a whole one") from exc


def keep(pictures: Sequence[Upload], folder: Path, stem: str) -> tuple[str, ...]:
    """Write pictures into a folder, mode 0600; the names of the files.

    Raises:
        OSError: they cannot be written.
    """
    names = []
    for number, picture in enumerate(pictures, 1):
        make_folder(folder)
        name = f"{stem}-{number}.{ENDINGS[picture.media_type]}"
        handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(picture.data)
        names.append(name)
    return tuple(names)
