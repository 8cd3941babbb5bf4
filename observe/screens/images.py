"""Pictures: opened within bounds, made small, compared, encoded for a model; it knows no journal and no model.

Two frames are compared on a grid of 96 by 60 grey cells, each the mean of what it covers (on a screen of 1280 by 800
pixels about 13 by 13). A cell has changed if it differs by 12 of 255, which dithering, compression and a blinking
cursor stay below or touch in one or two cells. A frame has changed if half a per cent of the cells have: about a line
of text. The outer twentieth on top and at the bottom, where menus and task bars keep the clock, does not count.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image as Pictures
from PIL import ImageChops, ImageOps

from muse.errors import ContentsError
from muse.types.messages import Image

MOST_BYTES = 150_000_000
MOST_PIXELS = 40_000_000
"""A screen of 8K and more; decoded it takes 160 MB at most, and it is below what Pillow itself warns of."""
LONGEST_SIDE = 1_568
"""Providers scale larger pictures down to about this, and bill them all the same."""
MOST_PNG_BYTES = 1_000_000
"""A screen is well below; a photograph or a game is sent as JPEG, since 300 of them are held at once."""
GRID = (96, 60)
CELL_LEVEL = 12
CHANGED_SHARE = 0.005
_EDGE_ROWS = 3

# What Pillow's decoders raise for files that are broken, cut off or none at all.
BROKEN = (OSError, ValueError, SyntaxError, EOFError, TypeError, LookupError, struct.error, zlib.error, MemoryError)
_DATED = re.compile(
    r"(?<!\d)(?:19|20)\d\d[-_.]?[01]\d[-_.]?[0-3]\d(?:[ _T-]|at)*([0-2]\d)[-_.:h]?([0-5]\d)[-_.:m]?([0-5]\d)"
)
_CLOCK = re.compile(r"(?<!\d)([01]\d|2[0-3])([0-5]\d)([0-5]\d)(?!\d)")
_EXIF, _EXIF_TAKEN, _EXIF_CHANGED, _EXIF_TURNED = 0x8769, 0x9003, 0x0132, 0x0112


@contextmanager
def opened(path: Path) -> Iterator[Pictures.Image]:
    """A picture whose header was read and whose size is within bounds; what goes wrong inside is told likewise.

    Raises:
        ContentsError: it is none, broken or too large; the text names the file.
    """
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise ContentsError(f"{path.name}: found {size:,} bytes, expected a picture of {MOST_BYTES:,} at most")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Pillow's words about metadata that is cut off
            warnings.simplefilter("error", Pictures.DecompressionBombWarning)
            image = Pictures.open(path)
        with image:
            require_size(path.name, *image.size)
            yield image
    except ContentsError:
        raise
    except (Pictures.DecompressionBombError, Pictures.DecompressionBombWarning) as exc:
        raise ContentsError(f"{path.name}: found a picture too large to open ({exc}), {_allowed()}") from exc
    except BROKEN as exc:
        said = " ".join(str(exc).replace(str(path), path.name).split()) or type(exc).__name__
        raise ContentsError(f"{path.name}: found no whole picture ({said}), expected one that can be opened") from exc


def require_size(name: str, width: int, height: int) -> None:
    """See that a picture is small enough to be decoded.

    Raises:
        ContentsError: it is not.
    """
    if width * height > MOST_PIXELS:
        raise ContentsError(f"{name}: found {width:,} by {height:,} pixels, {_allowed()}")


def _allowed() -> str:
    return f"expected {MOST_PIXELS:,} at most. Scale it down, or take it out of the segment"


def small(image: Pictures.Image) -> Pictures.Image:
    """A copy in RGB, upright, on white where it is transparent, no side longer than `LONGEST_SIDE`."""
    image.draft("RGB", (LONGEST_SIDE, LONGEST_SIDE))  # a JPEG is decoded at a half, quarter or eighth
    if exif_of(image).get(_EXIF_TURNED, 1) != 1:
        image = ImageOps.exif_transpose(image)
    image = _in_eight_bits(image)
    if not image.has_transparency_data:
        return _resized(image if image.mode in {"RGB", "L"} else image.convert("RGB")).convert("RGB")
    clear = _resized(image if image.mode == "RGBA" else image.convert("RGBA"))
    return Pictures.alpha_composite(Pictures.new("RGBA", clear.size, "white"), clear).convert("RGB")


def _in_eight_bits(image: Pictures.Image) -> Pictures.Image:
    """A picture of more than 8 bits a colour stretched to what 8 hold; Pillow itself would cut it to white."""
    if not image.mode.startswith(("I", "F")):
        return image
    wide = image.convert("F")
    low, high = _extrema(wide)[0]
    share = 255 / (high - low) if high > low else 0.0
    return wide.point(lambda level: level * share - low * share).convert("L")


def _resized(image: Pictures.Image) -> Pictures.Image:
    """A copy within bounds; the picture itself stays, since an animation goes on from it."""
    share = min(1.0, LONGEST_SIDE / max(image.size))
    width, height = (max(1, round(side * share)) for side in image.size)
    return image.resize((width, height), Pictures.Resampling.BICUBIC, reducing_gap=2.0)


def exif_of(image: Pictures.Image) -> Pictures.Exif:
    """A picture's metadata, as far as it is whole."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return image.getexif()


