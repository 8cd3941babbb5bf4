"""What a form or a program sends, read and bounded, and what is said on the next page; it knows no setting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from muse.errors import ConfigError
from muse.journal.config import parse_json

HOME = "/app/settings/"
# All of journal.json comes as one field, in which a character may be three bytes and more.
MOST_BODY_BYTES = 4_000_000
_SAID = "settings_said"
_LONGEST_SAID = 400


async def read_form(request: Request) -> Mapping[str, str]:
    """The text fields of a form; of a name that is there twice, the last.

    Raises:
        HTTPException: 400, it brings a file.
    """
    found = await request.form(max_part_size=MOST_BODY_BYTES)
    files = [name for name, value in found.multi_items() if not isinstance(value, str)]
    if files:
        raise HTTPException(400, detail=f"{files[0]}: found a file, expected text")
    return {name: value for name, value in found.items() if isinstance(value, str)}


async def read_json(request: Request) -> dict[str, Any]:
    """The JSON object of a request, read as journal.json is.

    Raises:
        ConfigError: it is none, or says a key twice.
    """
    found, duplicates = parse_json(await request.body(), "body")
    for problem in duplicates:
        raise ConfigError(problem.path, problem.found, problem.allowed)
    return found


def text_of(body: Mapping[str, Any], name: str) -> str:
    """A text field of a JSON object.

    Raises:
        HTTPException: 400, it is none.
    """
    value = body.get(name)
    if not isinstance(value, str):
        raise HTTPException(400, detail=f"{name}: found {type(value).__name__}, expected text")
    return value


def whole_number_of(body: Mapping[str, Any], name: str) -> int:
    """A whole number of a JSON object.

    Raises:
        HTTPException: 400, it is none.
    """
    value = body.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise HTTPException(400, detail=f"{name}: found {type(value).__name__}, expected a whole number")
    return value


def go(request: Request, words: str, *, to: str = HOME, kind: str = "ok", can_undo: bool = False) -> Response:
    """Show another page next, which says `words` once, and whether the last saves take that back."""
    short = words if len(words) <= _LONGEST_SAID else words[: _LONGEST_SAID - 1] + "…"
    request.session[_SAID] = [short, kind, can_undo]
    return RedirectResponse(to, status_code=303)


def said(request: Request) -> tuple[str, str, bool] | None:
    """`(words, kind, whether it can be undone)` that the page before wanted said here; only once."""
    found = request.session.pop(_SAID, None)
    if isinstance(found, list) and len(found) == 3:
        return str(found[0]), str(found[1]), bool(found[2])
    return None
