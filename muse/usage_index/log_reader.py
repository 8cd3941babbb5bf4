"""Incremental reading of usage-log files, with a check that the part read before is unchanged.

Entry points: `Scan`, `is_append_only`, `is_same`.
"""

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
# A pass ends after the line that reaches this size, so that thousands of long lines are not held in memory.
_MOST_BYTES = 16 << 20
# A file that has grown is compared in full up to this size; a larger one only by its last bytes.
_COMPARED_BYTES = 4 << 20


class ReadPosition(Struct, frozen=True):
    """How far a file was read: its stamp at that time, and checksums of the part before `done`.

    Attributes:
        inode: The file's inode.
        size: The file's size in bytes.
        mtime_ns: The file's modification time.
        done: The number of bytes that were read.
        checksum: The CRC-32 of all bytes before `done`.
        tail: The CRC-32 of the last bytes before `done`.
        open_end: True if the last line read has no line end (yet).
        pending: True if an incomplete line follows `done`.
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
    """A line of the log: its offset and length in bytes, and its content (None if it is not a JSON object)."""

    at: int
    size: int
    entry: dict[str, Any] | None


def stamp_of(path: Path) -> ReadPosition:
    """Return the position of a file of which nothing was read yet.

    Raises:
        OSError: It does not exist, or is not a regular file.
    """
    info = path.stat()
    if not stat.S_ISREG(info.st_mode):
        raise OSError(errno.EINVAL, "not a file", str(path))
    return ReadPosition(info.st_ino, info.st_size, info.st_mtime_ns)


def is_same(mark: ReadPosition, now: ReadPosition) -> bool:
    """Return True if a file was read to its end and its stamp is unchanged."""
    is_read = mark.done == mark.size or mark.pending
    return is_read and (mark.inode, mark.size, mark.mtime_ns) == (now.inode, now.size, now.mtime_ns)


def is_append_only(path: Path, mark: ReadPosition) -> bool:
    """Return True if the part that was read is unchanged, so that reading can continue at its end.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        info = os.fstat(file.fileno())
        if info.st_ino != mark.inode or info.st_size < mark.done:
            return False
        if _tail(file, mark.done) != mark.tail:
            return False
        if mark.open_end and info.st_size > mark.done and file.read(1) != b"\n":
            return False  # text was appended to the last line, which changes that line
        return (info.st_size > mark.size and mark.done > _COMPARED_BYTES) or _checksum(file, mark.done) == mark.checksum


class Scan:
    """One pass over a file from a position on: iterate over it for its lines, then read the new `mark`."""

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
                ):  # still being written, or its writer was killed; the next pass shows which
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
    """Return the bytes of one line.

    Raises:
        OSError: The file does not exist any more, or cannot be read.
    """
    with path.open("rb") as file:
        file.seek(at)
        return file.read(size)


def _tail(file: BufferedReader, done: int) -> int:
    """Return the checksum of the last bytes before `done`, and leave the file position at `done`."""
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
