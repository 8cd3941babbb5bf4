"""A queued request as cortex understands it: merged with its persona and checked; it runs nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from muse.journal.personas import DEFAULT_PERSONA, get_agent
from muse.journal.trust import consent
from muse.runs.artifacts import artifact_path
from muse.runs.client import claims_of_request, request_of, require_completed
from muse.types.errors import ConfigError

DEFAULT_LIMIT_S = 600.0
_LONGEST_S = 7 * 86_400.0


class Handoff(Struct, frozen=True):
    """Who goes on after a run, and what its request says besides."""

    persona: str
    entries: Mapping[str, Any]


class RunRequest(Struct, frozen=True):
    """One run to make: the request for `muse-agents`, its time, and what is done with its result."""

    agent_id: str
    request: Mapping[str, Any]
    limit_s: float
    result_path: Path | None
    may_resume: bool

    def for_run(self, *, resume: bool) -> Mapping[str, Any]:
        """The request line: with the run's id and its time, and with the log to go on from if it was cut off."""
        further = {"resume_from": self.agent_id} if resume else {}
        return {**self.request, "agent_id": self.agent_id, "timeout_s": self.limit_s, **further}


def parse_run_request(agent_id: str, request: Mapping[str, Any]) -> RunRequest:
    """What a request orders; an entry it leaves out is its persona's.

    Raises:
        ConfigError: an entry is not usable, the handoffs go round in a circle, or `continue_from` is no completed run.
        FileNotFoundError: there is no such persona, or its text is missing.
        TrustError: it names servers or make targets, and came with a project without the user's consent.
    """
    if not isinstance(request.get("prompt"), str) or not request["prompt"].strip():
        raise ConfigError("prompt", repr(request.get("prompt")), "text that is not empty")
    consent.require(claims_of_request(request))
    said = merge_persona(request)
    check_handoff_cycle(agent_id, said["persona"], request)
    if request.get("continue_from"):
        require_completed(str(request["continue_from"]))
    day = None if said.get("day") is None else str(said["day"])
    handoff = handoff_of(said.get("handoff"))
    if handoff is not None and handoff.entries.get("save"):
        artifact_path(str(handoff.entries["save"]), handoff.entries.get("day") or day)
    return RunRequest(
        agent_id,
        {key: value for key, value in request.items() if key not in ("event", "ts", "handoff")},
        _limit_s(said.get("timeout_s")),
        None if said.get("save") is None else artifact_path(str(said["save"]), day),
        said.get("resume") is True,
    )


def merge_persona(request: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a request, behind them those of its persona.

    Raises:
        ConfigError, FileNotFoundError: there is no such persona, or it is not usable.
    """
    persona = get_agent(str(request.get("persona") or DEFAULT_PERSONA), request.get("facet"))
    return {
        **persona,
        **{key: value for key, value in request.items() if value is not None},
        "persona": persona["persona"],
    }


def handoff_of(raw: object) -> Handoff | None:
    """A handoff as it is written in a persona or a request: a persona's name, or an object with `persona`.

    >>> handoff_of("editor")
    Handoff(persona='editor', entries={})

    Raises:
        ConfigError: it is neither.
    """
    if raw is None or raw is False:
        return None
    if isinstance(raw, str) and raw.strip():
        return Handoff(raw.strip(), {})
    if isinstance(raw, Mapping) and isinstance(raw.get("persona"), str) and raw["persona"].strip():
        return Handoff(raw["persona"].strip(), {key: value for key, value in raw.items() if key != "persona"})
    raise ConfigError("handoff", repr(raw)[:60], "a persona's name, or an object with 'persona' and what it is asked")


def next_request(handoff: Handoff, request: Mapping[str, Any], result: str) -> dict[str, Any]:
    """Return the request that follows a finished run.

    It inherits day and facet; unless it names a provider, model or tier of its own, also those that the first request
    named. What neither names comes from the route of the next persona's context. `$result` in its prompt stands for the
    run's result; without a prompt the result is the prompt.
    """
    entries = dict(handoff.entries)
    prompt = str(entries.pop("prompt", "") or "$result").replace("$result", result)
    inherited = {name: request[name] for name in ("day", "facet") if request.get(name)}
    if not {"provider", "model"} & entries.keys():
        names = ("provider",) if "tier" in entries else ("provider", "model", "tier")
        inherited |= {name: request[name] for name in names if request.get(name)}
    return {"prompt": prompt, **inherited, **entries}


def check_handoff_cycle(agent_id: str, persona: str, request: Mapping[str, Any]) -> None:
    """Make sure that the runs which led here by handoff had other personas.

    Raises:
        ConfigError: the persona has had its turn in this chain.
    """
    chain = [persona, *(str(earlier.get("persona")) for earlier in _handed_from(agent_id, request))]
    if persona in chain[1:]:
        way = " -> ".join(reversed(chain))
        raise ConfigError("handoff", f"a circle, {way}", "each persona once in a chain of handoffs")


def _handed_from(agent_id: str, request: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    seen = {agent_id}
    current = request
    while current.get("handoff_from") and str(current["handoff_from"]) not in seen:
        seen.add(str(current["handoff_from"]))
        current = request_of(str(current["handoff_from"]))
        yield current


def _limit_s(raw: object) -> float:
    if raw is None:
        return DEFAULT_LIMIT_S
    is_number = isinstance(raw, (int, float)) and not isinstance(raw, bool) and math.isfinite(raw)
    if not is_number or not 0 < float(raw) <= _LONGEST_S:  # type: ignore[arg-type]
        raise ConfigError("timeout_s", repr(raw), f"seconds, above 0 and at most {_LONGEST_S:.0f}")
    return float(raw)  # type: ignore[arg-type]
