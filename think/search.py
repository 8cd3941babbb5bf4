"""Search in the journal: words into ranked hits with snippets and where to read on; it knows no tool and no model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from muse import journal
from muse.errors import MuseError
from think.entries import Kind
from think.index import SearchIndex, open_index
from think.passages import Line, compose

MOST_CHARS = 1_000
MOST_WORDS = 64
SNIPPET_CHARS = 320
MARK = "**"

_QUOTED = re.compile(r'"([^"]*)"|([^\s"]+)')
_WORD = re.compile(r"[^\W_]+")
# Words that say nothing of what is looked for: left out unless the query has no others.
_FILLERS = frozenset(
    "a about all am an and any are as at be been but by can could did do does for from had has have he her him his how"
    " i if in into is it its me my of on or our she should so tell than that the their them then there these they this"
    " those to us was we were what when where which who whom whose why will with would you your".split()
)
# The title counts most; a day's names count as little as one word among many.
_RANK = "bm25(words, 3.0, 1.0, 0.7)"
_OPEN, _CLOSE = "\x02", "\x03"  # no text in the index has them: it holds printable characters only

_FROM = " FROM words JOIN passages ON passages.id = words.rowid WHERE words MATCH :match"
_WITHIN = (
    " AND passages.day BETWEEN :day_from AND :day_to AND passages.kind = ifnull(:kind, passages.kind)"
)
