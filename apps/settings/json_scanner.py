"""Where each entry stands in a text that is JSON or meant to be; it knows no key of journal.json."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from msgspec import Struct

Path = tuple[str | int, ...]
Role = Literal["key", "value", "junk"]
Due = Literal["key", "value", "item", "nothing"]
_TOKEN = re.compile(r'"(?:[^"\\\n]|\\[^\n])*(?:"|\\?$|(?=\n))|[{}\[\],:]|[^\s{}\[\],:"]+', re.MULTILINE)
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))", re.DOTALL)
_DEEPEST = 100
_SHORT = {"n": "\n", "r": "\r", "t": "\t"}
_STEP = re.compile(r"\.?([^.\[\]]+)|\[((?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\d+))\]")


class Place(Struct, frozen=True):
    """One key, value or stray word: the characters `start` to `end` of the text, and the path they stand at."""

    path: Path
    role: Role
    start: int
    end: int


class _Frame:
    """An object or list that is open: its path, and what was last said in it."""

    def __init__(self, path: Path, start: int, *, is_list: bool) -> None:
        self.path = path
        self.start = start
        self.is_list = is_list
        self.index = 0
        self.key: Place | None = None
        self.has_colon = False
        self.values = 0
        self.lone: Path | None = None

    @property
    def here(self) -> Path:
        """The path of the value that comes next; after lone words, that of the first of them."""
        if self.is_list:
            return _below(self.path, self.index)
        if self.lone is not None and not self.has_colon:
            return self.lone
        return self.key.path if self.key is not None else self.path

    def next(self) -> None:
        """A comma: what comes now is a new entry."""
        self.index += 1
        self.key = None
        self.has_colon = False
        self.values = 0
        self.lone = None


class Scan:
    """One walk over a text: every place in it, and what is `due` at its end.

    A broken text is walked as well, with braces, quotes, colons or commas missing, so that each word still has a path
    that names what it was meant for.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.places: list[Place] = []
        self._open: list[_Frame] = []
        self._last_value: Place | None = None
        for match in _TOKEN.finditer(text):
            self._take(match[0], match.start(), match.end())
        self.due = self._due()
        for frame in self._open:
            self._settle(frame)

    def _due(self) -> tuple[Path, Due]:
        """The innermost container that is open at the end of the text, and what is due in it."""
        if not self._open:
            return (), "nothing"
        frame = self._open[-1]
        if frame.is_list:
            return frame.here, "item"
        if frame.key is not None and frame.has_colon:
            return frame.here, "value"
        return frame.path, "key"

    def _take(self, piece: str, start: int, end: int) -> None:
        last, self._last_value = self._last_value, None
        if not self._open and piece not in "{[":
            self._open.append(_Frame((), start, is_list=False))  # an object whose brace is missing
        match piece[0]:
            case "{" | "[":
                path = self._open[-1].here if self._open else ()
                self._open.append(_Frame(path, start, is_list=piece == "["))
            case "}" | "]":
                self._close(end)
            case ",":
                self._settle(self._open[-1])
                self._open[-1].next()
            case ":":
                self._colon(self._open[-1], last)
            case _:
                self._word(self._open[-1], start, end)

    def _close(self, end: int) -> None:
        frame = self._open.pop()
        self._settle(frame)
        self.places.append(Place(frame.path, "value", frame.start, end))
        if self._open:
            self._open[-1].values += 1

    def _colon(self, frame: _Frame, last: Place | None) -> None:
        """A colon makes a key of the word before it, also where the comma before that is missing."""
        if frame.is_list or frame.key is None:
            return
        if frame.has_colon and last is not None:
            self.places.pop()
            above = frame.path if frame.values > 1 else frame.key.path
            self._settle(frame)
            frame.next()
            frame.key = self._key(above, last.start, last.end)
        frame.has_colon = True

    def _word(self, frame: _Frame, start: int, end: int) -> None:
        """A string, number or word: what may be a key where one is due, else a value."""
        if frame.is_list or frame.has_colon:
            self._last_value = Place(frame.here, "value", start, end)
            self.places.append(self._last_value)
            frame.values += 1
            return
        before = frame.key
        self._settle(frame)
        frame.lone = frame.lone or (before.path if before is not None else None)
        frame.key = self._key(frame.path, start, end)

    def _key(self, above: Path, start: int, end: int) -> Place:
        return Place(_below(above, _said(self.text[start:end])), "key", start, end)

    def _settle(self, frame: _Frame) -> None:
        """A key that a colon came after is one; a lone word is not."""
        if frame.key is not None:
            key = frame.key
            self.places.append(key if frame.has_colon else Place(frame.lone or key.path, "junk", key.start, key.end))
            frame.key = None


def _below(path: Path, step: str | int) -> Path:
    """A path one step further; deeper than any file that can be read it goes no further."""
    return (*path, step) if len(path) < _DEEPEST else path


def last_word(text: str) -> int:
    """Where the string or word that a text ends in begins; its end if it ends in none."""
    last = None
    for match in _TOKEN.finditer(text):
        last = match
    if last is None or last.end() < len(text) or last[0] in "{}[],:":
        return len(text)
    return last.start()


def _said(token: str) -> str:
    """The text of a string token, as far as it can be read."""
    try:
        return str(json.loads(token))
    except ValueError:
        return token.strip("\"'")


def steps(path: str) -> Path:
    """A path as problems spell it, taken apart: `providers.contexts['a.*'].tier`."""
    return tuple(_step(match) for match in _STEP.finditer(path))


def _step(match: re.Match[str]) -> str | int:
    return match[1] if match[1] is not None else _literal(match[2])


def _literal(text: str) -> str | int:
    """A number, or a text as `repr` writes it; `ast` would do it too, but not in two threads at once (Python 3.11)."""
    return int(text) if text.isdigit() else _ESCAPE.sub(_escaped, text[1:-1])


def _escaped(match: re.Match[str]) -> str:
    code = match[1] or match[2] or match[3]
    return chr(int(code, 16)) if code else _SHORT.get(match[4], match[4])


def lines_by_path(text: str) -> Mapping[Path, int]:
    """The line at which each entry of a text begins; of one that stands there twice, the last."""
    lines: dict[Path, int] = {}
    line, seen = 1, 0
    for place in sorted(Scan(text).places, key=lambda place: place.start):
        if place.role == "key" or (place.role == "value" and place.path and isinstance(place.path[-1], int)):
            line += text.count("\n", seen, place.start)
            seen = place.start
            lines[place.path] = line
    return lines


def nearest_line(lines: Mapping[Path, int], path: Sequence[str | int]) -> int | None:
    """The line of an entry, or of the nearest one around it."""
    for length in range(len(path), 0, -1):
        line = lines.get(tuple(path[:length]))
        if line is not None:
            return line
    return None


def words(scan: Scan) -> Iterator[Place]:
    """All that is said in a text, keys apart."""
    return (place for place in scan.places if place.role != "key" and scan.text[place.start] not in "{[")
