"""The addresses of the chat app: conversations listed, shown, gone on with, named, deleted; it knows no model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from apps.chat import conversations, images, titles
from apps.chat.conversations import Conversation, Message, Turn
from apps.host.background_worker import carrying_out as lifespan
from apps.host.runs.endpoints import RUN_ROUTES, Shown, answerer, asked_of, done, provider_choices, show
from apps.host.templating import render
from apps.host.uploads import read_images
from muse.agent_loop.run_config import RunConfig
from muse.journal import paths
from muse.journal.storage.path_containment import is_inside
from muse.providers._local.fetch import fetch_weights

__all__ = ["MOST_BODY_BYTES", "ROUTES", "lifespan", "workspace"]

BASE = "/app/chat"
CONTEXT = RunConfig(prompt="-", model="-", persona=conversations.PERSONA).ledger_context
MOST_BODY_BYTES = images.MOST_PICTURES * images.MOST_BYTES + 1_000_000
PAGE_CONVERSATIONS = 30
_PICTURE = re.compile(r"\d{13}-\d\.(png|jpg|gif|webp)")


class ShownTurn(Struct, frozen=True):
    """A turn with its run as a page shows it; `shown` is None if the run's log is gone."""

    turn: Turn
    shown: Shown | None

    @property
    def can_retry(self) -> bool:
        """Whether it is over and has no answer."""
        return self.shown is None or not (self.shown.is_live or self.shown.state == "completed")


def workspace(request: Request) -> Mapping[str, Any]:
    """The first page: a question to begin with, and the conversations there are."""
    text = request.query_params.get("page", "1")
    number = max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 7 else 1
    listed, total = conversations.recent(limit=PAGE_CONVERSATIONS, offset=(number - 1) * PAGE_CONVERSATIONS)
    return {
        "listed": listed,
        "total": total,
        "number": number,
        "has_more": number * PAGE_CONVERSATIONS < total,
        **_form_of(None, request.query_params.get("provider", "")),
    }


def _may_entitle() -> bool:
    """Whether a title may be asked for: not of a provider of which the page says already that it cannot answer."""
    routed, title = answerer(CONTEXT), answerer(titles.CONTEXT)
    return not (title.lack and routed.lack and title.provider == routed.provider)


def _form_of(last: Turn | None, wanted: str = "") -> dict[str, Any]:
    """What the form for a question is given: who may answer, who answered last, and whether somebody can."""
    choices = provider_choices()
    provider = wanted if wanted in {row["name"] for row in choices} else last.provider if last else ""
    routed = answerer(CONTEXT)
    return {
        "choices": choices,
        "routed": routed,
        "asks": answerer(CONTEXT, provider) if provider else routed,
        "local": answerer(CONTEXT, "local"),
        "provider": provider,
        "tier": str(last.tier or "") if last else "",
        "most_pictures": images.MOST_PICTURES,
        "most_bytes": images.MOST_BYTES,
    }


def conversation(request: Request) -> Response:
    """One conversation."""
    found = conversations.find(_chat_id(request))
    shown = [_shown(turn) for turn in found.turns]
    return render(
        request,
        "chat/conversation.html",
        conversation=found,
        turns=shown,
        may_entitle=_may_entitle(),
        is_answering=bool(shown and shown[-1].shown and shown[-1].shown.is_live),
        **_form_of(found.turns[-1] if found.turns else None, request.query_params.get("provider", "")),
    )


def turn(request: Request) -> Response:
    """One turn alone, for the page that it is added to."""
    found = conversations.find(_chat_id(request))
    one = next((one for one in found.turns if one.agent_id == request.path_params["agent_id"]), None)
    if one is None:
        raise HTTPException(404, detail="This turn is not there any more; reload the page.")
    is_last = one is found.turns[-1]
    return render(request, "chat/_turn.html", conversation=found, one=_shown(one), is_last=is_last)


def _shown(one: Turn) -> ShownTurn:
    try:
        return ShownTurn(one, show(one.agent_id))
    except FileNotFoundError:
        return ShownTurn(one, None)


