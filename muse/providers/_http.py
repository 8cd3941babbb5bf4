"""The HTTP clients beneath the SDKs: one TLS context, connections that stay open, a deadline on every read; no SDK here.

Three measured facts stand behind this file. Loading the certificates is nearly all that a client costs, so they are loaded
once. The SDKs drop idle connections after 5 s, so a call after a pause pays a new handshake: 300 s here. A read timeout
alone lets a server that drips a byte now and then hold a call for ever, so each read is given what is left of the call.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable
from contextvars import ContextVar
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeVar
from urllib.request import getproxies

import httpx2

from muse.providers._transport import Transport

_T = TypeVar("_T")
Response = httpx2.Response
KEEP_ALIVE_S = 300.0
_CONNECT_S = 10.0
# One event of a stream may carry a whole picture.
_READ_BUFFER = 4 * 1024 * 1024


@lru_cache(maxsize=1)
def tls_context() -> ssl.SSLContext:
    """The one TLS context of the process."""
    return httpx2.create_ssl_context()


def sync_client() -> httpx2.Client:
    """A client for one provider and key; safe to use from several threads."""
    timeout = httpx2.Timeout(None, connect=_CONNECT_S)
    if getproxies():  # the environment names a proxy: httpx2 knows how to go through it
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=KEEP_ALIVE_S)
        return httpx2.Client(limits=limits, timeout=timeout, verify=tls_context(), follow_redirects=True)
    transport = Transport(tls_context(), KEEP_ALIVE_S)
    return httpx2.Client(transport=transport, timeout=timeout, follow_redirects=True)


def async_client(sdk: Any) -> httpx2.AsyncClient:
    """A client for one provider, key and event loop, over the SDK's own aiohttp transport where aiohttp is installed.

    aiohttp stays flat from 50 to 500 calls in flight; httpx2's own pool walks all its connections for each. To aiohttp,
    0 connections mean no bound of its own.
    """
    if find_spec("aiohttp") is None:
        limits = httpx2.Limits(max_connections=None, keepalive_expiry=KEEP_ALIVE_S)
        return httpx2.AsyncClient(limits=limits, verify=tls_context(), follow_redirects=True)
    limits = httpx2.Limits(max_connections=0, keepalive_expiry=KEEP_ALIVE_S)
    client: httpx2.AsyncClient = sdk.DefaultAioHttpClient(limits=limits, verify=tls_context())
    return client


def aiohttp_session() -> Any:
    """An aiohttp session for one key and event loop, for an SDK that takes one."""
    aiohttp = import_module("aiohttp")
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S, ssl=tls_context())
    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(_note)
    return aiohttp.ClientSession(connector=connector, trust_env=True, read_bufsize=_READ_BUFFER, trace_configs=[trace])


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
