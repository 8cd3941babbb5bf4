"""A SQLite index of the usage log that follows its files and answers queries fast at any length.

All processes share `<journal>/index/usage.sqlite`. The lines that were read and the read position are written in one
transaction, so a killed process leaves nothing half done. An index that is lost, old or damaged is rebuilt.

Entry points: `log_index`, `close_indexes`, `LogIndex`.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from muse.journal import paths
from muse.journal.storage.sqlite import (
    connect,
    is_busy,
    is_damage,
    is_unwritable,
    quarantine,
    recreate_if_damaged,
    write_transaction,
)
from muse.usage_index.log_reader import is_append_only, is_same, stamp_of
from muse.usage_index.writer import (
    TABLES,
    VERSION,
    LineClassifier,
    forget,
    forget_repriced,
    is_repriced,
    mark_of,
    marks,
    read_on,
)
from muse.usage_log import ledger

log = logging.getLogger(__name__)

FILE = "index/usage.sqlite"
_MEMORY = ":memory:"
_BATCH_LINES = 4_000
_MOST_KEPT = 48
_BUSY_S = 10.0
_BACKGROUND_S = 0.25
# How long a transaction waits for those of other processes, in milliseconds.
_PATIENT, _HURRIED = "PRAGMA busy_timeout = 10000", "PRAGMA busy_timeout = 300"
_T = TypeVar("_T")
Row = tuple[Any, ...]


class Progress(Struct, frozen=True):
    """How much of the log's files is indexed, in bytes."""

    done: int
    size: int
    is_complete: bool

    @property
    def share(self) -> float:
        """The indexed share, from 0 to 1."""
        return min(1.0, self.done / self.size) if self.size else 1.0


