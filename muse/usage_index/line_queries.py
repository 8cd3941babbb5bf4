"""Single lines of the usage log and lists of them, from its index.

Entry points: `list_lines`, `find_line`, `lines_of_call`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from muse.usage_index.index import LogIndex
from muse.usage_index.log_reader import read_at
from muse.usage_index.queries import UsageFilter, UsageSum, sums
from muse.usage_index.writer import ESTIMATED, FAILED, FINE, KEPT, OVERNIGHT, OWN, UNPRICED
from muse.usage_log.ledger import read_entry

Only = Literal["", "failed", "unpriced", "estimated", "kept", "overnight", "own"]
_FLAGS: Mapping[str, int] = {"failed": FAILED, "unpriced": UNPRICED, "estimated": ESTIMATED}
HOWS: Mapping[str, str] = {"kept": KEPT, "overnight": OVERNIGHT, "own": OWN}
ONLY: tuple[Only, ...] = ("failed", "unpriced", "estimated", "kept", "overnight", "own")
_LATER = (99_999_999, 0)
_LINE = """
SELECT l.day, l.at, l.size, l.ts, k.context, k.provider, k.model, k.segment, k.how, l.flags, l.cost, l.duration,
    l.input, l.output, l.error, l.call, l.attempt, l.run
FROM lines l CROSS JOIN keys k ON k.id = l.key
"""
_ONE_LINE = f"{_LINE} WHERE l.day = ? AND l.at = ?"
_FITS = """(:flag = 0 OR l.flags & :flag)
    AND (:word = '' OR l.key IN (SELECT id FROM keys WHERE level = :fine
            AND instr(lower(context || char(10) || provider || char(10) || model || char(10) || segment), :word))
        OR (l.flags & :failed AND instr(lower(l.error), :word)))
    AND (:how = '' OR k.how = :how)
    AND (:context = '' OR k.context = :context) AND (:provider = '' OR k.provider = :provider)
    AND (:model = '' OR k.model = :model) AND (:segment = '' OR k.segment = :segment)"""
# On a day without a key that contains the word, only failed lines can contain it: in their error.
_FAILED = (
    f"{_LINE} WHERE l.day = :day AND l.at < :at AND l.flags & {FAILED} AND {_FITS} ORDER BY l.at DESC LIMIT :limit"
)
_DAYS_OF_WORD = """
SELECT DISTINCT day FROM tallies WHERE level = :fine AND key IN (SELECT id FROM keys WHERE level = :fine
    AND instr(lower(context || char(10) || provider || char(10) || model || char(10) || segment), :word))
"""
_LINES = f"{_LINE} WHERE l.day = :day AND l.at < :at AND {_FITS} ORDER BY l.at DESC LIMIT :limit"
_OF_RUN = f"""{_LINE}
WHERE l.run = :run AND (l.day, l.at) < (:day, :at) AND l.day BETWEEN :first AND :last AND {_FITS}
ORDER BY l.day DESC, l.at DESC LIMIT :limit
"""
_OF_CALL = f"{_LINE} WHERE l.call = :call ORDER BY l.day, l.at LIMIT :limit"


class LoggedLine(Struct, frozen=True):
    """A summary of a line of the log.

    `day` and `at` (an offset in bytes) are its place. Lines with the same `call_id` are the attempts of one logical
    call; `attempt` is their number from 1. Lines of versions without these fields have "" and None.
    """

    day: int
    at: int
    size: int
    timestamp: float | None
    context: str
    provider: str
    model: str
    segment: str
    how: str
    is_failed: bool
    is_unpriced: bool
    is_estimated: bool
    cost_usd: float | None
    duration_s: float | None
    input_tokens: int
    output_tokens: int
    error: str
    call_id: str = ""
    attempt: int | None = None
    run: str = ""


class LineFilter(Struct, frozen=True):
    """A filter in addition to a `UsageFilter`: lines of a kind, of one agent run, with some text.

    `word` occurs in the context, provider, model, segment or error; "" selects all. Upper and lower case of ASCII
    letters are equal.
    """

    only: Only = ""
    run: str = ""
    word: str = ""

    def bound(self) -> dict[str, str | int]:
        """Return the parameters of the queries."""
        kind: dict[str, str | int] = {"flag": _FLAGS.get(self.only, 0), "how": HOWS.get(self.only, "")}
        return {**kind, "run": self.run, "word": self.word.lower(), "failed": FAILED, "fine": FINE}


_ANY = LineFilter()


def list_lines(
    index: LogIndex,
    where: UsageFilter,
    wanted: LineFilter = _ANY,
    *,
    before: tuple[int, int] = _LATER,
    limit: int = 100,
) -> list[LoggedLine]:
    """Return lines, newest first, that come before the place `before` (a line's `day` and `at`)."""
    values = {**where.bound(), **wanted.bound()}
    if wanted.run:
        place = {"first": where.days[0], "last": where.days[1], "day": before[0], "at": before[1], "limit": limit}
        return [_logged(row) for row in index.rows(_OF_RUN, {**values, **place})]
    found: list[LoggedLine] = []
    named = {day for (day,) in index.rows(_DAYS_OF_WORD, values)} if wanted.word else None
    for day in _days_with(index, where, wanted.only, before[0]):
        query = _LINES if named is None or day in named else _FAILED
        place = {"day": day, "at": before[1] if day == before[0] else 1 << 62, "limit": limit - len(found)}
        found += [_logged(row) for row in index.rows(query, {**values, **place})]
        if len(found) >= limit:
            break
    return found


def _days_with(index: LogIndex, where: UsageFilter, only: Only, last: int) -> list[int]:
    """Return the days that have such lines, newest first."""
    narrowed = replace(where, days=(where.days[0], min(where.days[1], last)))
    found = sums(index, narrowed, ("day",)).rows
    return [int(row.key[0]) for row in reversed(found) if not only or count_only(row, only)]


def count_only(row: UsageSum, only: Only) -> int:
    """Return how many lines of a sum are of a kind."""
    counts: Mapping[Only, int] = {
        "": row.total.calls,
        "failed": row.total.failed,
        "unpriced": row.total.unpriced,
        "estimated": row.estimated,
        "kept": row.kept,
        "overnight": row.overnight,
        "own": row.own,
    }
    return counts[only]


def _logged(row: tuple[Any, ...]) -> LoggedLine:
    flags = row[9]
    marks = (bool(flags & FAILED), bool(flags & UNPRICED), bool(flags & ESTIMATED))
    values: list[Any] = [*row[:9], *marks, *row[10:14], row[14] or "", row[15] or "", row[16], row[17] or ""]
    return LoggedLine(*values)


def find_line(index: LogIndex, day: int, at: int) -> tuple[LoggedLine, dict[str, Any]] | None:
    """Return a line's summary and its JSON from the log; None if there is no line at that place (any more)."""
    rows = index.rows(_ONE_LINE, (day, at))
    if not rows:
        return None
    line = _logged(rows[0])
    try:
        entry = read_entry(read_at(index.log_path(day), at, line.size))
    except OSError:
        return None
    return None if entry is None else (line, entry)


def lines_of_call(index: LogIndex, call_id: str, *, limit: int = 1_000) -> list[LoggedLine]:
    """Return the attempts of a logical call in the order of their lines, on whichever days; none for the id ""."""
    return [_logged(row) for row in index.rows(_OF_CALL, {"call": call_id, "limit": limit})]


def text_of(value: object, *, most: int = 10_000) -> str:
    """Return a field of a line as readable text, cut at `most` characters."""
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"
