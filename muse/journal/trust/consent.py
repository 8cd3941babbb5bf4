"""What a project's files may set: which of their entries the user has consented to, by path and by content.

A project is a folder with a journal.json, a `.env` or a Makefile in which somebody works; its files may be those of a
stranger. Whatever in them starts a command, is run as code, or says where keys and texts go is a `Claim`, which counts
only once `muse trust` has recorded its digest. The record is `muse/trust.json` in the user's configuration folder.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from muse.journal.storage.atomic_files import file_lock, home_folder, make_folder, write_atomic
from muse.types.errors import ConfigError, TrustError
from muse.types.trust_claim import Claim

__all__ = [
    "TrustError",
    "add",
    "decline",
    "digest_of",
    "is_declined",
    "is_trusted",
    "listed",
    "record",
    "record_path",
    "require",
    "revoke",
    "stamp",
    "value_shown",
    "withheld",
]

log = logging.getLogger(__name__)

Stamp = tuple[int, int, int]
_NO_RECORD: Stamp = (0, 0, 0)
_SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL", "AUTH")


class _Record(Struct):
    """What trust.json holds: of each folder the digest of each place that is trusted, and what was answered no to."""

    version: int = 1
    folders: dict[str, dict[str, str]] = {}
    declined: dict[str, str] = {}


_known: tuple[str, Stamp, _Record] | None = None


def digest_of(value: Any) -> str:
    """Return the digest of a JSON value or of bytes."""
    import hashlib  # 2 ms, and only who has claims pays it

    content = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()


def value_shown(name: str, value: str) -> str:
    """Return a variable's value as it may be shown: hidden where its name says that it is a secret."""
    return "(hidden)" if any(word in name.upper() for word in _SECRET_WORDS) else value


def record_path() -> Path:
    """Return where consent is recorded: `muse/trust.json` in `$XDG_CONFIG_HOME`, else in `~/.config`."""
    home = os.environ.get("XDG_CONFIG_HOME", "")
    base = home if os.path.isabs(home) else os.path.join(home_folder(), ".config")
    return Path(base, "muse", "trust.json")


def stamp() -> Stamp:
    """Return the stamp of the record, by which a change to it is seen: one `stat`."""
    return _stamp_of(str(record_path()))


def is_trusted(claim: Claim) -> bool:
    """Return whether the user has consented to exactly this content at this place."""
    return _read().folders.get(os.path.realpath(claim.folder), {}).get(claim.place) == claim.digest


def withheld(claims: Iterable[Claim]) -> tuple[Claim, ...]:
    """Return the claims that do not count, as nobody has consented to them."""
    return tuple(claim for claim in claims if not is_trusted(claim))


def require(claims: Iterable[Claim]) -> None:
    """Refuse what nobody has consented to.

    Raises:
        TrustError: for the first such claim.
    """
    for claim in claims:
        if not is_trusted(claim):
            raise TrustError(claim)


def record(claims: Iterable[Claim]) -> None:
    """Record consent to `claims`; what was recorded of the same folders before is replaced.

    Raises:
        ConfigError: the record cannot be read or written.
    """
    by_folder: dict[str, dict[str, str]] = {}
    for claim in claims:
        by_folder.setdefault(os.path.realpath(claim.folder), {})[claim.place] = claim.digest

    def change(kept: _Record) -> None:
        kept.folders |= by_folder
        for folder in by_folder:
            kept.declined.pop(folder, None)

    _change(change)


def add(claims: Iterable[Claim]) -> None:
    """Record consent to `claims` beside what is recorded already.

    Raises:
        ConfigError: the record cannot be read or written.
    """
    fresh = list(claims)

    def change(kept: _Record) -> None:
        for claim in fresh:
            kept.folders.setdefault(os.path.realpath(claim.folder), {})[claim.place] = claim.digest

    if fresh:
        _change(change)


def revoke(folder: str) -> bool:
    """Take consent back from `folder`; return whether there was any.

    Raises:
        ConfigError: the record cannot be read or written.
    """
    found: list[object] = []

    def change(kept: _Record) -> None:
        found.extend(rows.pop(os.path.realpath(folder), None) for rows in (kept.folders, kept.declined))

    _change(change)
    return any(one is not None for one in found)


def decline(folder: str, claims: Iterable[Claim]) -> None:
    """Record that consent was asked for and not given, so that the same content is not asked about again.

    Raises:
        ConfigError: the record cannot be read or written.
    """
    digest = _digest_of_all(claims)
    _change(lambda kept: kept.declined.update({os.path.realpath(folder): digest}))


def is_declined(folder: str, claims: Iterable[Claim]) -> bool:
    """Return whether exactly these claims were asked about before and declined."""
    return _read().declined.get(os.path.realpath(folder)) == _digest_of_all(claims)


def listed() -> Mapping[str, Mapping[str, str]]:
    """Return the folders with trusted entries, each with the digest of each place.

    Raises:
        ConfigError: the record cannot be read.
    """
    return _of(record_path()).folders


def _digest_of_all(claims: Iterable[Claim]) -> str:
    return digest_of(sorted((claim.folder, claim.place, claim.digest) for claim in claims))


def _change(change: Any) -> None:
    path = record_path()
    try:
        make_folder(path.parent)
        with file_lock(path.with_name(path.name + ".lock")):
            kept = _of(path)
            change(kept)
            write_atomic(path, msgspec.json.format(msgspec.json.encode(kept), indent=2).decode() + "\n")
    except OSError as exc:
        found = f"a file or folder that cannot be written ({exc.strerror or exc})"
        raise ConfigError(str(path), found, "a place that you may write to") from exc


def _read() -> _Record:
    """Return the record, parsed once per change; one that cannot be read is empty, with a warning."""
    global _known
    path = str(record_path())
    now = _stamp_of(path)
    if _known is None or _known[:2] != (path, now):
        try:
            found = _of(Path(path))
        except ConfigError as exc:
            log.warning("%s; until then no project is trusted", exc)
            found = _Record()
        _known = (path, now, found)
    return _known[2]


def _of(path: Path) -> _Record:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Record)
    except FileNotFoundError:
        return _Record()
    except (OSError, msgspec.DecodeError) as exc:
        raise ConfigError(
            str(path), f"a file that cannot be read ({exc})", "what muse trust writes: mend it or delete it"
        ) from exc


def _stamp_of(path: str) -> Stamp:
    try:
        info = os.stat(path)
    except OSError:
        return _NO_RECORD
    return (info.st_ino, info.st_mtime_ns, info.st_size)
