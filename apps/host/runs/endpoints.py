"""Agent runs on pages: one run as blocks, live by server-sent events, ended and answered; it knows no app."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from msgspec import Struct
from sse_starlette import EventSourceResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from apps.host.formatting import markdown
from apps.host.runs.rendering import Block, Change, RunView
from apps.host.templating import Pages, app_name, came_from
from muse import models, providers
from muse.agent_loop.run_config import RunConfig
from muse.diagnostics import check
from muse.errors import ConfigError, MuseError
from muse.journal import secrets
from muse.providers._local.errors import WeightsMissing
from muse.runs import control, run_files
from muse.runs import follow as tail
from muse.runs.follow import TailChunk

_PART = "_run_block.html"
_KEEP_ALIVE_S = 15
_LONGEST_MODEL = 200
# Markdown of a growing text is rendered at most this share of the time.
_RENDERED_SHARE = 0.1


class Shown(Struct, frozen=True):
    """A run as a page shows it: its blocks so far, how it stands, and the line to go on from."""

    agent_id: str
    blocks: tuple[Block, ...]
    facts: Mapping[str, Any]
    end: Mapping[str, Any]
    state: run_files.RunState
    reason: str
    line: int

    @property
    def is_live(self) -> bool:
        """Whether more is to come."""
        return self.state in run_files.LIVE_STATES

    @property
    def context(self) -> str:
        """The context whose route the run follows."""
        persona = str(self.facts.get("persona") or "default")
        own = self.facts.get("context")
        return str(own or RunConfig(prompt="-", model="-", persona=persona).ledger_context)

    @property
    def is_cut_off(self) -> bool:
        """Whether its process is gone: nobody has it, and it can be cancelled or resumed."""
        return self.reason == run_files.CUT_OFF


def show(agent_id: str) -> Shown:
    """A run as it stands now.

    Raises:
        FileNotFoundError: there is no such run.
    """
    seen = tail.with_owner(agent_id, tail.read_from(agent_id))
    view = RunView()
    view.take_all(seen.lines)
    return Shown(agent_id, tuple(view.blocks.values()), view.facts, view.end, seen.state, seen.reason, seen.number)


def cost_of(run: run_files.Run) -> float | None:
    """What a run cost (US dollars): by its lines in the usage log, else by its model and token sums; None: unknown."""
    if run.cost_usd is not None:
        return run.cost_usd
    cost = models.calc_token_cost({"model": run.model, "provider": run.provider, "usage": run.usage})
    return float(cost["total_cost"]) if cost else None


def provider_choices() -> list[dict[str, str]]:
    """Who may be asked instead of the routed provider: `{name, label, lacks}`; `lacks` is what is missing, in words."""
    rows = []
    for name, spec in sorted(providers.specs().items()):
        missing = spec.env_key if spec.key_required and spec.env_key and not secrets.look_up(spec.env_key) else ""
        lacks = f"needs {missing}" if missing else ""
        lacks = "cannot be used" if spec.broken else "not trusted" if spec.withheld is not None else lacks
        rows.append({"name": name, "label": spec.label, "lacks": lacks})
    return rows


class Answerer(Struct, frozen=True):
    """Who answers a context as it is routed: provider, its label, model.

    `lack` is what keeps it from answering ("": nothing); `can_fetch` says that only the file of the embedded model is
    missing.
    """

    context: str
    provider: str = ""
    label: str = ""
    model: str = ""
    lack: str = ""
    can_fetch: bool = False


def answerer(context: str, provider: str = "") -> Answerer:
    """Find who answers a context, or what a provider named instead of the route's would answer with."""
    try:
        route = models.resolve(context, provider=provider or None)
        backend = providers.backend_of(route.provider)
    except (MuseError, ImportError) as exc:
        return Answerer(context, provider, provider, lack=secrets.redact(str(exc)))
    spec = backend.spec
    lack, can_fetch = "", False
    key = check.key_state(spec)
    if key in ("missing", "malformed"):
        lack = "it has no key" if key == "missing" else "its key is malformed"
    elif not check.is_installed(route.provider):
        lack = "its package is not installed"
    elif (missing := check.missing_requirement(route.provider)) is not None:
        lack, can_fetch = secrets.redact(str(missing)), isinstance(missing, WeightsMissing)
    return Answerer(context, route.provider, spec.label, route.model, lack, can_fetch)


def asked_of(form: Mapping[str, Any]) -> dict[str, Any]:
    """What the fields `provider`, `tier` and `model` of a form say in a run's request; empty ones say nothing.

    Raises:
        ConfigError: no such provider or tier, or no name of a model.
    """
    provider, tier = str(form.get("provider") or ""), str(form.get("tier") or "")
    model = str(form.get("model") or "").strip()
    if len(model) > _LONGEST_MODEL or not model.isprintable():
        raise ConfigError("model", repr(model)[:60], f"the name of a model, {_LONGEST_MODEL} characters at most")
    if provider and provider not in providers.specs():
        raise ConfigError("provider", repr(provider)[:60], f"one of {', '.join(sorted(providers.specs()))}")
    if tier not in ("", "1", "2", "3"):
        raise ConfigError("tier", repr(tier)[:20], "1, 2 or 3")
    said = {"provider": provider, "tier": int(tier) if tier else 0, "model": model}
    return {name: value for name, value in said.items() if value}


