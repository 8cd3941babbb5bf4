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
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

from muse.journal import paths
from muse.journal.storage.atomic_files import make_folder
from muse.types.errors import ConfigError
from muse.usage_log import in_flight

log = logging.getLogger(__name__)

_APPENDING = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)

# The agent run that is under way in this context; the lines written in it bear its id.
RUN: ContextVar[str | None] = ContextVar("muse_run", default=None)

_HOUSES = ("think.", "observe.", "muse.", "apps.")
_encode = msgspec.json.Encoder(enc_hook=str).encode
_KEPT_HANDLES = 4
_BLOCK_BYTES = 1 << 20
_MOST_DAYS = 100_000
_is_day = lru_cache(20_000)(paths.is_day)  # of the same files again and again


class _Handle(Struct):
    """An open token log of this process."""

    path: str
    number: int
    pid: int


_handles: dict[str, _Handle] = {}
_lock = threading.Lock()
if sys.platform != "win32":  # as in muse.journal.config_loader: no child inherits a held lock
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
_complained: set[str] = set()
# Where the log of a journal ended when this process last wrote to it: the file's day, and bytes.
_ends: dict[str, tuple[str, int]] = {}


def append(entry: Mapping[str, Any], ticket: in_flight.Ticket | None = None) -> None:
    """Add one line to today's token log, `<journal>/tokens/YYYYMMDD.jsonl` (local date); it never raises.

    `ticket` is that of the attempt the line is about; its record is removed when the line stands.

    One `write` on a file opened for appending, so lines of several processes do not mix. Behind a torn line (its writer
    was killed or the disk was full) the new one is written again, whole and on its own. If the log cannot be written, a
    warning says so, once for each folder and reason.
    """
    root, day = paths.journal_name(), time.strftime("%Y%m%d")
    path = os.sep.join((root, "tokens", f"{day}.jsonl"))
    run = RUN.get()
    try:
        line = _line_of(entry if run is None else {**entry, "agent_id": run})
    except (TypeError, ValueError, RecursionError) as exc:
        log.warning("a token log line for %r is no JSON (%s); it is left out", entry.get("context"), exc)
    else:
        if path not in _handles:
            write_abandoned(root)
        with _lock:
            try:
                _ends[root] = (day, _write(path, line))
            except OSError as exc:
                _drop(path)
                _warn_once(path, exc)
    in_flight.end(ticket)


def begin(record: in_flight.Record) -> in_flight.Ticket | None:
    """Write an attempt down before it is sent; give the ticket to `append` with its line.

    Returns None where that is not possible, for which no call fails.
    """
    root = paths.journal_name()
    end = _ends.get(root)
    if end is None:
        write_abandoned(root)
        end = _ends.setdefault(root, _end_of(root))
    own = in_flight.slots(root)
    if own is None:
        return None
    record.log_day, record.log_at = end
    record.agent_id = RUN.get()
    return in_flight.begin(own, record)


def write_abandoned(root: str | None = None) -> None:
    """Enter into the log what processes that have ended left under way, each attempt once; it never raises.

    `root` is the journal, that in force if None. Nothing is done where the journal cannot be written.
    """
    place = root or paths.journal_name()
    for left in in_flight.abandoned(place):
        try:
            records = left.records()
            for record in _unlogged(place, records) if records else ():
                _enter(place, record)
            left.finish()
        except OSError as exc:
            log.info("%s: it cannot be entered into the usage log now (%s)", left.path, exc.strerror or exc)


def _enter(root: str, record: in_flight.Record) -> None:
    """Write the line of an attempt whose process ended before its answer.

    Raises:
        OSError: it cannot be written.
    """
    path = os.sep.join((root, "tokens", time.strftime("%Y%m%d.jsonl")))
    with _lock:
        _write(path, _line_of(_unknown_outcome(record)))


def _unknown_outcome(record: in_flight.Record) -> dict[str, Any]:
    """The entry of an attempt of which only the beginning is known."""
    entry: dict[str, Any] = {
        "timestamp": record.started_ts,
        "call_id": record.call_id,
        "attempt": record.attempt,
        "model": record.model,
        "context": record.context,
        "usage": {"input_tokens": record.input_tokens, "output_tokens": 0, "total_tokens": record.input_tokens},
        "provider": record.provider,
        "model_asked": record.model,
        "route": record.route,
        "duration_s": None,
        "finish": None,
        "cost_usd": 0.0 if record.is_free else None,
    }
    if record.segment:
        entry["segment"] = record.segment
    if record.agent_id:
        entry["agent_id"] = record.agent_id
    if not record.is_free:
        entry["cost_note"] = "the process ended before the answer came: what it cost is not known"
    return entry | {"estimated": True, "error": {"class": "ProcessKilled", "code": "outcome_unknown"}}


def _unlogged(root: str, records: list[in_flight.Record]) -> list[in_flight.Record]:
    """The attempts that have no line: a process may have been killed between a line and the end of its record."""
    first = min((record.log_day, record.log_at) for record in records)
    lookup = {(record.call_id, record.attempt): record for record in records}
    for entry in _behind(root, first, _common_start([record.call_id for record in records]).encode()):
        lookup.pop((str(entry.get("call_id")), entry.get("attempt", 0)), None)
    return list(lookup.values())


