"""Signing in and out, and the gate before every page where a password is asked; it knows no hash and no file."""

from __future__ import annotations

import ipaddress
import logging
import math
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apps.host.error_pages import answer, wants_json
from apps.host.security.password import SignIns, Tries, is_right, kept_hash
from apps.host.templating import came_from, here, own_path, render
from muse.errors import ConfigError

log = logging.getLogger(__name__)

LOGIN, LOGOUT = "/login", "/logout"
EVENTS = "text/event-stream"
MOST_BODY_BYTES = 30_000  # who sends it is not known yet; the longest password takes 12,000, quoted

_KEY = "signed_in"
_NO_CHECK = "The password cannot be checked; the server's log says why."
_OPEN = frozenset({LOGIN, "/favicon.ico"})


class _SignedOutError(Exception):
    """Ends a stream whose session has ended."""


class Lock:
    """Lets only those through who are signed in; to others it shows where to sign in."""

    def __init__(self, app: ASGIApp, sign_ins: SignIns) -> None:
        self._app = app
        self._sign_ins = sign_ins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = scope["session"].get(_KEY)
        scope["signed_in"] = self._holds(name)
        if scope["signed_in"]:
            await self._serve(scope, receive, send, name)
        elif scope["path"] in _OPEN or scope["path"].startswith("/static/"):
            await self._app(scope, receive, send)
        else:
            await _turned_away(Request(scope))(scope, receive, send)

    def _holds(self, name: object) -> bool:
        try:
            return self._sign_ins.holds(name, kept_hash())
        except ConfigError as exc:
            log.error("nobody can sign in: %s", exc)
            return False

    async def _serve(self, scope: Scope, receive: Receive, send: Send, name: object) -> None:
        """Serve a session, and no longer than it lasts: a stream of events ends with it.

        Any other answer is sent whole: a browser would take the part of a script for all of it, and keep it.
        """
        is_stream = False

        async def while_signed_in(message: Message) -> None:
            nonlocal is_stream
            if message["type"] == "http.response.start":
                is_stream = Headers(raw=message["headers"]).get("Content-Type", "").startswith(EVENTS)
            is_over = is_stream and message.get("more_body", False) and not self._holds(name)
            await send({"type": "http.response.body"} if is_over else message)
            if is_over:
                raise _SignedOutError

        try:
            await self._app(scope, receive, while_signed_in)
        except _SignedOutError:
            log.debug("%r: ended with its session", scope["path"])


def _turned_away(request: Request) -> Response:
    if wants_json(request):
        return answer(request, 401, f"Sign in first, at {LOGIN}.")
    if request.headers.get("HX-Request") == "true":
        return answer(request, 401, "Sign in again.", headers={"HX-Redirect": LOGIN})
    wanted = here(request) if request.method == "GET" else came_from(request)
    return RedirectResponse(f"{LOGIN}?next={quote(wanted)}", 303)


def routes(sign_ins: SignIns, tries: Tries) -> list[BaseRoute]:
    """The routes of signing in and out."""

    async def show(request: Request) -> Response:
        return render(request, "login.html", next=_next(request.query_params.get("next")), problem="")

    async def sign_in(request: Request) -> Response:
        form = await request.form(max_files=0, max_fields=10)
        given, wanted = form.get("password"), _next(form.get("next"))
        address = _address(request)
        wait_s = tries.begin(address)
        if wait_s > 0:
            seconds = math.ceil(wait_s)
            problem = f"Too many failed tries: wait {seconds} s, then try again."
            response = render(request, "login.html", 429, next=wanted, problem=problem)
            response.headers["Retry-After"] = str(seconds)
            return response
        try:
            passes = isinstance(given, str) and await run_in_threadpool(is_right, given)
        except ConfigError as exc:
            log.error("nobody can sign in: %s", exc)
            return render(request, "login.html", 503, next=wanted, problem=_NO_CHECK)
        if not passes:
            return render(request, "login.html", 403, next=wanted, problem="This is not the password.")
        tries.passed(address)
        request.session.clear()  # a new session gets a new CSRF token too
        request.session[_KEY] = sign_ins.add(kept_hash())
        return RedirectResponse(wanted, 303)

    async def sign_out(request: Request) -> Response:
        sign_ins.end(request.session.get(_KEY))
        request.session.clear()
        return RedirectResponse(LOGIN, 303)

    return [
        Route(LOGIN, show, methods=["GET"]),
        Route(LOGIN, sign_in, methods=["POST"]),
        Route(LOGOUT, sign_out, methods=["POST"]),
    ]


def _next(wanted: object) -> str:
    """Where to go on to after the gate, which is not the gate again."""
    path = own_path(wanted)
    return "/" if path.partition("?")[0] == LOGIN else path


def _address(request: Request) -> str:
    """Who tries: an address, for IPv6 its /64, which one household or machine has to itself.

    "" for this machine: a proxy for everybody may stand there, and one stranger must not lock out the others.
    """
    host = request.client.host if request.client else ""
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        return host
    if parsed.is_loopback:
        return ""
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return host
