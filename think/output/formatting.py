"""How insights look, on a screen and in words: days, folded lines, errors cut short; it reads nothing."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from datetime import datetime

from muse.cli._terminal.terminal import width

_WIDEST = 100
_LONGEST_ERROR = 400

Line = tuple[str, str]
"""A line of text, and rich's words for how it looks on a terminal."""


def day_title(day: str) -> str:
    """A day for people: `Friday 6 November 2026`.

    >>> day_title("20261106")
    'Friday 6 November 2026'
    """
    date = datetime.strptime(day, "%Y%m%d")
    return f"{date:%A} {date.day} {date:%B %Y}"


def wrapped(text: str, indent: str, style: str = "") -> Iterator[Line]:
    """`text` folded to the window, each line behind `indent`."""
    columns = max(min(width(), _WIDEST), 30)
    for line in textwrap.wrap(text, columns, initial_indent=indent, subsequent_indent=indent):
        yield line, style


def brief(text: str) -> str:
    """An error's text on one line, without most of the list that some have (all sources of a week, say).

    >>> len(brief("word " * 1000))
    400
    """
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_ERROR else f"{line[: _LONGEST_ERROR - 2]} …"
