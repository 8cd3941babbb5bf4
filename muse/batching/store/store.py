"""The batch store: requests and results of one batch in a SQLite file of the journal.

The file is `<journal>/batches/<name>.sqlite`, in WAL mode, with `user_version` 1. Writes gather in one transaction
until `commit`. Committed results survive the process, however it ends; a power cut may lose the last moments.

Entry points: `Store`, `names`, `path_of`, `requests`.
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
    """An item as it is in the store.

    `number` identifies it there. `request` and `note` hold the bytes as they were packed.
    """

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
        """True if the item has its result."""
        return self.state in _FINISHED

    def restore(self, request: BatchRequest) -> None:
        """Copy the stored result to `request`."""
        request.restored = True
        request.response, request.error = self.response, self.error
        request.exception = MuseError(self.error) if self.error is not None else None
        request.state = "done" if self.state == "done" else "failed"
        request.model_used, request.provider_used = self.model, self.provider
        request.usage, request.attempts = _usage(self.usage), _attempts(self.attempts)
        request.cost_usd, request.duration = self.cost_usd, self.duration_s


class StateSummary(Struct, frozen=True):
    """The number, tokens and cost of all items in one state."""

    state: str
    items: int
    input_tokens: int
    output_tokens: int
    cost_usd: float
    unpriced: int
    last_s: float | None


def folder() -> Path:
    """Return the folder of all batch stores."""
    return paths.journal_path() / "batches"


def names() -> list[str]:
    """Return the names of all batch stores, sorted."""
    return sorted(path.stem for path in folder().glob("*.sqlite") if _NAME.fullmatch(path.stem))


def path_of(name: object) -> Path:
    """Return the file of the batch store `name`.

    Raises:
        ConfigError: The name cannot be used as a file name.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            "ledger", repr(name), "a name of letters, digits, '.', '_' and '-', such as 'insights-2026-11'"
        )
    return folder() / f"{name}.sqlite"


class Store:
    """An open batch store.

    A writer locks it (`hold`). A second writer is refused; readers are not.

    Args:
        name: The name of the store.
        must_exist: Refuse to create the file, for callers that only inspect it. Not every page is checked then.
        is_read_only: Open for reading only. The folder need not be writable.

    Raises:
        ConfigError: The file is of another version, broken, or not a batch store. It is not changed.
    """

    def __init__(self, name: str, *, must_exist: bool = False, is_read_only: bool = False) -> None:
        self.name = name
        # Identifies this opening: a place from another opening may be invalid.
        self.mark = secrets.token_hex(8)
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
        """Lock the store for writing, unless it is locked already.

        Raises:
            ConfigError: Another process or batch is writing to it, or it is closed.
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
        """Unlock the store for other writers."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def close(self) -> None:
        """Commit, unlock the store and close the file; closing twice does nothing."""
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
        """Return the next item of that key in this run, with its result if it has one; else the item is opened.

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
        """Return the item that a request had before, for its current content; None if there is no such item.

        A stored result is kept if it `is_unseen` (not delivered yet) and the content is unchanged.
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
                # A new number, so that an answer still under way to the old content finds no item.
                number = self._db.execute(_RENEW, (number,)).fetchone()[0]
                self._db.execute("DELETE FROM asked WHERE number = ?", (kept.number,))
            self._db.execute("UPDATE items SET state = 'open' WHERE number = ?", (number,))
            packed = _packed(note)
            self._db.execute(_ASK, (number, body, packed))
            return _new(number, kept.key, body, packed)

    def asked(self, number: int) -> bytes | None:
        """Return the packed request of an item; None if there is no such item."""
        with self._told():
            row = self._db.execute("SELECT request FROM asked WHERE number = ?", (number,)).fetchone()
        return row[0] if row is not None else None

    def finish(self, number: int, request: BatchRequest) -> None:
        """Save the result of an item; it lasts from the next commit on."""
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
        """Delete an item that has no result; it is gone from the next commit on."""
        with self._told():
            self._begin()
            if self._db.execute("DELETE FROM items WHERE number = ? AND state = 'open'", (number,)).rowcount:
                self._db.execute("DELETE FROM asked WHERE number = ?", (number,))

    def commit(self) -> None:
        """Commit all writes so far."""
        if self._is_closed:
            return
        with self._told():
            if self._db.in_transaction:
                self._db.execute("COMMIT")

    def items(self, *states: str) -> Iterator[StoredItem]:
        """Yield the items in one of `states` (all if none is named), in the order in which they were added."""
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
        """The connection to the file, for tables beside the items; `commit` commits those writes too."""
        return self._db

    def jobs_under_way(self, number: int | None = None) -> int:
        """Return the number of jobs at batch services, as far as is known: all, or those that hold item `number`."""
        with self._told():
            if self._db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'overnight_items'").fetchone() is None:
                return 0
            found: int = self._db.execute(_UNDER_WAY, (number, str(number))).fetchone()[0]
            return found

    def sums(self) -> list[StateSummary]:
        """Return a summary for each state."""
        with self._told():
            return [StateSummary(*row) for row in self._db.execute(_SUMS)]

    def about(self) -> dict[str, Any]:
        """Return the values that were noted for the whole batch."""
        with self._told():
            rows = self._db.execute("SELECT name, value FROM about").fetchall()
        return {name: json.loads(value) for name, value in rows}

    def note(self, about: Mapping[str, Any]) -> None:
        """Save values (JSON) for the whole batch, and commit."""
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
        """Convert errors of SQLite and the file system to a ConfigError with a remedy."""
        try:
            yield
        except sqlite3.ProgrammingError as exc:
            if not self._is_closed:
                raise
            raise ConfigError("ledger", f"{self.name!r}, which is closed", "a Batch that was not closed") from exc
        except (sqlite3.Error, OSError) as exc:
            raise ConfigError(str(self.path), f"a ledger that cannot be used ({exc})", _remedy(exc)) from exc


def requests(store: Store, *states: str) -> Iterator[BatchRequest]:
    """Yield the stored requests in one of `states`; added to a batch again, each keeps its item."""
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
