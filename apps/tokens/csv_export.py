"""Tables as CSV, row by row, safe to open in a spreadsheet; it knows no page."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from muse.types.formatting import format_number
from muse.usage_index.index import LogIndex
from muse.usage_index.line_queries import LineFilter, LoggedLine, list_lines
from muse.usage_index.queries import UsageFilter, UsageSums

_BLOCK_ROWS = 2_000
# A cell that begins so is taken for a formula (OWASP, CSV injection); the last four are the full-width forms.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_SUM_COLUMNS = (
    "calls", "failed", "unpriced", "estimated", "from_cache", "overnight", "own_model", "input_tokens", "cached_tokens",
    "cache_write_tokens", "output_tokens", "reasoning_tokens", "total_tokens", "cost_usd", "duration_s", "p50_s",
    "p95_s",
)  # fmt: skip
_LINE_COLUMNS = (
    "day", "at", "time", "context", "provider", "model", "segment", "kind", "failed", "unpriced", "estimated",
    "input_tokens", "output_tokens", "cost_usd", "duration_s", "error", "call_id", "attempt", "agent_id",
)  # fmt: skip
_Cell = str | int | float | None


def sum_rows(sums: UsageSums) -> Iterator[str]:
    """The rows of a table of sums; its last one is the total."""
    heads = [str(name) for name in sums.by]
    rows: list[list[_Cell]] = []
    for row in (*sums.rows, sums.total):
        total, usage = row.total, row.total.usage
        rows.append([
            *(row.key or ("total", *([""] * (len(heads) - 1)))),
            *(total.calls, total.failed, total.unpriced, row.estimated, row.kept, row.overnight, row.own),
            *(usage.input_tokens, usage.cached_tokens, usage.cache_write_tokens, usage.output_tokens),
            *(usage.reasoning_tokens, usage.total_tokens, total.cost_usd, total.duration_s, row.p50_s, row.p95_s),
        ])  # fmt: skip
    return written([*heads, *_SUM_COLUMNS], rows)


def line_rows(index: LogIndex, where: UsageFilter, wanted: LineFilter) -> Iterator[str]:
    """The lines of the log, the last ones first, some at a time: a long log is never in memory."""
    return written(_LINE_COLUMNS, (_line(line) for line in _lines(index, where, wanted)))


def _lines(index: LogIndex, where: UsageFilter, wanted: LineFilter) -> Iterator[LoggedLine]:
    block = list_lines(index, where, wanted, limit=_BLOCK_ROWS)
    while block:
        yield from block
        before = (block[-1].day, block[-1].at)
        block = list_lines(index, where, wanted, before=before, limit=_BLOCK_ROWS)


def _line(line: LoggedLine) -> list[_Cell]:
    return [
        *(line.day, line.at, _moment(line.timestamp), line.context, line.provider, line.model, line.segment, line.how),
        *(int(line.is_failed), int(line.is_unpriced), int(line.is_estimated), line.input_tokens, line.output_tokens),
        *(line.cost_usd, line.duration_s, line.error, line.call_id, line.attempt, line.run),
    ]


def _moment(timestamp: float | None) -> str:
    if timestamp is None:
        return ""
    try:
        return datetime.fromtimestamp(timestamp).astimezone().isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return str(timestamp)


def written(heads: Sequence[str], rows: Iterable[Sequence[_Cell]]) -> Iterator[str]:
    """Heads and rows as CSV text, some rows at a time."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\r\n")
    writer.writerow(heads)
    for number, row in enumerate(rows, 1):
        writer.writerow([_safe(cell) for cell in row])
        if number % _BLOCK_ROWS == 0:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


class _Digits(float):
    """A number that is written in digits, without an exponent and what binary fractions add."""

    def __str__(self) -> str:
        return format_number(round(float(self), 12))

    __repr__ = __str__


def _safe(cell: _Cell) -> _Cell:
    """A cell that no spreadsheet takes for a formula."""
    if cell is None:
        return ""
    if isinstance(cell, float):
        return _Digits(cell)
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
