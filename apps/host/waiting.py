"""Agent runs that wait for somebody's approval, for the frame of every page; it knows no app."""

from __future__ import annotations

import os
import threading
import time

from msgspec import Struct

from muse.runs import follow, run_files
from muse.runs.follow import TailChunk

_SETTLED_NS = 50_000_000  # file systems stamp in steps of some milliseconds


class Waiting(Struct, frozen=True):
    """A run that waits for approval: its id, its persona, and the tool that it wants to call."""

    agent_id: str
    persona: str
    tool: str


class Look:
    """The runs that wait; what is known of a run's log is kept, so that another look reads only what is new."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[TailChunk, str, str]] = {}
        self._ids: tuple[int, list[str]] = (-1, [])
        self._lock = threading.Lock()

    def waiting(self) -> tuple[Waiting, ...]:
        """Return the runs that wait for approval now, oldest first."""
        with self._lock:
            ids = self._active()
            for agent_id in set(self._seen).difference(ids):
                del self._seen[agent_id]
            found = (self._look(agent_id) for agent_id in ids)
            return tuple(one for one in found if one is not None)

    def _active(self) -> list[str]:
        """Return the ids of the runs at work; a folder that has not changed is not listed again."""
        try:
            stamp = os.stat(run_files.folder()).st_mtime_ns
        except FileNotFoundError:
            return []
        if stamp != self._ids[0]:
            is_settled = time.time_ns() - stamp > _SETTLED_NS
            self._ids = (stamp if is_settled else -1, sorted(run_files.ids_in("active")))
        return self._ids[1]

    def _look(self, agent_id: str) -> Waiting | None:
        before, persona, tool = self._seen.get(agent_id, (None, "default", ""))
        try:
            seen = follow.read_from(agent_id, before)
        except FileNotFoundError:
            return None
        for line in seen.lines:
            if line.event.get("event") in ("request", "start"):
                persona = str(line.event.get("persona") or persona)
            elif line.event.get("event") == "approval":
                tool = str(line.event.get("tool") or "a tool")
        self._seen[agent_id] = seen, persona, tool
        if seen.state != "waiting" or not run_files.is_running(agent_id):
            return None
        return Waiting(agent_id, persona, tool)


LOOK = Look()
