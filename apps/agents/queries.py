"""What the pages of agents list: personas with their routes, runs by page, a run's place in its chain; no request."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from muse import models
from muse.agent_loop.run_config import RunConfig
from muse.cortex import schedules
from muse.cortex.due_runs import SCHEDULED_PROMPT
from muse.errors import ConfigError
from muse.journal.personas import get_agent, get_agents, listed, problems_of, tools_in_words
from muse.providers import obstacle_to
from muse.runs import run_files
from muse.runs.index import INDEX
from muse.runs.run_files import Run

PAGE_RUNS = 25
_WAITED_S = 86_400  # a run may have been queued
STATES = run_files.RUN_STATES


class Persona(Struct, frozen=True):
    """A persona as a list shows it; `problem` is why it cannot run as things stand."""

    name: str
    title: str
    description: str
    context: str
    provider: str
    model: str
    reason: str
    tools: tuple[str, ...]
    approve: tuple[str, ...]
    schedule: str
    handoff: str
    prompt: str
    problem: str = ""
    next_turn: str = ""
    last: Run | None = None


class RunPage(Struct, frozen=True):
    """A page of runs, newest first, numbered from 1, and how many pages and runs there are."""

    runs: tuple[Run, ...]
    number: int
    pages: int
    total: int


class Chain(Struct, frozen=True):
    """Where a run stands: what it continues, was handed from or resumes, and what came after it."""

    continues: str = ""
    handed_from: str = ""
    resumes: str = ""
    later: tuple[str, ...] = ()


def list_personas() -> list[Persona]:
    """Every persona, in order of its name."""
    return [_persona(name, fields) for name, fields in sorted(get_agents().items())]


def _persona(name: str, fields: Mapping[str, Any]) -> Persona:
    context = RunConfig(prompt="-", model="-", persona=name).ledger_context
    provider = model = reason = problem = ""
    try:
        route = models.route(context)
        provider, model, reason = route.provider, route.model, route.reason
        get_agent(name)
        broken = obstacle_to(provider)
        problem = "; ".join(map(str, [*problems_of(name), *([] if broken is None else [broken])]))
    except (ConfigError, FileNotFoundError) as exc:
        problem = str(exc)
    handoff = fields.get("handoff")
    return Persona(
        name,
        str(fields["title"]),
        str(fields.get("description") or ""),
        context,
        provider,
        model,
        reason,
        tools_in_words(fields),
        listed(fields.get("approve")),
        str(fields.get("schedule") or ""),
        str(handoff.get("persona") if isinstance(handoff, Mapping) else handoff or ""),
        _usual_prompt(fields),
        problem,
        _next_turn(fields.get("schedule")),
        next(iter(INDEX.page(limit=1, persona=name).runs), None),
    )


def _next_turn(schedule: object) -> str:
    """When a persona has its next turn, in words; empty without a schedule that can be read."""
    if not schedule:
        return ""
    if schedule == schedules.DAILY:
        return "after the end of each day, at the next muse daily"
    if schedule == schedules.WEEKLY:
        return "after the end of each week, at the next muse daily"
    moment = schedules.next_time(schedule, datetime.now())
    return f"{moment.day} {moment:%b %Y %H:%M}" if moment else ""


def page_of_runs(*, number: int = 1, persona: str = "", state: str = "") -> RunPage:
    """A page of the runs of a persona and in a state ("" is any); the nearest there is, if there is none of its number.

    Raises:
        ConfigError: no such state.
    """
    if state and state not in STATES:
        raise ConfigError("state", repr(state)[:40], f"one of {', '.join(STATES)}")
    found = INDEX.page(limit=PAGE_RUNS, offset=(max(number, 1) - 1) * PAGE_RUNS, persona=persona, state=state)
    pages = max(1, -(-found.total // PAGE_RUNS))
    if number > pages:
        return page_of_runs(number=pages, persona=persona, state=state)
    return RunPage(found.runs, max(number, 1), pages, found.total)


def live_runs() -> tuple[Run, ...]:
    """The runs that wait or are under way, and those whose process is gone, newest first."""
    return INDEX.live()


def digest_of(live: Sequence[Run]) -> str:
    """A short text that is another one when these runs, or how they stand, are others."""
    return hashlib.sha256(repr([(run.agent_id, run.state) for run in live]).encode()).hexdigest()[:16]


def own_prompt(persona: Mapping[str, Any]) -> str:
    """What a persona is asked for today if nobody says something else; empty if it has neither prompt nor schedule."""
    return _usual_prompt(persona).replace("$day", time.strftime("%A, %Y-%m-%d (%Y%m%d)"))


def _usual_prompt(persona: Mapping[str, Any]) -> str:
    """A persona's own prompt; one that works on a schedule without any is asked as its schedule asks it."""
    return str(persona.get("prompt") or (SCHEDULED_PROMPT if persona.get("schedule") else ""))


def chain_of(agent_id: str, facts: Mapping[str, Any]) -> Chain:
    """What came before a run and after it; `facts` are the entries of its request and start."""
    said = {name: str(facts.get(name) or "") for name in ("continue_from", "handoff_from", "resume_from")}
    resumes = said["resume_from"] if said["resume_from"] != agent_id else ""
    return Chain(said["continue_from"], said["handoff_from"], resumes, INDEX.later_than(agent_id))


def ledger_lines(run: Run) -> list[dict[str, Any]]:
    """What a run wrote into the token log, in order of time."""
    ended_s = int(run.agent_id) / 1000 + (run.duration_s or 0) + _WAITED_S
    return run_files.read_lines(run.agent_id, None if run.state in run_files.LIVE_STATES else round(ended_s * 1000))
