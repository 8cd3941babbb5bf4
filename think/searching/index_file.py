"""The SQLite file of the search index: its tables, how it is opened, what its errors mean; it knows no journal."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

from muse.database import writing

VERSION = 1
BUSY_S = 30.0
_TRY_AGAIN_S = 0.01

_SCHEMA = """
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
_DROP = tuple(f"DROP TABLE IF EXISTS {name}" for name in ("words", "passages", "entries", "files"))
_MAKE = (*_DROP, *(part.strip() for part in _SCHEMA.split(";\n") if part.strip()), f"PRAGMA user_version = {VERSION}")
# What SQLite says (primary codes) of a file that is no index any more, and of one that cannot be written here.
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_SCHEMA})
_UNWRITABLE = frozenset(
    {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_PERM}
)


def open_memory() -> sqlite3.Connection:
    """An empty index in memory."""
    database = _connect(":memory:")
    _make_tables(database)
    return database


def open_file(path: Path) -> sqlite3.Connection:
    """The index in a file, for its owner only; its tables are made if they are missing or of another version.

    Raises:
        OSError: the file cannot be written.
        sqlite3.DatabaseError: it is no index (`is_damage`), or cannot be one here (`is_unwritable`).
    """
    path.parent.mkdir(mode=0o700, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    database = _connect(str(path))
    try:
        _write_ahead(database)
        if _version(database) != VERSION:
            with writing(database):
                _make_tables(database)
    except sqlite3.Error:
        database.close()
        raise
    return database


def remove_file(path: Path) -> None:
    """Remove the index and what SQLite keeps beside it; who has it open goes on with what was there.

    Raises:
        OSError: it cannot be removed.
    """
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is no sound index any more."""
    return _code(error) in _DAMAGED


def is_unwritable(error: sqlite3.Error) -> bool:
    """Whether the file cannot be written where it is."""
    return _code(error) in _UNWRITABLE


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another process was writing for longer than one waits."""
    return _code(error) == sqlite3.SQLITE_BUSY


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary code; those it refines share their low byte."""
    return error.sqlite_errorcode & 0xFF


def _connect(name: str) -> sqlite3.Connection:
    database = sqlite3.connect(name, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute("PRAGMA cache_size = -16000")
    return database


def _write_ahead(database: sqlite3.Connection) -> None:
    """Let readers go on while one process writes; several that ask for it at once hinder each other for a moment."""
    until_s = time.monotonic() + BUSY_S
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as exc:
            if not is_busy(exc) or time.monotonic() > until_s:
                raise
            time.sleep(_TRY_AGAIN_S)
        else:
            return


def _version(database: sqlite3.Connection) -> int:
    return int(database.execute("PRAGMA user_version").fetchone()[0])


def _make_tables(database: sqlite3.Connection) -> None:
    """Make the tables, unless another process has made them while this one waited."""
    if _version(database) != VERSION:
        for statement in _MAKE:
            database.execute(statement)
