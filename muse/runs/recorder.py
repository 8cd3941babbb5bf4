"""One run's events on their way: each with the run's id, into its file and to who listens; it knows no provider."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from muse.runs.run_files import EventWriter
from muse.types.events import now_ms
from muse.usage_log import ledger

log = logging.getLogger(__name__)
Emit = Callable[[dict[str, Any]], None]


class RunRecorder:
    """Takes the events of one run; a listener that is gone (a closed pipe) ends the run as a cancellation does."""

    def __init__(self, agent_id: str, recorder: EventWriter | None, emit: Emit) -> None:
        self.agent_id = agent_id
        self._recorder = recorder
        self._emit = emit
        self._run = asyncio.current_task()
        self._is_heard = True

    def note(self, event: dict[str, Any]) -> None:
        """Record one event without passing it on; whoever gave the run its id has recorded it."""
        if self._recorder is not None:
            self._recorder.write(event)

    def take(self, event: dict[str, Any]) -> None:
        """Record one event and pass it on."""
        self.note(event)
        if not self._is_heard:
            return
        try:
            self._emit({**event, "agent_id": self.agent_id})
        except BrokenPipeError:
            self._is_heard = False
            if self._run is not None and event.get("event") not in ("finish", "error"):
                self._run.cancel()


@contextmanager
def record_run(request: Mapping[str, Any], emit: Emit) -> Iterator[RunRecorder]:
    """The recording of one run while it lasts, its request first; with an `agent_id` in it, whoever gave it records.

    A journal that takes no file is warned of, and the run goes on without its log.
    """
    given = request.get("agent_id")
    recorder = None if given else _begin()
    if recorder is not None:
        said = {name: value for name, value in request.items() if name != "event"}
        recorder.write({"event": "request", "ts": now_ms(), **said})
    agent_id = str(given or (recorder.agent_id if recorder else now_ms()))
    token = ledger.RUN.set(agent_id)
    try:
        yield RunRecorder(agent_id, recorder, emit)
    finally:
        ledger.RUN.reset(token)
        if recorder is not None:
            recorder.end()


def _begin() -> EventWriter | None:
    try:
        return EventWriter.begin()
    except OSError as exc:
        log.warning("this run cannot be recorded (%s); it goes on without", exc)
        return None
