"""Requests and results of one batch in a SQLite file of the journal; it makes no call and knows no loop.

`<journal>/batches/<name>.sqlite`, WAL, `user_version` 1. Writes gather in one transaction until `commit`. What was
committed survives the process, however it ends; a power cut may take the last moments along.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from muse.batching.io.cells import storable
from muse.batching.request import BatchRequest, Place
from muse.batching.store.schema import COLUMNS, VERSION, examine, open_readonly, open_store
from muse.batching.store.serialization import unpack
from muse.journal import paths
from muse.journal.storage.atomic_files import make_folder
from muse.runs.run_files import lock
from muse.types.errors import ConfigError, MuseError
from muse.types.messages import Attempt
from muse.types.usage import Usage

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FINISHED = ("done", "failed")
_encode = msgspec.json.Encoder(enc_hook=str).encode
_attempts = msgspec.json.Decoder(tuple[Attempt, ...]).decode
_usage = msgspec.json.Decoder(Usage).decode


class StoredItem(Struct, frozen=True):
    """An item as the store has it: `number` names it there, `request` and `note` are as they were packed."""

    number: int
    key: str
    state: str
    request: bytes
    note: bytes | None
    response: str | None
    error: str | None
    error_class: str | None
    model: str | None
    provider: str | None
    usage: bytes
    attempts: bytes
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    duration_s: float | None

    @property
    def is_finished(self) -> bool:
        """Whether it has its result."""
        return self.state in _FINISHED

    def restore(self, request: BatchRequest) -> None:
        """Give `request` the result that is kept."""
        request.restored = True
        request.response, request.error = self.response, self.error
        request.exception = MuseError(self.error) if self.error is not None else None
        request.state = "done" if self.state == "done" else "failed"
        request.model_used, request.provider_used = self.model, self.provider
        request.usage, request.attempts = _usage(self.usage), _attempts(self.attempts)
        request.cost_usd, request.duration = self.cost_usd, self.duration_s


class StateSummary(Struct, frozen=True):
    """The items of one state, summed up."""

    state: str
    items: int
    input_tokens: int
    output_tokens: int
    cost_usd: float
    unpriced: int
    last_s: float | None


def folder() -> Path:
    """Where the ledgers of batches are."""
    return paths.journal_path() / "batches"


def names() -> list[str]:
    """The ledgers there are, by name."""
    return sorted(path.stem for path in folder().glob("*.sqlite") if _NAME.fullmatch(path.stem))


def path_of(name: object) -> Path:
    """The file of the ledger `name`.

    Raises:
        ConfigError: the name cannot be that of a file.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            "ledger", repr(name), "a name of letters, digits, '.', '_' and '-', such as 'insights-2026-11'"
        )
    return folder() / f"{name}.sqlite"


