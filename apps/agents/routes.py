"""The addresses of the agents app: start a run, read it, end, continue and resume it; it lists nothing itself."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from apps.agents import queries
from apps.host.background_worker import carrying_out
from apps.host.runs.endpoints import RUN_ROUTES, asked_of, cost_of, done, provider_choices, show
from apps.host.templating import MOST_PROMPT_CHARS, render
from muse.errors import ConfigError
from muse.journal.config_loader import ConflictError
from muse.journal.personas import get_agents
from muse.journal.storage import atomic_files
from muse.runs import control, follow, run_files
from muse.runs.client import cortex_request, get_agent_end_state, queue, request_of
from muse.runs.index import INDEX

__all__ = ["ROUTES", "lifespan", "warm", "workspace"]

BASE = "/app/agents"


def workspace(request: Request) -> Mapping[str, Any]:
    """The first page: personas, a form to start one, live runs, past runs."""
    query = request.query_params
    chosen = {"persona": query.get("persona", ""), "state": query.get("state", "")}
    personas, live_ones = queries.list_personas(), queries.live_runs()
    return {
        "personas": personas,
        "choices": provider_choices(),
        "asked": query.get("ask") or "default",
        **_past(request, chosen),
        "ran": sorted({*INDEX.personas(), *(persona.name for persona in personas)}),
        "states": queries.STATES,
        "live": live_ones,
        "seen": queries.digest_of(live_ones),
        "cost_of": cost_of,
    }


def _past(request: Request, chosen: Mapping[str, str]) -> dict[str, Any]:
    """The page of past runs that an address asks for, and the addresses of the pages beside it."""
    text = request.query_params.get("page", "1")
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 7 else 1
    page = queries.page_of_runs(number=number, **chosen)
    kept = {name: value for name, value in chosen.items() if value}

    def address(wanted: int) -> str:
        return f"{BASE}/?{urlencode({**kept, 'page': wanted})}#runs" if 1 <= wanted <= page.pages else ""

    again = f"{BASE}/?{urlencode({**kept, 'page': page.number})}"
    return {
        "here_again": again,
        "page": page,
        "chosen": chosen,
        "newer": address(page.number - 1),
        "older": address(page.number + 1),
    }


def live(request: Request) -> Response:
    """The live runs alone, for the page that looks again; nothing (204) as long as they are those it has `seen`."""
    found = queries.live_runs()
    seen = queries.digest_of(found)
    if request.query_params.get("seen") == seen:
        return Response(status_code=204)
    answer = render(request, "agents/_live.html", live=found, seen=seen)
    answer.headers["HX-Trigger"] = "runs-changed"
    return answer


def run_page(request: Request) -> Response:
    """One run to read, live as long as it lasts."""
    shown, run = show(_agent_id(request)), run_files.summarize(_agent_id(request))
    if run is None:
        raise FileNotFoundError(f"run {_agent_id(request)!r}: not found")
    return render(
        request,
        "agents/run.html",
        shown=shown,
        **_head(run),
        chain=queries.chain_of(shown.agent_id, shown.facts),
        choices=provider_choices(),
    )


def head(request: Request) -> Response:
    """The head of a run alone, for the page that looks again as long as it lasts."""
    run = run_files.summarize(_agent_id(request))
    if run is None:
        raise FileNotFoundError(f"run {_agent_id(request)!r}: not found")
    return render(request, "agents/_head.html", **_head(run))


def _head(run: run_files.Run) -> dict[str, Any]:
    """What the head of a run's page shows."""
    is_live = run.state in run_files.LIVE_STATES
    lasted_s = (
        max(0.0, time.time() - int(run.agent_id) / 1000) if run.state in ("running", "waiting") else run.duration_s
    )
    return {"run_at": run, "cost": cost_of(run), "is_live": is_live, "lasted_s": lasted_s}


def ledger(request: Request) -> Response:
    """The lines that a run wrote into the token log."""
    run = run_files.summarize(_agent_id(request))
    if run is None:
        raise FileNotFoundError(f"run {_agent_id(request)!r}: not found")
    return render(request, "agents/_ledger.html", lines=queries.ledger_lines(run))


