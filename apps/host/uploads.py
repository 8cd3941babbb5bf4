"""Files that a browser sends, bounded in number, size and kind; it keeps none and knows no app."""

from __future__ import annotations

import io
import warnings

from msgspec import Struct
from PIL import Image, UnidentifiedImageError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})
MOST_FILES = 8
MOST_BYTES = 8_000_000
MOST_PIXELS = 50_000_000

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
_MOST_NAME_CHARS = 100
_MOST_FIELDS = 50


class Upload(Struct, frozen=True):
    """One file: the name it was sent under (the last part of it, cut), what it really is, and its content."""

    name: str
    media_type: str
    data: bytes


async def read_images(
    request: Request,
    field: str,
    *,
    most_files: int = MOST_FILES,
    most_bytes: int = MOST_BYTES,
) -> tuple[Upload, ...]:
    """The pictures of a form's field; what they claim to be counts for nothing, only what they are.

    The request as a whole is bounded by the app's `MOST_BODY_BYTES` while it comes in. The form's other
    fields stay readable with `request.form()`, its files are closed.

    Raises:
        HTTPException: 400 too many files, 413 a file too large, 415 not a picture of `IMAGE_TYPES`.
    """
    form = await request.form(max_files=most_files, max_fields=_MOST_FIELDS)
    files = [sent for sent in form.getlist(field) if isinstance(sent, UploadFile) and (sent.filename or sent.size)]
    try:
        return tuple([await _read(file, most_bytes) for file in files])
    finally:
        await form.close()


async def _read(file: UploadFile, most_bytes: int) -> Upload:
    name = clean_name(file.filename or "")
    if file.size is not None and file.size > most_bytes:
        raise HTTPException(413, detail=f"{name}: found {file.size:,} bytes, expected {most_bytes:,} at most")
    data = await file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise HTTPException(413, detail=f"{name}: found more than {most_bytes:,} bytes, which is the most")
    return Upload(name, _kind_of(name, data), data)


def clean_name(name: str) -> str:
    """The last part of a file's name, printable and cut.

    >>> clean_name("../../etc/" + "a" + chr(0) + "b.png"), clean_name("")
    ('ab.png', 'file')
    """
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(char for char in last if char.isprintable()).strip()[-_MOST_NAME_CHARS:] or "file"


def _kind_of(name: str, data: bytes) -> str:
    """The media type by the file's head alone: nothing is unpacked, so that a small file cannot fill the memory."""
    allowed = ", ".join(sorted(IMAGE_TYPES))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd EXIF data; how many points there are is asked below
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                kind = Image.MIME.get(image.format or "", "")
                width, height = image.size
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as exc:
        raise HTTPException(415, detail=f"{name}: found no picture that can be read, expected {allowed}") from exc
    if kind not in IMAGE_TYPES:
        raise HTTPException(415, detail=f"{name}: found {kind or 'another kind of file'}, expected {allowed}")
    if width * height > MOST_PIXELS:
        detail = f"{name}: found {width:,} x {height:,} pixels, expected {MOST_PIXELS:,} in all at most"
        raise HTTPException(413, detail=detail)
    return kind
