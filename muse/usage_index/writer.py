"""The tables of the usage log's index, and how lines get into them. Entry points: `read_on`, `forget`, `marks`."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from muse.calls import log_pricing
from muse.providers import specs
from muse.types.call_ids import parse_call_id
from muse.types.provider_spec import ProviderSpec, provider_of
from muse.types.usage import MOST_TOKENS, Usage, parse_usage
from muse.usage_index.aggregate import UsageAggregate, pack, unpack
from muse.usage_index.log_reader import Found, ReadPosition, Scan
from muse.usage_log.totals import Line, field_value, finite, is_unpriced, line_cost

VERSION = 4
TABLES = """
CREATE TABLE files (
    day INTEGER PRIMARY KEY, inode INTEGER, size INTEGER, mtime_ns INTEGER, done INTEGER, checksum INTEGER,
    tail INTEGER, open_end INTEGER, pending INTEGER, bad INTEGER, priced INTEGER, begun INTEGER
);
CREATE TABLE keys (
    id INTEGER PRIMARY KEY, level INTEGER, context TEXT, provider TEXT, model TEXT, segment TEXT, how TEXT,
    UNIQUE (level, context, provider, model, segment, how)
);
CREATE TABLE tallies (
    level INTEGER, day INTEGER, key INTEGER, body BLOB, PRIMARY KEY (level, day, key)
) WITHOUT ROWID;
CREATE TABLE lines (
    day INTEGER, at INTEGER, size INTEGER, key INTEGER, ts REAL, flags INTEGER, cost REAL, duration REAL,
    input INTEGER, output INTEGER, error TEXT, call TEXT, attempt INTEGER, run TEXT, PRIMARY KEY (day, at)
) WITHOUT ROWID;
CREATE INDEX lines_call ON lines (call) WHERE call IS NOT NULL;
CREATE INDEX lines_failed ON lines (day, at) WHERE flags & 1;
CREATE INDEX lines_run ON lines (run, day, at) WHERE run IS NOT NULL;
CREATE TABLE prices (model TEXT, provider TEXT, owner TEXT, cost REAL, PRIMARY KEY (model, provider)) WITHOUT ROWID
"""

# The levels of a tally: by every field of a key, by all but the segment, or by the segment alone.
FINE, COARSE, SEGMENT = 0, 1, 2
# The bits of a line's flags.
FAILED, UNPRICED, ESTIMATED = 1, 2, 4
# How a call came about if it was not simply routed: the caller named the model, a batch service or the cache answered.
OWN, OVERNIGHT, KEPT = "own", "overnight", "kept"

_OWN_ROUTES = ("the call's own model", "the run's own model")
_LONGEST_NAME = 200
_MOST_KEYS = 50_000
_LONGEST_SAID = 2_000
# The fields of a line that determine its key.
_SAID = ("context", "provider", "model", "segment", "route", "cache", "lane")
_COUNTS = frozenset(
    ("input_tokens", "output_tokens", "total_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")
)
_LONGEST_ERROR = 60
# Token counts that together involve every rate of a price list, including those for long prompts.
_PROBES: tuple[Mapping[str, int], ...] = (
    {"input_tokens": 1_009, "output_tokens": 211, "cached_tokens": 307, "cache_write_tokens": 101},
    {"input_tokens": 1_000_003, "output_tokens": 10_007, "cached_tokens": 100_003, "cache_write_tokens": 50_021},
)

_MARKS = "SELECT day, inode, size, mtime_ns, done, checksum, tail, open_end, pending FROM files"
_MARK_OF = "SELECT inode, size, mtime_ns, done, checksum, tail, open_end, pending FROM files WHERE day = ?"
_KEEP_MARK = """
INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (day) DO UPDATE SET
    inode = excluded.inode, size = excluded.size, mtime_ns = excluded.mtime_ns, done = excluded.done,
    checksum = excluded.checksum, tail = excluded.tail, open_end = excluded.open_end, pending = excluded.pending,
    bad = bad + excluded.bad, priced = max(priced, excluded.priced)
