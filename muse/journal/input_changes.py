"""Whether what a persona reads has changed since it last ran: its `inputs` and `output`; it runs nothing.

Both are globs under the journal. What a run has read is kept in `<journal>/stamps/agents/<persona>.json`: path, time
and size of every input, and a digest of what the run was asked.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from msgspec import Struct

from muse.journal import paths
from muse.journal.storage import atomic_files
from muse.journal.storage.path_containment import is_inside
from muse.types.errors import ConfigError

log = logging.getLogger(__name__)

# What muse itself keeps in a journal: it changes with every run and is nobody's input.
_KEPT_BY_MUSE = ("agents", "stamps", "tokens", "index")
_WILD = frozenset("*?[")


class InputState(Struct, frozen=True):
    """What a persona would read now, and why that asks for a run; no reason: nothing has changed."""

    persona: str
    inputs: Mapping[str, str]
    asked: str
    output: str | None
    reason: str

    @property
    def is_fresh(self) -> bool:
        """Whether a run would find what the last one found."""
        return not self.reason

    def keep(self, result: str) -> Path | None:
        """Remember that the persona has run, and write its result where `output` names one file: that file.

        Raises:
            OSError: it cannot be written.
        """
        written = None
        if self.output is not None and _WILD.isdisjoint(self.output):
            written = paths.journal_path() / self.output
            atomic_files.make_folder(written.parent)
            atomic_files.write_atomic(written, result.rstrip("\n") + "\n")
        path = _stamp_path(self.persona)
        atomic_files.make_folder(path.parent)
        stamp = {"asked": self.asked, "inputs": dict(self.inputs)}
        atomic_files.write_atomic(path, json.dumps(stamp, ensure_ascii=False, indent=1, sort_keys=True) + "\n")
        return written


def check_inputs(persona: Mapping[str, Any], prompt: str) -> InputState:
    """What `persona` (as `get_agent` gives it) would read if it were asked `prompt` now.

    Raises:
        ConfigError: `inputs` or `output` is not usable.
    """
    name = str(persona["persona"])
    patterns = tuple(_inside("inputs", pattern) for pattern in _listed(persona.get("inputs")))
    output = None if persona.get("output") is None else _inside("output", persona["output"])
    asked = hashlib.sha256(json.dumps([prompt, persona], sort_keys=True, default=str).encode()).hexdigest()
    inputs = dict(sorted(_stamps(patterns, output)))
    return InputState(name, inputs, asked, output, _reason(_read(_stamp_path(name)), inputs, asked, output))


def is_declared(persona: Mapping[str, Any]) -> bool:
    """Whether a persona says what it reads or writes."""
    return persona.get("inputs") is not None or persona.get("output") is not None


def _listed(named: object) -> Sequence[object]:
    if named is None or isinstance(named, str):
        return () if named is None else (named,)
    if not isinstance(named, (list, tuple)):
        raise ConfigError("inputs", repr(named), "a list of globs under the journal, such as ['2*/notes/*.md']")
    return named


def _inside(where: str, pattern: object) -> str:
    """A glob that cannot lead out of the journal."""
    parts = PurePosixPath(str(pattern)).parts
    if not isinstance(pattern, str) or not parts or "\\" in pattern or ":" in pattern or {"/", ".."} & set(parts):
        raise ConfigError(where, repr(pattern), "a path or glob under the journal, without '..'")
    return pattern


def _stamps(patterns: tuple[str, ...], output: str | None) -> Iterator[tuple[str, str]]:
    """`(path under the journal, time and size)` of every input; an output is none."""
    root = paths.journal_path()
    outputs = set(root.glob(output)) if output else set()
    for path in {path for pattern in patterns for path in root.glob(pattern)} - outputs:
        name = path.relative_to(root)
        if name.parts[0] in _KEPT_BY_MUSE or any(part.startswith(".") for part in name.parts):
            continue
        try:
            info = path.stat()
        except FileNotFoundError:
            log.debug("%s went away while it was being looked at", path)
            continue
        if path.is_file() and is_inside(path, root):
            yield name.as_posix(), f"{info.st_mtime_ns}:{info.st_size}"


def _reason(stamp: Mapping[str, Any] | None, inputs: Mapping[str, str], asked: str, output: str | None) -> str:
    """Why a run is due; "" if none is."""
    if stamp is None:
        return "it has not run yet"
    if stamp.get("asked") != asked:
        return "the persona or its prompt has changed"
    if output and not any(paths.journal_path().glob(output)):
        return f"there is no {output}"
    before = stamp.get("inputs")
    known: Mapping[str, Any] = before if isinstance(before, Mapping) else {}
    moved = sorted(name for name in {*known, *inputs} if known.get(name) != inputs.get(name))
    if not moved:
        return ""
    more = f" and {len(moved) - 1} more" if len(moved) > 1 else ""
    return f"{moved[0]}{more} {'have' if more else 'has'} changed"


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        stamp = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as exc:
        log.warning("%s is not readable (%s): the run counts as never made", path, exc)
        return None
    return stamp if isinstance(stamp, Mapping) else None


def _stamp_path(persona: str) -> Path:
    """The stamp of a persona; `app:name` is `app.name` there, as not every file system takes a colon."""
    return paths.journal_path() / "stamps" / "agents" / f"{persona.replace(':', '.').replace(os.sep, '_')}.json"
