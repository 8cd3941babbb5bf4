"""All runs of the journal at a glance: what is over is read once and kept in a file; it runs no agent.

`<journal>/index/runs.sqlite` can be deleted at any time: it is made anew from the logs.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from msgspec import Struct

from muse.journal.storage.sqlite import connect, recreate_if_damaged, retry_on_busy, write_transaction
from muse.runs import run_files
from muse.runs.client import previous_run
from muse.runs.run_files import Run

log = logging.getLogger(__name__)

_VERSION = 2
_TABLES = """
CREATE TABLE run (
    id TEXT PRIMARY KEY, persona TEXT NOT NULL, state TEXT NOT NULL, before TEXT NOT NULL, run TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX run_before ON run (before);
CREATE INDEX run_kind ON run (persona, state)
"""
_COMMITTED_AT_ONCE = 500
_SETTLED_NS = 50_000_000  # as in muse.journal.config_loader: file systems stamp in steps of some milliseconds


class _FolderState(Struct, frozen=True):
    """The last look at the folder; not settled while a further change could still bear the same stamp."""

    stamp: int
    is_settled: bool


_NEVER = _FolderState(-1, is_settled=False)


class RunPage(Struct, frozen=True):
    """Some runs, newest first, and how many there are of them in all."""

    runs: tuple[Run, ...]
    total: int


class RunIndex:
    """The runs of the journal in force; `page` and `later_than` see every run there is at the moment."""

    def __init__(self) -> None:
        self._connection: Any = None
        self._path = ""
        self._known: set[str] = set()
        self._seen = _NEVER
        self._lock = threading.RLock()

    def page(self, *, limit: int, offset: int = 0, persona: str = "", state: str = "") -> RunPage:
        """A page of the runs of a persona and in a state ("" is any), newest first.

        A state is one of `muse.runs.run_files.RUN_STATES`.

        Raises:
            OSError, sqlite3.Error: the index can be neither read nor made anew.
        """
        live = [run for run in _live() if persona in ("", run.persona) and state in ("", run.state)]
        with self._opened() as connection:
            said = {"persona": persona, "state": state}
            where = " AND ".join(f"{name} = :{name}" for name, value in said.items() if value) or "1"
            total = connection.execute(f"SELECT count(*) FROM run WHERE {where}", said).fetchone()[0]  # noqa: S608
            kept = connection.execute(
                f"SELECT id FROM run WHERE {where} ORDER BY id DESC LIMIT :limit",  # noqa: S608
                {**said, "limit": offset + limit},
            ).fetchall()
            known = {run.agent_id: run for run in live}
            ids = sorted({*known, *(found for (found,) in kept)}, reverse=True)[offset : offset + limit]
            stored = (connection.execute("SELECT run FROM run WHERE id = ?", (one,)).fetchone() for one in ids)
            shown = tuple(
                msgspec.json.decode(row[0], type=Run) if row else known[one]
                for one, row in zip(ids, stored, strict=True)
            )
        return RunPage(shown, total + len(live))

    def personas(self) -> tuple[str, ...]:
        """The personas that have run, in order of their names."""
        with self._opened() as connection:
            kept = [name for (name,) in connection.execute("SELECT DISTINCT persona FROM run").fetchall()]
        return tuple(sorted({*kept, *(run.persona for run in _live())}))

    def live(self) -> tuple[Run, ...]:
        """The runs that wait or are under way, and those whose process is gone, newest first."""
        return tuple(sorted(_live(), key=lambda run: run.agent_id, reverse=True))

    def later_than(self, agent_id: str) -> tuple[str, ...]:
        """The runs that continue or resume this one or were handed on from it, oldest first."""
        with self._opened() as connection:
            rows = connection.execute("SELECT id FROM run WHERE before = ?", (agent_id,)).fetchall()
        live = (run.agent_id for run in _live() if previous_run(run.agent_id) == agent_id)
        return tuple(sorted({*(found for (found,) in rows), *live}))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection, self._path, self._known, self._seen = None, "", set(), _NEVER

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """The connection, once what the folder holds is in the file."""
        with self._lock:
            path = str(run_files.folder().parent / "index" / "runs.sqlite")
            if path != self._path:
                self.close()
                self._connection = _opened_at(path)
                self._path = path
                self._known = {found for (found,) in self._connection.execute("SELECT id FROM run").fetchall()}
            self._catch_up()
            yield self._connection

    def _catch_up(self) -> None:
        """Take in what the folder has more, or less, than the file; a folder that has not moved is not read again."""
        stamp = _stamp_of_folder()
        if stamp == self._seen.stamp and self._seen.is_settled:
            return
        is_settled = time.time_ns() - stamp > _SETTLED_NS
        over = set(run_files.ids_in("over"))
        gone, fresh = list(self._known - over), sorted(over - self._known)
        for start in range(0, len(gone), _COMMITTED_AT_ONCE):
            self._commit(
                "DELETE FROM run WHERE id = ?", [(found,) for found in gone[start : start + _COMMITTED_AT_ONCE]]
            )
        self._known -= set(gone)
        for start in range(0, len(fresh), _COMMITTED_AT_ONCE):
            some = fresh[start : start + _COMMITTED_AT_ONCE]
            self._commit(
                "INSERT OR REPLACE INTO run VALUES (?, ?, ?, ?, ?)", [row for one in some for row in _row(one)]
            )
            self._known.update(some)
        self._seen = _FolderState(stamp, is_settled)

    def _commit(self, statement: str, rows: Sequence[tuple[str, ...]]) -> None:
        def write() -> None:
            with write_transaction(self._connection):
                self._connection.executemany(statement, rows)

        retry_on_busy(write)


def _opened_at(path: str) -> Any:
    """The index at `path`; where it cannot be kept, one in memory, for this process."""

    def open_it(name: str = path) -> Any:
        return connect(name, _TABLES, _VERSION, synced=False)

    try:
        return recreate_if_damaged(path, open_it)
    except (OSError, sqlite3.OperationalError) as exc:
        log.warning("%s cannot be kept (%s); this process reads the runs into memory", path, exc)
        return open_it(":memory:")


def _stamp_of_folder() -> int:
    """When the folder of runs changed last (ns); 0 if there is none."""
    try:
        return os.stat(run_files.folder()).st_mtime_ns
    except FileNotFoundError:
        return 0


def _row(agent_id: str) -> Iterator[tuple[str, ...]]:
    """A run that is over as a row; none if it was deleted in this moment."""
    run = run_files.summarize(agent_id)
    if run is not None:
        yield agent_id, run.persona, run.state, previous_run(agent_id) or "", msgspec.json.encode(run).decode()


def _live() -> list[Run]:
    """The runs that wait, are under way, or were cut off."""
    found = (run_files.summarize(agent_id) for agent_id in (*run_files.ids_in("pending"), *run_files.ids_in("active")))
    return [run for run in found if run is not None]


INDEX = RunIndex()
