"""The jobs at batch services, in SQLite: what was sent for whom; it knows no service and no answer."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import msgspec
from msgspec import Struct

from muse.journal.storage.sqlite import connect
from muse.types.errors import ConfigError
from muse.types.messages import Route

_TABLES = """
CREATE TABLE IF NOT EXISTS overnight_jobs (
    mark TEXT PRIMARY KEY, provider TEXT NOT NULL, model TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'planned',
    remote_id TEXT, refused TEXT NOT NULL DEFAULT '[]', tries INTEGER NOT NULL DEFAULT 0, size INTEGER NOT NULL,
    done INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0, message TEXT NOT NULL DEFAULT '',
    planned_ts REAL NOT NULL, sent_ts REAL NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS overnight_items (
    mark TEXT NOT NULL, place INTEGER NOT NULL, key TEXT NOT NULL, digest TEXT NOT NULL, sender TEXT NOT NULL,
    PRIMARY KEY (mark, place)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS overnight_keys ON overnight_items (key);
"""
_COLUMNS = "mark, provider, model, state, remote_id, refused, tries, size, done, failed, message, planned_ts, sent_ts"
_CLOSED = "closed"
_BUSY_S = 30.0
_VERSION = 1


class RequestMetadata(Struct, frozen=True):
    """Where a request came from, and the options that its model does not take: what its reply is to say of it."""

    context: str | None = None
    route: Route | None = None
    segment: str | None = None
    dropped: tuple[str, ...] = ()


class BatchJobItem(Struct, frozen=True):
    """One request of a job: its place there, the caller's key of it, and a digest of what was sent."""

    place: int
    key: str
    digest: str
    sender: RequestMetadata


class BatchJob(Struct, frozen=True):
    """One job; `remote_id` is its name at the service, None until it is known, `refused` names that were not it.

    `state` is "planned", a state of the service, or "closed" when every answer was given. `tries` counts how often it
    was sent; times are seconds of the epoch.
    """

    mark: str
    provider: str
    model: str
    state: str
    remote_id: str | None
    refused: tuple[str, ...]
    tries: int
    size: int
    done: int
    failed: int
    message: str
    planned_ts: float
    sent_ts: float


class BatchJobTable:
    """The jobs in the SQLite file `where`, or beside other tables over an open connection in autocommit mode.

    Each change is committed when its method returns, with whatever else the connection has open. Only `given` joins
    what its owner has open, so that an answer is kept and taken at once. `alone` holds for a file only.
    """

    def __init__(self, where: str | os.PathLike[str] | sqlite3.Connection) -> None:
        self._path = None if isinstance(where, sqlite3.Connection) else os.fspath(where)
        self._db = where if isinstance(where, sqlite3.Connection) else _opened(os.path.abspath(where))
        for statement in filter(str.strip, _TABLES.split(";")):
            self._db.execute(statement)

    def close(self) -> None:
        """Close the file; a connection that was handed in stays open."""
        if self._path is not None:
            self._db.close()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """See that no other run works on these jobs meanwhile: it could pay for them again.

        Raises:
            ConfigError: one does.
        """
        if self._path is None:
            yield
            return
        lock = sqlite3.connect(f"{self._path}-overnight", timeout=0, isolation_level=None)
        try:
            try:
                lock.execute("BEGIN EXCLUSIVE")  # it ends with the process, however that ends
            except sqlite3.OperationalError as exc:
                wanted = "one at a time: wait for it, or use another ledger"
                raise ConfigError(self._path, "jobs that another run is at", wanted) from exc
            yield
        finally:
            lock.close()

    def plan(self, mark: str, provider: str, model: str, rows: Iterable[BatchJobItem]) -> BatchJob:
        """Write down a job that is about to be sent."""
        entries = [(mark, row.place, row.key, row.digest, msgspec.json.encode(row.sender).decode()) for row in rows]
        with self._change():
            self._db.execute(
                "INSERT INTO overnight_jobs (mark, provider, model, size, planned_ts) VALUES (?, ?, ?, ?, ?)",
                (mark, provider, model, len(entries), time.time()),
            )
            self._db.executemany("INSERT INTO overnight_items VALUES (?, ?, ?, ?, ?)", entries)
        return self.get(mark)

    def get(self, mark: str) -> BatchJob:
        """One job.

        Raises:
            LookupError: there is none of that mark.
        """
        found = self._db.execute(f"SELECT {_COLUMNS} FROM overnight_jobs WHERE mark = ?", (mark,)).fetchone()  # noqa: S608
        if found is None:
            raise LookupError(f"no job {mark!r}")
        return _job(found)

    def all(self, *, closed: bool = True) -> list[BatchJob]:
        """Every job, oldest first, with or without those that are closed."""
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM overnight_jobs ORDER BY planned_ts, mark")  # noqa: S608
        return [job for job in map(_job, rows) if closed or job.state != _CLOSED]

    def rows(self, mark: str) -> Iterator[BatchJobItem]:
        """The requests of a job whose answers were not given yet."""
        found = self._db.execute(
            "SELECT place, key, digest, sender FROM overnight_items WHERE mark = ? ORDER BY place", (mark,)
        )
        for place, key, digest, sender in found.fetchall():
            yield BatchJobItem(place, key, digest, msgspec.json.decode(sender, type=RequestMetadata))

    def is_waiting(self, mark: str) -> bool:
        """Whether a job has requests whose answers were not given yet."""
        found = self._db.execute("SELECT 1 FROM overnight_items WHERE mark = ? LIMIT 1", (mark,)).fetchone()
        return found is not None

    def holds(self, key: str, digest: str) -> bool:
        """Whether an answer to this request is under way; one to another request of that key is no longer wanted."""
        found = self._db.execute("SELECT mark, place, digest FROM overnight_items WHERE key = ?", (key,)).fetchall()
        for mark, place, known in found:
            if known == digest:
                return True
            self.given(mark, place)
        return False

    def sending(self, mark: str) -> BatchJob:
        """A job is sent now; from here on it may exist at the service, which a power cut too must not forget."""
        if self._db.in_transaction:
            self._db.execute("COMMIT")
        self._db.execute("PRAGMA synchronous = FULL")
        try:
            with self._change():
                self._db.execute(
                    "UPDATE overnight_jobs SET tries = tries + 1, sent_ts = ? WHERE mark = ?", (time.time(), mark)
                )
        finally:
            self._db.execute("PRAGMA synchronous = NORMAL")
        return self.get(mark)

    def sent(self, mark: str, remote_id: str) -> BatchJob:
        """A job is at the service, under that name."""
        with self._change():
            self._db.execute(
                "UPDATE overnight_jobs SET remote_id = ?, state = 'validating' WHERE mark = ?", (remote_id, mark)
            )
        return self.get(mark)

    def refuse(self, mark: str) -> BatchJob:
        """The job of that name at the service is another one."""
        job = self.get(mark)
        refused = json.dumps([*job.refused, *([job.remote_id] if job.remote_id else [])])
        with self._change():
            self._db.execute(
                "UPDATE overnight_jobs SET remote_id = NULL, state = 'planned', refused = ? WHERE mark = ?",
                (refused, mark),
            )
        return self.get(mark)

    def seen(self, mark: str, state: str, done: int, failed: int, message: str) -> None:
        """How a job stood when it was last looked at."""
        with self._change():
            self._db.execute(
                "UPDATE overnight_jobs SET state = ?, done = ?, failed = ?, message = ? WHERE mark = ?",
                (state, done, failed, message, mark),
            )

    def digest_of(self, mark: str, place: int) -> str:
        """What a request is known by whose answer was not given yet; "" if it was."""
        found = self._db.execute(
            "SELECT digest FROM overnight_items WHERE mark = ? AND place = ?", (mark, place)
        ).fetchone()
        return found[0] if found else ""

    def given(self, mark: str, place: int) -> None:
        """The caller has the answer to a request; it is not looked for again."""
        with self._change(is_joined=True):
            self._db.execute("DELETE FROM overnight_items WHERE mark = ? AND place = ?", (mark, place))

    def closed(self, mark: str) -> None:
        """Every answer of a job was given."""
        with self._change():
            self._db.execute("UPDATE overnight_jobs SET state = ? WHERE mark = ?", (_CLOSED, mark))
            self._db.execute("DELETE FROM overnight_items WHERE mark = ?", (mark,))

    @contextmanager
    def _change(self, *, is_joined: bool = False) -> Iterator[None]:
        """One transaction; one that `is_joined` is left to its owner where the owner has one open."""
        if is_joined and self._db.in_transaction:
            yield
            return
        is_ours = not self._db.in_transaction
        if is_ours:
            self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except sqlite3.Error:
            if is_ours and self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def forget(self, mark: str) -> None:
        """Strike out a job that never came to be, or that is deleted at the service."""
        with self._change():
            self._db.execute("DELETE FROM overnight_items WHERE mark = ?", (mark,))
            self._db.execute("DELETE FROM overnight_jobs WHERE mark = ?", (mark,))


def _opened(path: str) -> sqlite3.Connection:
    connection: sqlite3.Connection = connect(path, _TABLES, _VERSION, synced=True, busy_s=_BUSY_S)
    return connection


def _job(row: tuple[object, ...]) -> BatchJob:
    values = list(row)
    values[5] = json.loads(str(row[5]))
    return msgspec.convert(dict(zip(_COLUMNS.split(", "), values, strict=True)), BatchJob)
