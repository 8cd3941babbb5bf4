"""Pictures are sent as they are to be seen: turned by their EXIF orientation, or with their own bytes."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pictures
from PIL import ImageOps

from muse.agent_loop.toolset import _part as tool_part
from muse.types.content import to_turns
from muse.types.exif_orientation import rotate_upright
from muse.types.messages import Image, ToolResult, ToolResults, User
from tests.desk import WAYS, Desk
from tests.provider_cases import WIRES, Case

FORMS = ("JPEG", "PNG", "WEBP")


def _photo(form: str, orientation: int | None, *, exif: bytes | None = None) -> bytes:
    """A picture of 24 by 16 pixels, its four quarters of four colours."""
    picture = Pictures.new("RGB", (24, 16))
    for number, colour in enumerate(("red", "lime", "blue", "white")):
        picture.paste(colour, (12 * (number % 2), 8 * (number // 2), 12 * (number % 2) + 12, 8 * (number // 2) + 8))
    buffer, told = io.BytesIO(), Pictures.Exif()
    if orientation is not None:
        told[0x0112] = orientation
    options: dict[str, Any] = {"lossless": True} if form == "WEBP" else {}
    picture.save(buffer, form, exif=exif if exif is not None else told.tobytes() if orientation else b"", **options)
    return buffer.getvalue()


def _corners(picture: Pictures.Image) -> list[tuple[bool, ...]]:
    """The colours of the four quarters, coarse enough for JPEG."""
    wide, high = picture.size
    places = (
        (wide // 4, high // 4),
        (3 * wide // 4, high // 4),
        (wide // 4, 3 * high // 4),
        (3 * wide // 4, 3 * high // 4),
    )
    return [tuple(level > 128 for level in picture.convert("RGB").getpixel(place)) for place in places]  # type: ignore[union-attr]


def _opened(data: bytes) -> Pictures.Image:
    return Pictures.open(io.BytesIO(data))


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("form", FORMS)
def test_a_turned_picture_is_sent_as_a_viewer_shows_it(form: str, orientation: int) -> None:
    data = _photo(form, orientation)
    sent = rotate_upright(Image(data, f"image/{form.lower()}"))
    seen = _opened(sent.data)
    shown = ImageOps.exif_transpose(_opened(data))
    assert seen.format == form
    assert seen.getexif().get(0x0112, 1) == 1
    assert seen.size == shown.size == ((24, 16) if orientation < 5 else (16, 24))
    assert _corners(seen) == _corners(shown)


@pytest.mark.parametrize("orientation", [None, 1, 0, 9, 4_000])
@pytest.mark.parametrize("form", FORMS)
def test_a_picture_that_is_upright_keeps_its_bytes(form: str, orientation: int | None) -> None:
    data = _photo(form, orientation)
    assert rotate_upright(Image(data, f"image/{form.lower()}")).data is data


@pytest.mark.parametrize(
    "data", [b"\xff\xd8\xffExif\0\0", b"\xff\xd8\xff Exif\0\0 II*\0", b"RIFF0000WEBPEXIF"], ids=str
)
def test_what_cannot_be_opened_keeps_its_bytes(data: bytes) -> None:
    for kind in ("image/jpeg", "image/png", "image/webp"):
        assert rotate_upright(Image(data, kind)).data is data
    cut = _photo("JPEG", 6)[:-40]
    assert rotate_upright(Image(cut, "image/jpeg")).data is cut
    odd = _photo("JPEG", None, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    assert rotate_upright(Image(odd, "image/jpeg")).data is odd


def test_the_colour_profile_stays() -> None:
    buffer, told = io.BytesIO(), Pictures.Exif()
    told[0x0112] = 3
    Pictures.new("RGB", (4, 2)).save(buffer, "JPEG", exif=told, icc_profile=b"profile")
    assert _opened(rotate_upright(Image(buffer.getvalue(), "image/jpeg")).data).info["icc_profile"] == b"profile"


def _ways_in(data: bytes, path: Path) -> list[Any]:
    path.write_bytes(data)
    own = Image(data, "image/jpeg")
    told = ToolResult("c", "look", (own,))
    return [
        data,
        path,
        own,
        _opened(data),
        User((own,)),
        ToolResults((told,)),
        {"role": "user", "content": ["x", data]},
    ]


@pytest.mark.parametrize("index", range(7))
def test_every_way_a_picture_comes_in_turns_it(index: int, tmp_path: Path) -> None:
    entry = _ways_in(_photo("JPEG", 6), tmp_path / "photo.jpg")[index]
    _, turns = to_turns(["what is this", entry])
    parts = [part for turn in turns for part in _parts(turn)]
    (image,) = [part for part in parts if isinstance(part, Image)]
    assert _opened(image.data).size == (16, 24)


def _parts(turn: Any) -> Any:
    return turn.parts if isinstance(turn, User) else [part for result in turn.results for part in result.parts]


def test_a_tiff_of_pillow_is_turned(tmp_path: Path) -> None:
    path = tmp_path / "scan.tif"
    path.write_bytes(_photo("TIFF", 6))
    with Pictures.open(path) as scan:
        _, turns = to_turns([scan])
    (image,) = _parts(turns[0])
    assert _opened(image.data).size == (16, 24)


class _Block:
    """An image block of an MCP answer."""

    type = "image"
    mime_type = "image/jpeg"
    data = base64.b64encode(_photo("JPEG", 8)).decode()


def test_a_tools_picture_is_turned() -> None:
    image = tool_part(_Block())
    assert isinstance(image, Image)
    assert _opened(image.data).size == (16, 24)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", WIRES, ids=str)
def test_every_provider_is_sent_an_upright_picture(desk: Desk, case: Case, way: str) -> None:
    desk.use(case)
    content = desk.sent(way, ["what is this", _photo("JPEG", 6)]).content
    start = content.index(b"/9j/")
    sent = base64.b64decode(content[start : content.index(b'"', start)])
    assert _opened(sent).size == (16, 24)


def test_a_photograph_with_a_preview_beside_it_is_turned() -> None:
    buffer, told = io.BytesIO(), Pictures.Exif()
    told[0x0112] = 6
    photo = _opened(_photo("JPEG", None))
    photo.save(buffer, "MPO", exif=told, save_all=True, append_images=[Pictures.new("RGB", (6, 4))])
    assert _opened(buffer.getvalue()).format == "MPO"
    seen = _opened(rotate_upright(Image(buffer.getvalue(), "image/jpeg")).data)
    assert (seen.format, seen.size, seen.getexif().get(0x0112)) == ("JPEG", (16, 24), None)
    assert _corners(seen) == _corners(photo.rotate(-90, expand=True))
