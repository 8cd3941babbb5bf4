"""The token log: one JSON line per attempt, whole lines only, from any number of processes; it knows no provider."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from muse import journal
from muse.errors import ConfigError

log = logging.getLogger(__name__)

# The agent run that is under way in this context; the lines written in it bear its id.
RUN: ContextVar[str | None] = ContextVar("muse_run", default=None)

_HOUSES = ("think.", "observe.", "muse.", "apps.")
_encode = msgspec.json.Encoder(enc_hook=str).encode
_KEPT_HANDLES = 4
_MOST_DAYS = 100_000
_is_day = lru_cache(20_000)(journal.is_day)  # of the same files again and again


class _Handle(Struct):
    """An open token log of this process."""

    path: str
    number: int
    pid: int


_handles: dict[str, _Handle] = {}
_lock = threading.Lock()
if sys.platform != "win32":  # as in muse.journal: no child inherits a held lock
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
_complained: set[str] = set()


def append(entry: Mapping[str, Any]) -> None:
    """Add one line to today's token log, `<journal>/tokens/YYYYMMDD.jsonl` (local date); it never raises.

    One `write` on a file opened for appending, so lines of several processes do not mix. Behind a torn line (its writer
    was killed or the disk was full) the new one is written again, whole and on its own. If the log cannot be written, a
    warning says so, once for each folder and reason.
    """
    path = os.sep.join((journal.folder_name(), "tokens", time.strftime("%Y%m%d.jsonl")))
    run = RUN.get()
    try:
        line = _line_of(entry if run is None else {**entry, "agent_id": run})
    except (TypeError, ValueError, RecursionError) as exc:
        log.warning("a token log line for %r is no JSON (%s); it is left out", entry.get("context"), exc)
        return
    with _lock:
        try:
            _write(path, line)
        except OSError as exc:
            _drop(path)
            _complain(path, exc)


def _line_of(entry: Mapping[str, Any]) -> bytes:
    """`entry` as a line; a lone surrogate, which UTF-8 cannot hold, becomes a question mark."""
    try:
        return _encode(entry) + b"\n"
    except UnicodeEncodeError:
        text = json.dumps(entry, ensure_ascii=False, separators=(",", ":"), default=str)
        return text.encode("utf-8", errors="replace") + b"\n"


def _write(path: str, line: bytes) -> None:
    number = _open(path).number
    if os.fstat(number).st_nlink == 0:  # deleted or rotated away: a line there would be lost
        _drop(path)
        number = _open(path).number
    _put(number, line)
    while _follows_torn(number, len(line)):
        _put(number, line)


def _put(number: int, line: bytes) -> None:
    if os.write(number, line) < len(line):
        raise OSError(errno.ENOSPC, "a line could be written only in part")


def _follows_torn(number: int, length: int) -> bool:
    """Whether the line just written, `length` bytes, stands behind the torn one of another writer.

    Looked at afterwards, since a writer may be killed between a look and a write: appends to a file follow one
    another, so what stands before this line now is final.
    """
    begin = os.lseek(number, 0, os.SEEK_CUR) - length
    if begin <= 0:
        return False
    os.lseek(number, begin - 1, os.SEEK_SET)
    return os.read(number, 1) != b"\n"


def _open(path: str) -> _Handle:
    """This process's handle on `path`; after a fork a new one."""
    handle = _handles.get(path)
    if handle is not None and handle.pid == os.getpid():
        return handle
    _drop(path)
    try:
        number = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        number = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    while len(_handles) >= _KEPT_HANDLES:
        _drop(next(iter(_handles)))
    handle = _handles[path] = _Handle(path, number, os.getpid())
    return handle


def _drop(path: str) -> None:
    handle = _handles.pop(path, None)
    if handle is not None:
        os.close(handle.number)


def _complain(path: str, exc: OSError) -> None:
    """Say once that the log cannot be written; the call it belongs to goes on."""
    said = f"{os.path.dirname(path)}: {exc.strerror or exc}"
    if said not in _complained:
        _complained.add(said)
        log.warning("token log cannot be written (%s); calls go on without a line in it", said)


def read(days: tuple[str, str] | None = None) -> Iterator[dict[str, Any]]:
    """The lines of the token log from day to day (both `YYYYMMDD`, both included), oldest file first.

    Lines that are not JSON objects are passed over; `count_bad_lines` says how many.
    """
    for path in day_files(days):
        with path.open("rb") as file:
            yield from (entry for entry in map(read_entry, file) if entry is not None)


def read_run(agent_id: str, days: tuple[str, str]) -> Iterator[dict[str, Any]]:
    """The lines that an agent run has written, looked for from day to day (both `YYYYMMDD`, both included)."""
    sought = agent_id.encode()
    for path in day_files(days):
        with path.open("rb") as file:
            found = (read_entry(line) for line in file if sought in line)
            yield from (entry for entry in found if entry is not None and entry.get("agent_id") == agent_id)


def count_bad_lines(days: tuple[str, str] | None = None) -> int:
    """How many lines of the token log are neither blank nor a JSON object."""
    bad = 0
    for path in day_files(days):
        with path.open("rb") as file:
            bad += sum(1 for line in file if line.strip() and read_entry(line) is None)
    return bad


def day_files(days: tuple[str, str] | None = None, *, root: Path | None = None) -> list[Path]:
    """The files of the token log of some days, in order; `root` is the journal, that in force if None."""
    folder = (root or journal.folder()) / "tokens"
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    stems = (name.removesuffix(".jsonl") for name in names if name.endswith(".jsonl"))
    asked = sorted(stem for stem in stems if days is None or days[0] <= stem <= days[1])
    return [folder / f"{stem}.jsonl" for stem in asked if _is_day(stem)]


def first_day(since: str) -> str:
    """The day YYYYMMDD with which a span begins: "7d" (the last 7 days, with today) or such a day itself.

    Raises:
        ConfigError: it is neither.
    """
    count = since[:-1]
    if since.endswith("d") and count.isascii() and count.isdigit() and 1 <= int(count[:9]) <= _MOST_DAYS:
        return (date.today() - timedelta(days=int(count) - 1)).strftime("%Y%m%d")
    if journal.is_day(since):
        return since
    raise ConfigError("since", repr(since[:40]), "a number of days such as 7d, or a date YYYYMMDD")


def read_entry(line: bytes) -> dict[str, Any] | None:
    """The JSON object in a line; None if there is none."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def caller_context(depth: int) -> str:
    """`module.function:line` of the caller `depth` frames up, the house's own name cut off (`think.` and the like).

    The event loop's own frames, which stand between a task and who runs the loop, are passed over.
    """
    frame = sys._getframe(depth)
    while frame.f_globals.get("__name__", "").startswith("asyncio") and frame.f_back is not None:
        frame = frame.f_back
    module = str(frame.f_globals.get("__name__", "unknown"))
    for house in _HOUSES:
        if module.startswith(house):
            module = module[len(house) :]
            break
    return f"{module}.{frame.f_code.co_name}:{frame.f_lineno}"
