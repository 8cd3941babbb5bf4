"""The SQLite file of the search index: its tables, and how it is opened; it knows no journal."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

from muse.journal.storage.sqlite import connect

log = logging.getLogger(__name__)

VERSION = 1
BUSY_S = 30.0

_TABLES = """
CREATE TABLE files (path TEXT PRIMARY KEY, mtime_ns INTEGER NOT NULL, size INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE entries (
    id INTEGER PRIMARY KEY, path TEXT NOT NULL, name TEXT NOT NULL, day INTEGER NOT NULL,
    time TEXT NOT NULL, kind TEXT NOT NULL, title TEXT NOT NULL
);
CREATE INDEX entries_by_path ON entries (path);
CREATE INDEX entries_by_day ON entries (day, kind);
CREATE TABLE passages (
    id INTEGER PRIMARY KEY, entry INTEGER NOT NULL, day INTEGER NOT NULL, kind TEXT NOT NULL,
    heading TEXT NOT NULL, lines TEXT NOT NULL
);
CREATE INDEX passages_by_entry ON passages (entry);
CREATE VIRTUAL TABLE words USING fts5 (title, body, date, tokenize = 'porter unicode61 remove_diacritics 2');
"""


def open_memory() -> sqlite3.Connection:
    """An empty index in memory."""
    return _opened(":memory:")


def open_file(path: Path) -> sqlite3.Connection:
    """The index in a file, for its owner only; one that is no index, or of another version, is made anew.

    Raises:
        OSError: the file cannot be written.
        sqlite3.OperationalError: it cannot be an index here (`is_unwritable`).
    """
    try:
        return _opened(str(path))
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as exc:
        log.warning("search index %s: %s; it is made anew", path, exc)
        remove_file(path)
        return _opened(str(path))


def _opened(path: str) -> sqlite3.Connection:
    database: sqlite3.Connection = connect(path, _TABLES, VERSION, synced=True, busy_s=BUSY_S)
    database.execute("PRAGMA cache_size = -16000")
    return database


def remove_file(path: Path) -> None:
    """Remove the index and what SQLite keeps beside it; who has it open goes on with what was there.

    Raises:
        OSError: it cannot be removed.
    """
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