class LogIndex:
    """The index of one journal's usage log, for all threads of a process.

    `refresh` reads new lines; `rows` runs SQL over the lines that were read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self._keeping, self._kept = threading.Lock(), dict[Hashable, tuple[Hashable, Any]]()
        self._thread: threading.Thread | None = None
        self._assessor = LineClassifier()
        self._unreadable: Mapping[int, str] = {}
        self._is_closed = self._is_early = False
        self._inode = 0
        self._writer: Any = None
        self._reader: Any = None
        with self._writing:
            self._sure(lambda: _drop_repriced(self._writer))

    def close(self) -> None:
        """Close the file; a background read stops after its current batch of lines."""
        with self._reading:
            self._is_closed = True
            thread = self._thread
        if thread is not None:
            thread.join()
        with self._writing, self._reading:
            self._close()

    def refresh(self, most_s: float | None = None) -> Progress:
        """Read new lines, newest days first, and return the progress.

        If another thread or process is reading at the same time, its progress is returned.

        Args:
            most_s: The most seconds to read for; None reads to the end.

        Raises:
            OSError: The log or the index cannot be read.
        """
        until_s = None if most_s is None else time.monotonic() + most_s
        if not self._writing.acquire(timeout=-1 if most_s is None else most_s):
            return self.progress()
        is_complete = False
        try:
            is_complete = self._sure(lambda: self._follow(until_s))
        except sqlite3.OperationalError as exc:
            if not is_busy(exc):
                raise
            log.debug("another process is writing %s", self.path)
        finally:
            self._writing.release()
        if not is_complete:
            return self.progress()
        size = int(self.rows("SELECT coalesce(sum(size), 0) FROM files")[0][0])
        return Progress(size, size, is_complete=True)

    def read_on(self) -> None:
        """Read all new lines in a background thread, unless one is doing so."""
        with self._reading:
            if self._is_closed or (self._thread is not None and self._thread.is_alive()):
                return
            thread = threading.Thread(target=self._read_all, name="muse-log-index", daemon=True)
            thread.start()
            self._thread = thread  # set once it runs, since `close` may only join a started thread

    def rows(self, sql: str, values: Mapping[str, Any] | tuple[Any, ...] = ()) -> list[Row]:
        """Return the rows of a query over the lines that were read so far.

        Raises:
            sqlite3.Error: The index cannot be read.
        """
        try:
            return self._rows(sql, values)
        except sqlite3.ProgrammingError:
            raise
        except sqlite3.DatabaseError as exc:
            if not is_damage(exc):
                raise
            with self._writing:
                self._begin_anew(exc)
        return self._rows(sql, values)

    def _rows(self, sql: str, values: Mapping[str, Any] | tuple[Any, ...]) -> list[Row]:
        with self._reading if self._inode else self._writing:
            found: list[Row] = self._reader.execute(sql, values).fetchall()
            return found

    def kept(self, key: Hashable, stamp: Hashable, make: Callable[[], _T]) -> _T:
        """Return the result of `make`, cached under `key` as long as `stamp` is unchanged."""
        with self._keeping:
            found = self._kept.get(key)
        if found is not None and found[0] == stamp:
            answer: _T = found[1]
            return answer
        made = make()
        with self._keeping:
            self._kept.pop(key, None)
            while len(self._kept) >= _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = (stamp, made)
        return made

    def progress(self) -> Progress:
        """Return how much of the log is indexed."""
        known = {row[0]: row[1:] for row in self.rows("SELECT day, done, size, pending FROM files")}
        done = size = 0
        is_complete = True
        for day, path in self._files().items():
            stands = _size_of(path)
            if day in self._unreadable or stands is None:
                continue
            read, seen, pending = known.get(day, (0, 0, 0))
            done, size = done + min(read, stands), size + stands
            is_complete = is_complete and (day in known and (read >= stands or (bool(pending) and seen >= stands)))
        return Progress(done, size, is_complete)

    def unreadable(self, days: tuple[int, int]) -> dict[int, str]:
        """Return the days from first to last whose log could not be read at the last refresh, and why."""
        return {day: reason for day, reason in self._unreadable.items() if days[0] <= day <= days[1]}

    @property
    def path(self) -> Path:
        """The file of the index."""
        return self.root / FILE

    def log_path(self, day: int) -> Path:
        """Return the usage log's file for a day."""
        return self.root / "tokens" / f"{day:08}.jsonl"

    def _files(self) -> dict[int, Path]:
        """Return the days that have a log, newest first."""
        return {int(path.stem): path for path in reversed(ledger.day_files(root=self.root))}

    def _read_all(self) -> None:
        try:
            while not self._is_closed and not self.refresh(_BACKGROUND_S).is_complete:
                log.debug("%s is being read", self.root / "tokens")
        except (OSError, sqlite3.Error) as exc:
            log.warning("%s: the token log cannot be read into it (%s)", self.path, exc)

    def _follow(self, until_s: float | None) -> bool:
        """Bring every day up to date; return False if the time ran out first."""
        self._writer.execute(_PATIENT if until_s is None else _HURRIED)
        found = self._files()
        known = marks(self._writer)
        for day in known.keys() - found.keys():
            with write_transaction(self._writer):
                forget(self._writer, day)
        problems: dict[int, str] = {}
        is_read = True
        for day, path in found.items():
            try:
                stamp = stamp_of(path)
                is_read = (day in known and is_same(known[day], stamp)) or self._read_day(day, path, until_s)
            except FileNotFoundError:  # deleted since it was listed; the next refresh drops it
                continue
            except OSError as exc:
                problems[day] = exc.strerror or str(exc)
            if not is_read:
                break
        self._note(problems)
        return is_read

    def _note(self, problems: Mapping[int, str]) -> None:
        """Store which days cannot be read, and log a warning for new ones."""
        for day, reason in problems.items():
            if self._unreadable.get(day) != reason:
                log.warning("%s: it cannot be read (%s), and what it says is in no sum", self.log_path(day), reason)
        self._unreadable = problems

    def _read_day(self, day: int, path: Path, until_s: float | None) -> bool:
        """Read the rest of a day; return False if the time ran out first."""
        is_checked = False
        while not self._is_closed:
            with write_transaction(self._writer):
                mark = mark_of(self._writer, day)
                if mark is not None and not is_checked and not is_append_only(path, mark):
                    forget(self._writer, day)
                    mark = None
                is_checked = True
                before = mark or stamp_of(path)
                after = read_on(self._writer, self._assessor, path, before, _BATCH_LINES)
            if after.done >= after.size or after.pending:
                return True
            if until_s is not None and time.monotonic() >= until_s:
                return False
        return False

    # --- the file

    def _sure(self, work: Callable[[], _T]) -> _T:
        """Return the result of `work`, on a new index if the current one is lost, damaged or cannot be written."""
        if self._writer is None or self._is_lost():
            self._open()
        try:
            return work()
        except sqlite3.ProgrammingError:  # the index was closed
            raise
        except sqlite3.DatabaseError as exc:
            if is_unwritable(exc) and self._inode:
                self._go_without(exc)
            elif is_damage(exc):
                self._begin_anew(exc)
            else:
                raise
        return work()

    def _is_lost(self) -> bool:
        """Return True if the open file is no longer at its path."""
        if not self._inode:
            return self._is_early and self.root.is_dir()
        try:
            return self.path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    def _open(self) -> None:
        name = str(self.path)
        self._is_early = not self.root.is_dir()
        if self._is_early:  # reading must not create a journal
            self._use_memory()
            return
        try:
            writer = recreate_if_damaged(name, lambda: _connected(name))
            reader = _connected(name)
            inode = self.path.stat().st_ino
        except (OSError, sqlite3.OperationalError) as exc:
            self._go_without(exc)
            return
        self._put(writer, reader, inode)

    def _begin_anew(self, exc: sqlite3.Error) -> None:
        self._put(None, None, 0)
        aside = f"{self.path.name}.{time.time_ns()}.unusable"
        quarantine(str(self.path), aside)
        log.warning("%s could not be used (%s); it is %s now, and begun anew", self.path, exc, aside)
        self._open()

    def _go_without(self, exc: Exception) -> None:
        """Use an in-memory index for this process."""
        log.warning("%s cannot be kept (%s); this process reads the token log into memory", self.path, exc)
        self._use_memory()

    def _use_memory(self) -> None:
        memory = connect(_MEMORY, TABLES, VERSION, synced=False)
        self._put(memory, memory, 0)

    def _put(self, writer: Any, reader: Any, inode: int) -> None:
        with self._reading:
            self._close()
            self._writer, self._reader, self._inode = writer, reader, inode

    def _close(self) -> None:
        for connection in {id(one): one for one in (self._writer, self._reader) if one is not None}.values():
            connection.close()
        self._writer = self._reader = None


def _drop_repriced(database: Any) -> None:
    """Delete the days whose lines would be priced differently today."""
    if is_repriced(database):
        with write_transaction(database):
            forget_repriced(database)


def _connected(name: str) -> Any:
    return connect(name, TABLES, VERSION, synced=True, busy_s=_BUSY_S)


def _size_of(path: Path) -> int | None:
    """Return a file's size in bytes; None if it does not exist (any more)."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


_indexes: dict[Path, LogIndex] = {}
_opening = threading.Lock()


def log_index(root: Path | None = None) -> LogIndex:
    """Return the index of a journal's usage log, one per process; None means the journal in force."""
    place = root or paths.journal_path()
    with _opening:
        if place not in _indexes:
            while len(_indexes) >= 4:
                _indexes.pop(next(iter(_indexes))).close()
            _indexes[place] = LogIndex(place)
        return _indexes[place]


def close_indexes() -> None:
    """Close all indexes that `log_index` opened; the next call opens them again."""
    with _opening:
        while _indexes:
            _indexes.popitem()[1].close()
