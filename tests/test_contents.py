"""Contents become turns: every form that callers hand over, and a clear refusal of the rest."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muse.errors import ContentsError
from muse.types.content import build_request, detect_media_type, to_turns
from muse.types.messages import Assistant, File, Image, ToolResult, ToolResults, User

PDF = b"%PDF-1.7 the rest"


def encoded(form: str = "PNG", size: tuple[int, int] = (4, 3), *, noise: bool = False) -> bytes:
    buffer = io.BytesIO()
    image = PIL.Image.effect_noise(size, 90.0) if noise else PIL.Image.new("RGB", size)
    image.save(buffer, form)
    return buffer.getvalue()


PNG = encoded()


def test_text_is_one_user_turn() -> None:
    assert to_turns("hello") == (None, (User(("hello",)),))


def test_neighbouring_parts_make_one_turn_and_role_dicts_stand_for_themselves() -> None:
    system, turns = to_turns(
        [
            "look",
            PNG,
            {"role": "assistant", "content": "a boat"},
            {"role": "system", "content": "be brief"},
            {"role": "model", "content": ["and", "a buoy"]},
            {"role": "user", "content": ["which?", PDF]},
            {"role": "system", "content": "be kind"},
            "again",
        ]
    )
    assert system == "be brief\n\nbe kind"
    assert turns == (
        User(("look", Image(PNG, "image/png"))),
        Assistant("a boat"),
        Assistant("and\na buoy"),
        User(("which?", File(PDF, "application/pdf"))),
        User(("again",)),
    )


def test_a_single_role_dict_a_path_and_a_generator_are_contents_too(tmp_path: Path) -> None:
    path = tmp_path / "plan.pdf"
    path.write_bytes(PDF)
    assert to_turns({"role": "user", "content": "hi"})[1] == (User(("hi",)),)
    assert to_turns(path)[1] == (User((File(PDF, "application/pdf", "plan.pdf"),)),)
    assert to_turns(part for part in ("a", "b"))[1] == (User(("a", "b")),)
    assert to_turns(bytearray(PNG))[1] == (User((Image(PNG, "image/png"),)),)


def test_turns_are_taken_as_they_are() -> None:
    turns = (User(("a",)), Assistant("b"), ToolResults((ToolResult("1", "t", ("x",)),)))
    assert to_turns(list(turns))[1] == turns


def test_text_parts_of_other_libraries_are_text() -> None:
    content = [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}]
    assert to_turns([{"role": "user", "content": content}])[1] == (User(("a", "b")),)


@pytest.mark.parametrize(
    ("form", "media_type"),
    [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("GIF", "image/gif"), ("WEBP", "image/webp")],
)
def test_encoded_images_are_known_by_their_first_bytes(form: str, media_type: str) -> None:
    assert detect_media_type(encoded(form)) == media_type


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
def test_pil_images_become_png_of_the_same_size(mode: str) -> None:
    (turn,) = to_turns([PIL.Image.new(mode, (4, 3))])[1]
    assert isinstance(turn, User)
    (image,) = turn.parts
    assert isinstance(image, Image)
    assert image.media_type == "image/png"
    assert PIL.Image.open(io.BytesIO(image.data)).size == (4, 3)


def test_a_pil_photograph_stays_a_jpeg() -> None:
    photograph = PIL.Image.open(io.BytesIO(encoded("JPEG")))
    (turn,) = to_turns([photograph])[1]
    assert isinstance(turn, User)
    assert isinstance(turn.parts[0], Image)
    assert turn.parts[0].media_type == "image/jpeg"


def test_the_repr_of_an_image_or_a_file_is_short() -> None:
    assert repr(Image(PNG * 1000, "image/png")) == f"Image(image/png, {len(PNG) * 1000} bytes)"
    assert repr(File(PDF, "application/pdf", "a.pdf")) == f"File(a.pdf, application/pdf, {len(PDF)} bytes)"


REFUSED: dict[str, tuple[Any, str]] = {
    "None": (None, "contents: found None"),
    "empty text": ("", "contents: found empty text"),
    "blank text": (" \n", "contents: found empty text"),
    "an empty list": ([], "contents: found an empty list"),
    "a list of nothing": ([""], r"contents\[0\]: found empty text"),
    "None in a list": (["a", None], r"contents\[1\]: found NoneType"),
    "a number": (7, r"contents\[0\]: found int"),
    "an object": (object(), r"contents\[0\]: found object"),
    "an unencodable text": ("a\ud800", r"contents: found '\\ud800' at position 1"),
    "an unencodable part": ([{"role": "user", "content": ["\udfff"]}], r"contents\[0\]\['content'\]\[0\]: found"),
    "system text alone": ([{"role": "system", "content": "x"}], "only system text"),
    "an unknown role": ([{"role": "tool", "content": "x"}], r"contents\[0\]: .*role 'tool'"),
    "a role that is a list": ([{"role": ["user"], "content": "x"}], r"contents\[0\]: .*role \['user'\]"),
    "a dict without content": ([{"role": "user"}], r"contents\[0\]: found a dict with keys \['role'\]"),
    "a foreign dict": ({"parts": []}, r"contents\[0\]: found a dict"),
    "no content": ([{"role": "user", "content": None}], r"\['content'\]: found NoneType"),
    "an empty content": ([{"role": "user", "content": []}], r"\['content'\]: found an empty list"),
    "an image of the model": ([{"role": "assistant", "content": [PNG]}], "only user turns carry them"),
    "no bytes": (b"", r"found 0 bytes that begin with b''"),
    "bytes that are no image": (b"not an image at all", "found 19 bytes that begin with b'not an image'"),
    "a path to nowhere": (Path("no/such/file.png"), r"cannot read 'no/such/file.png'"),
}


@pytest.mark.parametrize(("contents", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_sent_is_refused_by_its_place(contents: Any, text: str) -> None:
    with pytest.raises(ContentsError, match=text):
        to_turns(contents)


def test_a_path_to_what_is_no_image_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "shot.png").write_text("<html>404</html>")
    with pytest.raises(ContentsError, match=r"shot\.png.*found 16 bytes"):
        to_turns(tmp_path / "shot.png")
    with pytest.raises(ContentsError, match="cannot read"):
        to_turns(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "chunk", "pixels"])
def test_a_pil_image_whose_data_is_damaged_is_refused(damage: str) -> None:
    data = bytearray(encoded(size=(300, 300), noise=True))
    second = data.index(b"IDAT", data.index(b"IDAT") + 4)
    if damage == "cut":
        del data[second:]
    elif damage == "chunk":
        data[second : second + 4] = b"\0\xff\0\1"
    else:
        data[second + 100] ^= 255
    image = PIL.Image.open(io.BytesIO(bytes(data)))
    with pytest.raises(ContentsError, match=r"contents\[0\]: cannot encode"):
        to_turns([image])


@pytest.mark.parametrize("size", [(0, 0), (0, 5)])
def test_a_pil_image_without_pixels_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ContentsError, match="cannot encode"):
        to_turns([PIL.Image.new("RGB", size)])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.binary(max_size=6),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["role", "content", "type", "text"]), inner, max_size=3)
        ),
        max_leaves=6,
    )
)
def test_any_contents_are_turns_or_a_contents_error(contents: Any) -> None:
    try:
        _, turns = to_turns(contents)
    except ContentsError:
        return
    assert turns


def test_a_request_has_the_common_options_and_the_rest_as_extras() -> None:
    request = build_request(
        [{"role": "system", "content": "second"}, "hi"],
        "model-1",
        {"system_instruction": "first", "temperature": 0.1, "thinking_budget": 0, "seed": 7},
    )
    assert (request.model, request.system, request.temperature) == ("model-1", "first\n\nsecond", 0.1)
    assert (request.thinking_budget, request.extras) == (0, {"seed": 7})
    assert request.max_output_tokens == 16384


@pytest.mark.parametrize("limit", [0, -1, 1.5, "9", None], ids=repr)
def test_an_output_limit_that_makes_no_sense_is_refused(limit: object) -> None:
    with pytest.raises(ValueError, match="max_output_tokens: found"):
        build_request("hi", "m", {"max_output_tokens": limit})


def test_a_system_instruction_that_cannot_be_encoded_is_refused_by_its_name() -> None:
    with pytest.raises(ContentsError, match=r"system_instruction: found '\\ud800'"):
        build_request("hi", "m", {"system_instruction": "\ud800"})


@pytest.mark.parametrize("said", [None, "", "  "])
def test_an_empty_system_instruction_is_none(said: str | None) -> None:
    assert build_request("hi", "m", {"system_instruction": said}).system is None