"""
_FORGET = ("DELETE FROM lines WHERE day = ?", "DELETE FROM tallies WHERE day = ?", "DELETE FROM files WHERE day = ?")

Key = tuple[str, str, str, str, str]  # context, provider, model, segment, how


class LineBatch(Struct):
    """Lines of one day in the form of table rows."""

    sums: dict[Key, UsageAggregate] = field(default_factory=dict)
    lines: list[tuple[Any, ...]] = field(default_factory=list)
    priced: set[tuple[str, str]] = field(default_factory=set)
    bad: int = 0


class LineClassifier:
    """A converter of lines to rows: the provider that was called, the cost, and the key for the sums."""

    def __init__(self) -> None:
        self._owners: dict[str, str] = {}
        self._keys: dict[tuple[str | None, ...], Key] = {}
        self._specs: Mapping[str, ProviderSpec] = {}

    def read(self, day: str, found: Iterable[Found]) -> LineBatch:
        """Return the rows of some lines."""
        known = specs()
        if known is not self._specs or len(self._keys) > _MOST_KEYS:
            self._specs, self._owners, self._keys = known, {}, {}
        batch = LineBatch()
        for line in found:
            if line.entry is None:
                batch.bad += 1
            else:
                self._add(batch, day, line, line.entry)
        return batch

    def _add(self, batch: LineBatch, day: str, found: Found, line: Line) -> None:
        key = self._key_of(day, line)
        usage, cost_usd = _usage_of(line.get("usage")), line_cost(line, log_pricing.calc_token_cost)
        if line.get("cost_usd") is None or not line.get("provider"):
            batch.priced.add((named(str(line.get("model") or "")), named(str(line.get("provider") or ""))))
        duration_s = finite(line.get("duration_s"))
        call_id, number = parse_call_id(line)
        error, is_estimated = line.get("error"), bool(line.get("estimated")) or usage.estimated
        tally = batch.sums.get(key)
        if tally is None:
            tally = batch.sums[key] = UsageAggregate()
        tally.count(usage, cost_usd, duration_s)
        tally.failed += bool(error)
        tally.estimated += is_estimated
        if duration_s is not None and key[4] not in (OVERNIGHT, KEPT):
            tally.time(duration_s)
        flags = (FAILED if error else 0) | (ESTIMATED if is_estimated else 0)
        flags |= UNPRICED if is_unpriced(usage, cost_usd) else 0
        batch.lines.append(
            (
                *(key, found.at, found.size, finite(line.get("timestamp")), flags, cost_usd, duration_s),
                *(usage.input_tokens, usage.output_tokens, _error_name(error) if error else None),
                *(call_id or None, number, _run_of(line.get("agent_id"))),
            )
        )

    def _key_of(self, day: str, line: Line) -> Key:
        """Return the key of a line, cached for lines whose relevant fields are short text."""
        said = tuple(map(line.get, _SAID))
        if not all(value is None or type(value) is str for value in said):
            return self._key(day, line)
        key = self._keys.get(said)
        if key is None:
            key = self._key(day, line)
            if sum(map(len, filter(None, said))) <= _LONGEST_SAID:
                self._keys[said] = key
        return key

    def _key(self, day: str, line: Line) -> Key:
        route = line.get("route")
        if line.get("cache") == "hit":
            how = KEPT
        elif line.get("lane"):
            how = OVERNIGHT
        else:
            how = OWN if isinstance(route, str) and route.startswith(_OWN_ROUTES) else ""
        context, provider, model, segment = (
            named(field_value(name, day, line, self._owner)) for name in ("context", "provider", "model", "segment")
        )
        return context, provider, model, segment, how

    def _owner(self, model: str) -> str:
        owner = self._owners.get(model)
        if owner is None:
            owner = self._owners[model] = owner_of(model)
        return owner


def _usage_of(raw: object) -> Usage:
    """Return the same as `parse_usage`, faster for muse's own format."""
    if type(raw) is not dict or not raw.keys() <= _COUNTS or "input_tokens" not in raw:
        return parse_usage(raw)
    if not all(type(count) is int and 0 <= count <= MOST_TOKENS for count in raw.values()):
        return parse_usage(raw)
    counted_in, look_up = raw["input_tokens"], raw.get
    cached = min(look_up("cached_tokens", 0), counted_in)
    return Usage(
        counted_in,
        look_up("output_tokens", 0),
        cached,
        min(look_up("cache_write_tokens", 0), counted_in - cached),
        look_up("reasoning_tokens", 0),
        requests=1,
    )


def owner_of(model: str) -> str:
    """Return the provider that a model's name implies, as `muse usage` has it."""
    return (provider_of(model, specs()) if model else None) or "unknown"


def named(text: str) -> str:
    """Return a name as it is stored: at most 200 characters, without what UTF-8 cannot hold."""
    if len(text) > _LONGEST_NAME:
        digest = hashlib.sha256(text.encode("utf-8", errors="replace")).hexdigest()[:8]
        text = f"{text[: _LONGEST_NAME - 20]}... ({digest})"
    return text if text.isascii() else text.encode("utf-8", errors="replace").decode("utf-8")


# --- the tables; each function works inside the caller's transaction


def mark_of(database: Any, day: int) -> ReadPosition | None:
    """Return how far a day was read; None if nothing of it is stored."""
    row = database.execute(_MARK_OF, (day,)).fetchone()
    return None if row is None else to_mark(row)


