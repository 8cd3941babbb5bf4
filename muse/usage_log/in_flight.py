"""Attempts that are under way, written down before they are sent, so that a killed process leaves a record of them.

Each process keeps a file of its own in `<journal>/tokens/inflight/`, divided into slots of `SLOT_BYTES`: two bytes of
length (0: the slot is free), then the record. The process holds a lock on the file for as long as it lives; a file
that can be locked belongs to a process that has ended, and its records are attempts whose outcome is unknown.
"""

from __future__ import annotations

import atexit
import errno
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count

import msgspec
from msgspec import Struct

from muse.journal.storage.atomic_files import make_folder

log = logging.getLogger(__name__)

SLOT_BYTES = 512
_LENGTH_BYTES = 2
_FREE = bytes(_LENGTH_BYTES)
_FOLDER = ("tokens", "inflight")
_SUFFIX = ".slots"
_MOST_FILES = 4
_TRY_AGAIN_S = 30.0
# To what length texts are cut where a record does not fit into its slot.
_CUTS = (100, 40, 12)
# Windows refuses to read what another process has locked, so there the locked byte lies behind all slots.
_LOCKED_BYTE = 1 << 30


class Record(Struct, array_like=True):
    """What is known of an attempt before its answer.

    `started_ts` is in seconds since the epoch; `input_tokens` is an estimate. `log_day` (YYYYMMDD) and `log_at`
    (bytes) say from where on the usage log may hold the attempt's line.
    """

    call_id: str
    attempt: int
    started_ts: float
    context: str | None
    provider: str
    model: str
    route: str | None
    segment: str | None
    agent_id: str | None
    input_tokens: int
    is_free: bool
    log_day: str
    log_at: int


class Ticket(Struct):
    """An attempt's slot."""

    slots: Slots
    number: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


