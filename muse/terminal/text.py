"""Escape what could steer a terminal: the one function for all text that leaves a command, and streams that apply it.

Names in journal.json, files of runs, answers of models and servers, and file names are written by others. Printed raw,
a control sequence in them clears the screen, sets the window's title or overwrites what stands above; bidirectional and
invisible characters make a line read as something else. `escape_control` writes such characters as escapes.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TextIO
from unicodedata import category

# Control characters but \t and \n, DEL, C1; categories Cf (bidirectional controls, zero-width characters, tags), Zl, Zp
# and Cs; and what else has no shape: fillers, variation selectors, noncharacters.
_HIDDEN = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    r"\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    r"\ufffe\uffff\U000110bd\U000110cd\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    r"\U000e0000-\U000e0fff"
)
_JOINERS = "\u200c\u200d"
_SELECTORS = "\ufe0e\ufe0f"
_KEYCAPS = frozenset("#*0123456789")
_NAMED = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_CONTINUED = "\n    "


def escape_control(text: str, *, keep_newlines: bool = False) -> str:
    r"""Return `text` with every character that could steer a terminal or hide text written as an escape.

    Escaped are C0 and C1 control characters, DEL, bidirectional controls, zero-width and other format characters, line
    and paragraph separators, lone surrogates. With `keep_newlines` line breaks and tabs stay. JSON text stays JSON of
    the same value, as control characters below U+0020 do not stand in it.

    >>> escape_control("a\x1b[2J\u202eb\n")
    'a\\x1b[2J\\u202eb\\n'
    """
    if text.isascii() and text.isprintable():
        return text
    if keep_newlines and "\r" in text:
        text = text.replace("\r\n", "\n")
    return _pattern(keep_newlines).sub(_escape, text)


@cache
def _pattern(keep_newlines: bool) -> re.Pattern[str]:
    return re.compile(f"[{_HIDDEN}]" if keep_newlines else rf"[\t\n{_HIDDEN}]")


def _escape(match: re.Match[str]) -> str:
    char = match.group()
    if (char in _JOINERS or char in _SELECTORS) and _is_needed(match):
        return char
    if char in _NAMED:
        return _NAMED[char]
    if char < " ":
        return f"\\x{ord(char):02x}"
    units = char.encode("utf-16-be", errors="surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _is_needed(match: re.Match[str]) -> bool:
    """Whether a joiner or selector has neighbours that need it: Persian, Indic scripts and emoji do."""
    text = match.string
    before, after = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
    if match.group() in _SELECTORS:
        return before in _KEYCAPS or (before > "\xa8" and category(before) in ("So", "Sm", "Sk", "Po"))
    return _is_foreign(before) and _is_foreign(after)


def _is_foreign(char: str) -> bool:
    """Whether `char` is visible and of a script or set of symbols that uses joiners."""
    return char > "\u02ff" and (char in _SELECTORS or (category(char)[0] in "LMNPS" and not _pattern(True).match(char)))


def escape_message(text: str) -> str:
    r"""Return a message with control characters escaped and its further lines indented, so that none poses as another.

    >>> escape_message("one\nmuse: two")
    'one\n    muse: two'
    """
    return escape_control(text, keep_newlines=True).rstrip("\n").replace("\n", _CONTINUED)


class EscapedStream:
    """A text stream that escapes control characters in what is written to it; everything else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self.unescaped = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unescaped, name)

    def write(self, text: str) -> int:
        """Write `text` escaped; return its length before that."""
        self.unescaped.write(escape_control(text, keep_newlines=True))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write every line."""
        for line in lines:
            self.write(line)


def escape_stream(stream: Any) -> Any:
    """Return `stream` with control characters escaped; one that does so already, or is closed (None), as it is."""
    if stream is None or isinstance(stream, EscapedStream):
        return stream
    return EscapedStream(stream)


def unescaped(stream: TextIO) -> TextIO:
    """Return the stream below an escaping one, for who styles text that is escaped already."""
    return stream.unescaped if isinstance(stream, EscapedStream) else stream


def escape_output() -> None:
    """Escape what this process writes to standard output and standard error from now on."""
    sys.stdout, sys.stderr = escape_stream(sys.stdout), escape_stream(sys.stderr)


@contextmanager
def escaped_output() -> Iterator[None]:
    """Escape what is written to standard output and standard error meanwhile."""
    before = sys.stdout, sys.stderr
    escape_output()
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody sees what is written to a standard stream; a closed one is None."""
    return stream is not None and stream.isatty()


class MessageFormatter(logging.Formatter):
    """Formats log records for standard error with control characters escaped, in tracebacks too."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        """Format the message; its further lines are indented."""
        return escape_message(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        """Format a record with its traceback."""
        return escape_control(super().format(record), keep_newlines=True)


def log_to_stderr(form: str, level: int | None = None) -> None:
    """Log to standard error with control characters escaped, unless the process logs elsewhere already."""
    handler = logging.StreamHandler()
    handler.setFormatter(MessageFormatter(form))
    logging.basicConfig(level=level, handlers=[handler])
