"""Scheduled runs carried out, one after the other, each with its handoffs; it says nothing to anybody by itself."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence

from msgspec import Struct

from muse.cortex import due_runs
from muse.cortex.due_runs import DueRun
from muse.cortex.supervisor import Cortex
from muse.runs import run_files
from muse.runs.client import get_agent_end_state, get_agent_thread, read_agent_events


class RunResult(Struct, frozen=True):
    """How a run ended that was made for a turn, or that one was handed on to; `error` is what its log says."""

    persona: str
    facet: str
    day: str
    agent_id: str
    state: str
    duration_s: float | None = None
    error: str = ""

    @property
    def failed(self) -> bool:
        """Whether it came to no result."""
        return self.state != "finish"


def wanted_of(planned: Sequence[DueRun]) -> list[DueRun]:
    """The turns of a plan that are to be carried out, or seen to their end."""
    return [one for one in planned if one.state in ("due", "under way")]


async def carry_out(wanted: Sequence[DueRun], on_end: Callable[[RunResult], None]) -> bool:
    """Carry turns out in order; whether all came to be. A failed one does not keep the next from its turn.

    SIGINT or SIGTERM stop it: the run under way has its grace time to end by itself, and none begins after it.
    """
    cortex = Cortex()
    stopped = asyncio.Event()

    def stop() -> None:
        stopped.set()
        cortex.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    for one in wanted:
        if stopped.is_set():
            return False
        agent_id = due_runs.request_run(one)
        await cortex.see_through(agent_id)
        for later in get_agent_thread(agent_id):
            if later >= agent_id:
                on_end(_ended(one, later))
    return not stopped.is_set()


def _ended(one: DueRun, agent_id: str) -> RunResult:
    found = run_files.summarize(agent_id)
    persona = found.persona if found else one.persona
    state = get_agent_end_state(agent_id)
    error = "" if state == "finish" else _reason(agent_id) or state
    return RunResult(persona, one.facet, one.occasion.day, agent_id, state, found.duration_s if found else None, error)


def _reason(agent_id: str) -> str:
    """What a run's log says of its failure."""
    ends = [event for event in read_agent_events(agent_id) if event.get("event") == "error"]
    return str(ends[-1].get("error", "")) if ends else ""