class Slots:
    """The file of this process in one journal.

    Raises:
        OSError: the file cannot be made or locked.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._free: list[int] = []
        self._fresh = count()
        self._is_ours = True
        self.path, self._handle = _made(os.path.join(root, *_FOLDER))

    def put(self, record: Record) -> Ticket:
        """Write a record into a free slot.

        Raises:
            OSError: it cannot be written.
        """
        try:
            number = self._free.pop()
        except IndexError:
            number = next(self._fresh)
        body = _fitted(record)
        _write_at(self._handle, len(body).to_bytes(_LENGTH_BYTES, "little") + body, number * SLOT_BYTES)
        return Ticket(self, number)

    def clear(self, number: int) -> None:
        """Mark a slot as free; nothing happens in a forked child, or when the file is closed.

        Raises:
            OSError: it cannot be written.
        """
        if self._is_ours:
            _write_at(self._handle, _FREE, number * SLOT_BYTES)
            self._free.append(number)

    def has_open(self) -> bool:
        """Return whether an attempt is under way."""
        return any(_records(self._handle))

    def close(self) -> None:
        """Close the file; it is removed, unless it has records that are still open."""
        if not self._is_ours:
            return
        self._is_ours = False
        has_open = self.has_open()
        if not has_open and sys.platform != "win32":
            with suppress(OSError):
                os.unlink(self.path)
        os.close(self._handle)
        if not has_open and sys.platform == "win32":
            with suppress(OSError):
                os.unlink(self.path)

    def leave(self) -> None:
        """Close the file in a forked child, to which it does not belong."""
        self._is_ours = False
        os.close(self._handle)


_lock = threading.Lock()
_own: dict[str, Slots] = {}
_not_before_s: dict[str, float] = {}


def slots(root: str) -> Slots | None:
    """Return the file of this process in the journal `root`, made if need be; None where none can be kept."""
    found = _own.get(root)
    if found is not None:
        return found
    with _lock:
        found = _own.get(root)
        if found is not None or time.monotonic() < _not_before_s.get(root, 0.0):
            return found
        if len(_own) >= _MOST_FILES:
            _close_idle()
        try:
            found = _own[root] = Slots(root)
        except OSError as exc:
            _give_up(root, exc)
        return found


def _close_idle() -> None:
    """Close the files of journals that have no attempt under way."""
    for root, own in list(_own.items()):
        if not own.has_open():
            del _own[root]
            own.close()


def begin(own: Slots, record: Record) -> Ticket | None:
    """Write an attempt down; None where that is not possible, for which no call fails."""
    try:
        return own.put(record)
    except OSError as exc:
        _give_up(own.root, exc)
        return None


def end(ticket: Ticket | None) -> None:
    """Take an attempt out: its line stands in the usage log."""
    if ticket is not None:
        try:
            ticket.slots.clear(ticket.number)
        except OSError as exc:
            log.debug("%s: a slot cannot be freed (%s)", ticket.slots.path, exc)


def _give_up(root: str, exc: OSError) -> None:
    """Keep no records in a journal for a while."""
    if root not in _not_before_s:
        log.info(
            "%s: attempts cannot be written down before they are sent (%s); if this process is killed, those that"
            " are under way will be missing in the usage log",
            os.path.join(root, *_FOLDER),
            exc.strerror or exc,
        )
    _not_before_s[root] = time.monotonic() + _TRY_AGAIN_S


class Abandoned(Struct):
    """The file of a process that has ended, locked while it is dealt with."""

    path: str
    handle: int

    def records(self) -> list[Record]:
        """Return the attempts that were under way; a record that cannot be read is passed over with a warning."""
        return list(_records(self.handle))

    def finish(self) -> None:
        """Forget the records: they are in the usage log.

        Raises:
            OSError: the file cannot be changed.
        """
        os.ftruncate(self.handle, 0)
        with suppress(OSError):  # Windows removes no open file; an empty one is removed at the next look
            os.unlink(self.path)


@contextmanager
def _taken(path: str) -> Iterator[Abandoned | None]:
    """The file at `path`, locked; None if its owner or another process holds it, or if it is gone."""
    try:
        handle = os.open(path, os.O_RDWR | _BINARY)
    except OSError:
        yield None
        return
    try:
        is_free = try_lock(handle) and os.fstat(handle).st_nlink > 0
        yield Abandoned(path, handle) if is_free else None
    finally:
        os.close(handle)


def abandoned(root: str) -> Iterator[Abandoned]:
    """Give the files of processes that have ended, one after the other; each is locked while it is in hand."""
    folder = os.path.join(root, *_FOLDER)
    try:
        names = os.listdir(folder)
    except OSError:
        return
    own = _own.get(root)
    for name in names:
        path = os.path.join(folder, name)
        if not name.endswith(_SUFFIX) or (own is not None and path == own.path):
            continue
        with _taken(path) as found:
            if found is not None:
                yield found


def _made(folder: str) -> tuple[str, int]:
    """A new file in `folder`, locked: its path and handle.

    Raises:
        OSError: it cannot be made or locked.
    """
    make_folder(folder)
    while True:
        path = os.path.join(folder, f"{os.getpid()}-{os.urandom(6).hex()}{_SUFFIX}")
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | _BINARY, 0o600)
        try:
            if try_lock(handle) and os.fstat(handle).st_nlink > 0:
                return path, handle
        except OSError:
            os.close(handle)
            with suppress(OSError):
                os.unlink(path)
            raise
        os.close(handle)  # another process took it for an abandoned one before it was locked


def _fitted(record: Record) -> bytes:
    """A record as bytes that a slot holds, with its texts cut if need be."""
    body = _packed(record)
    for length in _CUTS:
        if len(body) <= SLOT_BYTES - _LENGTH_BYTES:
            break
        texts = (record.context, record.provider, record.model, record.route, record.segment, record.agent_id)
        context, provider, model, route, segment, agent_id = (text and text[:length] for text in texts)
        body = _packed(
            msgspec.structs.replace(
                record,
                context=context,
                provider=provider,
                model=model,
                route=route,
                segment=segment,
                agent_id=agent_id,
            )
        )
    return body


def _packed(record: Record) -> bytes:
    try:
        return _encode(record)
    except UnicodeEncodeError:  # half a surrogate pair
        text = msgspec.structs.astuple(record)
        return _encode([_whole(value) if isinstance(value, str) else value for value in text])


def _whole(text: str) -> str:
    return text.encode("utf-8", errors="replace").decode("utf-8")


def _records(handle: int) -> Iterator[Record]:
    """The records of a file that are open."""
    os.lseek(handle, 0, os.SEEK_SET)
    while slot := os.read(handle, SLOT_BYTES):
        length = int.from_bytes(slot[:_LENGTH_BYTES], "little")
        if not length:
            continue
        try:
            yield _decode(slot[_LENGTH_BYTES : _LENGTH_BYTES + length])
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            log.warning("a record of an attempt under way cannot be read (%s); it is left out", exc)


_BINARY = getattr(os, "O_BINARY", 0)

if sys.platform == "win32":
    import msvcrt

    def try_lock(handle: int) -> bool:
        """Lock an open file; False if another process has it locked."""
        os.lseek(handle, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _write_at(handle: int, data: bytes, at: int) -> None:
        with _lock:
            os.lseek(handle, at, os.SEEK_SET)
            os.write(handle, data)
else:
    import fcntl

    def try_lock(handle: int) -> bool:
        """Lock an open file; False if another process has it locked.

        Raises:
            OSError: the file system has no locks.
        """
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _write_at(handle: int, data: bytes, at: int) -> None:
        if os.pwrite(handle, data, at) < len(data):
            raise OSError(errno.ENOSPC, "a record could be written only in part")

    def _after_fork() -> None:
        """Let go of what belongs to the parent: a handle that stays open would keep its lock."""
        _lock.release()
        for own in _own.values():
            own.leave()
        _own.clear()

    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_after_fork)


@atexit.register
def close_all() -> None:
    """Close the files of this process; what has open records is left to the next process that reads the log."""
    with _lock:
        while _own:
            _own.popitem()[1].close()
