"""What processes on one journal share about limits and failing models: one SQLite file; it knows no policy.

`<journal>/policies.sqlite`, in WAL mode. Nothing in it is worth much later than it was written, so writes are not
synced to disk, and a file that cannot be used is put aside and begun anew. Limits and breakers count in monotonic
seconds, which all processes of a machine share and which no change of the clock moves; what lies in the future is from
before a restart, and dropped.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from muse.journal import paths
from muse.journal.storage.sqlite import connect, is_busy, recreate_if_damaged

log = logging.getLogger(__name__)

NAME = "policies.sqlite"
_VERSION = 2
_BUSY_S = 0.05
# After so long calls of an event loop look again whether another process is still writing.
_LOOP_TRY_AGAIN_S = 0.005
# What a call of an event loop waits at most, which stands still meanwhile.
_LOOP_BUSY_MS = 3
_TRIES = 3
_LOOK_AGAIN_S = 0.5
_TRY_AGAIN_S = 30.0
_T = TypeVar("_T")
_TABLES = """
CREATE TABLE spent (id INTEGER PRIMARY KEY, key TEXT, until REAL, requests INTEGER, tokens INTEGER);
CREATE INDEX spent_key ON spent (key, until);
CREATE TABLE holders (key TEXT, process TEXT, slots INTEGER, PRIMARY KEY (key, process)) WITHOUT ROWID;
CREATE TABLE line (id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT, again REAL, process TEXT);
CREATE INDEX line_key ON line (key, again);
CREATE TABLE breakers (key TEXT PRIMARY KEY, failures INTEGER, until REAL, probe REAL) WITHOUT ROWID;
CREATE TABLE health (key TEXT PRIMARY KEY, state TEXT, why TEXT, seconds REAL, at REAL) WITHOUT ROWID;
"""


class SharedStateBusy(Exception):
    """Another process has been writing for longer than a moment: nothing was done."""


class SharedState:
    """One process's connection to the shared file, for all its threads."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.try_again_s = math.inf
        self._writer = 0
        self._is_hurried = False
        self._busy_until_s = 0.0
        self._lock = threading.Lock()
        self._connection = connect(path, _TABLES, _VERSION, synced=False, busy_s=_BUSY_S)
        self._file = _file(path)
        self._look_at_s = time.monotonic() + _LOOK_AGAIN_S

    def is_gone(self) -> bool:
        """Whether its file is another one by now: it was deleted, and others use a new one."""
        now = time.monotonic()
        if now < self._look_at_s or self.path == ":memory:":
            return False
        self._look_at_s = now + _LOOK_AGAIN_S
        return _file(self.path) != self._file

    @contextmanager
    def writing(self) -> Iterator[Any]:
        """The connection, within one transaction that no other process writes beside.

        Raises:
            Busy: this thread is in the middle of one.
            sqlite3.Error: the file cannot be used.
        """
        if self._writer == threading.get_ident():  # a finalizer, run by the collector in the middle of a transaction
            raise SharedStateBusy
        with self._lock:
            connection = self._connection
            self._writer = threading.get_ident()
            try:
                self._bound_wait()
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                self._writer = 0

    def _bound_wait(self) -> None:
        """Wait for other processes as long as a thread may; on an event loop only for a moment.

        Raises:
            Busy: another process was found writing a moment ago, by another call of this loop.
        """
        on_loop = _is_on_loop()
        if on_loop and time.monotonic() < self._busy_until_s:
            raise SharedStateBusy
        if on_loop is not self._is_hurried:
            wait_ms = _LOOP_BUSY_MS if on_loop else int(1000 * _BUSY_S)
            self._connection.execute(f"PRAGMA busy_timeout = {wait_ms}")
            self._is_hurried = on_loop

    def was_busy(self) -> None:
        """Note that another process is writing: calls of a loop try again a little later, all of them."""
        self._busy_until_s = time.monotonic() + _LOOP_TRY_AGAIN_S

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a query finds.

        Raises:
            sqlite3.Error: the file cannot be used.
        """
        with self._lock:
            found: list[tuple[Any, ...]] = self._connection.execute(query).fetchall()
            return found

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._connection.close()


_stores: dict[str, tuple[int, SharedState]] = {}
_lock = threading.Lock()
if sys.platform != "win32":  # as in muse.journal.config_loader: no child inherits a held lock
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
_complained: set[str] = set()


def write(action: Callable[[Any], _T]) -> _T:
    """What `action` makes of the connection, in one transaction.

    A file that was deleted or damaged meanwhile is begun anew. Nobody waits here for longer than a moment: an event
    loop may be standing still for it.

    Raises:
        Busy: another process is writing; ask again.
    """
    import sqlite3  # loaded with the store

    for _ in range(_TRIES):
        shared = shared_state()
        if shared.is_gone():
            _drop(shared, "its file was deleted")
            continue
        try:
            with shared.writing() as connection:
                return action(connection)
        except sqlite3.Error as exc:
            if is_busy(exc):
                shared.was_busy()
                raise SharedStateBusy from exc
            _drop(shared, exc)
    raise SharedStateBusy


def read(query: str) -> list[tuple[Any, ...]]:
    """What a query finds; nothing where the file cannot be read."""
    import sqlite3  # loaded with the store

    try:
        shared = shared_state()
    except SharedStateBusy:
        return []
    try:
        return shared.rows(query)
    except sqlite3.Error as exc:
        if not is_busy(exc):
            _drop(shared, exc)
        return []


def shared_state() -> SharedState:
    """The store of the journal that is in force; a process that forked gets one of its own.

    A journal in which it cannot be kept gets one in memory, for this process alone, with one warning; the file is tried
    again after a while.

    Raises:
        Busy: another process keeps it from being opened just now.
    """
    path = store_path()
    known = _stores.get(path)
    if known is not None and known[0] == os.getpid() and time.monotonic() < known[1].try_again_s:
        return known[1]
    with _lock:
        known = _stores.get(path)
        if known is None or known[0] != os.getpid() or time.monotonic() >= known[1].try_again_s:
            known = _stores[path] = (os.getpid(), _opened(path))
        return known[1]


def store_path() -> str:
    """Where the store of the journal in force is kept."""
    return os.path.join(paths.journal_name(), NAME)


def _drop(shared: SharedState, why: object) -> None:
    """Let go of a store that failed; the next look opens the file again."""
    log.debug("%s is opened again: %s", shared.path, why)
    with _lock:
        if _stores.get(shared.path, (0, None))[1] is shared:
            del _stores[shared.path]
    shared.close()


def _opened(path: str) -> SharedState:
    import sqlite3  # 5 ms, and only who has a limit or a failing provider pays it

    try:
        return recreate_if_damaged(path, lambda: SharedState(path))
    except (OSError, sqlite3.Error) as exc:
        if is_busy(exc):
            raise SharedStateBusy from exc
        if path not in _complained:
            _complained.add(path)
            log.warning("%s cannot be kept (%s); limits and breakers hold in this process only", path, exc)
    kept = SharedState(":memory:")
    kept.try_again_s = time.monotonic() + _TRY_AGAIN_S
    return kept


def _file(path: str) -> int:
    """Which file a path leads to; 0 if to none."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def process() -> str:
    """What this process is called in the store: by its number, and when it began, where the system tells."""
    number = os.getpid()
    name = _names.get(number)
    if name is None:
        name = _names[number] = f"{number}.{_born(number)}"
    return name


def _is_on_loop() -> bool:
    """Whether this thread runs an event loop."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None


_names: dict[int, str] = {}


def is_alive(name: str) -> bool:
    """Whether a process, as `process` names it, still runs."""
    number, _, born = name.partition(".")
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OSError):
        return True
    return not born or _born(int(number)) in ("", born)


def _born(number: int) -> str:
    """When a process began, where the system tells: a number may be another process's by now."""
    try:
        with open(f"/proc/{number}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[19].decode("ascii")
    except (OSError, IndexError):
        return ""
