"""What every request must pass: its Host, where it comes from, its size, its CSRF token; it knows no password."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import re
from collections.abc import Callable, Collection

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apps.host.error_pages import answer
from apps.host.templating import CSRF_FIELD, CSRF_HEADER

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
MOST_FILES = 50

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
_FORMS = frozenset({b"application/x-www-form-urlencoded", b"multipart/form-data"})
_CHARSETS = frozenset({b"utf-8", b"utf8"})  # others of Python's codecs raise what nobody expects, or give no text
_LAST = {"Connection": "close"}  # what more there is of the body is not read
_PATIENCE_S, _SLOWEST_BYTES_PER_S = 30.0, 10_000

CSP = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
# A link from elsewhere comes without our SameSite=Strict cookie; asked for once more by this page, it comes with it.
_ONCE_MORE = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="0">'
    '<title>One moment</title><p><a href="">Go on</a></p></html>'
)


class Guard:
    """Refuses a foreign Host or Origin, and sends the security headers with every answer."""

    def __init__(self, app: ASGIApp, hosts: Collection[str], *, any_address: bool = False) -> None:
        self._app = app
        self._hosts = frozenset(host.casefold() for host in hosts)
        self._any_address = any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                _lead_by_path(headers, scope)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused = self._refuse(Request(scope))
        if refused is not None:
            await refused(scope, receive, with_headers)
        else:
            await self._app(scope, receive, with_headers)

    def _refuse(self, request: Request) -> Response | None:
        request.scope["turned_away"] = True
        host = request.headers.get("Host", "")
        if not self._is_known(host):
            return answer(
                request, 400, f"Host: found {host!r}, expected a name of this server (muse serve --name NAME adds one)"
            )
        origin = request.headers.get("Origin")
        if origin is not None and not _is_same(origin, host):
            return answer(request, 403, f"Origin: found {origin!r}, expected this server's own pages")
        site = request.headers.get("Sec-Fetch-Site", "none")
        if site in {"same-origin", "none"}:
            request.scope["turned_away"] = False
            return None
        if request.method == "GET" and request.headers.get("Sec-Fetch-Dest") == "document":
            return HTMLResponse(_ONCE_MORE, headers={"Cache-Control": "no-store"})
        return answer(request, 403, f"Sec-Fetch-Site: found {site!r}, expected this server's own pages")

    def _is_known(self, host: str) -> bool:
        """Whether a Host header names this server; an address cannot be rebound as a name can."""
        name = host_name(host)
        return name in self._hosts or (self._any_address and _is_address(name))


def host_name(host: str) -> str:
    """The name or address in a Host header, without its port; empty if it is none.

    >>> host_name("Muse.example:443"), host_name("[::1]:5005"), host_name("a@localhost"), host_name("localhost/x")
    ('muse.example', '::1', '', '')
    """
    match = _HOST.fullmatch(host)
    return match["name"].strip("[]").casefold() if match else ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_same(origin: str, host: str) -> bool:
    """Whether an Origin header is that of the pages behind this Host header."""
    return origin.casefold() in {f"{scheme}://{host}".casefold() for scheme in ("http", "https")}


def _lead_by_path(headers: MutableHeaders, scope: Scope) -> None:
    """Lead on within this server by the path alone: behind a proxy, this server's scheme is not the browser's."""
    location = headers.get("Location", "")
    ours = f"{scope['scheme']}://{Headers(scope=scope).get('Host', '')}"
    if location.startswith(f"{ours}/") and not location.startswith(f"{ours}//"):
        headers["Location"] = location.removeprefix(ours)


class BodyBound:
    """Bounds the body of a request, by its Content-Length and again while it comes in, and the time that it takes."""

    def __init__(self, app: ASGIApp, most_bytes: Callable[[str], int]) -> None:
        self._app = app
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; `most_bytes` says for its path how much may come."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._most_bytes(scope["path"])
        declared = Headers(scope=scope).get("content-length", "0")
        if not (declared.isascii() and declared.isdigit()) or len(declared) > 15 or int(declared) > most:
            response = answer(Request(scope), 413, _too_large(most), headers=_LAST)
            await response(scope, receive, send)
            return
        received, is_whole, begun_s = 0, False, asyncio.get_running_loop().time()

        async def counted() -> Message:
            nonlocal received, is_whole
            until_s = None if is_whole else begun_s + _PATIENCE_S + received / _SLOWEST_BYTES_PER_S
            message = await _received(receive, until_s)
            received += len(message.get("body", b""))
            is_whole = is_whole or not message.get("more_body", False)
            if received > most:
                raise HTTPException(413, detail=_too_large(most), headers=_LAST)
            return message

        await self._app(scope, counted, send)


async def _received(receive: Receive, until_s: float | None) -> Message:
    try:
        async with asyncio.timeout_at(until_s):
            return await receive()
    except TimeoutError as exc:
        detail = f"The request came too slowly: expected {_SLOWEST_BYTES_PER_S:,} bytes a second or more."
        raise HTTPException(408, detail=detail, headers=_LAST) from exc


def _too_large(most: int) -> str:
    return f"The request is too large: expected {most:,} bytes at most."


class Csrf:
    """Refuses what changes something unless it bears the token of the session, as a header or as a form field."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] in SAFE_METHODS:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        given: object = request.headers.get(CSRF_HEADER)
        kind, options = parse_options_header(request.headers.get("Content-Type"))
        if kind in _FORMS and options.get(b"charset", b"utf-8").lower() not in _CHARSETS:
            await answer(request, 415, "Content-Type: expected a form in the charset utf-8.")(scope, receive, send)
            return
        if given is None and kind in _FORMS:
            given, receive = await _from_form(request)
        expected = scope["session"].get("csrf")
        if isinstance(given, str) and isinstance(expected, str) and _equal(given, expected):
            await self._app(scope, receive, send)
            return
        detail = f"{CSRF_HEADER}: the page is older than this session; reload it and repeat what you did."
        await answer(request, 403, detail)(scope, receive, send)


async def _from_form(request: Request) -> tuple[object, Receive]:
    """The token out of a form, and the body once more for the endpoint; `BodyBound` has bounded it."""
    body = await request.body()
    again = Request(request.scope, _replay(body, request.receive))
    async with again.form(max_files=MOST_FILES, max_part_size=len(body)) as form:
        return form.get(CSRF_FIELD), _replay(body, request.receive)


def _replay(body: bytes, receive: Receive) -> Receive:
    """What hands out `body` as one message, then goes on with what really comes."""
    waiting = [body]

    async def replay() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return replay


def _equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8"), expected.encode("utf-8"))
