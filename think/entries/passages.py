"""Text as passages, neighbouring lines that are found as one; it knows no file and no journal."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import groupby

from msgspec import Struct
from msgspec.structs import replace

from think.entries import front_matter

PASSAGE_CHARS = 900

_TITLE_FIELD = re.compile(r"^title:[ \t]*(.+?)[ \t]*\r?$", re.MULTILINE)
_HEADING = re.compile(r"\ufeff?#{1,6}[ \t]+(.*?)[ \t#]*")
_MARKS = re.compile(r"\*\*|__|`|^\s*(?:>|[-*+]|\d+[.)])\s+(?:\[[ xX]\]\s+)?")
_OWN_LINE = re.compile(r"\s*(?:[-*+>|]|\d+[.)])\s*")
_DATE_LINE = re.compile(r"\s*\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d)?)?\s*")
_PIECE = re.compile(rf"\S.{{0,{PASSAGE_CHARS - 1}}}(?=\s|$)|\S{{{PASSAGE_CHARS}}}", re.DOTALL)
_LINE = re.compile(r"[^\r\n]+")


class Line(Struct, frozen=True, array_like=True):
    """Some words: where they begin in the whole text (characters), when (`HH:MM` or ""), and who said them."""

    offset: int
    time: str
    speaker: str
    text: str


class Passage(Struct, frozen=True):
    """Neighbouring lines under a heading ("" if it has none)."""

    heading: str
    lines: tuple[Line, ...]


def gather(heading: str, lines: Iterable[Line]) -> Iterator[Passage]:
    """Neighbouring lines as passages of about `PASSAGE_CHARS` characters."""
    begun: list[Line] = []
    chars = 0
    for line in lines:
        if begun and chars + len(line.text) > PASSAGE_CHARS:
            yield Passage(heading, tuple(begun))
            begun, chars = [], 0
        begun.append(line)
        chars += len(line.text) + 1
    if begun:
        yield Passage(heading, tuple(begun))


def pieces(words: str) -> Iterator[tuple[int, str]]:
    """`(offset, text)` of a line, or of its pieces if it is longer than a passage."""
    if len(words) <= PASSAGE_CHARS:
        yield 0, words
        return
    for piece in _PIECE.finditer(words):
        yield piece.start(), piece[0]


def title_of(text: str) -> str:
    """The title that a Markdown text gives itself: in its front matter, else its first heading, else ""."""
    fields, begin = front_matter.find(text)
    field = _TITLE_FIELD.search(fields)
    if field:
        return plain(field[1].strip("\"'"))
    headings = (_HEADING.fullmatch(match[0]) for match in _LINE.finditer(text, begin))
    return next((plain(_MARKS.sub("", heading[1])) for heading in headings if heading), "")


def passages_of(text: str, title: str, time: str) -> tuple[Passage, ...]:
    """The passages of a Markdown text, each under its heading; front matter and bare dates are left out.

    A section without words has its heading as its only line; a text without words has its title.
    """
    begin = front_matter.find(text)[1]
    found: list[Passage] = []
    for heading, group in groupby(_blocks(text, begin, time), key=lambda block: block[0]):
        lines = [line for _, line in group if line.text]
        if heading == title:
            found += gather("", lines)
        elif lines or heading:
            found += gather(heading, lines or [Line(begin, time, "", heading)])
    return tuple(found) or (Passage("", (Line(0, time, "", title),)),)


def _blocks(text: str, begin: int, time: str) -> Iterator[tuple[str, Line]]:
    """`(heading, block)` of each paragraph, list item and row; a heading comes as a block without words."""
    heading = ""
    block = Line(begin, time, "", "")
    end = begin
    for match in _LINE.finditer(text, begin):
        title = _HEADING.fullmatch(match[0])
        goes_on = text.count("\n", end, match.start()) == 1 and not _OWN_LINE.match(match[0])
        end = match.end()
        if not title and goes_on and block.text and len(block.text) + len(match[0]) < PASSAGE_CHARS:
            block = replace(block, text=f"{block.text} {plain(_MARKS.sub('', match[0]))}")
            continue
        yield heading, block
        block = Line(match.start(), time, "", "")
        if title:
            heading = plain(_MARKS.sub("", title[1]))
        elif not _DATE_LINE.fullmatch(match[0]):
            *before, (shift, words) = pieces(_MARKS.sub("", match[0]))
            for at, piece in before:
                yield heading, Line(match.start() + at, time, "", plain(piece))
            block = Line(match.start() + shift, time, "", plain(words))
    yield heading, block


def plain(value: object) -> str:
    """A text on one line, without what cannot be printed; "" for anything else."""
    if not isinstance(value, str):
        return ""
    joined = " ".join(compose(value).split())
    return joined if joined.isprintable() else "".join(char for char in joined if char.isprintable())


def compose(text: str) -> str:
    """`text` in composed form, as words are compared, without lone surrogates, which UTF-8 cannot hold."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", text.encode("utf-8", errors="replace").decode("utf-8"))
