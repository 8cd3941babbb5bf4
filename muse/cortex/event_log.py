"""What a run says, line by line, into its log, with one end; it knows neither the process nor the queue."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from muse.runs.artifacts import save_artifact
from muse.runs.run_files import EventWriter, open_approvals
from muse.types.errors import ConfigError
from muse.types.events import now_ms

log = logging.getLogger(__name__)
_ENDS = ("finish", "error")
STOPPED = "cut off: the program that carried out the run was stopped or restarted"


class EventLog:
    """Records a run's output; `start` and `end` are the events of its beginning and its end, once they were said.

    `asked` are the calls that wait for somebody's yes or no, and since when (ms).

    A `finish` writes its result to `result_path` too, if that is set. While `is_stopped`, an end as "cancelled" is
    recorded with the reason "stopped": nobody cancelled the run, its supervisor was stopped.
    """

    def __init__(self, recorder: EventWriter) -> None:
        self._recorder = recorder
        self.result_path: Path | None = None
        self.start: Mapping[str, Any] = {}
        self.end: Mapping[str, Any] | None = None
        self.asked: Mapping[str, int] = {}
        self.is_stopped = False

    def take(self, line: bytes) -> None:
        """One line of the run's output; what is no event is kept as `info`, what comes after the end is dropped."""
        text = line.decode("utf-8", errors="replace").strip()
        if not text:
            return
        event = _event_in(text)
        if event is None:
            self.say("info", message=text)
        else:
            self._record(event)

    def recall(self, event: Mapping[str, Any]) -> None:
        """An event that stands in the log already."""
        if event.get("event") == "start":
            self.start = event
        if event.get("event") in _ENDS:
            self.end = event
        self.asked = open_approvals((event,), self.asked)

    def say(self, event: str, **entries: Any) -> None:
        """Record an event of cortex's own."""
        self._record({"event": event, **{name: value for name, value in entries.items() if value is not None}})

    def _record(self, event: dict[str, Any]) -> None:
        if self.end is not None:
            log.debug("run %s said more after its end: %s", self._recorder.agent_id, event.get("event"))
            return
        if self.is_stopped and event["event"] == "error" and event.get("reason") == "cancelled":
            event = {**event, "error": STOPPED, "reason": "stopped"}
        self.recall(event)
        if event["event"] == "finish" and self.result_path is not None:
            self._keep(str(event.get("result") or ""), self.result_path)
        self._recorder.write({"ts": now_ms(), **event})

    def _keep(self, result: str, path: Path) -> None:
        """Write the result to its file; that this failed stands in the log, just before the end."""
        try:
            save_artifact(result, path)
            self._recorder.write({"ts": now_ms(), "event": "info", "message": f"result saved to {path}"})
        except (OSError, ConfigError) as exc:
            log.warning("run %s: its result cannot be saved to %s (%s)", self._recorder.agent_id, path, exc)
            message = f"result not saved to {path}: {exc}"
            self._recorder.write({"ts": now_ms(), "event": "info", "message": message})


def _event_in(text: str) -> dict[str, Any] | None:
    """The event that a line holds; None if it holds none."""
    if not text.startswith("{"):
        return None
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None
