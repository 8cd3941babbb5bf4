"""Turn pictures upright by their EXIF orientation, which models do not look at; others keep their bytes."""

from __future__ import annotations

import io
import warnings
from typing import Any

from msgspec.structs import replace

from muse.types.messages import Image

# What stands in a picture that may have an orientation; only such a picture is opened at all.
_MARKS = {
    "image/jpeg": (b"Exif\0\0", b"tiff:Orientation"),
    "image/png": (b"eXIf", b"Raw profile type exif", b"Raw profile type APP1", b"tiff:Orientation"),
    "image/webp": (b"EXIF", b"tiff:Orientation"),
}
_ORIENTATION = 0x0112
_TURNED = range(2, 9)
_JPEG_QUALITY = 95


def rotate_upright(image: Image) -> Image:
    """Return a picture as its orientation (2 to 8) wants it seen; the same one if it has none, or cannot be opened.

    A turned picture is encoded anew in its own format, without metadata but with its colour profile. Animations are
    left as they are; of a photograph with a preview or a depth map beside it (MPO), the photograph is taken.
    """
    marks = _MARKS.get(image.media_type, ())
    if not any(mark in image.data for mark in marks):
        return image
    from PIL import Image as Pictures  # 30 ms, and only a picture with metadata pays it

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata that is not whole
            data = _turned_data(image.data)
    except (OSError, ValueError, SyntaxError, Pictures.DecompressionBombError):
        return image  # the provider will say what is wrong with it
    return image if data is None else replace(image, data=data)


def _turned_data(data: bytes) -> bytes | None:
    """Return a picture encoded anew as its orientation wants it; None if it is upright or an animation."""
    from PIL import Image as Pictures  # as above

    with Pictures.open(io.BytesIO(data)) as picture:
        is_animation = getattr(picture, "n_frames", 1) > 1 and picture.format != "MPO"
        if is_animation or picture.getexif().get(_ORIENTATION) not in _TURNED:
            return None
        return _encoded(turned(picture), str(picture.format), data, picture.info)


def turned(picture: Any) -> Any:
    """Return a PIL image as its orientation wants it seen; the same one if it has none."""
    from PIL import ImageOps  # who calls it has a PIL image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metadata that is not whole
        return ImageOps.exif_transpose(picture) if picture.getexif().get(_ORIENTATION) in _TURNED else picture


def _encoded(picture: Any, form: str, data: bytes, info: dict[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    kept = {"icc_profile": info["icc_profile"]} if info.get("icc_profile") else {}
    match form:
        case "JPEG" | "MPO":
            picture.save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0, **kept)
        case "WEBP":
            picture.save(buffer, "WEBP", quality=_JPEG_QUALITY, lossless=b"VP8L" in data[:64], exif=b"", **kept)
        case _:
            picture.info.pop("exif", None)
            picture.save(buffer, form, compress_level=1, exif=b"", **kept)
    return buffer.getvalue()