class Store:
    """One ledger, open. Whoever writes holds it; a second writer is refused, readers are not.

    `must_exist` is for who wants to look at one; its pages are not looked through then. `is_read_only` is for who does
    nothing else, which needs no folder that can be written.

    Raises:
        ConfigError: the file is of another version, broken, or none of ours; it is left as it is.
    """

    def __init__(self, name: str, *, must_exist: bool = False, is_read_only: bool = False) -> None:
        self.name = name
        self.mark = secrets.token_hex(8)  # of this opening: a place that was had in another one may count no more
        self.path = path_of(name)
        self._held: int | None = None
        self._is_closed = False
        must_exist |= is_read_only
        exists = self.path.exists()
        if must_exist and not exists:
            raise ConfigError("ledger", repr(name), f"one of {', '.join(names()) or 'none yet'} (muse batch list)")
        with self._told():
            if exists:
                examine(self.path, whole=not must_exist)
            else:
                make_folder(self.path.parent)
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            self._db = open_readonly(self.path) if is_read_only else open_store(self.path)

    def hold(self) -> None:
        """Become the one who writes.

        Raises:
            ConfigError: another process or batch is at it.
        """
        if self._held is not None:
            return
        if self._is_closed:
            raise ConfigError("ledger", f"{self.name!r}, which is closed", "a Batch that was not closed")
        with self._told():
            handle = os.open(self.path.with_name(f".{self.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        if not lock(handle):
            os.close(handle)
            raise ConfigError(
                "ledger",
                f"{self.name!r}, which another run is writing to",
                "one that is free: wait until that run ends",
            )
        self._held = handle

    def release(self) -> None:
        """Let others write."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def close(self) -> None:
        """Release it and close the file; closing twice does nothing."""
        if self._is_closed:
            return
        try:
            self.commit()
        except ConfigError:  # the file is gone
            return
        finally:
            self._is_closed = True
            self.release()
            self._db.close()

    def claim(self, key: str, body: bytes, note: Any, *, retry_failed: bool = False) -> StoredItem:
        """The next item of that key in this run, with its result if it has one; a new one is open.

        The nth request of a key is the nth item of that key, in every run.
        """
        self.hold()
        with self._told():
            self._begin()
            key = storable(key)
            times: int = self._db.execute(_COUNT, (key,)).fetchone()[0]
            row = self._db.execute(_FIND, (key, times)).fetchone()
            packed = _packed(note)
            if row is None:
                number = self._db.execute(_ADD, (key, times)).lastrowid or 0
                self._db.execute(_ASK, (number, body, packed))
                return _new(number, key, body, packed)
            kept = StoredItem(*row)
            if kept.is_finished and not (retry_failed and kept.state == "failed"):
                return kept
            self._db.execute("UPDATE items SET state = 'open' WHERE number = ?", (kept.number,))
            self._db.execute(_ASK, (kept.number, body, packed))
            return _new(kept.number, key, body, packed)

    def claim_again(self, number: int, body: bytes, note: Any, *, is_unseen: bool) -> StoredItem | None:
        """The item that a request had, for what it asks now; None if there is no such item.

        A result is kept if it `is_unseen` and belongs to the same question. What is asked instead of something else
        gets another number, so that an answer that is still on its way to the old one finds nothing.
        """
        self.hold()
        with self._told():
            self._begin()
            row = self._db.execute(f"{_SELECT} WHERE number = ?", (number,)).fetchone()
            if row is None:
                return None
            kept = StoredItem(*row)
            is_same = kept.request == body
            if is_same and is_unseen and kept.is_finished:
                return kept
            if not is_same:
                number = self._db.execute(_RENEW, (number,)).fetchone()[0]
                self._db.execute("DELETE FROM asked WHERE number = ?", (kept.number,))
            self._db.execute("UPDATE items SET state = 'open' WHERE number = ?", (number,))
            packed = _packed(note)
            self._db.execute(_ASK, (number, body, packed))
            return _new(number, kept.key, body, packed)

    def asked(self, number: int) -> bytes | None:
        """What an item asks, as it was packed; None if there is no such item."""
        with self._told():
            row = self._db.execute("SELECT request FROM asked WHERE number = ?", (number,)).fetchone()
        return row[0] if row is not None else None

    def finish(self, number: int, request: BatchRequest) -> None:
        """Keep the result of an item, from the next commit on."""
        kind = type(request.exception).__name__ if request.exception is not None else None
        usage = request.usage
        values = (
            request.state,
            request.response and storable(request.response),
            request.error and storable(request.error),
            kind,
            request.model_used,
            request.provider_used,
            _encode(usage),
            _encode(request.attempts),
            usage.input_tokens,
            usage.output_tokens,
            request.cost_usd,
            request.duration,
            time.time(),
            number,
        )
        with self._told():
            self._begin()
            self._db.execute(_FINISH, values)

    def forget(self, number: int) -> None:
        """Leave an item out that has no result, from the next commit on."""
        with self._told():
            self._begin()
            if self._db.execute("DELETE FROM items WHERE number = ? AND state = 'open'", (number,)).rowcount:
                self._db.execute("DELETE FROM asked WHERE number = ?", (number,))

    def commit(self) -> None:
        """Make everything so far last."""
        if self._is_closed:
            return
        with self._told():
            if self._db.in_transaction:
                self._db.execute("COMMIT")

    def items(self, *states: str) -> Iterator[StoredItem]:
        """The items in one of `states` (all if none is named), in the order in which they were added."""
        last = 0
        wanted = states or ("open", "deferred", *_FINISHED)
        query = f"{_SELECT} WHERE number > ? AND state IN ({', '.join('?' * len(wanted))}) ORDER BY number LIMIT 500"
        while True:  # a page at a time, so that no transaction stays open between two of them
            with self._told():
                page = [StoredItem(*row) for row in self._db.execute(query, (last, *wanted))]
            if not page:
                return
            yield from page
            last = page[-1].number

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection to the file, for what is kept beside the items; `commit` makes that last too."""
        return self._db

    def jobs_under_way(self, number: int | None = None) -> int:
        """How many jobs of the ledger are at batch services, as far as is known: all, or those that hold an item."""
        with self._told():
            if self._db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'overnight_items'").fetchone() is None:
                return 0
            found: int = self._db.execute(_UNDER_WAY, (number, str(number))).fetchone()[0]
            return found

    def sums(self) -> list[StateSummary]:
        """What there is, by state."""
        with self._told():
            return [StateSummary(*row) for row in self._db.execute(_SUMS)]

    def about(self) -> dict[str, Any]:
        """What was noted of the whole batch."""
        with self._told():
            rows = self._db.execute("SELECT name, value FROM about").fetchall()
        return {name: json.loads(value) for name, value in rows}

    def note(self, about: Mapping[str, Any]) -> None:
        """Note values (JSON) of the whole batch, and commit."""
        self.hold()
        with self._told():
            self._begin()
            rows = [(name, json.dumps(value)) for name, value in about.items()]
            self._db.executemany("INSERT OR REPLACE INTO about (name, value) VALUES (?, ?)", rows)
        self.commit()

    def _begin(self) -> None:
        if not self._db.in_transaction:
            self._db.execute("BEGIN")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what SQLite says into an error that says what to do."""
        try:
            yield
        except sqlite3.ProgrammingError as exc:
            if not self._is_closed:
                raise
            raise ConfigError("ledger", f"{self.name!r}, which is closed", "a Batch that was not closed") from exc
        except (sqlite3.Error, OSError) as exc:
            raise ConfigError(str(self.path), f"a ledger that cannot be used ({exc})", _remedy(exc)) from exc


def requests(store: Store, *states: str) -> Iterator[BatchRequest]:
    """The requests of a ledger that stand so, as they were kept; asked again, they keep their places."""
    for kept in store.items(*states):
        request = unpack(kept.request)
        request.place = Place(store.mark, kept.number, None)
        yield request


def _remedy(exc: Exception) -> str:
    if isinstance(exc, sqlite3.OperationalError):
        is_barred = exc.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
    else:
        is_barred = isinstance(exc, OSError) and exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
    return _WRITABLE if is_barred else _REMEDY


def _packed(note: Any) -> bytes | None:
    return None if note is None else json.dumps(note, default=str).encode("ascii")


def _new(number: int, key: str, body: bytes, note: bytes | None) -> StoredItem:
    return StoredItem(number, key, "open", body, note, None, None, None, None, None, b"{}", b"[]", 0, 0, None, None)


_WRITABLE = "a folder that can be written: give yourself the right to, or let JOURNAL_PATH name a copy of the journal"
_REMEDY = (
    f"a batch ledger of version {VERSION} on a disk with room; the file is left as it is:"
    " bring back a copy of it, or move it away (its results go with it) or name another ledger to begin anew"
)
_SELECT = f"SELECT {', '.join(COLUMNS)} FROM items JOIN asked USING (number)"  # noqa: S608 - names of our own
_SMALL = ", ".join({"request": "x''", "note": "NULL"}.get(name, name) for name in COLUMNS)
_FIND = f"SELECT {_SMALL} FROM items WHERE key = ? AND occurrence = ?"  # noqa: S608 - as above
_COUNT = "INSERT INTO seen (key, times) VALUES (?, 0) ON CONFLICT (key) DO UPDATE SET times = times + 1 RETURNING times"
_ADD = "INSERT INTO items (key, occurrence) VALUES (?, ?)"
_ASK = "INSERT OR REPLACE INTO asked (number, request, note) VALUES (?, ?, ?)"
_RENEW = "UPDATE items SET number = (SELECT max(number) + 1 FROM items) WHERE number = ? RETURNING number"
_FINISH = (
    "UPDATE items SET state = ?, response = ?, error = ?, error_class = ?, model = ?, provider = ?, usage = ?,"
    " attempts = ?, input_tokens = ?, output_tokens = ?, cost_usd = ?, duration_s = ?, finished_s = ? WHERE number = ?"
)
_UNDER_WAY = "SELECT count(DISTINCT mark) FROM overnight_items WHERE ? IS NULL OR key = ?"
_SUMS = (
    "SELECT state, count(*), sum(input_tokens), sum(output_tokens), coalesce(sum(cost_usd), 0.0),"
    " sum(state = 'done' AND cost_usd IS NULL), max(finished_s) FROM items GROUP BY state"
)
