"""The files of agent runs in the journal: named, written line by line, renamed when they end, read; it runs no agent.

`<journal>/agents/<id>_pending.jsonl` waits to be run, `<id>_active.jsonl` is under way and locked by whoever runs it,
`<id>.jsonl` is over. The first line may be the request; every further line is an event.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args

from msgspec import Struct, field

from muse.journal import paths
from muse.journal.storage import atomic_files
from muse.journal.storage.path_containment import is_inside
from muse.types.usage import Usage, parse_usage
from muse.usage_log import ledger

log = logging.getLogger(__name__)

_LATEST_MS = 10_000_000_000_000  # ids have 13 digits
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_DAY_S = 86_400
_MOST_TOKENS = 1_000_000_000_000_000
State = Literal["pending", "active", "over"]
RunState = Literal["queued", "running", "waiting", "completed", "failed", "cancelled"]
"""The state of a run: not begun, at work, waiting for somebody to approve a call, or over in one of three ways."""
RUN_STATES: tuple[RunState, ...] = get_args(RunState)
LIVE_STATES: frozenset[RunState] = frozenset({"queued", "running", "waiting"})
CUT_OFF = "cut off"
"""The reason of a run that failed because its process is gone; its file is still the active one."""
NO_END = "no end"
"""The reason of a run that failed because its file is over and has neither a `finish` nor an `error` event."""

Made = TypeVar("Made")
_SUFFIX: Mapping[State, str] = {"pending": "_pending", "active": "_active", "over": ""}


def folder() -> Path:
    """Where runs are kept."""
    return paths.journal_path() / "agents"


def path_of(agent_id: str, state: State) -> Path:
    """The file of a run in one of its states."""
    return folder() / f"{agent_id}{_SUFFIX[state]}.jsonl"


def is_agent_id(text: str) -> bool:
    """Whether `text` can be a run's id: 13 digits, milliseconds since the epoch."""
    return len(text) == 13 and text.isascii() and text.isdigit()


def find(agent_id: str) -> tuple[Path, State] | None:
    """A run's file and state; None if there is no such run."""
    for state in _SUFFIX:  # in the order in which its file is renamed, so that none is missed that is renamed meanwhile
        path = path_of(agent_id, state)
        if is_agent_id(agent_id) and path.is_file() and is_inside(path, paths.journal_path()):
            return path, state
    return None


def new_file(state: State, text: str = "") -> tuple[str, Path]:
    """`(id, path)` of a new run: the present millisecond, or the next free one; no two processes get the same.

    The file appears under its name with `text` in it, never half-written.
    """
    agent_id, path, handle = _create(state, text)
    os.close(handle)
    return agent_id, path


def _create(state: State, text: str) -> tuple[str, Path, int]:
    """A new run's file, open and locked; it is made under another name, so that nobody sees it without its lock."""
    place = folder()
    atomic_files.make_folder(place)
    number = time.time_ns() // 1_000_000
    while (handle := _reserve(place, str(number))) is None:
        number += 1
    reserved, path = _reservation(place, str(number)), path_of(str(number), state)
    try:
        _write_whole(handle, text.encode("utf-8", errors="replace"))
        lock(handle)
        os.rename(reserved, path)
    except OSError:
        os.close(handle)
        reserved.unlink(missing_ok=True)
        raise
    return str(number), path, handle


