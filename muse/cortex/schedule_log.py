"""Which scheduled run was made for which occasion: lines of `<journal>/stamps/daily.jsonl`; it knows no schedule."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from muse.journal import paths
from muse.journal.storage import atomic_files
from muse.runs import run_files
from muse.types.errors import MuseError
from muse.types.events import now_ms


class RunSlot(Struct, frozen=True):
    """One turn of a persona: `slot` is the occasion, `facet` "" where it is about the whole journal."""

    persona: str
    facet: str
    slot: str


class BusyError(MuseError):
    """Another process is carrying out the scheduled runs of this journal."""


def read() -> Mapping[RunSlot, str]:
    """The run (its id) that was last made for each turn."""
    stamps: dict[RunSlot, str] = {}
    path = _folder() / "daily.jsonl"
    if not path.exists():
        return stamps
    for line in run_files.read_events(path):
        names = [line.get(name) for name in ("persona", "facet", "slot", "agent_id")]
        if all(isinstance(name, str) for name in names):
            persona, facet, slot, agent_id = map(str, names)
            stamps[RunSlot(persona, facet, slot)] = agent_id
    return stamps


def add(turn: RunSlot, agent_id: str) -> None:
    """Note that a run was made for a turn.

    Raises:
        OSError: it cannot be written; the run would be made again.
    """
    entry = {"persona": turn.persona, "facet": turn.facet, "slot": turn.slot, "agent_id": agent_id, "ts": now_ms()}
    handle = os.open(_folder() / "daily.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, (json.dumps(entry, ensure_ascii=False) + "\n").encode())
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def exclusive_lock() -> Iterator[None]:
    """Be the only process that makes scheduled runs.

    Raises:
        BusyError: another one does.
    """
    handle = os.open(_folder() / "daily.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not run_files.lock(handle):
            raise BusyError(f"{paths.journal_path()}: another `muse daily` is at work there; wait until it is done")
        yield
    finally:
        os.close(handle)


def _folder() -> Path:
    path = paths.journal_path() / "stamps"
    atomic_files.make_folder(path)
    return path
