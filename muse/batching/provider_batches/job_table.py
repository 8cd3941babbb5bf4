"""The SQLite table of jobs at batch services and their requests. Entry point: `BatchJobTable`."""

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
    """A request's origin, and the options that its model does not accept; both are reported with the reply."""

    context: str | None = None
    route: Route | None = None
    segment: str | None = None
    dropped: tuple[str, ...] = ()


class BatchJobItem(Struct, frozen=True):
    """One request of a job: its place in the job, the caller's key for it, and a digest of what was sent."""

    place: int
    key: str
    digest: str
    sender: RequestMetadata


class BatchJob(Struct, frozen=True):
    """One job at a batch service.

    Attributes:
        mark: muse's own identifier of the job.
        provider: The provider.
        model: The model.
        state: "planned", a state of the service, or "closed" when the caller has every answer.
        remote_id: The job's name at the service; None until it is known.
        refused: Names at the service that turned out to be other jobs.
        tries: How often it was sent.
        size: The number of requests.
        done: How many requests are done, according to the service.
        failed: How many requests failed, according to the service.
        message: The service's message.
        planned_ts: When it was recorded, in seconds since the epoch.
        sent_ts: When it was last sent, in seconds since the epoch.
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
    """The jobs in the SQLite file `where`, or in tables of an open connection in autocommit mode.

    Each change is committed when its method returns, together with any transaction open on the connection. Only `given`
    joins an open transaction without committing, so that saving an answer and marking it as taken are atomic. `alone`
    locks only if `where` is a file.
    """

    def __init__(self, where: str | os.PathLike[str] | sqlite3.Connection) -> None:
        self._path = None if isinstance(where, sqlite3.Connection) else os.fspath(where)
        self._db = where if isinstance(where, sqlite3.Connection) else _opened(os.path.abspath(where))
        for statement in filter(str.strip, _TABLES.split(";")):
            self._db.execute(statement)

    def close(self) -> None:
        """Close the file; a connection that the caller passed in stays open."""
        if self._path is not None:
            self._db.close()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold a lock so that no other run works on these jobs, which could pay for them twice.

        Raises:
            ConfigError: Another run holds it.
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
        """Record a job that is about to be sent."""
        entries = [(mark, row.place, row.key, row.digest, msgspec.json.encode(row.sender).decode()) for row in rows]
        with self._change():
            self._db.execute(
                "INSERT INTO overnight_jobs (mark, provider, model, size, planned_ts) VALUES (?, ?, ?, ?, ?)",
                (mark, provider, model, len(entries), time.time()),
            )
            self._db.executemany("INSERT INTO overnight_items VALUES (?, ?, ?, ?, ?)", entries)
        return self.get(mark)

    def get(self, mark: str) -> BatchJob:
        """Return one job.

        Raises:
            LookupError: There is no job with that mark.
        """
        found = self._db.execute(f"SELECT {_COLUMNS} FROM overnight_jobs WHERE mark = ?", (mark,)).fetchone()  # noqa: S608
        if found is None:
            raise LookupError(f"no job {mark!r}")
        return _job(found)

    def all(self, *, closed: bool = True) -> list[BatchJob]:
        """Return every job, oldest first, with or without closed ones."""
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM overnight_jobs ORDER BY planned_ts, mark")  # noqa: S608
        return [job for job in map(_job, rows) if closed or job.state != _CLOSED]

    def rows(self, mark: str) -> Iterator[BatchJobItem]:
        """Yield the requests of a job whose answers the caller does not have yet."""
        found = self._db.execute(
            "SELECT place, key, digest, sender FROM overnight_items WHERE mark = ? ORDER BY place", (mark,)
        )
        for place, key, digest, sender in found.fetchall():
            yield BatchJobItem(place, key, digest, msgspec.json.decode(sender, type=RequestMetadata))

    def is_waiting(self, mark: str) -> bool:
        """Return True if a job has requests whose answers the caller does not have yet."""
        found = self._db.execute("SELECT 1 FROM overnight_items WHERE mark = ? LIMIT 1", (mark,)).fetchone()
        return found is not None

    def holds(self, key: str, digest: str) -> bool:
        """Return True if an answer to this request is under way.

        Requests with the same key and another digest are deleted: their answers are no longer wanted.
        """
        found = self._db.execute("SELECT mark, place, digest FROM overnight_items WHERE key = ?", (key,)).fetchall()
        for mark, place, known in found:
            if known == digest:
                return True
            self.given(mark, place)
        return False

    def sending(self, mark: str) -> BatchJob:
        """Record that a job is being sent now, and return it."""
        if self._db.in_transaction:
            self._db.execute("COMMIT")
        # From here on the job may exist at the service, so that not even a power cut may lose the record.
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
        """Record the job's name at the service, and return the job."""
        with self._change():
            self._db.execute(
                "UPDATE overnight_jobs SET remote_id = ?, state = 'validating' WHERE mark = ?", (remote_id, mark)
            )
        return self.get(mark)

    def refuse(self, mark: str) -> BatchJob:
        """Record that the name at the service belongs to another job, and return the job."""
        job = self.get(mark)
        refused = json.dumps([*job.refused, *([job.remote_id] if job.remote_id else [])])
        with self._change():
            self._db.execute(
                "UPDATE overnight_jobs SET remote_id = NULL, state = 'planned', refused = ? WHERE mark = ?",
                (refused, mark),
            )
        return self.get(mark)

    def seen(self, mark: str, state: str, done: int, failed: int, message: str) -> None:
        """Record a job's state when it was last polled."""
        with self._change():
            self._db.execute(
                "UPDATE overnight_jobs SET state = ?, done = ?, failed = ?, message = ? WHERE mark = ?",
                (state, done, failed, message, mark),
            )

    def digest_of(self, mark: str, place: int) -> str:
        """Return the digest of a request whose answer was not given yet; "" if it was."""
        found = self._db.execute(
            "SELECT digest FROM overnight_items WHERE mark = ? AND place = ?", (mark, place)
        ).fetchone()
        return found[0] if found else ""

    def given(self, mark: str, place: int) -> None:
        """Record that the caller has the answer to a request."""
        with self._change(is_joined=True):
            self._db.execute("DELETE FROM overnight_items WHERE mark = ? AND place = ?", (mark, place))

    def closed(self, mark: str) -> None:
        """Record that every answer of a job was given."""
        with self._change():
            self._db.execute("UPDATE overnight_jobs SET state = ? WHERE mark = ?", (_CLOSED, mark))
            self._db.execute("DELETE FROM overnight_items WHERE mark = ?", (mark,))

    @contextmanager
    def _change(self, *, is_joined: bool = False) -> Iterator[None]:
        """Run a transaction; with `is_joined`, use the open transaction, if any, and leave its commit to its owner."""
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
        """Delete a job that never came to be, or that is deleted at the service."""
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
