"""Answers kept for contexts that ask for it (`cache_s`), by the whole request; it makes no call.

`<journal>/cache/replies.sqlite`. The key is a digest of provider, model and everything the request says, pictures and
files by their bytes. What was not used for longest goes first when the file is full.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from muse.journal import paths
from muse.journal.storage.sqlite import connect, recreate_if_damaged
from muse.types.messages import Assistant, Finish, Reply, Request, Route
from muse.types.usage import Usage

log = logging.getLogger(__name__)

_NAME = "replies.sqlite"
_VERSION = 1
_TABLES = """
CREATE TABLE replies (key BLOB PRIMARY KEY, made REAL, used REAL, size INTEGER, reply BLOB) WITHOUT ROWID;
CREATE INDEX replies_used ON replies (used)
"""
_MB = 1_000_000
_BUSY_S = 0.25
_TRY_AGAIN_S = 30.0
_ROOM_MADE = 0.9


class _CachedReply(Struct):
    """What of a reply does not depend on the call it came from."""

    text: str
    turn: Assistant
    usage: Usage
    finish: Finish
    model: str
    provider: str
    thinking: str
    dropped: tuple[str, ...]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_CachedReply).decode


class Cache:
    """The kept answers of one journal, as this process sees them."""

    def __init__(self, path: str, max_mb: float) -> None:
        self._max_bytes = max_mb * _MB
        self._lock = threading.Lock()
        self._connection = connect(path, _TABLES, _VERSION, synced=False, busy_s=_BUSY_S)

    def find(self, key: bytes, cache_s: float) -> Reply | None:
        """The answer kept under `key`, if it is not older than `cache_s` seconds; its usage is nothing."""
        import sqlite3  # loaded with the cache

        now = time.time()
        with self._lock:
            try:
                row = self._connection.execute(_FIND, (key, now - cache_s, now)).fetchone()
                if row is not None:
                    self._connection.execute("UPDATE replies SET used = ? WHERE key = ?", (now, key))
            except sqlite3.Error as exc:
                _warn_once("read", exc)
                return None
        if row is None:
            return None
        try:
            kept = _decode(row[0])
        except (msgspec.MsgspecError, TypeError) as exc:
            log.warning("an answer in the cache cannot be read (%s); it is asked for again", exc)
            return None
        return Reply(
            kept.text, kept.turn, Usage(), kept.finish, kept.model, kept.provider, kept.thinking, dropped=kept.dropped
        )

    def keep(self, key: bytes, reply: Reply) -> None:
        """Keep an answer, and make room for it."""
        kept = _CachedReply(
            *(reply.text, reply.turn, reply.usage, reply.finish, reply.model, reply.provider, reply.thinking),
            reply.dropped,
        )
        try:
            body = _encode(kept)
        except (TypeError, ValueError, OverflowError, RecursionError) as exc:
            log.debug("an answer of %s is not kept: %s", reply.provider, exc)
            return
        if len(body) > self._max_bytes / 2:  # it would push out nearly all others
            return
        import sqlite3  # loaded with the cache

        now = time.time()
        with self._lock:
            try:
                self._connection.execute(_KEEP, (key, now, now, len(body), body))
                total = self._connection.execute("SELECT total(size) FROM replies").fetchone()[0]
                if total > self._max_bytes:
                    self._make_room(total)
            except sqlite3.Error as exc:  # the answer is there, and its caller gets it
                _warn_once("written", exc)

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._connection.close()

    def _make_room(self, total: float) -> None:
        for key, size in self._connection.execute("SELECT key, size FROM replies ORDER BY used").fetchall():
            if total <= self._max_bytes * _ROOM_MADE:
                return
            self._connection.execute("DELETE FROM replies WHERE key = ?", (key,))
            total -= size


_KEEP = "REPLACE INTO replies VALUES (?, ?, ?, ?, ?)"
_FIND = "SELECT reply FROM replies WHERE key = ? AND made > ? AND made <= ?"


def _warn_once(what: str, exc: Exception) -> None:
    """Say once a kind of trouble that the cache cannot be used; calls go on without it."""
    said = f"{what}: {exc}"
    if said not in _complained:
        _complained.add(said)
        log.warning("the cache of answers cannot be %s (%s); they are asked for anew", what, exc)


_caches: dict[tuple[str, float, int], Cache] = {}
_complained: set[str] = set()
_not_before_s: dict[str, float] = {}


def cache(max_mb: float) -> Cache | None:
    """The cache of the journal in force; None, and one warning, if it cannot be kept."""
    import sqlite3  # 5 ms, and only who keeps answers pays it

    folder = os.path.join(paths.journal_name(), "cache")
    path = os.path.join(folder, _NAME)
    known = _caches.get((path, max_mb, os.getpid()))
    if known is not None:
        return known
    if time.monotonic() < _not_before_s.get(path, 0.0):
        return None
    try:
        made = recreate_if_damaged(path, lambda: Cache(path, max_mb))
    except (OSError, sqlite3.Error) as exc:
        _not_before_s[path] = time.monotonic() + _TRY_AGAIN_S
        if path not in _complained:
            _complained.add(path)
            log.warning("%s cannot be kept (%s); answers are asked for anew", path, exc)
        return None
    _caches[path, max_mb, os.getpid()] = made
    return made


def key_of(request: Request, route: Route, address: str) -> bytes:
    """The digest under which the answer to a request to this model at this address is kept; empty if none can be."""
    said: Any = replace(request, model=route.model, timeout_s=None)
    try:
        body = msgspec.msgpack.encode((route.provider, address, said), enc_hook=repr)
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        log.debug("the answer to a request is not kept: %s", exc)
        return b""
    return hashlib.sha256(body).digest()