def _reserve(place: Path, agent_id: str) -> int | None:
    """Take an id that no run has; None if it is taken."""
    reserved = _reservation(place, agent_id)
    try:
        handle = os.open(reserved, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return None
    if any(path_of(agent_id, state).exists() for state in _SUFFIX):  # in the order in which a run's file is renamed
        os.close(handle)
        reserved.unlink(missing_ok=True)
        return None
    return handle


def _reservation(place: Path, agent_id: str) -> Path:
    return place / f".{agent_id}.id"


def _write_whole(handle: int, content: bytes) -> None:
    """Append `content` whole or not at all.

    Raises:
        OSError: the disk does not take it.
    """
    written = os.write(handle, content)
    if written < len(content):
        os.ftruncate(handle, os.fstat(handle).st_size - written)
        raise OSError(errno.ENOSPC, "the disk took only a part of a line")


class EventWriter:
    """Writes a run's events to its active file, whole lines only, and renames it when the run is over.

    The file stays locked as long as it is active: a file without its lock has lost its owner. That the file cannot be
    written is said once and does not end the run.
    """

    def __init__(self, agent_id: str, path: Path, handle: int) -> None:
        self.agent_id = agent_id
        self._path = path
        self._handle = handle
        self._is_broken = False

    @classmethod
    def begin(cls) -> EventWriter:
        """The recorder of a new run."""
        return cls(*_create("active", ""))

    def write(self, event: Mapping[str, Any]) -> None:
        """Add one event, with the run's id."""
        line = json.dumps({**event, "agent_id": self.agent_id}, ensure_ascii=False, default=str) + "\n"
        try:
            _write_whole(self._handle, line.encode("utf-8", errors="replace"))
        except OSError as exc:
            if not self._is_broken:
                log.warning("run %s cannot be recorded (%s); it goes on without", self.agent_id, exc)
            self._is_broken = True

    def events(self) -> list[dict[str, Any]]:
        """What the file holds so far."""
        return list(read_events(self._path))

    def release(self) -> None:
        """Close the file and leave the run as it is, for another process to take over."""
        os.close(self._handle)

    def end(self) -> None:
        """Give the file the name of a finished run, then let go of it."""
        try:
            os.rename(self._path, path_of(self.agent_id, "over"))
        except FileNotFoundError:
            log.warning("run %s: its file %s is gone", self.agent_id, self._path)
        finally:
            os.close(self._handle)


def claim(agent_id: str) -> EventWriter | None:
    """Take a waiting run: its file, locked, becomes the active one; None if somebody else was faster."""
    path, active = path_of(agent_id, "pending"), path_of(agent_id, "active")
    handle = _open_locked(path)
    if handle is None:
        return None
    try:
        if _last_byte(handle) == b"\n":  # whoever writes it in place is not ready before
            os.rename(path, active)
            return EventWriter(agent_id, active, handle)
    except FileNotFoundError:
        log.debug("run %s was taken by another process", agent_id)
    os.close(handle)
    return None


def adopt(agent_id: str) -> EventWriter | None:
    """Take over an active run whose owner is gone; None if it has one, or is not active."""
    path = path_of(agent_id, "active")
    handle = _open_locked(path)
    if handle is None:
        return None
    try:
        if _last_byte(handle) not in (b"\n", b""):
            _write_whole(handle, b"\n")  # its owner was killed within a line
    except OSError as exc:
        log.warning("run %s: its last line stays torn (%s)", agent_id, exc)
    return EventWriter(agent_id, path, handle)


def is_running(agent_id: str) -> bool:
    """Whether a process is at work on this run now: one that was killed has left the file, but not its lock."""
    path = path_of(agent_id, "active")
    if not is_agent_id(agent_id) or not path.is_file():
        return False
    handle = _open_locked(path)
    if handle is not None:
        os.close(handle)
    return handle is None and path.is_file()


def _open_locked(path: Path) -> int | None:
    """Open a run's file and lock it; None if it is not there (any more) or locked."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_APPEND)
    except FileNotFoundError:
        return None
    try:
        if lock(handle) and os.path.samestat(os.fstat(handle), os.stat(path)):
            return handle
    except FileNotFoundError:
        log.debug("%s was renamed while it was being locked", path)
    os.close(handle)
    return None


def _last_byte(handle: int) -> bytes:
    size = os.fstat(handle).st_size
    return os.pread(handle, 1, size - 1) if size else b""


try:
    import fcntl
except ImportError:  # Windows: there is no cortex, and nobody takes over a run

    def lock(handle: int) -> bool:
        """Nothing to lock with: whoever has the file open has it."""
        return handle >= 0
else:

    def lock(handle: int) -> bool:
        """Lock an open file; False if another process has it. The system frees it when its holder dies, in any way."""
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def ids_in(state: State) -> list[str]:
    """The ids of the runs in one state, oldest first."""
    suffix = f"{_SUFFIX[state]}.jsonl"
    ids = (name.removesuffix(suffix) for name in _names() if name.endswith(suffix))
    return sorted(filter(is_agent_id, ids))


class Run(Struct, frozen=True):
    """Summary of one run.

    `reason` says more about a state where there is more: "limit", "timeout", "cancelled", CUT_OFF, NO_END, and so on.
    `turns`, `tokens`, `usage` and `cost_usd` (US dollars) are the sums of the run's lines in the usage log; without
    any such line they are those of its `finish` event, which has no cost. `cost_usd` is None where it is not known, and
    0 for a run that never began.
    """

    agent_id: str
    state: RunState
    persona: str
    provider: str
    model: str
    prompt: str
    turns: int
    tool_calls: int
    tokens: int
    usage: Mapping[str, int]
    duration_s: float | None
    handoff_from: str | None = None
    reason: str = ""
    cost_usd: float | None = None


class RunProgress(Struct, frozen=True):
    """How a run stands after some of its events: its last end, and the calls that wait for an approval (since, in ms).

    Feed it events with `after`; it needs each event once, in the order of the file.
    """

    end: Mapping[str, Any] = field(default_factory=dict)
    approvals: Mapping[str, int] = field(default_factory=dict)

    def after(self, events: Iterable[Mapping[str, Any]]) -> RunProgress:
        """Return the standing after further events."""
        end, approvals = self.end, dict(self.approvals)
        for event in events:
            name = event.get("event")
            if name in ("finish", "error"):
                end = {"event": name, "reason": str(event.get("reason") or "")}
            if name in ("start", "finish", "error"):
                approvals.clear()
            approvals = open_approvals((event,), approvals)
        return RunProgress(end, approvals)

    def state(self, stored: State) -> tuple[RunState, str]:
        """Return `(state, reason)` of a run whose file is in the state `stored`."""
        if self.end:
            reason = str(self.end["reason"])
            if self.end["event"] == "finish":
                return "completed", reason
            return ("cancelled" if reason == "cancelled" else "failed"), reason
        if stored == "pending":
            return "queued", ""
        if stored == "over":
            return "failed", NO_END
        return ("waiting" if self.approvals else "running"), ""


def open_approvals(
    events: Iterable[Mapping[str, Any]], before: Mapping[str, int] = MappingProxyType({})
) -> dict[str, int]:
    """Return the calls of a run that wait for somebody's yes or no, and since when (ms); `before` are earlier ones."""
    waiting = dict(before)
    for event in events:
        call_id = str(event.get("call_id"))
        if event.get("event") == "approval":
            waiting[call_id] = time_of(event)
        elif event.get("event") in ("answer", "tool_end"):
            waiting.pop(call_id, None)
    return waiting


def reading(agent_id: str, read: Callable[[Path], Made]) -> tuple[Made, State] | None:
    """What `read` makes of a run's file, and the run's state; None if there is no such run."""
    for _ in range(3):  # a run may be renamed between finding and opening its file, twice at the most
        found = find(agent_id)
        if found is None:
            break
        with contextlib.suppress(FileNotFoundError):
            return read(found[0]), found[1]
    return None


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a run's file; lines that are no JSON object are passed over."""
    with path.open("rb") as file:
        for line in file:
            event = event_in(line)
            if event is not None:
                yield event


def event_in(line: bytes) -> dict[str, Any] | None:
    """The event that a line of a run's file holds, without halves of surrogates; None if it is no JSON object."""
    try:
        event = json.loads(line)
        if _SURROGATE.search(line):
            event = json.loads(json.dumps(event, ensure_ascii=False).encode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def summarize(agent_id: str) -> Run | None:
    """Return the summary of a run; None if there is no such run."""
    found = reading(agent_id, lambda path: list(read_events(path)))
    if found is None:
        return None
    events, stored = found
    start = next((event for event in events if event.get("event") == "start"), {})
    request = next((event for event in events if event.get("event") == "request"), {})
    said = {**request, **start}
    stamps = [ts for event in events if event is not request and (ts := time_of(event))]
    handed_from = request.get("handoff_from")
    state, reason = _progress_of(agent_id, events, stored)
    spent = _run_usage(agent_id, events, stamps[-1] if stamps and state not in LIVE_STATES else None)
    return Run(
        agent_id,
        state,
        str(said.get("persona", "default")),
        str(said.get("provider", "")),
        str(said.get("model", "")),
        str(said.get("prompt", "")),
        spent.turns,
        sum(1 for event in events if event.get("event") == "tool_start"),
        spent.usage.get("total_tokens", 0),
        spent.usage,
        (stamps[-1] - stamps[0]) / 1000 if len(stamps) > 1 else None,
        handed_from if isinstance(handed_from, str) else None,
        reason,
        spent.cost_usd,
    )


def _progress_of(agent_id: str, events: list[dict[str, Any]], stored: State) -> tuple[RunState, str]:
    """Return `(state, reason)`; a run that says it is at work and that no process has any more failed as CUT_OFF."""
    state, reason = RunProgress().after(events).state(stored)
    is_left = state in ("running", "waiting") and not is_running(agent_id)
    return ("failed", CUT_OFF) if is_left and path_of(agent_id, "active").is_file() else (state, reason)


class _RunUsage(Struct, frozen=True):
    """What a run has used so far; `cost_usd` is None where it is not known."""

    turns: int
    usage: Mapping[str, int]
    cost_usd: float | None


def _run_usage(agent_id: str, events: list[dict[str, Any]], ended_ms: int | None) -> _RunUsage:
    """Sum up the run's lines of the usage log, or take the usage of its `finish` where there is no line."""
    lines = read_lines(agent_id, ended_ms)
    if not lines:
        last: dict[str, Any] = next((event for event in reversed(events) if event.get("event") == "finish"), {})
        usage = _counts_in(last.get("usage"))
        has_begun = any(event.get("event") == "start" for event in events)
        return _RunUsage(usage.get("requests", 0), usage, None if has_begun else 0.0)
    answered = sum(1 for line in lines if not line.get("error"))
    total = sum((parse_usage(line.get("usage")) for line in lines), Usage())
    costs = [_dollars(line.get("cost_usd")) for line in lines]
    known = [cost for cost in costs if cost is not None]
    return _RunUsage(
        answered, total.as_dict() | {"requests": answered}, sum(known) if len(known) == len(costs) else None
    )


def _dollars(cost: object) -> float | None:
    """Return a line's cost; None if it names none that is a finite number from 0 on."""
    if isinstance(cost, bool) or not isinstance(cost, (int, float)):
        return None
    return float(cost) if 0 <= cost < float("inf") else None


def read_lines(agent_id: str, ended_ms: int | None = None) -> list[dict[str, Any]]:
    """Return what a run wrote into the usage log, in order of time.

    `ended_ms` is when the run ended (milliseconds since the epoch), None for one that has not: it tells up to which
    day lines are looked for, one day later at the most, as a call may end after its run.
    """
    begun_s = int(agent_id) / 1000
    last_s = time.time() if ended_ms is None else max(begun_s, ended_ms / 1000)
    moments = (begun_s, last_s + _DAY_S)
    first, last = (time.strftime("%Y%m%d", time.localtime(moment)) for moment in moments)
    return list(ledger.read_run(agent_id, (first, last)))


def time_of(event: Mapping[str, Any]) -> int:
    """When an event was said (ms since the epoch); 0 if its `ts` is no such time."""
    ts = event.get("ts")
    return ts if isinstance(ts, int) and 0 < ts < _LATEST_MS else 0


def _counts_in(usage: object) -> dict[str, int]:
    """The sums of a run's usage; what is no count in them is left out."""
    rows = usage.items() if isinstance(usage, Mapping) else ()
    return {name: number for name, number in rows if isinstance(number, int) and 0 <= number < _MOST_TOKENS}


def newest_ids() -> list[str]:
    """The ids of all runs, newest first."""
    ids = {name.removesuffix(".jsonl").removesuffix("_active").removesuffix("_pending") for name in _names()}
    return sorted((agent_id for agent_id in ids if is_agent_id(agent_id)), reverse=True)


def _names() -> list[str]:
    """The names in the folder of runs, without links that lead out of the journal."""
    home = paths.journal_name()
    try:
        with os.scandir(folder()) as entries:
            return [entry.name for entry in entries if not entry.is_symlink() or is_inside(entry.path, home)]
    except FileNotFoundError:
        return []
