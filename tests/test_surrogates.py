"""Text from JSON with halves of surrogate pairs: whole or in pieces, what comes out can be encoded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from muse.types.surrogates import SurrogateJoiner, join_surrogates, join_surrogates_in

anything = st.text(st.characters(exclude_categories=()), max_size=12)


def halves(text: str) -> str:
    """`text` with each character beyond U+FFFF as its two halves."""
    data = text.encode("utf-16-le")
    return "".join(chr(int.from_bytes(data[place : place + 2], "little")) for place in range(0, len(data), 2))


@given(st.text(st.characters(codec="utf-8")))
def test_whole_text_stays_and_its_halves_are_joined(text: str) -> None:
    assert join_surrogates(text) == join_surrogates(halves(text)) == text


@given(anything)
def test_whatever_is_mended_can_be_encoded_and_stays(text: str) -> None:
    mended = join_surrogates(text)
    assert mended.encode().decode() == mended == join_surrogates(mended)


@given(st.lists(anything, max_size=6))
def test_pieces_are_mended_like_the_text_they_are_of(pieces: list[str]) -> None:
    joiner = SurrogateJoiner()
    given_out = [joiner.take(piece) for piece in pieces]
    given_out.append(joiner.rest())
    assert "".join(given_out) == join_surrogates("".join(pieces))
    for piece in given_out:
        piece.encode()


@given(st.text(st.characters(codec="utf-8"), min_size=1), st.integers(0, 40))
def test_a_character_cut_in_two_is_whole_again(text: str, place: int) -> None:
    joiner, cut = SurrogateJoiner(), halves(text)
    parts = cut[:place], cut[place:]
    assert "".join([*map(joiner.take, parts), joiner.rest()]) == text


def test_every_text_inside_a_value_is_mended() -> None:
    assert join_surrogates_in({"a\ud800": ["\ud83d\ude00", 5, None, {"b": "x\udc00"}]}) == {
        "a\ufffd": ["\U0001f600", 5, None, {"b": "x\ufffd"}]
    }