def marks(database: Any) -> dict[int, ReadPosition]:
    """Return how far each day was read."""
    return {row[0]: to_mark(row[1:]) for row in database.execute(_MARKS)}


def to_mark(row: tuple[Any, ...]) -> ReadPosition:
    """Return a row of `files` as a read position."""
    values: list[Any] = [*row[:6], bool(row[6]), bool(row[7])]
    return ReadPosition(*values)


def read_on(database: Any, assessor: LineClassifier, path: Path, mark: ReadPosition, most_lines: int) -> ReadPosition:
    """Read some lines of a day after `mark` and store them; return the new position."""
    day = int(path.stem)
    scan = Scan(path, mark, most_lines)
    batch = assessor.read(path.stem, scan)
    ids = _keep_sums(database, day, batch.sums)
    database.executemany(
        "INSERT OR REPLACE INTO lines"
        " (key, at, size, ts, flags, cost, duration, input, output, error, call, attempt, run, day)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        ((ids[line[0]], *line[1:], day) for line in batch.lines),
    )
    for model, provider in batch.priced:
        database.execute(
            "INSERT OR IGNORE INTO prices VALUES (?, ?, ?, ?)", (model, provider, *_probe(model, provider))
        )
    counted = (batch.bad, bool(batch.priced), time.time_ns())
    database.execute(_KEEP_MARK, (day, *msgspec.structs.astuple(scan.mark), *counted))
    return scan.mark


def _error_name(error: object) -> str:
    """Return a short name of a line's error: its class, and its status if it has one."""
    if isinstance(error, Mapping):
        parts = (error.get("class"), error.get("status"))
        error = " ".join(str(part) for part in parts if part) or "error"
    return named(str(error))[:_LONGEST_ERROR]


def _run_of(agent_id: object) -> str | None:
    """Return the agent run that a line names; None where it names none."""
    return named(agent_id) if isinstance(agent_id, str) and agent_id else None


def _keep_sums(database: Any, day: int, sums: Mapping[Key, UsageAggregate]) -> dict[Key, int]:
    """Add sums to the stored ones at each level; return the ids of their keys."""
    wholes: list[dict[Key, UsageAggregate]] = [dict(sums), {}, {}]
    for key, tally in sums.items():
        context, provider, model, segment, how = key
        for level, wider in ((COARSE, (context, provider, model, "", how)), (SEGMENT, ("", "", "", segment, how))):
            wholes[level].setdefault(wider, UsageAggregate()).merge(tally)
    ids: dict[Key, int] = {}
    for level, level_sums in enumerate(wholes):
        for key, tally in level_sums.items():
            number = _key_id(database, level, key)
            if level == FINE:
                ids[key] = number
            place = (level, day, number)
            row = database.execute("SELECT body FROM tallies WHERE (level, day, key) = (?, ?, ?)", place).fetchone()
            if row is not None:
                tally.merge(unpack(row[0]))
            database.execute("INSERT OR REPLACE INTO tallies VALUES (?, ?, ?, ?)", (*place, pack(tally)))
    return ids


def _key_id(database: Any, level: int, key: Key) -> int:
    find = "SELECT id FROM keys WHERE (level, context, provider, model, segment, how) = (?, ?, ?, ?, ?, ?)"
    row = database.execute(find, (level, *key)).fetchone()
    if row is None:
        make = "INSERT INTO keys (level, context, provider, model, segment, how) VALUES (?, ?, ?, ?, ?, ?)"
        return int(database.execute(make, (level, *key)).lastrowid)
    return int(row[0])


def forget(database: Any, day: int) -> None:
    """Delete everything that is stored of a day."""
    for statement in _FORGET:
        database.execute(statement, (day,))


def is_repriced(database: Any) -> bool:
    """Return True if a price or the owner of a model changed since lines were priced by it."""
    rows = database.execute("SELECT model, provider, owner, cost FROM prices").fetchall()
    return any(_probe(model, provider) != (owner, cost) for model, provider, owner, cost in rows)


def forget_repriced(database: Any) -> None:
    """Delete the days with lines whose price or owner was determined here."""
    for row in database.execute("SELECT day FROM files WHERE priced").fetchall():
        forget(database, row[0])
    database.execute("DELETE FROM prices")


def _probe(model: str, provider: str) -> tuple[str, float | None]:
    """Return `(owner, dollars)` for some tokens of a model at today's prices."""
    ask: Callable[[Line], Mapping[str, Any] | None] = log_pricing.calc_token_cost
    said = {"provider": provider} if provider else {}
    costs = [line_cost({"model": model, "usage": usage, **said}, ask) for usage in _PROBES]
    return owner_of(model), None if None in costs else sum(cost or 0.0 for cost in costs)
