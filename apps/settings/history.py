"""The last saves of journal.json, kept for undo without the secrets in it; it checks nothing of what is saved."""

from __future__ import annotations

import difflib
import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from apps.settings.json_scanner import Path as Place
from apps.settings.redaction import masked, unmasked
from muse.errors import ConfigError
from muse.journal import config_loader, paths, secrets
from muse.journal.config import parse_json
from muse.journal.config_loader import FileVersion, Snapshot
from muse.journal.storage import atomic_files

log = logging.getLogger(__name__)

KEPT = 20
_NAME = re.compile(r"\d{19}")
Write = Callable[[Callable[[bytes, str], None]], Snapshot]


class Save(Struct, frozen=True):
    """One save: when (s since the epoch), what was asked for, and the text before and after, both without secrets."""

    id: str
    at: float
    what: str
    before: str
    after: str

    @property
    def diff(self) -> list[str]:
        """What changed, line by line, with three lines around it."""
        return differences(self.before, self.after)


def differences(before: str, after: str) -> list[str]:
    """The lines in which two texts differ, each with its sign before it; `@@` stands where some are left out."""
    return list(difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=3))[2:]


def folder() -> Path:
    """Where saves are kept."""
    return paths.journal_path() / "config" / "history"


def saves() -> list[Save]:
    """The kept saves, the last one first; one that cannot be read is passed over and named in the log."""
    found = (_read(file) for file in sorted(_files(), reverse=True))
    return [save for save in found if save is not None]


def find(name: str) -> Save:
    """One kept save.

    Raises:
        FileNotFoundError: there is none of that name (any more).
    """
    save = _read(folder() / f"{name}.json") if _NAME.fullmatch(name) else None
    if save is None:
        raise FileNotFoundError(f"save: found {name[:40]!r}, expected one of the last {KEPT}; reload the list")
    return save


def keeping(what: str, write: Write) -> Snapshot:
    """Write journal.json by `write`, and keep what it said before and after under `what`."""
    kept: list[Path] = []
    try:
        snapshot = write(lambda before, after: kept.append(_keep(what, before, after)))
    except (OSError, ConfigError):
        for file in kept:
            file.unlink(missing_ok=True)
        raise
    for file in sorted(_files(), reverse=True)[KEPT:]:
        file.unlink(missing_ok=True)
    return snapshot


def restore(save: Save, *, expected: FileVersion, known: tuple[str, ...] | None) -> tuple[Snapshot, tuple[Place, ...]]:
    """Put journal.json back to how it stood before a save; `(snapshot, the secrets that could not be put back)`.

    Secrets are not kept: those that stand in the file now stay, others are left out.

    Raises:
        ConflictError: the file moved since `expected`.
        ConfigError: what stood there cannot be read, or is not usable.
    """
    text, missing = unmasked(save.before, _now())
    if missing:
        data, _ = parse_json(text, save.id)
        for path in missing:
            _drop(data, path)
        text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    what = f"Put back to before: {save.what}"
    return keeping(what, lambda keep: config_loader.rewrite(text, expected=expected, known=known, keep=keep)), missing


def _now() -> str:
    try:
        return Path(paths.config_path()).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return "{}"


def _drop(data: dict[str, Any], path: Place) -> None:
    """Take the entry at a path out of `data`."""
    node: Any = data
    for step in path[:-1]:
        node = node.get(step) if isinstance(node, Mapping) else None
    if isinstance(node, dict):
        node.pop(path[-1], None)


def _files() -> list[Path]:
    return [file for file in folder().glob("*.json") if _NAME.fullmatch(file.stem)]


def _keep(what: str, before: bytes, after: str) -> Path:
    place = folder()
    atomic_files.make_folder(place)
    old = before.decode(json.detect_encoding(before), errors="replace")
    name = f"{time.time_ns():019d}"
    save = Save(name, time.time(), secrets.redact(what), masked(old), masked(after))
    atomic_files.write_atomic(place / f"{name}.json", msgspec.json.encode(save).decode())
    return place / f"{name}.json"


def _read(file: Path) -> Save | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Save)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as exc:
        log.warning("%s: found a save that cannot be read (%s), expected one as this page wrote it", file.name, exc)
        return None