def _behind(root: str, first: tuple[str, int], needle: bytes) -> Iterator[dict[str, Any]]:
    """The entries of lines with `needle` in them, from a day and a place (bytes) in its log on."""
    for path in day_files((first[0], "99999999"), root=Path(root), is_settled=True):
        with path.open("rb") as file:
            if path.stem == first[0] and first[1] <= os.fstat(file.fileno()).st_size:
                file.seek(first[1])
            found = (read_entry(line) for line in file if needle in line)
            yield from (entry for entry in found if entry is not None)


def _common_start(texts: list[str]) -> str:
    """With what all texts begin."""
    least, most = min(texts), max(texts)
    alike = (place for place, (one, other) in enumerate(zip(least, most, strict=False)) if one != other)
    return least[: next(alike, min(len(least), len(most)))]


def _end_of(root: str) -> tuple[str, int]:
    """The day of today's log, and where it ends."""
    day = time.strftime("%Y%m%d")
    try:
        return day, os.stat(os.sep.join((root, "tokens", f"{day}.jsonl"))).st_size
    except OSError:
        return day, 0


def _line_of(entry: Mapping[str, Any]) -> bytes:
    """`entry` as a line; a lone surrogate, which UTF-8 cannot hold, becomes a question mark."""
    try:
        return _encode(entry) + b"\n"
    except UnicodeEncodeError:
        text = json.dumps(entry, ensure_ascii=False, separators=(",", ":"), default=str)
        return text.encode("utf-8", errors="replace") + b"\n"


def _write(path: str, line: bytes) -> int:
    """Write a line; where the file ends behind it."""
    number = _open(path).number
    if os.fstat(number).st_nlink == 0:  # deleted or rotated away: a line there would be lost
        _drop(path)
        number = _open(path).number
    _put(number, line)
    while (begin := _begin_of(number, len(line))) < 0:
        _put(number, line)
    return begin + len(line)


def _put(number: int, line: bytes) -> None:
    if os.write(number, line) < len(line):
        raise OSError(errno.ENOSPC, "a line could be written only in part")


def _begin_of(number: int, length: int) -> int:
    """Where the line just written, `length` bytes, begins; -1 if it stands behind the torn one of another writer.

    Looked at afterwards, since a writer may be killed between a look and a write: appends to a file follow one
    another, so what stands before this line now is final.
    """
    begin = os.lseek(number, 0, os.SEEK_CUR) - length
    if begin <= 0:
        return 0
    os.lseek(number, begin - 1, os.SEEK_SET)
    return begin if os.read(number, 1) == b"\n" else -1


def _open(path: str) -> _Handle:
    """This process's handle on `path`; after a fork a new one."""
    handle = _handles.get(path)
    if handle is not None and handle.pid == os.getpid():
        return handle
    _drop(path)
    try:
        number = os.open(path, _APPENDING, 0o600)
    except FileNotFoundError:
        make_folder(os.path.dirname(path))
        number = os.open(path, _APPENDING, 0o600)
    while len(_handles) >= _KEPT_HANDLES:
        _drop(next(iter(_handles)))
    handle = _handles[path] = _Handle(path, number, os.getpid())
    return handle


def _drop(path: str) -> None:
    handle = _handles.pop(path, None)
    if handle is not None:
        os.close(handle.number)


def _warn_once(path: str, exc: OSError) -> None:
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
    lookup = agent_id.encode()
    for path in day_files(days):
        with path.open("rb") as file:
            found = map(read_entry, _lines_with(file, lookup))
            yield from (entry for entry in found if entry is not None and entry.get("agent_id") == agent_id)


def _lines_with(file: BinaryIO, lookup: bytes) -> Iterator[bytes]:
    """The lines of a file that hold `sought`, which has no newline; whole blocks are searched, not single lines."""
    rest = b""
    while block := file.read(_BLOCK_BYTES):
        rest += block
        end = rest.rfind(b"\n") + 1
        at = rest.find(lookup, 0, end)
        while at >= 0:
            begin, line_end = rest.rfind(b"\n", 0, at) + 1, rest.find(b"\n", at) + 1
            yield rest[begin:line_end]
            at = rest.find(lookup, line_end, end)
        rest = rest[end:]
    if lookup in rest:
        yield rest


def count_bad_lines(days: tuple[str, str] | None = None) -> int:
    """How many lines of the token log are neither blank nor a JSON object."""
    bad = 0
    for path in day_files(days):
        with path.open("rb") as file:
            bad += sum(1 for line in file if line.strip() and read_entry(line) is None)
    return bad


def day_files(days: tuple[str, str] | None = None, *, root: Path | None = None, is_settled: bool = False) -> list[Path]:
    """The files of the token log of some days, in order; `root` is the journal, that in force if None.

    What ended processes left under way is entered before, unless that `is_settled`.
    """
    place = root or paths.journal_path()
    if not is_settled:
        write_abandoned(str(place))
    folder = place / "tokens"
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
    if paths.is_day(since):
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
