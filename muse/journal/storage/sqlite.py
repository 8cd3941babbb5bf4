"""SQLite files of a journal: opened with their tables, or refused; it knows no table."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from muse.journal.storage.atomic_files import make_folder

log = logging.getLogger(__name__)

BUSY_S = 10.0
_AGAIN_S = 0.005
_T = TypeVar("_T")


def connect(path: str, tables: str, version: int, *, synced: bool, busy_s: float = BUSY_S) -> Any:
    """A connection to the file at `path`, in WAL mode, for all threads; a new file gets `tables` and mode 0600.

    `synced` says whether what is committed must outlast the machine's power; it outlasts this process in any case.
    `busy_s` is how long it waits for other processes, now and later.

    Raises:
        sqlite3.DatabaseError: it is no such file, or one of another version; it is left as it is.
        OSError, sqlite3.Error: it cannot be opened.
    """
    import sqlite3  # 5 ms, and only who keeps something pays it

    make_folder(os.path.dirname(path) or ".")
    if path != ":memory:":
        _make_private(path)
    connection = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
    try:
        # Of several processes that switch a file to WAL mode at once, SQLite refuses some without waiting.
        retry_on_busy(lambda: connection.execute("PRAGMA journal_mode=WAL"), busy_s)
        connection.execute(f"PRAGMA synchronous={'NORMAL' if synced else 'OFF'}")
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found == 0:
            found = _made(connection, tables, version)
        if found != version:
            raise sqlite3.DatabaseError(f"it is of version {found}, and this muse reads version {version}")
        if path != ":memory:":
            os.chmod(path, 0o600)
    except BaseException:
        connection.close()
        raise
    return connection


def _make_private(path: str) -> None:
    """Make a new file for its owner only, from its first byte on: what SQLite puts beside it gets the same mode."""
    with contextlib.suppress(FileExistsError, PermissionError):  # SQLite itself says what it cannot open
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _made(connection: Any, tables: str, version: int) -> int:
    """Make the tables of a new file, unless another process just did; the version it has then."""
    connection.execute("BEGIN IMMEDIATE")
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if found == 0:
        for statement in filter(str.strip, tables.split(";")):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={version}")
        found = version
    connection.execute("COMMIT")
    return found


def retry_on_busy(action: Callable[[], _T], busy_s: float = BUSY_S) -> _T:
    """What `action` gives; while other connections are at work it is tried again.

    Raises:
        sqlite3.OperationalError: others keep the file locked for too long, or it cannot be used.
    """
    import sqlite3  # loaded already

    give_up_s = time.monotonic() + busy_s
    while True:
        try:
            return action()
        except sqlite3.OperationalError as exc:
            if not is_busy(exc) or time.monotonic() > give_up_s:
                raise
            time.sleep(_AGAIN_S)


@contextlib.contextmanager
def write_transaction(connection: Any) -> Iterator[None]:
    """One transaction, whole or not at all; other processes that want to write wait for its end, readers do not."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def is_busy(exc: Exception) -> bool:
    """Whether an error of SQLite says that another connection is at work."""
    return _says(exc, "BUSY", "LOCKED")


def is_damage(exc: Exception) -> bool:
    """Whether an error of SQLite says that the file is none of ours any more."""
    return _says(exc, "CORRUPT", "NOTADB", "ERROR", "SCHEMA")


def is_unwritable(exc: Exception) -> bool:
    """Whether an error of SQLite says that the file cannot be written where it is."""
    return _says(exc, "READONLY", "CANTOPEN", "IOERR", "FULL", "PERM")


def _says(exc: Exception, *names: str) -> bool:
    """Whether an error bears one of SQLite's primary codes; those that refine one share its low byte."""
    import sqlite3  # loaded already

    if not isinstance(exc, sqlite3.Error):
        return False
    code: int = vars(exc).get("sqlite_errorcode", 0) & 0xFF  # an error of our own has none
    return any(code == vars(sqlite3)[f"SQLITE_{name}"] for name in names)


def recreate_if_damaged(path: str, open_it: Callable[[], _T]) -> _T:
    """What `open_it` opens; a file that is damaged or of another version is put aside first, with a warning.

    Raises:
        OSError, sqlite3.Error: it cannot be opened, nor can a new one.
    """
    import sqlite3  # 5 ms, and only who keeps something pays it

    try:
        return open_it()
    except sqlite3.OperationalError:  # a folder that cannot be written; the rest is the file's own fault
        raise
    except sqlite3.DatabaseError as exc:
        aside = f"{os.path.basename(path)}.{time.time_ns()}.unusable"
        quarantine(path, aside)
        log.warning("%s could not be used (%s); it is %s now, and begun anew", path, exc, aside)
        return open_it()


def quarantine(path: str, name: str) -> None:
    """Rename a file that cannot be used, with what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm"):
        if os.path.exists(path + suffix):
            os.replace(path + suffix, os.path.join(os.path.dirname(path), name + suffix))
