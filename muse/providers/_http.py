"""The HTTP clients beneath the SDKs: one TLS context, connections that stay open, a deadline on every read; no SDK here.

Three measured facts stand behind this file. Loading the certificates is nearly all that a client costs, so they are loaded
once. The SDKs drop idle connections after 5 s, so a call after a pause pays a new handshake: 300 s here. A read timeout
alone lets a server that drips a byte now and then hold a call for ever, so each read is given what is left of the call.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from urllib.request import getproxies

import httpcore2
import httpx2

from muse.policies.deadline import wait_s

Response = httpx2.Response
KEEP_ALIVE_S = 300.0
_CONNECT_S = 10.0
# One event of a stream may carry a whole picture.
_READ_BUFFER = 4 * 1024 * 1024


class _LimitedStream(httpcore2.NetworkStream):
    """A network stream whose reads and writes end with the call."""

    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, wait_s(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, wait_s(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return _LimitedStream(self._stream.start_tls(ssl_context, server_hostname, wait_s(timeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _LimitedBackend(httpcore2.SyncBackend):
    """Opens connections whose waits end with the call."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        stream = super().connect_tcp(host, port, wait_s(timeout), local_address, socket_options)
        return _LimitedStream(stream)


@lru_cache(maxsize=1)
def tls_context() -> ssl.SSLContext:
    """The one TLS context of the process."""
    return httpx2.create_ssl_context()


def sync_client() -> httpx2.Client:
    """A client for one provider and key; safe to use from several threads."""
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=KEEP_ALIVE_S)
    timeout = httpx2.Timeout(None, connect=_CONNECT_S)
    if getproxies():  # the environment names a proxy: httpx2 knows how to go through it
        return httpx2.Client(limits=limits, timeout=timeout, verify=tls_context(), follow_redirects=True)
    transport = httpx2.HTTPTransport(verify=tls_context(), limits=limits)
    transport._pool = httpcore2.ConnectionPool(
        ssl_context=tls_context(),
        max_connections=None,
        max_keepalive_connections=None,
        keepalive_expiry=KEEP_ALIVE_S,
        network_backend=_LimitedBackend(),
    )
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
    return aiohttp.ClientSession(connector=connector, trust_env=True, read_bufsize=_READ_BUFFER)
