"""A run's log followed as it is written: its lines by number, also across the renaming at its end; it shows nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from muse.runs import run_files
from muse.runs.run_files import RunProgress, RunState

_LOOK_AGAIN_S = 0.1
_SETTLES_AGAIN_S = 0.02
# How often to see whether the process that writes the log is still there.
_LOOK_AFTER_S = 2.0
_AT_WORK = ("running", "waiting")


class NumberedEvent(Struct, frozen=True):
    """One event of a run's log and the number of its line, from 1."""

    number: int
    event: dict[str, Any]


class TailChunk(Struct, frozen=True):
    """What a log holds from some line on; `offset` (bytes) and `number` are where to go on.

    `state` and `reason` say how the run stands, as in `run_files.Run`; `standing` is what they are derived from.
    """

    lines: tuple[NumberedEvent, ...] = ()
    number: int = 0
    offset: int = 0
    state: RunState = "failed"
    reason: str = run_files.NO_END
    standing: RunProgress = RunProgress()

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come by itself."""
        return self.state not in run_files.LIVE_STATES


def read_from(agent_id: str, since: TailChunk | None = None) -> TailChunk:
    """Return the whole lines of a run's log that came after `since` (all of them if None), and how the run stands.

    Raises:
        FileNotFoundError: there is no such run.
    """
    since = since or TailChunk()
    found = run_files.reading(agent_id, lambda path: _new_lines(path, since))
    if found is None:
        raise FileNotFoundError(f"run {agent_id!r}: not found; `muse runs` lists those there are")
    (lines, number, offset), stored = found
    standing = since.standing.after(line.event for line in lines)
    return TailChunk(lines, number, offset, *standing.state(stored), standing)


def _new_lines(path: Path, since: TailChunk) -> tuple[tuple[NumberedEvent, ...], int, int]:
    with path.open("rb") as file:
        file.seek(since.offset)
        text = file.read()
    whole = text[: text.rfind(b"\n") + 1]
    lines: list[NumberedEvent] = []
    number = since.number
    for line in whole.split(b"\n")[:-1]:
        number += 1
        event = run_files.event_in(line)
        if event is not None:
            lines.append(NumberedEvent(number, event))
    return tuple(lines), number, since.offset + len(whole)


def with_owner(agent_id: str, seen: TailChunk) -> TailChunk:
    """Return `seen`; a run that says it is at work and that no process has any more is failed, with CUT_OFF."""
    if seen.state not in _AT_WORK or run_files.is_running(agent_id):
        return seen
    latest = read_from(agent_id, seen)  # it may have ended in this moment
    found = run_files.find(agent_id)
    is_left = latest.state in _AT_WORK and found is not None and found[1] == "active"
    all_of_it = replace(latest, lines=seen.lines + latest.lines)
    return replace(all_of_it, state="failed", reason=run_files.CUT_OFF) if is_left else all_of_it


def wait_until_quiet(agent_id: str, *, most_s: float = 5.0) -> bool:
    """Whether a run is over; one whose log has its end already is waited for, until its process is gone too."""
    give_up_s = time.monotonic() + most_s
    while (found := run_files.find(agent_id)) is not None and found[1] != "over":
        if time.monotonic() > give_up_s or not read_from(agent_id).is_over:
            return False
        time.sleep(_SETTLES_AGAIN_S)
    return found is not None


async def follow(agent_id: str, *, after: int = 0) -> AsyncIterator[TailChunk]:
    """A run's log beyond line `after`, piece by piece, until it is over; the last piece has its state and may be empty.

    Raises:
        FileNotFoundError: there is no such run.
    """
    loop = asyncio.get_running_loop()
    seen: TailChunk | None = None
    looked_after_s = loop.time()
    while True:
        seen = await asyncio.to_thread(read_from, agent_id, seen)  # a log may be large
        if loop.time() - looked_after_s > _LOOK_AFTER_S:
            looked_after_s = loop.time()
            seen = await asyncio.to_thread(with_owner, agent_id, seen)
        fresh = tuple(line for line in seen.lines if line.number > after)
        if fresh or seen.is_over:
            yield replace(seen, lines=fresh)
        if seen.is_over:
            return
        await asyncio.sleep(_LOOK_AGAIN_S)
