"""HTTP clients beneath the SDKs: one TLS context, lasting connections, a deadline on every read; no SDK here.

Three measured facts stand behind this file. Loading the certificates is nearly all that a client costs, so they are
loaded once. The SDKs drop idle connections after 5 s, so a call after a pause pays a new handshake: 300 s here. A read
timeout alone lets a server that drips a byte now and then hold a call for ever, so each read is given what is left of
the call.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Awaitable
from contextvars import ContextVar
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeVar
from urllib.request import getproxies

import httpx2

from muse.errors import ConfigError
from muse.providers._pool import session
from muse.providers._transport import AsyncTransport, Transport

_T = TypeVar("_T")
_C = TypeVar("_C", httpx2.Client, httpx2.AsyncClient)
Response = httpx2.Response
KEEP_ALIVE_S = 300.0
_CONNECT_S = 10.0
# One event of a stream may carry a whole picture.
_READ_BUFFER = 4 * 1024 * 1024


@lru_cache(maxsize=1)
def tls_context() -> ssl.SSLContext:
    """The one TLS context of the process.

    Raises:
        ConfigError: a variable names certificates that are not there or cannot be read.
    """
    _require_certificates()
    try:
        return httpx2.create_ssl_context()
    except (OSError, ValueError) as exc:
        named = [name for name in (*_CERTIFICATES, "SSLKEYLOGFILE") if os.environ.get(name)]
        found = f"what cannot be loaded ({exc})"
        raise ConfigError(" or ".join(named) or "certificates", found, "certificates in PEM form") from exc


def _require_certificates() -> None:
    """See that the certificates are there that the environment names: OpenSSL says nothing of a missing folder.

    Raises:
        ConfigError: they are not.
    """
    file, folders = (os.environ.get(name) for name in _CERTIFICATES)
    if file:  # the other variable does not count then
        if not os.path.isfile(file):
            raise ConfigError("SSL_CERT_FILE", f"{file!r}, and there is no such file", "a PEM file, or no variable")
    elif folders and not any(map(os.path.isdir, folders.split(os.pathsep))):
        found = f"{folders!r}, and there is no such folder"
        raise ConfigError("SSL_CERT_DIR", found, "a folder of certificates, or no variable")


_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def sync_client() -> httpx2.Client:
    """A client for one provider and key; safe to use from several threads.

    It follows no redirect, which could carry the key to another host.
    """
    timeout = httpx2.Timeout(None, connect=_CONNECT_S)
    if getproxies():
        return _proxied(httpx2.Client, timeout=timeout)
    transport = Transport(tls_context(), KEEP_ALIVE_S)
    return _Client(transport=transport, timeout=timeout, follow_redirects=False)


def async_client() -> httpx2.AsyncClient:
    """A client for one provider, key and event loop, over aiohttp where it is installed.

    aiohttp stays flat from 50 to 500 calls in flight; httpx2's own pool walks all its connections for each.
    """
    if getproxies() or find_spec("aiohttp") is None:
        return _proxied(httpx2.AsyncClient)
    transport = AsyncTransport(_session(import_module("aiohttp")))
    return _AsyncClient(transport)


@lru_cache(maxsize=256)
def parsed(address: str) -> httpx2.URL:
    """An address; the SDKs bring the same few as text for each call."""
    return httpx2.URL(address)


def _whole(own: httpx2.Headers, method: str, url: httpx2.URL | str, options: dict[str, Any]) -> httpx2.Request | None:
    """A request as an SDK brings it, with its whole address, all its headers and its body; None where one is missing.

    A client would merge its `own` headers and address into it, which takes a twelfth of a call and adds nothing but
    what it can decompress.
    """
    given = {name: value for name, value in options.items() if value is not None}
    headers, timeout, content = (given.pop(name, None) for name in ("headers", "timeout", "content"))
    address = parsed(str(url))
    if given or not headers or not isinstance(timeout, (int, float, httpx2.Timeout)) or not isinstance(content, bytes):
        return None
    if address.is_relative_url:
        return None
    pairs = headers if isinstance(headers, list) else getattr(headers, "raw", None) or headers.items()
    told = [*pairs, (b"Accept-Encoding", own["Accept-Encoding"])]
    told += (b"Host", address.netloc), (b"Content-Length", b"%d" % len(content))
    extensions = {"timeout": httpx2.Timeout(timeout).as_dict()}
    return httpx2.Request(method, address, headers=told, stream=httpx2.ByteStream(content), extensions=extensions)


class _Client(httpx2.Client):
    """httpx2's client, which takes a whole request as it is."""

    def build_request(self, method: str, url: httpx2.URL | str, **options: Any) -> httpx2.Request:
        return _whole(self.headers, method, url, options) or super().build_request(method, url, **options)


class _AsyncClient(httpx2.AsyncClient):
    """As `_Client`, awaited; it brings a request straight to the wire.

    The client's rounds for redirects, hooks and cookies have nothing to do here, and take a twentieth of a call.
    """

    def __init__(self, transport: AsyncTransport) -> None:
        super().__init__(transport=transport, follow_redirects=False)
        self._wire = transport

    def build_request(self, method: str, url: httpx2.URL | str, **options: Any) -> httpx2.Request:
        return _whole(self.headers, method, url, options) or super().build_request(method, url, **options)

    async def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        if options or request.url.userinfo or self.is_closed:
            return await super().send(request, stream=stream, **options)
        response = await self._wire.handle_async_request(request)
        response.request = request
        if stream:
            return response
        try:
            await response.aread()
        except BaseException:
            await response.aclose()
            raise
        return response


def _proxied(kind: type[_C], **options: Any) -> _C:
    """A client that goes the way the environment's proxy variables say, the same for sync and async.

    Raises:
        ConfigError: a proxy there is not one that can be used.
    """
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=KEEP_ALIVE_S)
    try:
        return kind(limits=limits, verify=tls_context(), follow_redirects=False, **options)
    except (ImportError, ValueError, httpx2.InvalidURL) as exc:
        found = ", ".join(f"{name}_proxy" for name in sorted(getproxies()))
        raise ConfigError(found, f"a proxy that cannot be used ({exc})", "http://host:port, or no variable") from exc


def goes_through_proxy() -> bool:
    """Whether the environment names a proxy."""
    return bool(getproxies())


def aiohttp_session() -> Any:
    """An aiohttp session for one key and event loop, for an SDK that takes one; `noting` tells of its responses."""
    aiohttp = import_module("aiohttp")
    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(_note)
    return _session(aiohttp, trace)


def _session(aiohttp: Any, *traces: Any) -> Any:
    """A session for one key and event loop.

    It does not look into the environment, which takes as long as a request itself, for each; where that names a proxy,
    httpx2's clients are used. It sets no time-outs, since each call is bounded as a whole.
    """
    return session(
        aiohttp,
        keep_alive_s=KEEP_ALIVE_S,
        ssl=tls_context(),
        timeout=aiohttp.ClientTimeout(),
        read_bufsize=_READ_BUFFER,
        trace_configs=[*traces],
    )


_noted: ContextVar[list[Any] | None] = ContextVar("_noted", default=None)


async def noting(responses: list[Any], waiting: Awaitable[_T]) -> _T:
    """Await `waiting`; the responses that it opens on an `aiohttp_session` are added to `responses`."""
    mark = _noted.set(responses)
    try:
        return await waiting
    finally:
        _noted.reset(mark)


async def _note(_session: Any, _context: Any, request_end: Any) -> None:
    responses = _noted.get()
    if responses is not None:
        responses.append(request_end.response)
