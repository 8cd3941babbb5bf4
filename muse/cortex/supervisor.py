"""Carries out the agent runs that wait in the journal's folder; speaks to `muse.agents` by its pipes only.

The folder is the queue. A request is a file `<id>_pending.jsonl`; whoever locks and renames it to `<id>_active.jsonl`
has it. The lock is the system's and goes with its holder: an active file without its lock has lost its owner, and the
next cortex that looks ends or resumes that run. So several instances share a folder, and none knows of the others.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from muse.cortex.event_log import EventLog
from muse.cortex.run_process import RunProcess
from muse.cortex.run_request import RunRequest, handoff_of, merge_persona, next_request, parse_run_request
from muse.cortex.watcher import watching
from muse.runs import control, run_files
from muse.runs.client import handoff_child, queue
from muse.runs.run_files import EventWriter
from muse.types.errors import ConfigError, MuseError

log = logging.getLogger(__name__)

DEFAULT_MAX_CONCURRENT = 4
DEFAULT_GRACE_S = 10.0
# How often to look whether the owner of a run under way elsewhere is still there; only while there is such a run.
_LOOK_AFTER_OTHERS_S = 10.0
_LOOK_FOR_FOLDER_S = 1.0
# A run that was cut off so often is not taken up again: it may be what brings its cortex down.
_MOST_STARTS = 3
_PENDING, _ACTIVE = "_pending.jsonl", "_active.jsonl"


class Cortex:
    """One supervisor of runs; `serve` carries out what comes until `stop`, `drain` what is there."""

    def __init__(self, *, max_concurrent: int = DEFAULT_MAX_CONCURRENT, grace_s: float = DEFAULT_GRACE_S) -> None:
        if max_concurrent < 1:
            raise ConfigError("max_concurrent", str(max_concurrent), "1 or more")
        self._max_concurrent = max_concurrent
        self._grace_s = grace_s
        self._waiting: list[str] = []  # a heap: the oldest id first
        self._cut_off: deque[EventWriter] = deque()
        self._carried: dict[str, asyncio.Task[None]] = {}
        self._processes: dict[str, tuple[RunProcess, EventLog]] = {}
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._told: set[str] = set()  # runs that got a word before their process was up
        self._news = asyncio.Event()
        self._is_stopping = False
        self._has_lost_folder = False
        self._is_ending = False
        self._has_others = False

    async def serve(self) -> None:
        """Carry out every run that waits or is asked for, until `stop`; waiting costs nothing."""
        while not self._is_stopping:
            with self._watching():
                self._look()
                await self._serve_folder()
            await self._see_folder()
        await self._wind_up()

    async def _serve_folder(self) -> None:
        """Carry out what comes, as long as the folder is there."""
        while not (self._is_stopping or self._has_lost_folder):
            self._begin_what_fits()
            await self._wait_and_look()

    async def _see_folder(self) -> None:
        """Wait until a folder that was deleted is there again."""
        while self._has_lost_folder and not self._is_stopping:
            await self._wait(_LOOK_FOR_FOLDER_S)
            self._has_lost_folder = not run_files.folder().is_dir()

    async def drain(self) -> None:
        """Carry out what waits now and what it hands on to, then return."""
        self._look()
        self._begin_what_fits()
        while self._carried and not self._is_stopping:
            await self._wait_and_look()
            self._begin_what_fits()
        if self._is_stopping:
            await self._wind_up()

    async def see_through(self, agent_id: str) -> None:
        """Carry out one run, or wait until whoever has it is done; then the runs it is handed on to."""
        with self._watching():
            current: str | None = agent_id
            while current is not None and not self._is_stopping:
                await self._until_over(current)
                current = handoff_child(current)
        if self._is_stopping:
            await self._wind_up()

    def stop(self) -> None:
        """Claim nothing more, and return when the runs under way are over; called again: end them at once."""
        if self._is_stopping:
            self._grace_s = 0.0
        self._is_stopping = True
        self._news.set()

    async def _until_over(self, agent_id: str) -> None:
        while not self._is_stopping and _is_open(agent_id):
            if agent_id not in self._carried:
                recorder = _taken(run_files.claim, agent_id)
                if recorder is not None:
                    self._carry(recorder)
                else:
                    self._recover_one(agent_id)
            self._begin_cut_off()
            if _is_open(agent_id):
                await self._wait(_LOOK_AFTER_OTHERS_S)

    def _watching(self) -> AbstractContextManager[None]:
        loop = asyncio.get_running_loop()

        def hear(name: str) -> None:
            loop.call_soon_threadsafe(self._hear, name)

        return watching(run_files.folder(), hear)

    def _hear(self, name: str) -> None:
        """A file appeared in the folder, or the folder is gone."""
        if name.startswith("."):
            return
        self._has_lost_folder |= name == run_files.folder().name
        told = control.named_in(name)
        if told is not None:
            self._obey(told)
            return
        if name.endswith(_PENDING):
            heapq.heappush(self._waiting, name.removesuffix(_PENDING))
        elif name.endswith(_ACTIVE) and name.removesuffix(_ACTIVE) not in self._carried:
            self._has_others = True
        self._news.set()

    def _obey(self, agent_id: str) -> None:
        """Do what a run under way here was told: end it, or pass on the answer to what it asked."""
        process, run_log = self._processes.get(agent_id, (None, None))
        if process is None or run_log is None:
            if agent_id in self._carried:
                self._told.add(agent_id)
            return
        for word in control.take_messages(agent_id):
            if word.get("cancel") is True and agent_id not in self._ending:
                self._ending[agent_id] = asyncio.get_running_loop().create_task(process.end())
            elif (word.get("approval"), word.get("asked")) in run_log.asked.items():  # of two answers the first counts
                approved = word.get("approved") is True
                run_log.say("answer", call_id=word["approval"], approved=approved)
                process.tell({"approval": word["approval"], "agent_id": agent_id, "approved": approved})

    async def _wait_and_look(self) -> None:
        """Sleep until something happens; look after the runs of others from time to time, if there are any."""
        if not await self._wait(_LOOK_AFTER_OTHERS_S if self._has_others else None):
            self._recover()

    async def _wait(self, longest_s: float | None) -> bool:
        """Sleep until something happens; whether something did."""
        try:
            async with asyncio.timeout(longest_s):
                await self._news.wait()
        except TimeoutError:
            return False
        self._news.clear()
        return True

    def _look(self) -> None:
        """Read the folder: what waits, and what has lost its owner."""
        self._waiting = run_files.ids_in("pending")
        self._recover()

    def _recover(self) -> None:
        mine = {*self._carried, *(recorder.agent_id for recorder in self._cut_off)}
        others = [agent_id for agent_id in run_files.ids_in("active") if agent_id not in mine]
        self._has_others = len([agent_id for agent_id in others if not self._recover_one(agent_id)]) > 0

    def _recover_one(self, agent_id: str) -> bool:
        """End a run whose owner is gone, or take it up again; False if it has an owner."""
        recorder = _taken(run_files.adopt, agent_id)
        if recorder is None:
            return False
        log.info("run %s was cut off", agent_id)
        events = recorder.events()
        request = _request_in(events)
        run_log = EventLog(recorder)
        for event in events:
            run_log.recall(event)
        if run_log.end is None and _count_starts(events) < _MOST_STARTS and _wants_resume(agent_id, request):
            self._cut_off.append(recorder)
            return True
        if run_log.end is None:
            error = "the run was cut off: the process that recorded it ended before the run did"
            run_log.say("error", error=error, reason="orphaned")
        elif handoff_child(agent_id) is None:
            self._hand_on(agent_id, request, run_log)
        recorder.end()
        return True

    def _begin_cut_off(self) -> None:
        while self._cut_off and len(self._carried) < self._max_concurrent:
            self._carry(self._cut_off.popleft())

    def _begin_what_fits(self) -> None:
        if not self._waiting and not self._carried:
            self._waiting = run_files.ids_in("pending")  # should a notice have been lost
        self._begin_cut_off()
        while self._waiting and len(self._carried) < self._max_concurrent and not self._is_stopping:
            recorder = _taken(run_files.claim, heapq.heappop(self._waiting))
            if recorder is not None:
                self._carry(recorder)

    def _carry(self, recorder: EventWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._run(recorder))
        self._carried[recorder.agent_id] = task
        task.add_done_callback(lambda done: self._done(recorder.agent_id, done))

    def _done(self, agent_id: str, task: asyncio.Task[None]) -> None:
        self._carried.pop(agent_id, None)
        self._told.discard(agent_id)
        self._news.set()
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("run %s: cortex failed on it", agent_id, exc_info=fault)

    async def _run(self, recorder: EventWriter) -> None:
        """One run from its request to its end, whatever that is."""
        run_log = EventLog(recorder)
        agent_id = recorder.agent_id
        events = recorder.events()
        request = _request_in(events)
        has_begun = _count_starts(events) > 0
        try:
            order = parse_run_request(agent_id, request)
            run_log.result_path = order.result_path
            await self._make(order, run_log, resume=has_begun)
            self._hand_on(agent_id, request, run_log)
        except (MuseError, OSError, ValueError, TypeError) as exc:
            run_log.say("error", error=str(exc) or type(exc).__name__)
        finally:
            run_log.say("error", error="cortex failed on this run")  # counts only if nothing has ended it
            recorder.end()

    async def _make(self, order: RunRequest, run_log: EventLog, *, resume: bool) -> None:
        """Start the run's process, and wait for its end."""
        process = await RunProcess.start(order.for_run(resume=resume), run_log.take)
        self._processes[order.agent_id] = (process, run_log)
        if self._is_ending:
            run_log.is_stopped = True
            await process.end()
        if order.agent_id in self._told:
            self._obey(order.agent_id)
        words = f"the run's time ran out: it was ended after its {order.limit_s:g} s"
        try:
            ended = await process.ended(
                order.limit_s, on_timeout=lambda: run_log.say("error", error=words, reason="timeout")
            )
        finally:
            del self._processes[order.agent_id]
            if (ending := self._ending.pop(order.agent_id, None)) is not None:
                await ending
                run_log.say("error", error="cancelled before it was over", reason="cancelled")
        if self._is_ending:  # it may have been killed before it could say so itself
            run_log.say("error", error="cancelled before it was over: cortex was stopped", reason="cancelled")
        error = f"the run ended with exit status {ended.exit_code} and no result"
        run_log.say("error", error=error, exit_code=ended.exit_code, trace=ended.words or None)

    def _hand_on(self, agent_id: str, request: Mapping[str, Any], run_log: EventLog) -> None:
        """Ask for the run that a finished one is handed on to."""
        if run_log.end is None or run_log.end["event"] != "finish":
            return
        try:
            handoff = handoff_of(merge_persona(request).get("handoff"))
            if handoff is not None:
                following = next_request(handoff, request, str(run_log.end.get("result") or ""))
                queue(following.pop("prompt"), handoff.persona, config=following, handoff_from=agent_id)
        except (MuseError, OSError, ValueError, TypeError) as exc:
            log.warning("run %s cannot be handed on: %s", agent_id, exc)

    async def _wind_up(self) -> None:
        """Let what is under way end within the grace time, then end it; let go of what was not begun."""
        started_s = time.monotonic()
        while self._carried and (left_s := started_s + self._grace_s - time.monotonic()) > 0:
            await self._wait(left_s)
        self._is_ending = True
        for agent_id, (_, run_log) in self._processes.items():
            run_log.is_stopped = agent_id not in self._ending
        await asyncio.gather(*(process.end() for process, _ in self._processes.values()))
        if self._carried:
            await asyncio.wait(self._carried.values())
        while self._cut_off:
            self._cut_off.popleft().release()


def _taken(take: Callable[[str], EventWriter | None], agent_id: str) -> EventWriter | None:
    """A run claimed or adopted; None, with a warning, if its file cannot be opened: that is no reason to stop."""
    try:
        return take(agent_id)
    except OSError as exc:
        log.warning("run %s cannot be taken: %s", agent_id, exc)
        return None


def _is_open(agent_id: str) -> bool:
    found = run_files.find(agent_id)
    return found is not None and found[1] != "over"


def _request_in(events: list[dict[str, Any]]) -> Mapping[str, Any]:
    """A log's request: its first line; nothing if that is an event of another kind."""
    first = events[0] if events else {}
    return first if first.get("event", "request") == "request" else {}


def _count_starts(events: list[dict[str, Any]]) -> int:
    return sum(1 for event in events if event.get("event") == "start")


def _wants_resume(agent_id: str, request: Mapping[str, Any]) -> bool:
    try:
        return parse_run_request(agent_id, request).may_resume
    except (MuseError, OSError, ValueError, TypeError) as exc:
        log.info("run %s is not taken up again: %s", agent_id, exc)
        return False
