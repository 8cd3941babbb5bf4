"""Text that can be encoded: halves of UTF-16 surrogate pairs are joined, or replaced where the other half is missing.

JSON may escape a character beyond U+FFFF as two halves, and a server may cut its text between them.
"""

from __future__ import annotations

from typing import Any

_HIGH = ("\ud800", "\udbff")


def join_surrogates(text: str) -> str:
    """`text` with its surrogate pairs joined and each lone half replaced by U+FFFD, so that it encodes to UTF-8."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def join_surrogates_in(value: Any) -> Any:
    """A JSON value with every text in it mended, keys included.

    Raises:
        RecursionError: it is nested too deeply.
    """
    if isinstance(value, str):
        return join_surrogates(value)
    if isinstance(value, dict):
        return {
            join_surrogates(key) if isinstance(key, str) else key: join_surrogates_in(inner)
            for key, inner in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [join_surrogates_in(inner) for inner in value]
    return value


class SurrogateJoiner:
    """Mend a text that comes in pieces: a piece that ends with the first half of a pair keeps it for the next one."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = ""

    def take(self, piece: str) -> str:
        """The text that can be given out after `piece`."""
        if not self._held and piece.isascii():
            return piece
        text = self._held + piece
        self._held = text[-1:] if _HIGH[0] <= text[-1:] <= _HIGH[1] else ""
        return join_surrogates(text[: len(text) - len(self._held)])

    def rest(self) -> str:
        """What is left at the end: U+FFFD for a half that found no other, else an empty text."""
        text, self._held = join_surrogates(self._held), ""
        return text
