"""Where the journal is, what journal.json says now, and how it is changed; it knows no context and no provider."""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

from msgspec.structs import replace

from muse.journal.config import Config, parse_config, parse_json
from muse.journal.lenient_parser import Problem
from muse.journal.paths import config_path, is_project
from muse.journal.storage.atomic_files import file_lock, make_folder, write_atomic
from muse.journal.trust import consent
from muse.journal.trust.project_config import restrict
from muse.types.errors import ConfigError, MuseError
from muse.types.redaction import RedactedStruct

log = logging.getLogger(__name__)

FileVersion = tuple[int, int, int]
_NO_FILE: FileVersion = (0, 0, 0)
_KEPT_FILES = 32
# File systems stamp in steps of some milliseconds: within one step two edits of equal size look alike.
_SETTLED_NS = 50_000_000
_LOOK_AGAIN_S = 1.0


class ConflictError(MuseError):
    """journal.json changed on disk since it was read: read it again and apply the change to what stands there now."""


class Snapshot(RedactedStruct, frozen=True):
    """journal.json as it stood at one moment; `stamp` is (inode, mtime_ns, size) and tells whether it moved since."""

    _hidden: ClassVar[frozenset[str]] = frozenset({"data"})

    path: str
    stamp: FileVersion
    config: Config
    problems: tuple[Problem, ...]
    data: Mapping[str, Any]


class _CachedRead(RedactedStruct, frozen=True):
    """The last look at one file; not `settled` while a further edit could still bear the same stamp.

    Where entries of the file need consent, `trusted` is the stamp of the record of consent that the snapshot goes by,
    and `good_until_s` (of the monotonic clock) when that is looked at again.
    """

    _hidden: ClassVar[frozenset[str]] = frozenset({"text"})

    stamp: FileVersion
    settled: bool
    text: bytes
    snapshot: Snapshot
    trusted: FileVersion
    good_until_s: float


_cached_reads: dict[str, _CachedRead] = {}
_lock = threading.Lock()
if sys.platform != "win32":  # a child must not inherit a lock that a thread it does not have was holding
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def load() -> Snapshot:
    """journal.json as it stands now: one `stat` a call, read again only when the file's stamp moved.

    A missing file is an empty one. If a file that was good turns bad, the last good snapshot stays and one warning
    says so; if only its `providers.default` is malformed, the last good config stays beside the new data and problems.

    Raises:
        ConfigError: the file is not readable as a JSON object, and no good version of it was seen before.
    """
    path = config_path()
    stamp = _stamp_of(path)
    seen = _cached_reads.get(path)
    if seen is not None and seen.settled and seen.stamp == stamp and time.monotonic() < seen.good_until_s:
        return seen.snapshot
    with _lock:
        return _reload(path, stamp, _cached_reads.get(path))


def _reload(path: str, stamp: FileVersion, seen: _CachedRead | None) -> Snapshot:
    """Read the file; parse it only if its text is another one than before."""
    settled = time.time_ns() - stamp[1] > _SETTLED_NS
    text, failure = _text_of(path, stamp)
    trusted = consent.stamp()
    if seen is not None and seen.text == text and (not seen.snapshot.config.claims or seen.trusted == trusted):
        snapshot = seen.snapshot if seen.stamp == stamp else replace(seen.snapshot, stamp=stamp)
    else:
        snapshot = _parse_text(path, stamp, text, failure, seen)
    if len(_cached_reads) >= _KEPT_FILES and path not in _cached_reads:
        _cached_reads.pop(next(iter(_cached_reads)))
    good_until_s = time.monotonic() + _LOOK_AGAIN_S if snapshot.config.claims else math.inf
    _cached_reads[path] = _CachedRead(stamp, settled, text, snapshot, trusted, good_until_s)
    return snapshot


def _text_of(path: str, stamp: FileVersion) -> tuple[bytes, ConfigError | None]:
    """`(text, None)`, or `(b"", why the file cannot be read)`."""
    try:
        return (_read_text(path) if stamp != _NO_FILE else b"{}"), None
    except ConfigError as exc:
        return b"", exc


def _parse_text(
    path: str, stamp: FileVersion, text: bytes, failure: ConfigError | None, seen: _CachedRead | None
) -> Snapshot:
    try:
        if failure is not None:
            raise failure
        snapshot = _snapshot(path, stamp, text)
    except ConfigError as exc:
        if seen is None:
            raise
        log.warning("%s; going on with the last good version of it", exc)
        return replace(seen.snapshot, stamp=stamp)
    for problem in snapshot.problems:
        log.warning("journal.json: %s", problem)
    malformed = snapshot.config.default.problem
    if malformed is not None and seen is not None and seen.snapshot.config.default.problem is None:
        log.warning("journal.json: %s: going on with the last good version of it", malformed.path)
        return replace(snapshot, config=seen.snapshot.config)
    return snapshot


def _snapshot(path: str, stamp: FileVersion, text: bytes) -> Snapshot:
    data, duplicates = parse_json(text, path)
    config, problems = parse_config(data)
    if is_project(path):
        config = restrict(config, os.path.dirname(path))
    return Snapshot(path, stamp, config, duplicates + problems, data)