async def start(request: Request) -> Response:
    """Ask for a run: fields persona, prompt, provider, tier."""
    form = await request.form()
    persona = str(form.get("persona") or "")
    known = await run_in_threadpool(get_agents)
    if persona not in known:
        raise ConfigError("persona", repr(persona)[:60], f"one of {', '.join(sorted(known))}")
    config = {**asked_of(form), "stream": True, "attended": True}
    prompt = str(form.get("prompt") or "").strip() or queries.own_prompt(known[persona])
    agent_id = await run_in_threadpool(lambda: cortex_request(_checked(prompt), persona, config=config))
    return await done(request, f"{BASE}/run/{agent_id}")


async def go_on(request: Request) -> Response:
    """Continue a run that is over with a new prompt."""
    form = await request.form()
    before = _agent_id(request)
    persona = str((await run_in_threadpool(request_of, before)).get("persona") or "default")
    config = {**asked_of(form), "stream": True, "attended": True, "continue_from": before}
    prompt = str(form.get("prompt") or "").strip()
    await run_in_threadpool(follow.wait_until_quiet, before)
    agent_id = await run_in_threadpool(lambda: cortex_request(_checked(prompt), persona, config=config))
    return await done(request, f"{BASE}/run/{agent_id}")


async def resume(request: Request) -> Response:
    """Go on with a run that has broken off, from where its log ends, as a new run."""
    agent_id = await run_in_threadpool(_resume, _agent_id(request))
    return await done(request, f"{BASE}/run/{agent_id}")


def _resume(before: str) -> str:
    """Ask for the run that goes on with a broken one; the one that was asked for already, if there is one.

    Raises:
        FileNotFoundError: there is no such run.
        ConflictError: it has an end with a result, or is under way.
    """
    if run_files.find(before) is None:
        raise FileNotFoundError(f"run {before!r}: not found")
    with atomic_files.file_lock(run_files.folder() / ".resume.lock"):
        later = (found for found in INDEX.later_than(before) if request_of(found).get("resume_from") == before)
        return next(later, "") or _begin_again(before)


def _begin_again(before: str) -> str:
    follow.wait_until_quiet(before)
    if run_files.is_running(before) or get_agent_end_state(before) == "finish":
        raise ConflictError(f"run {before}: it has not broken off; continue it with a new prompt instead")
    entries = request_of(before)
    control.cancel(before)  # one whose process is gone is still open
    kept = {name: value for name, value in entries.items() if name not in _NOT_AGAIN}
    config = {**kept, "stream": True, "attended": True, "resume_from": before}
    return queue(str(entries.get("prompt") or "Go on."), str(entries.get("persona") or "default"), config=config)


# Entries of a request that belong to that one run.
_NOT_AGAIN = frozenset({"event", "ts", "agent_id", "prompt", "persona", "handoff_from", "continue_from", "resume"})


def _checked(text: str) -> str:
    if not text:
        raise ConfigError("prompt", "nothing", "what the agent is to do, such as 'What is open from Tuesday?'")
    if len(text) > MOST_PROMPT_CHARS:
        raise HTTPException(413, detail=f"prompt: found {len(text):,} characters, at most {MOST_PROMPT_CHARS:,} go")
    return text


def _agent_id(request: Request) -> str:
    return str(request.path_params["agent_id"])


@asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    """Carry out runs as long as the site is up."""
    async with carrying_out():
        yield
    await run_in_threadpool(INDEX.close)


def warm() -> None:
    """Read what ran before the first page asks for it."""
    INDEX.personas()


ROUTES: tuple[BaseRoute, ...] = (
    *RUN_ROUTES,
    Route("/live", live),
    Route("/start", start, methods=["POST"]),
    Route("/run/{agent_id}", run_page),
    Route("/run/{agent_id}/head", head),
    Route("/run/{agent_id}/ledger", ledger),
    Route("/run/{agent_id}/continue", go_on, methods=["POST"]),
    Route("/run/{agent_id}/resume", resume, methods=["POST"]),
)
