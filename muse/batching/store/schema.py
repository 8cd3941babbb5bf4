"""The tables of a batch store, and checks that a file is one.

Entry points: `open_store`, `open_readonly`, `examine`.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from muse.journal.storage.sqlite import BUSY_S, connect, retry_on_busy
from muse.types.errors import ConfigError

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
# Requests may be large (images) and are written once; items are small and written twice. They are in two tables so
# that updates and sums of items do not read the requests.
TABLES = """
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
"""
_OURS = {"about", "items", "asked"}


def open_store(path: Path) -> sqlite3.Connection:
    """Open the batch store at `path` and create its tables.

    A temporary table `seen`, private to this connection, counts the keys that were claimed.

    Raises:
        OSError, sqlite3.Error: It cannot be opened.
    """
    connection: sqlite3.Connection = connect(str(path), TABLES, VERSION, synced=True)
    try:
        connection.execute("CREATE TEMP TABLE seen (key TEXT PRIMARY KEY, times INTEGER NOT NULL) WITHOUT ROWID")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def open_readonly(path: Path) -> sqlite3.Connection:
    """Open the batch store at `path` for reading only; the folder need not be writable.

    Raises:
        sqlite3.Error: It cannot be opened, for example after a crash in a folder that is not writable now.
    """
    uri = f"{path.absolute().as_uri()}?mode=ro"
    connection = _reader(uri)
    try:
        connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.OperationalError as exc:
        connection.close()
        # Reading a file in WAL mode normally needs further files beside it, which cannot be created in a folder that is
        # not writable. `immutable` reads without them.
        is_barred = exc.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
        if not is_barred or path.with_name(f"{path.name}-wal").exists():
            raise
        return _reader(f"{uri}&immutable=1")
    return connection


def _reader(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False)


def examine(path: Path, *, whole: bool) -> None:
    """Raise unless a file is a batch store of this version or empty, without writing to it.

    Args:
        path: The file.
        whole: Check every page.

    Raises:
        ConfigError: It is of another version, or belongs to another program.
        sqlite3.Error: It is not a database, or it is damaged.
    """
    with closing(retry_on_busy(lambda: open_readonly(path))) as database:
        version, tables = retry_on_busy(lambda: _found(database))
        is_ours = version == VERSION and tables >= _OURS
        if not is_ours and (version or tables):
            is_older = version not in (0, VERSION)
            raise ConfigError(
                str(path),
                f"a ledger of version {version}" if is_older else "a database of another program",
                f"version {VERSION}: use the muse that wrote it, or another ledger name; the file is left as it is",
            )
        look = "PRAGMA quick_check(1)"
        verdict = str(retry_on_busy(lambda: database.execute(look).fetchone()[0])) if whole else "ok"
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)


def _found(database: sqlite3.Connection) -> tuple[int, set[str]]:
    """Return the version and the tables of a file.

    One statement reads both, so that they are consistent while another process creates the tables.
    """
    row = database.execute(_LOOK).fetchone()
    return int(row[0]), set(json.loads(row[1]))


_LOOK = (
    "SELECT (SELECT user_version FROM pragma_user_version),"
    " (SELECT json_group_array(name) FROM sqlite_schema WHERE type = 'table')"
)
