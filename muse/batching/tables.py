"""The tables of a batch's ledger, and whether a file is one; it knows no request."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from muse.errors import ConfigError

VERSION = 1
COLUMNS = (
    "number",
    "key",
    "state",
    "request",
    "note",
    "response",
    "error",
    "error_class",
    "model",
    "provider",
    "usage",
    "attempts",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "duration_s",
)
# What is asked may be large (images) and is written once; an item is small and written twice. Its sums read no text.
_TABLES = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS items (
    number INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    occurrence INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'open',
    input_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    cost_usd REAL,
    duration_s REAL,
    finished_s REAL,
    model TEXT,
    provider TEXT,
    usage BLOB NOT NULL DEFAULT x'7b7d',
    attempts BLOB NOT NULL DEFAULT x'5b5d',
    error_class TEXT,
    error TEXT,
    response TEXT,
    UNIQUE (key, occurrence)
);
CREATE TABLE IF NOT EXISTS asked (number INTEGER PRIMARY KEY, request BLOB NOT NULL, note BLOB);
PRAGMA user_version = {VERSION};
COMMIT;
"""


def create(database: sqlite3.Connection) -> None:
    """Set a connection up, and make the tables where there are none."""
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    if _version(database) == 0:
        database.executescript(_TABLES)
    database.execute("CREATE TEMP TABLE seen (key TEXT PRIMARY KEY, times INTEGER NOT NULL) WITHOUT ROWID")


def examine(path: Path, *, whole: bool) -> None:
    """See, without writing, that a file is a ledger of this version, or an empty one; `whole` looks at every page.

    Raises:
        ConfigError: it is of another version, or not whole, or another program's.
        sqlite3.Error: it is no database.
    """
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as database:
        version = _version(database)
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        if version != VERSION and (version or tables):
            raise ConfigError(
                str(path),
                f"a ledger of version {version}" if version else "a database of another program",
                f"version {VERSION}: use the muse that wrote it, or another ledger name; the file is left as it is",
            )
        verdict = str(database.execute("PRAGMA quick_check(1)").fetchone()[0]) if whole else "ok"
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)


def _version(database: sqlite3.Connection) -> int:
    return int(database.execute("PRAGMA user_version").fetchone()[0])
