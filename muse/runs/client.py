"""Asks for agent runs and reads what became of them, by files alone; it runs nothing and needs no cortex to be up."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from muse.journal import paths
from muse.journal.personas import DEFAULT_PERSONA
from muse.journal.trust import consent
from muse.journal.trust.project_config import request_claims
from muse.runs import run_files
from muse.runs.artifacts import artifact_path
from muse.types.errors import ConfigError
from muse.types.events import now_ms
from muse.types.trust_claim import Claim

Status = Literal["completed", "running", "not_found"]
EndState = Literal["finish", "error", "running", "unknown"]
_MOST_SHOWN = 100
_KINDS = ("all", "live", "historical")
_BEFORE = ("continue_from", "handoff_from", "resume_from")
_OWN = frozenset({"event", "ts", "agent_id", "prompt", "persona"})


def cortex_request(
    prompt: str,
    persona: str = DEFAULT_PERSONA,
    provider: str | None = None,
    handoff_from: str | None = None,
    config: Mapping[str, Any] | None = None,
    save: str | None = None,
) -> str:
    """Ask for a run; its id: 13 digits, the time in milliseconds, rising. It begins when a cortex takes it.

    `config` holds further entries: those of `RunConfig` (`muse.agent_loop`) and `day`, `facet`, `handoff`, `resume`.
    `save` is a file in the folder of the day (`config["day"]`, else today) that gets the result. Who calls this has
    consented to the servers and make targets that `config` names.

    Raises:
        ConfigError: no prompt, a `save` outside of the day's folder, or a `continue_from` that is no completed run.
    """
    consent.add(claims_of_request(config or {}))
    return queue(prompt, persona, provider, handoff_from, config, save)


def claims_of_request(request: Mapping[str, Any]) -> tuple[Claim, ...]:
    """Return the entries of a request in a project's journal that need the user's consent."""
    path = paths.config_path()
    return request_claims(request, os.path.dirname(path)) if paths.is_project(path) else ()


def queue(
    prompt: str,
    persona: str = DEFAULT_PERSONA,
    provider: str | None = None,
    handoff_from: str | None = None,
    config: Mapping[str, Any] | None = None,
    save: str | None = None,
) -> str:
    """Ask for a run, as `cortex_request`, with entries out of a file, to which nobody has consented by that."""
    more = {name: value for name, value in (config or {}).items() if name not in _OWN and value is not None}
    if not prompt.strip():
        raise ConfigError("prompt", repr(prompt), "text that is not empty")
    given = {"provider": provider, "handoff_from": handoff_from, "save": save}
    more |= {name: value for name, value in given.items() if value is not None}
    if more.get("save"):
        artifact_path(str(more["save"]), more.get("day"))
    if more.get("continue_from"):
        require_completed(str(more["continue_from"]))
    request = {"event": "request", "ts": now_ms(), "prompt": prompt, "persona": persona, **more}
    agent_id, _ = run_files.new_file("pending", json.dumps(request, ensure_ascii=False) + "\n")
    return agent_id


def require_completed(agent_id: str) -> None:
    """Make sure that a run can be continued.

    Raises:
        ConfigError: there is no such run, or it is not over.
    """
    found = run_files.find(agent_id)
    if found is None or found[1] != "over":
        state = "a run that does not exist" if found is None else f"a run that is {found[1]}"
        raise ConfigError("continue_from", f"{agent_id!r}, {state}", "the id of a completed run (see: muse runs)")


def get_agent_status(agent_id: str) -> Status:
    """Whether a run is over: by its finished log, even with an active one beside it; one that waits is running."""
    if run_files.is_agent_id(agent_id) and run_files.path_of(agent_id, "over").is_file():
        return "completed"
    found = run_files.find(agent_id)
    if found is None:
        return "not_found"
    return "completed" if found[1] == "over" else "running"


def get_agent_end_state(agent_id: str) -> EndState:
    """How a run ended; unknown if there is no such run, or its log has no end."""
    found = run_files.find(agent_id)
    if found is None:
        return "unknown"
    if found[1] != "over":
        return "running"
    ends = [event["event"] for event in run_files.read_events(found[0]) if event.get("event") in ("finish", "error")]
    return ends[-1] if ends else "unknown"


def read_agent_events(agent_id: str) -> list[dict[str, Any]]:
    """The lines of a run's log as they stand now, the request first; bad lines are passed over.

    Raises:
        FileNotFoundError: there is no such run.
    """
    found = run_files.reading(agent_id, lambda path: list(run_files.read_events(path)))
    if found is not None:
        return found[0]
    raise FileNotFoundError(f"Agent log not found: {agent_id!r} (looked in {run_files.folder()})")


def get_agent_thread(agent_id: str) -> list[str]:
    """The ids of the chain that a run belongs to, oldest first: what it continues or was handed from, what follows.

    Raises:
        FileNotFoundError: there is no such run.
    """
    if run_files.find(agent_id) is None:
        raise FileNotFoundError(f"Agent log not found: {agent_id!r} (looked in {run_files.folder()})")
    root = min(_back_from(agent_id))
    chain = {root}
    for later in sorted(found for found in run_files.newest_ids() if found > root):
        if previous_run(later) in chain:
            chain.add(later)
    return sorted(chain)


def _back_from(agent_id: str) -> Iterator[str]:
    seen: set[str] = set()
    current: str | None = agent_id
    while current is not None and current not in seen and run_files.find(current) is not None:
        seen.add(current)
        yield current
        current = previous_run(current)


def previous_run(agent_id: str) -> str | None:
    """The run that this one continues, resumes or was handed from; None if it is the first or does not say."""
    request = request_of(agent_id)
    before = next((str(request[name]) for name in _BEFORE if request.get(name)), None)
    return before if before != agent_id else None


def handoff_child(agent_id: str) -> str | None:
    """The run that a finished one was handed on to."""
    later = (found for found in run_files.newest_ids() if found > agent_id)
    return next((found for found in later if request_of(found).get("handoff_from") == agent_id), None)


def request_of(agent_id: str) -> Mapping[str, Any]:
    """The request of a run: the first line of its log; empty if it has none."""
    found = run_files.reading(agent_id, lambda path: next(run_files.read_events(path), {}))
    return found[0] if found is not None else {}


def cortex_agents(
    limit: int = 10,
    offset: int = 0,
    agent_type: str = "all",
    facet: str | None = None,
) -> dict[str, Any]:
    """One page of runs, newest first: `{agents, pagination, live_count, historical_count}`.

    `limit` is brought into 1 to 100. `agent_type` is "all", "live" (waiting or under way) or "historical".

    Raises:
        ConfigError: another `agent_type`.
    """
    if agent_type not in _KINDS:
        raise ConfigError("agent_type", repr(agent_type), f"one of {', '.join(_KINDS)}")
    limit, offset = max(1, min(int(limit), _MOST_SHOWN)), max(0, int(offset))
    live = {*run_files.ids_in("pending"), *run_files.ids_in("active")}
    every = [found for found in run_files.newest_ids() if facet is None or request_of(found).get("facet") == facet]
    wanted = [found for found in every if agent_type == "all" or (found in live) == (agent_type == "live")]
    living = sum(1 for found in every if found in live)
    shown = [
        _as_row(run) for found in wanted[offset : offset + limit] if (run := run_files.summarize(found)) is not None
    ]
    more = offset + limit < len(wanted)
    return {
        "agents": shown,
        "pagination": {"limit": limit, "offset": offset, "total": len(wanted), "has_more": more},
        "live_count": living,
        "historical_count": len(every) - living,
    }


def _as_row(run: run_files.Run) -> dict[str, Any]:
    request = request_of(run.agent_id)
    return {
        "id": run.agent_id,
        "start": int(run.agent_id),
        "status": get_agent_status(run.agent_id),
        "state": run.state,
        "persona": run.persona,
        "provider": run.provider,
        "model": run.model,
        "prompt": run.prompt,
        "facet": request.get("facet"),
        "turns": run.turns,
        "tool_calls": run.tool_calls,
        "tokens": run.tokens,
        "runtime_seconds": run.duration_s,
        "reason": run.reason,
        "usage": dict(run.usage),
        "cost_usd": run.cost_usd,
        "continue_from": request.get("continue_from"),
        "handoff_from": run.handoff_from,
    }