def _read_text(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as exc:
        raise ConfigError(path, f"an unreadable file ({exc.strerror})", "a file that can be read") from exc


def _stamp_of(path: str) -> FileVersion:
    try:
        info = os.stat(path)
    except FileNotFoundError:
        return _NO_FILE
    except (OSError, ValueError) as exc:
        raise ConfigError(path, f"an unreadable path ({exc})", "a file that can be read") from exc
    return (info.st_ino, info.st_mtime_ns, info.st_size)


def update(
    change: Callable[[dict[str, Any]], None],
    *,
    expected: FileVersion | None = None,
    known: Collection[str] | None = None,
    keep: Callable[[bytes, str], None] | None = None,
) -> Snapshot:
    """Change journal.json: lock, apply `change` to its data in place, check, write atomically with mode 0600.

    `expected` is the stamp the caller's view was read at. `known` are the provider names to check against. An entry
    that was bad before does not stand in the way of a change elsewhere; a problem that the change brings in is
    refused. `keep` is given the old and the new text just before that is written.

    Raises:
        ConflictError: the file moved since `expected`; nothing was written.
        ConfigError: the changed data has a new problem (its path is in the text), or could not be read again (NaN, or
            nested too deep), or the file is not to be had.
    """

    def changed(text: bytes, path: str) -> str:
        before, _ = parse_json(text, path)
        data = copy.deepcopy(before)
        change(data)
        _refuse_new_problems(before, data, known)
        after = _as_text(data)
        parse_json(after, path)
        return after

    return _write_checked(changed, expected, keep)


def rewrite(
    text: str,
    *,
    expected: FileVersion | None = None,
    known: Collection[str] | None = None,
    keep: Callable[[bytes, str], None] | None = None,
) -> Snapshot:
    """Put `text` in place of all of journal.json, as it is; this also mends a file that cannot be read.

    It is checked as by `update`; where the file cannot be read, what was bad in its last good version may stay.

    Raises:
        ConflictError: the file moved since `expected`; nothing was written.
        ConfigError: not a JSON object, a key twice, or a new problem; nothing was written.
    """

    def checked(old: bytes, path: str) -> str:
        data, duplicates = parse_json(text, path)
        if duplicates:
            raise ConfigError(duplicates[0].path, duplicates[0].found, duplicates[0].allowed)
        _refuse_new_problems(_last_good(old, path), data, known)
        return text

    return _write_checked(checked, expected, keep)


def _last_good(text: bytes, path: str) -> Mapping[str, Any]:
    """The data of a text, or where it cannot be read of the last version that could."""
    try:
        return parse_json(text, path)[0]
    except ConfigError:
        seen = _cached_reads.get(path) or _cached_reads.get(config_path())
        return seen.snapshot.data if seen is not None else {}


def _write_checked(
    make: Callable[[bytes, str], str], expected: FileVersion | None, keep: Callable[[bytes, str], None] | None
) -> Snapshot:
    """Write what `make` makes of the file's bytes, under its lock, unless it moved."""
    path = Path(config_path()).resolve()
    try:
        make_folder(path.parent)
        with file_lock(path.with_name(path.name + ".lock")):
            stamp = _stamp_of(str(path))
            if expected is not None and expected != stamp:
                raise ConflictError(f"{path}: changed on disk since it was read; read it again, then repeat the change")
            before = _read_text(str(path)) if stamp != _NO_FILE else b"{}"
            text = make(before, str(path))
            _remove_stale_temp_files(path)
            if keep is not None:
                keep(before, text)
            write_atomic(path, text)
            _consent(before, text)
    except OSError as exc:
        found = f"a file or folder that cannot be written ({exc.strerror or exc})"
        raise ConfigError(str(path), found, "a place that you may write to") from exc
    return load()


def _consent(before: bytes, after: str) -> None:
    """Record consent to the entries of a project's file that a change of the user's own brought in.

    Entries that stood there before are as trusted as they were. Where the file could not be read, none is trusted.
    """
    path = config_path()
    if not is_project(path):
        return
    try:
        old, new = (
            restrict(parse_config(parse_json(text, path)[0])[0], os.path.dirname(path)).claims
            for text in (before, after)
        )
    except ConfigError as exc:
        log.warning("%s; what the new version names needs: muse trust", exc)
        return
    consent.add(claim for claim in new if claim not in old)


def file_version(path: str) -> FileVersion:
    """The stamp of a file now, by which two looks at it are told apart; (0, 0, 0) if there is none.

    Raises:
        ConfigError: nothing can be said of such a path.
    """
    return _stamp_of(path)


def _remove_stale_temp_files(path: Path) -> None:
    """Remove what writers left behind that were killed; the lock is held, so none of them is at work."""
    for remains in path.parent.glob(f".{path.name}.*.tmp"):
        remains.unlink(missing_ok=True)


def _as_text(data: Mapping[str, Any]) -> str:
    """`data` as JSON for people to read; a lone surrogate, which UTF-8 cannot hold, stays an escape."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = json.dumps(data, indent=2)
    return text + "\n"


def _refuse_new_problems(before: Mapping[str, Any], after: Mapping[str, Any], known: Collection[str] | None) -> None:
    old = set(parse_config(before, known)[1])
    fresh = [problem for problem in parse_config(after, known)[1] if problem not in old]
    if fresh:
        raise ConfigError(fresh[0].path, fresh[0].found, fresh[0].allowed)
