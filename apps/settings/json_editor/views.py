"""The raw journal.json in an editor, and the last saves with their undo; no secret is in what they show."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from apps.host.templating import render
from apps.settings import config_change, form_data, view_models
from apps.settings import history as saves
from apps.settings.config_state import Standing, Trouble, stamp_from, stand, trouble_of
from apps.settings.json_editor import json_completion
from apps.settings.redaction import masked
from apps.settings.route_table import Plans
from muse.errors import ConfigError
from muse.journal.config import parse_json
from muse.journal.config_loader import ConflictError


def show(request: Request) -> Response:
    """`GET raw`: the editor."""
    now = stand()
    return _editor(request, now, masked(now.text), now.mark, problems_now(now))


def problems_now(now: Standing) -> tuple[Trouble, ...]:
    """What is wrong with the file as it stands."""
    return now.troubles if now.failure is None else (now.failure,)


def _editor(
    request: Request, now: Standing, text: str, stamp: str, problems: tuple[Trouble, ...], status: int = 200
) -> Response:
    given: dict[str, Any] = {"text": text, "stamp": stamp, "problems": problems, "said": form_data.said(request)}
    given["is_refused"] = status != 200
    return render(request, "settings/raw.html", status, now=now, **given)


def _typed(text: str) -> str:
    """A form's text with the line ends that files here have."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


async def save(request: Request) -> Response:
    """`POST raw`: save the text as it is, show what is wrong with it, or the conflict."""
    form = await form_data.read_form(request)
    stamp = stamp_from(form.get("stamp", ""))
    return await run_in_threadpool(_save, request, _typed(form.get("text", "")), stamp, form.get("stamp", ""))


def _save(request: Request, text: str, stamp: tuple[int, int, int], mark: str) -> Response:
    now = stand()
    try:
        config_change.save_text(now, text, expected=stamp)
    except ConflictError:
        shown = masked(now.text)
        rows = saves.differences(shown, text)
        return render(request, "settings/raw_conflict.html", 409, now=now, text=text, rows=rows)
    except ConfigError as exc:
        return _editor(request, now, text, mark, found_in(now, text) or (trouble_of(exc, text),), 400)
    words = "journal.json is saved. It counts from the next call on."
    return form_data.go(request, words, to=f"{form_data.HOME}raw", can_undo=True)


def found_in(now: Standing, text: str) -> tuple[Trouble, ...]:
    """What is wrong with a text that is to be journal.json, with lines."""
    try:
        if not now.is_known:
            parse_json(text, "journal.json")
            return ()
        return config_change.propose_text(now, text).troubles
    except ConfigError as exc:
        return (trouble_of(exc, text),)


async def check(request: Request) -> Response:
    """`POST api/check` with `{text}`: `{problems: [{path, found, allowed, line}]}`; nothing is written."""
    text = form_data.text_of(await form_data.read_json(request), "text")
    return JSONResponse({"problems": await run_in_threadpool(_problems, text)})


def _problems(text: str) -> list[dict[str, Any]]:
    return [dict(msgspec.to_builtins(problem)) for problem in found_in(stand(), text)]


async def complete(request: Request) -> Response:
    """`POST api/complete` with `{text, cursor}`: `{suggestions: [{label, insert, detail, start, end}]}`.

    `cursor`, `start` and `end` count characters (code points).
    """
    body = await form_data.read_json(request)
    text, cursor = form_data.text_of(body, "text"), form_data.whole_number_of(body, "cursor")
    return JSONResponse({"suggestions": await run_in_threadpool(_suggestions, text, cursor)})


def _suggestions(text: str, cursor: int) -> list[dict[str, Any]]:
    now = stand()
    names = json_completion.names_of(Plans(now.snapshot)) if now.is_known else json_completion.Names({}, {}, {})
    return [dict(msgspec.to_builtins(row)) for row in json_completion.suggest(text, cursor, names)]


async def tidy(request: Request) -> Response:
    """`POST api/format` with `{text}`: `{text}` indented by two.

    Raises:
        ConfigError: it is no JSON object, or says a key twice, of which one would be lost.
    """
    text = form_data.text_of(await form_data.read_json(request), "text")
    data, duplicates = parse_json(text, "journal.json")
    if duplicates:
        raise ConfigError(duplicates[0].path, duplicates[0].found, duplicates[0].allowed)
    return JSONResponse({"text": json.dumps(data, indent=2, ensure_ascii=False) + "\n"})


async def preview(request: Request) -> Response:
    """`POST raw/preview`: what the text would come to, as a part of the page."""
    form = await form_data.read_form(request)
    return await run_in_threadpool(_preview, request, _typed(form.get("text", "")), form.get("stamp", ""))


def _preview(request: Request, text: str, mark: str) -> Response:
    now = stand()
    if not now.is_known:
        return render(request, "settings/_preview.html", **view_models.proposal_context(None), moved=False, is_raw=True)
    try:
        found = config_change.propose_text(now, text)
    except ConfigError as exc:
        failure = trouble_of(exc, text)
        shown = view_models.proposal_context(None, failure)
        return render(request, "settings/_preview.html", **shown, moved=False, is_raw=True)
    shown = view_models.proposal_context(found)
    return render(request, "settings/_preview.html", **shown, moved=mark != now.mark, is_raw=True)


def history(request: Request) -> Response:
    """`GET saves`: the last saves, what each changed, and the button that takes it back."""
    now, found = stand(), saves.saves()
    since = saves.differences(found[0].after, masked(now.text)) if found else []
    shown: dict[str, Any] = {"saves": found, "since": since, "kept": saves.KEPT, "said": form_data.said(request)}
    return render(request, "settings/saves.html", now=now, **shown)


async def restore(request: Request) -> Response:
    """`POST saves/{id}/restore`: put journal.json back to how it stood before a save."""
    form = await form_data.read_form(request)
    stamp = stamp_from(form.get("stamp", ""))
    return await run_in_threadpool(_restore, request, request.path_params["id"], stamp)


def _restore(request: Request, name: str, stamp: tuple[int, int, int]) -> Response:
    save = saves.find(name)
    _, missing = saves.restore(save, expected=stamp, known=config_change.known_or_none())
    words = f"Put back to how it stood before: {save.what}."
    if missing:
        lost = ", ".join(".".join(map(str, path)) for path in missing)
        return form_data.go(request, f"{words} Secrets are not kept: set {lost} again.", to=_SAVES, kind="warn")
    return form_data.go(request, words, to=_SAVES)


_SAVES = f"{form_data.HOME}saves"


def to_saves(_request: Request) -> Response:
    """`GET saves/{id}/restore`: where a browser lands that asks again for the page after an error."""
    return RedirectResponse(_SAVES)
