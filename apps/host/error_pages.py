"""Errors as answers: a page, a fragment for htmx, or JSON for paths with /api/; it knows no app."""

from __future__ import annotations

import errno
import logging
import os
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apps.host.templating import render
from muse.errors import AgentError, ConfigError, LimitError, MuseError, ProviderError, ReplyError
from muse.journal.config_loader import ConflictError

log = logging.getLogger(__name__)

OUR_FAULT = "Something went wrong; the server's log has it."
_UNWRITABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT})
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (ConflictError, 409),
    (LimitError, 429),
    (ProviderError, 502),
    (ReplyError, 502),
    (AgentError, 502),
    (MuseError, 400),
    (FileNotFoundError, 404),
)


def answer(
    request: Request, status: int, detail: str, *, headers: dict[str, str] | None = None, **more: Any
) -> Response:
    """An error in the form that whoever asked can read; `more` are further fields of the JSON."""
    response: Response
    if wants_json(request):
        response = JSONResponse({"error": detail, **more}, status)
    elif request.headers.get("HX-Request") == "true":
        response = render(request, "_notice.html", status, text=detail, kind="bad")
    else:
        response = render(request, "error.html", status, code=status, title=_title(status), detail=detail)
    response.headers.update(headers or {})
    response.headers["Cache-Control"] = "no-store"
    return response


def wants_json(request: Request) -> bool:
    """Whether a program asks: an address with /api/, or one that accepts JSON and no HTML."""
    accept = request.headers.get("Accept", "")
    return "/api/" in request.url.path or ("application/json" in accept and "text/html" not in accept)


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


async def on_http_error(request: Request, exc: Exception) -> Response:
    """What an endpoint refuses by `HTTPException(status, detail=...)`."""
    if not isinstance(exc, HTTPException):
        raise exc
    detail = exc.detail
    if exc.status_code == 404 and detail == HTTPStatus.NOT_FOUND.phrase:
        detail = f"There is no page at {request.url.path}."
    return answer(request, exc.status_code, detail, headers=dict(exc.headers or {}))


async def on_known_error(request: Request, exc: Exception) -> Response:
    """An error of muse, or a file that is not there, with its own words."""
    status = next((status for kind, status in _STATUS if isinstance(exc, kind)), 500)
    more: dict[str, Any] = {"path": exc.path} if isinstance(exc, ConfigError) else {}
    log.info("%s %r: %s", request.method, request.url.path, exc)
    is_systems = isinstance(exc, OSError) and exc.errno is not None
    return answer(request, status, f"{_file_of(exc)}: not found" if is_systems else str(exc), **more)


async def on_system_error(request: Request, exc: Exception) -> Response:
    """A journal that cannot be written, which is to be mended outside; what else the system says is not expected."""
    if not isinstance(exc, OSError) or exc.errno not in _UNWRITABLE:
        raise exc
    log.error("%s %r: %s", request.method, request.url.path, exc)
    detail = f"{_file_of(exc)}: {exc.strerror}. See that the journal can be written to and that its disk has space."
    return answer(request, 503, detail)


def _file_of(exc: Exception) -> str:
    """The file that an error of the system is about, without its folder, which is nobody's business."""
    name = exc.filename if isinstance(exc, OSError) else None
    return os.path.basename(os.fsdecode(name).rstrip(os.sep)) if isinstance(name, str | bytes) else "a file"


HANDLERS: dict[Any, Any] = {
    HTTPException: on_http_error,
    MuseError: on_known_error,
    FileNotFoundError: on_known_error,
    OSError: on_system_error,
}


class Refuge:
    """The edge: what nobody expected goes to the log with its trace, and to the browser as one sentence."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        started = False

        async def noting(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            await self._app(scope, receive, noting)
        except (HTTPException, MuseError) as exc:  # of what stands around the endpoints; theirs are answered within
            if started:
                raise
            handler = on_http_error if isinstance(exc, HTTPException) else on_known_error
            response = await handler(Request(scope), exc)
            await response(scope, receive, send)
        except ClientDisconnect:
            log.debug("%s %r: the browser left before it had sent all", scope["method"], scope["path"])
        except Exception:
            if started:
                raise  # the server logs it, and breaks the connection off
            log.exception("%s %r failed", scope["method"], scope["path"])
            response = answer(Request(scope), 500, OUR_FAULT)
            await response(scope, receive, send)
