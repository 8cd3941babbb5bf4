"""The journal's search index: it follows the journal's files by their stamps; it knows no queries."""

from __future__ import annotations

import atexit
import logging
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from muse.journal.storage.sqlite import is_busy, is_damage, is_unwritable, write_transaction
from think.entries.entries import WEEKDAYS, Entry, Stamp, find_files, read_entries
from think.search.schema import BUSY_S, open_file, open_memory, remove_file

log = logging.getLogger(__name__)

FILE = "index/search.sqlite"
LOOK_AGAIN_S = 2.0
_KEPT = 4
# Within one step of a file system's clock two edits of equal size look alike: such a stamp is not trusted.
_SETTLED_NS = 50_000_000
_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)

_FORGET = (
    "DELETE FROM words WHERE rowid IN (SELECT id FROM passages WHERE entry IN (SELECT id FROM entries WHERE path = ?))",
    "DELETE FROM passages WHERE entry IN (SELECT id FROM entries WHERE path = ?)",
    "DELETE FROM entries WHERE path = ?",
    "DELETE FROM files WHERE path = ?",
)

_T = TypeVar("_T")
_Row = tuple[Any, ...]


class SearchIndex:
    """The index of one journal: `rows` answers SQL from it, `refresh` brings it up to date.

    The file is shared by all processes, an object by all threads of one process. Where the file cannot be written, the
    index is in memory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.RLock()
        self._looked_s = float("-inf")
        self._database = open_memory()
        self._sure(self._open)

    def close(self) -> None:
        """Close the file; the index cannot be used any more."""
        with self._lock:
            self._database.close()

    def rows(self, sql: str, values: Mapping[str, Any]) -> list[_Row]:
        """The rows of a query, after a look at the files if the last one is `LOOK_AGAIN_S` or more ago."""
        with self._lock:
            if time.monotonic() - self._looked_s >= LOOK_AGAIN_S:
                self.refresh()
            return self._sure(lambda: self._database.execute(sql, values).fetchall())

    def refresh(self) -> int:
        """Look at the files now and read those that changed; the number of files read and dropped."""
        with self._lock:
            changed = self._sure(self._follow)
            self._looked_s = time.monotonic()
            return changed

    def _sure(self, work: Callable[[], _T]) -> _T:
        """The result of `work`; if the file is damaged or cannot be written, that of a second try on a new index."""
        try:
            return work()
        except sqlite3.DatabaseError as exc:
            if not is_damage(exc) and not is_unwritable(exc):
                raise
            log.warning("search index %s: %s; it is made anew", self._path, exc)
            damaged = is_damage(exc)
        self._database.close()
        self._database = open_memory()
        if damaged:
            self._open_anew()
        self._follow()
        return work()

    @property
    def _path(self) -> Path:
        return self.root / FILE

    def _open_anew(self) -> None:
        try:
            remove_file(self._path)
        except OSError as exc:
            log.warning("search index %s cannot be removed (%s); one in memory is used", self._path, exc.strerror)
        else:
            self._open()

    def _open(self) -> None:
        """Put the file in place of the index in memory, if there can be one."""
        try:
            opened = open_file(self._path)
        except OSError as exc:
            log.warning("search index %s cannot be written (%s); one in memory is used", self._path, exc.strerror)
            return
        self._database.close()
        self._database = opened

    def _follow(self) -> int:
        """Bring the index up to the files; what another process did meanwhile is not done again."""
        stamps = dict(find_files(self.root))
        if not any(self._changes(stamps)):
            return 0
        try:
            with write_transaction(self._database):
                changed, gone = self._changes(stamps)
                self._drop([*changed, *gone])
                for path in changed:
                    self._add(path, stamps[path])
        except sqlite3.OperationalError as exc:
            if not is_busy(exc):
                raise
            log.warning(
                "search index %s: another process has been writing for %d s; it is used as it is", self._path, BUSY_S
            )
            return 0
        return len(changed) + len(gone)

    def _changes(self, stamps: Mapping[str, Stamp]) -> tuple[list[str], list[str]]:
        """The paths of files that are new or changed, and of those that are gone."""
        known = {path: Stamp(*stamp) for path, *stamp in self._database.execute("SELECT * FROM files")}
        changed = [path for path, stamp in stamps.items() if known.get(path) != stamp]
        return changed, [path for path in known if path not in stamps]

    def _drop(self, paths: list[str]) -> None:
        for path in paths:
            for statement in _FORGET:
                self._database.execute(statement, (path,))

    def _add(self, path: str, stamp: Stamp) -> None:
        settled = time.time_ns() - stamp.mtime_ns > _SETTLED_NS
        try:
            entries = read_entries(self.root, path)
        except OSError as exc:
            log.warning("%s cannot be read (%s); it is not found", self.root / path, exc.strerror)
            entries = ()
        for entry in entries:
            self._add_entry(path, entry)
        mtime_ns, size = (stamp.mtime_ns, stamp.size) if settled else (-1, -1)
        self._database.execute("INSERT INTO files VALUES (?, ?, ?)", (path, mtime_ns, size))

    def _add_entry(self, path: str, entry: Entry) -> None:
        run = self._database.execute
        row = (path, entry.name, int(entry.day), entry.time, entry.kind, entry.title)
        number = run("INSERT INTO entries VALUES (NULL, ?, ?, ?, ?, ?, ?)", row).lastrowid
        title = "" if entry.kind == "transcript" else entry.title
        date_words = _date_words(entry.day)
        for passage in entry.passages:
            lines = msgspec.json.encode([(line.offset, line.time, line.speaker) for line in passage.lines]).decode()
            values = (number, int(entry.day), entry.kind, passage.heading, lines)
            key = run("INSERT INTO passages VALUES (NULL, ?, ?, ?, ?, ?)", values).lastrowid
            body = "\n".join(line.text for line in passage.lines)
            run(
                "INSERT INTO words (rowid, title, body, date) VALUES (?, ?, ?, ?)",
                (key, f"{title} {passage.heading}".strip(), body, date_words),
            )


def _date_words(day: str) -> str:
    """How one names a day: `Tuesday 3 3rd November Nov 2026 2026-11-03 20261103`."""
    when = date(int(day[:4]), int(day[4:6]), int(day[6:]))
    ending = "th" if when.day in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(when.day % 10, "th")
    month = _MONTHS[when.month - 1]
    return f"{WEEKDAYS[when.weekday()]} {when.day} {when.day}{ending} {month} {month[:3]} {when.year} {when} {day}"


class _Opened(Struct, frozen=True):
    """An index of this process."""

    pid: int
    index: SearchIndex


_opened: dict[Path, _Opened] = {}
_opening = threading.Lock()
if sys.platform != "win32":  # as in muse.journal.config_loader: no child inherits a held lock
    os.register_at_fork(before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_opening.release)


def open_index(root: Path) -> SearchIndex:
    """The index of the journal at `root`, one for all threads of this process; a forked child opens its own."""
    with _opening:
        known = _opened.get(root)
        if known is None or known.pid != os.getpid():
            while len(_opened) >= _KEPT:
                _close(next(iter(_opened)))
            known = _opened[root] = _Opened(os.getpid(), SearchIndex(root))
        return known.index


def close_all() -> None:
    """Close every index of this process."""
    with _opening:
        while _opened:
            _close(next(iter(_opened)))


def _close(root: Path) -> None:
    known = _opened.pop(root)
    if known.pid == os.getpid():  # a parent's connection is left alone: closing it here would free its locks
        known.index.close()


atexit.register(close_all)