async def fetch_model(request: Request) -> Response:
    """Get the embedded model, then lead on to a form that asks it."""
    await run_in_threadpool(fetch_weights)
    return await done(request, f"{BASE}/?provider=local")


async def say(request: Request) -> Response:
    """Ask something: fields message, provider, tier and files pictures; in a new conversation without an id."""
    chat_id: str | None = request.path_params.get("chat_id")
    files = await read_images(request, "pictures", most_files=images.MOST_PICTURES, most_bytes=images.MOST_BYTES)
    form = await request.form()
    message = Message(str(form.get("message") or ""), files, asked_of(form))

    def ask() -> tuple[str, Turn]:
        images.require_whole(files)
        return conversations.say(chat_id, message)

    found_id, made = await run_in_threadpool(ask)
    return await _told(request, found_id, made)


async def say_again(request: Request) -> Response:
    """Ask the last question once more: fields agent_id, provider, tier."""
    chat_id, form = _chat_id(request), await request.form()
    asked, agent_id = asked_of(form), str(form.get("agent_id") or "")
    made = await run_in_threadpool(lambda: conversations.say_again(chat_id, agent_id, asked))
    return await _told(request, chat_id, made)


async def _told(request: Request, chat_id: str, made: Turn) -> Response:
    """What is answered to a question: where it is answered."""
    page = f"{BASE}/c/{chat_id}"
    if "application/json" in request.headers.get("Accept", ""):
        return JSONResponse({"to": page, "turn": f"{page}/turn/{made.agent_id}", "agent_id": made.agent_id})
    return await done(request, f"{page}#turn-{made.agent_id}")


async def rename(request: Request) -> Response:
    """Give a conversation the title in the field `title`."""
    chat_id, form = _chat_id(request), await request.form()
    title = await run_in_threadpool(lambda: conversations.rename(chat_id, str(form.get("title") or "")))
    return await done(request, f"{BASE}/c/{chat_id}", title=title)


def entitle(request: Request) -> Response:
    """Have a conversation's title made, unless it has one."""
    found = conversations.find(_chat_id(request))
    if not found.turns:
        raise HTTPException(409, detail="The conversation has no question yet to make a title of.")
    title = found.title
    if not title:  # somebody may give it one while the model thinks
        made = titles.make_title(found.turns[0].prompt)
        title = conversations.rename(found.id, made, only_if_none=True)
    return JSONResponse({"title": title})


async def delete(request: Request) -> Response:
    """Delete a conversation."""
    await run_in_threadpool(conversations.delete, _chat_id(request))
    return await done(request, f"{BASE}/")


def picture(request: Request) -> Response:
    """A picture of a conversation."""
    found: Conversation = conversations.find(_chat_id(request))
    name = request.path_params["name"]
    path = conversations.folder() / found.id / name
    if not _PICTURE.fullmatch(name) or not path.is_file() or not is_inside(path, paths.journal_path()):
        raise HTTPException(404, detail="This picture is not there any more.")
    return FileResponse(path, headers={"Cache-Control": "private, max-age=86400"})


def _chat_id(request: Request) -> str:
    return str(request.path_params["chat_id"])


ROUTES: tuple[BaseRoute, ...] = (
    *RUN_ROUTES,
    Route("/say", say, methods=["POST"]),
    Route("/embedded", fetch_model, methods=["POST"]),
    Route("/c/{chat_id}", conversation),
    Route("/c/{chat_id}/say", say, methods=["POST"]),
    Route("/c/{chat_id}/again", say_again, methods=["POST"]),
    Route("/c/{chat_id}/rename", rename, methods=["POST"]),
    Route("/c/{chat_id}/delete", delete, methods=["POST"]),
    Route("/c/{chat_id}/turn/{agent_id}", turn),
    Route("/c/{chat_id}/api/title", entitle, methods=["POST"]),
    Route("/c/{chat_id}/picture/{name}", picture),
)
