"""Token logs for tests: lines written as muse writes them, and whether an index of them says what `muse usage` says."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from muse import models
from muse.usage_index.index import LogIndex
from muse.usage_index.queries import UsageFilter, count_bad_lines, sums
from muse.usage_log import ledger
from muse.usage_log.totals import Field, UsageSummary, UsageTotal, summarize
from tests.journal_folder import JournalFolder

DAY = "20261103"
ALL = UsageFilter((0, 99_999_999))


def line(**fields: Any) -> dict[str, Any]:
    """A line with what most lines have; `fields` are others, or further ones."""
    usage = {"input_tokens": 1_000, "output_tokens": 100, "total_tokens": 1_100}
    return {
        "timestamp": 1_793_700_000.0,
        "model": "gpt-6-luna",
        "context": "insight.daily",
        "usage": usage,
        "provider": "openai",
        "route": "providers.contexts['insight.*']",
        "duration_s": 2.0,
        "finish": "stop",
        "cost_usd": 0.1,
        **fields,
    }


def log_path(journal: JournalFolder, day: str = DAY) -> Path:
    """The log of a day."""
    journal.tokens.mkdir(exist_ok=True)
    return journal.tokens / f"{day}.jsonl"


def append(journal: JournalFolder, *lines: dict[str, Any] | bytes, day: str = DAY) -> Path:
    """Put lines behind the log of a day; bytes go in as they are."""
    path = log_path(journal, day)
    with path.open("ab") as file:
        for entry in lines:
            file.write(entry if isinstance(entry, bytes) else json.dumps(entry).encode() + b"\n")
    return path


def usage_says(by: Iterable[Field] = ("context",)) -> UsageSummary:
    """The sums of the log as `muse usage` makes them."""
    days = sorted(path.stem for path in ledger.day_files())
    lines = ((day, entry) for day in days for entry in ledger.read((day, day)))
    return summarize(lines, by, price=models.calc_token_cost, owner=models.get_model_provider)


def same_as_usage(index: LogIndex, by: tuple[Field, ...] = ("context",)) -> None:
    """Fail unless the index has the very sums of `muse usage`, and as many unreadable lines."""
    index.refresh()
    said, found = usage_says(by), sums(index, ALL, by)
    assert [_plain(row.total) for row in found.rows] == [_plain(row) for row in said.rows]
    assert _plain(found.total.total) == _plain(said.total)
    assert count_bad_lines(index, ALL.days) == ledger.count_bad_lines()


def _plain(total: UsageTotal) -> UsageTotal:
    """A total apart from whether counts are estimates, of which the index knows one more place."""
    return replace(total, usage=replace(total.usage, estimated=False))


def calls(index: LogIndex) -> int:
    """How many lines the index has after a look."""
    index.refresh()
    return sums(index, ALL).total.total.calls
