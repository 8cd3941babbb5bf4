"""journal.json as it stands at one moment: text, data, problems with their lines, even where it is broken."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from msgspec import Struct

from apps.settings.json_scanner import lines_by_path, nearest_line, steps
from muse.diagnostics.check import shown
from muse.errors import ConfigError
from muse.journal import config_loader, paths
from muse.journal.config import Config, parse_config, parse_json
from muse.journal.config_loader import FileVersion, Snapshot
from muse.journal.lenient_parser import Problem
from muse.providers import PROVIDER_REGISTRY, get_provider_list
from muse.routing.contexts import Registry, registry
from muse.types.redaction import RedactedStruct

_LINE = re.compile(r"\(line (\d+), column (\d+)\)")
_TWICE = re.compile(r"key (['\"].*['\"])")
_TRIES = 5
_NO_FILE: FileVersion = (0, 0, 0)


class Trouble(Struct, frozen=True):
    """A problem with the line it stands at, if that is known."""

    path: str
    found: str
    allowed: str
    line: int | None = None

    def __str__(self) -> str:
        """As `muse check` says it."""
        return f"{self.path}: found {self.found}, expected {self.allowed}"


class Standing(RedactedStruct, frozen=True):
    """The file now; `failure` says why it cannot be read.

    Then `snapshot` is its last good version; `is_known` is False where none was seen.
    """

    _hidden: ClassVar[frozenset[str]] = frozenset({"text"})

    path: str
    stamp: FileVersion
    text: str
    snapshot: Snapshot
    troubles: tuple[Trouble, ...]
    failure: Trouble | None = None
    is_known: bool = True

    @property
    def config(self) -> Config:
        """What it says, without its unusable entries."""
        return self.snapshot.config

    @property
    def data(self) -> Mapping[str, Any]:
        """What it says, as it says it."""
        return self.snapshot.data

    @property
    def registry(self) -> Registry:
        """Every known context."""
        return registry(self.snapshot)

    @property
    def mark(self) -> str:
        """The stamp as a form carries it."""
        return mark_of(self.stamp)

    @property
    def entries(self) -> Mapping[str, Any]:
        """`providers.contexts` as it stands, good or bad."""
        return section(self.data, "contexts")


def section(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object below `providers`; an empty one where there is none, or something else."""
    providers = data.get("providers")
    found = providers.get(name) if isinstance(providers, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def mark_of(stamp: FileVersion) -> str:
    """A stamp as text."""
    return "-".join(map(str, stamp))


def stamp_from(mark: str) -> FileVersion:
    """The stamp that a form carried.

    Raises:
        ConfigError: it is none.
    """
    parts = mark.split("-")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 40 for part in parts):
        raise ConfigError("stamp", repr(mark[:60]), "the stamp of the page; reload it")
    return int(parts[0]), int(parts[1]), int(parts[2])


def known_names() -> tuple[str, ...]:
    """The names of all providers there are, without those that journal.json itself makes."""
    own = set(config_loader.load().config.gateways).difference(PROVIDER_REGISTRY)
    return tuple(row["name"] for row in get_provider_list() if row["name"] not in own)


def stand() -> Standing:
    """Look at journal.json; a file that cannot be read is a standing with a `failure`."""
    path = paths.config_path()
    try:
        text, stamp = _read_still(path)
    except ConfigError as exc:
        return _broken(path, _NO_FILE, "", exc)
    try:
        data, duplicates = parse_json(text, path)
    except ConfigError as exc:
        return _broken(path, stamp, text.decode("utf-8", errors="replace"), exc)
    data = _sayable(data)
    decoded = text.decode(json.detect_encoding(text))
    try:
        names: tuple[str, ...] | None = known_names()
    except ConfigError:  # the file turned bad in this moment
        names = None
    config, problems = parse_config(data, names)
    troubles = troubles_of(decoded, (*duplicates, *problems))
    return Standing(path, stamp, decoded, Snapshot(path, stamp, config, duplicates + problems, data), troubles)


def _sayable(data: dict[str, Any]) -> dict[str, Any]:
    """The data as a page and an answer can say it.

    Half of a surrogate pair becomes a question mark, a number beyond all bounds (`1e999`) becomes text.
    """
    try:
        json.dumps(data, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except ValueError:
        text = json.dumps(data, ensure_ascii=False).encode("utf-8", errors="replace")
        found: dict[str, Any] = json.loads(text, parse_constant=str)
        return found
    return data


def troubles_of(text: str, problems: tuple[Problem, ...]) -> tuple[Trouble, ...]:
    """The problems of a text, with their lines."""
    if not problems:
        return ()
    lines = lines_by_path(text)
    return tuple(Trouble(problem.path, problem.found, problem.allowed, _line(problem, lines)) for problem in problems)


def trouble_of(exc: ConfigError, text: str = "") -> Trouble:
    """An error as a problem with its line."""
    named = _LINE.search(exc.found)
    if named:
        words = exc.found.replace(named[0], "").strip()
        found = f"invalid JSON at column {named[2]}: {words[:1].lower()}{words[1:]}"
        return Trouble(shown(exc.path), found, exc.allowed, int(named[1]))
    line = nearest_line(lines_by_path(text), steps(exc.path)) if text else None
    return Trouble(shown(exc.path), exc.found, exc.allowed, line)


def _line(problem: Problem, lines: Mapping[tuple[str | int, ...], int]) -> int | None:
    twice = _TWICE.fullmatch(problem.path)
    if twice:
        return next((line for path, line in lines.items() if path and repr(path[-1]) == twice[1]), None)
    return nearest_line(lines, steps(problem.path))


def _broken(path: str, stamp: FileVersion, text: str, exc: ConfigError) -> Standing:
    """A file that cannot be read: its text, and what it last said that could be."""
    try:
        last, is_known = config_loader.load(), True
    except ConfigError:
        last, is_known = Snapshot(path, stamp, Config(), (), {}), False
    return Standing(path, stamp, text, last, (), trouble_of(exc), is_known)


def _read_still(path: str) -> tuple[bytes, FileVersion]:
    """The file's bytes with the stamp they were read under; an empty object if there is no file."""
    for _ in range(_TRIES):
        stamp = config_loader.file_version(path)
        try:
            text = _bytes(path) if any(stamp) else b"{}"
        except FileNotFoundError:
            continue
        if config_loader.file_version(path) == stamp:
            break
    return text, stamp


def _bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise ConfigError(path, f"an unreadable file ({exc.strerror})", "a file that can be read") from exc