async def follow(request: Request) -> Response:
    """A run's blocks as server-sent events, beyond the line in `Last-Event-ID` or `?after=`, until it is over.

    `block` {key, html} is new or in place of the one with its key, `more` {key, html} is a text that has grown, `gone`
    {key} takes one away, `end` {state, reason} is the last. An event's id is the number of the line that it is up to.
    """
    agent_id = request.path_params["agent_id"]
    if run_files.find(agent_id) is None:
        raise HTTPException(404, detail=f"run {agent_id!r}: not found")
    after = _number_in(request.headers.get("Last-Event-ID")) or _number_in(request.query_params.get("after"))
    return EventSourceResponse(_events(request, agent_id, after), ping=_KEEP_ALIVE_S)


def _number_in(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 14 else 0


async def _events(request: Request, agent_id: str, after: int) -> AsyncIterator[dict[str, str]]:
    pages = _Rendered(request, agent_id)
    async for piece in tail.follow(agent_id):
        for message in await run_in_threadpool(pages.messages, piece, after):
            yield message
        if piece.is_over:
            yield {"event": "end", "data": json.dumps({"state": piece.state, "reason": piece.reason})}


class _Rendered:
    """The messages of one stream: what a run's lines change on its page, texts as Markdown while they grow."""

    def __init__(self, request: Request, agent_id: str) -> None:
        self._request = request
        self._agent_id = agent_id
        self._view = RunView()
        self._rests_until_s = 0.0

    def messages(self, piece: TailChunk, after: int) -> list[dict[str, str]]:
        """Return what the lines of a piece change; only the last message has an id, so that none is lost."""
        self._view.take_all(line for line in piece.lines if line.number <= after)
        changes = [change for line in piece.lines if line.number > after for change in self._view.take(line)]
        messages = [message for change in _joined(changes) if (message := self._message(change)) is not None]
        if messages:
            messages[-1]["id"] = str(piece.number)
        return messages

    def _message(self, change: Change) -> dict[str, str] | None:
        """One change as a message; None for a growing text whose turn to be rendered has not come."""
        block = change.block
        if change.kind == "gone":
            return {"event": "gone", "data": json.dumps({"key": block.key})}
        if change.kind == "more":
            begun_s = time.monotonic()
            if begun_s < self._rests_until_s:
                return None
            html = str(markdown(block.text))
            ended_s = time.monotonic()
            self._rests_until_s = ended_s + (ended_s - begun_s) / _RENDERED_SHARE
            return {"event": "more", "data": json.dumps({"key": block.key, "html": html})}
        pages: Pages = self._request.app.state.pages
        html = pages.text(self._request, _PART, {"block": block, "agent_id": self._agent_id})
        return {"event": "block", "data": json.dumps({"key": block.key, "html": html})}


def _joined(changes: list[Change]) -> list[Change]:
    """Changes without those that a later one of the same block makes needless."""
    joined: list[Change] = []
    for change in changes:
        last = joined[-1] if joined else None
        if change.kind == "more" and last is not None and last.block is change.block:
            continue  # the block has the whole text already
        joined.append(change)
    return joined


async def cancel(request: Request) -> Response:
    """End a run."""
    await run_in_threadpool(control.cancel, request.path_params["agent_id"])
    return await done(request)


async def answer(request: Request) -> Response:
    """Say yes or no (field `approved`) to the call (field `call_id`) that a run asks about since `asked` (ms)."""
    form = await request.form()
    agent_id, call_id = request.path_params["agent_id"], str(form.get("call_id") or "")
    approved = form.get("approved") == "yes"
    asked_ms = _number_in(str(form.get("asked") or ""))
    await run_in_threadpool(
        lambda: control.answer_approval(agent_id, call_id, approved=approved, asked_ms=asked_ms or None)
    )
    return await done(request)


async def done(request: Request, to: str = "", **more: Any) -> Response:
    """What is answered to a change: JSON to a script, else the page `to`, or the one that it was sent from."""
    if "application/json" in request.headers.get("Accept", ""):
        return JSONResponse({"ok": True, **({"to": to} if to else {}), **more})
    return RedirectResponse(to or came_from(request, f"/app/{app_name(request.url.path)}/"), status_code=303)


RUN_ROUTES: tuple[BaseRoute, ...] = (
    Route("/api/runs/{agent_id}/events", follow),
    Route("/runs/{agent_id}/cancel", cancel, methods=["POST"]),
    Route("/runs/{agent_id}/answer", answer, methods=["POST"]),
)
