"""A file of the token log read on from where it was left, and whether its past is still the same; it sums nothing."""

from __future__ import annotations

import errno
import os
import stat
import zlib
from collections.abc import Iterator
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Any

from msgspec import Struct

from muse.usage_log.ledger import read_entry

_TAIL_BYTES = 4096
_BLOCK_BYTES = 1 << 20
# One reading ends behind the line that makes it as long as this, so that long lines are not held by the thousand.
_MOST_BYTES = 16 << 20
# A file this small is compared whole when it has grown; a larger one by its last bytes.
_COMPARED_BYTES = 4 << 20


class ReadPosition(Struct, frozen=True):
    """How far a file was read: the file's stamp then, and what tells whether the part before `done` changed since.

    `checksum` is over all bytes before `done`, `tail` over the last of them; `open_end` says that the last line read
    has no line end (yet), `pending` that behind `done` there is the beginning of a line.
    """

    inode: int
    size: int
    mtime_ns: int
    done: int = 0
    checksum: int = 0
    tail: int = 0
    open_end: bool = False
    pending: bool = False


class Found(Struct, frozen=True):
    """A line of the log: where it begins, its length in bytes, and what it says (None: it is no JSON object)."""

    at: int
    size: int
    entry: dict[str, Any] | None


def stamp_of(path: Path) -> ReadPosition:
    """A file that nothing is read of yet.

    Raises:
        OSError: it is not there, or is no file that one can read on.
    """
    info = path.stat()
    if not stat.S_ISREG(info.st_mode):
        raise OSError(errno.EINVAL, "not a file", str(path))
    return ReadPosition(info.st_ino, info.st_size, info.st_mtime_ns)


def is_same(mark: ReadPosition, now: ReadPosition) -> bool:
    """Whether a file bears the stamp it had, and was read to its end."""
    is_read = mark.done == mark.size or mark.pending
    return is_read and (mark.inode, mark.size, mark.mtime_ns) == (now.inode, now.size, now.mtime_ns)


def is_append_only(path: Path, mark: ReadPosition) -> bool:
    """Whether the part that was read stands there as it was: what is new can be read on from its end.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        info = os.fstat(file.fileno())
        if info.st_ino != mark.inode or info.st_size < mark.done:
            return False
        if _tail(file, mark.done) != mark.tail:
            return False
        if mark.open_end and info.st_size > mark.done and file.read(1) != b"\n":
            return False  # something was written right behind the last line, which makes another line of it
        return (info.st_size > mark.size and mark.done > _COMPARED_BYTES) or _checksum(file, mark.done) == mark.checksum


class Scan:
    """One reading of a file from a mark on: iterate it for its lines, then take the new `mark`."""

    def __init__(self, path: Path, mark: ReadPosition, most_lines: int) -> None:
        self._path = path
        self._most = most_lines
        self.mark = mark

    def __iter__(self) -> Iterator[Found]:
        with self._path.open("rb") as file:
            info = os.fstat(file.fileno())
            at, checksum = self.mark.done, self.mark.checksum
            open_end, pending = self.mark.open_end, False
            file.seek(at)
            for line in islice(file, self._most):
                if at - self.mark.done >= _MOST_BYTES:
                    break
                entry = read_entry(line)
                is_open = not line.endswith(b"\n")
                if (
                    is_open and entry is None and line.strip()
                ):  # its writer is at work, or was killed; the next one tells
                    pending = True
                    break
                open_end = is_open
                checksum = zlib.crc32(line, checksum)
                if line.strip():
                    yield Found(at, len(line), entry)
                at += len(line)
            tail = _tail(file, at)
        self.mark = ReadPosition(
            info.st_ino, max(at, info.st_size), info.st_mtime_ns, at, checksum, tail, open_end, pending
        )


def read_at(path: Path, at: int, size: int) -> bytes:
    """The bytes of one line.

    Raises:
        OSError: the file is not there any more, or cannot be read.
    """
    with path.open("rb") as file:
        file.seek(at)
        return file.read(size)


def _tail(file: BufferedReader, done: int) -> int:
    """The checksum of the last bytes before `done`; the file stands at `done` afterwards."""
    begin = max(0, done - _TAIL_BYTES)
    file.seek(begin)
    return zlib.crc32(file.read(done - begin))


def _checksum(file: BufferedReader, done: int) -> int:
    checksum, left = 0, done
    file.seek(0)
    while left > 0:
        block = file.read(min(left, _BLOCK_BYTES))
        if not block:
            break
        checksum = zlib.crc32(block, checksum)
        left -= len(block)
    return checksum