def times_of(image: Pictures.Image) -> dict[str, str]:
    """When a picture was taken and changed, as its metadata has it (`2026:11:03 14:02:30`), by the field's name."""
    exif = exif_of(image)
    found = {"EXIF DateTimeOriginal": exif.get_ifd(_EXIF).get(_EXIF_TAKEN), "EXIF DateTime": exif.get(_EXIF_CHANGED)}
    return {name: str(said) for name, said in found.items() if said}


def sketch(image: Pictures.Image) -> Pictures.Image:
    """What a frame is compared by: the grid of grey cells."""
    return image.convert("L").resize(GRID, Pictures.Resampling.BOX)


def changed_share(before: Pictures.Image, after: Pictures.Image) -> float:
    """The share of cells (0 to 1) in which two sketches differ, edges left out."""
    width, height = GRID
    inside = (0, _EDGE_ROWS, width, height - _EDGE_ROWS)
    levels = ImageChops.difference(before, after).crop(inside).histogram()
    return sum(levels[CELL_LEVEL:]) / (width * (height - 2 * _EDGE_ROWS))


def is_blank(image: Pictures.Image) -> bool:
    """Whether a picture is of one colour: a screen that is off shows nothing to describe."""
    return all(high - low <= 2 for low, high in _extrema(image))


def _extrema(image: Pictures.Image) -> list[tuple[float, float]]:
    return [band.getextrema() for band in image.split()]  # type: ignore[misc]


def encoded(image: Pictures.Image, *, lossy: bool) -> Image:
    """A picture as it is sent: PNG, but JPEG where it was lossy before or the PNG is large; without metadata."""
    bare = Pictures.frombytes("RGB", image.size, image.tobytes())
    if not lossy:
        exact = io.BytesIO()
        bare.save(exact, "PNG", compress_level=6)
        if exact.tell() <= MOST_PNG_BYTES:
            return Image(exact.getvalue(), "image/png")
    buffer = io.BytesIO()
    bare.save(buffer, "JPEG", quality=88)
    return Image(buffer.getvalue(), "image/jpeg")


def clock_of(path: Path, image: Pictures.Image | None = None) -> int | None:
    """When a picture was taken, in seconds since local midnight: by its name, else its metadata; None if neither says.

    >>> clock_of(Path("Screenshot 2026-11-03 at 14.05.12.png")), clock_of(Path("screen_2.png"))
    (50712, None)
    """
    named = _DATED.search(path.stem) or _CLOCK.search(path.stem)
    if named is None and image is not None:
        said = next(iter(times_of(image).values()), "")
        named = re.search(r" ([01]\d|2[0-3]):([0-5]\d):([0-5]\d)", str(said))
    if named is None or int(named[1]) > 23:
        return None
    return int(named[1]) * 3600 + int(named[2]) * 60 + int(named[3])
