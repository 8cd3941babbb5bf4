"""HTTP clients beneath the SDKs: one TLS context, lasting connections, a deadline on every read.

Entry points: `sync_client`, `async_client`.

This design has three measured reasons. Loading the certificates is nearly the whole cost of a client, so they are
loaded once. The SDKs drop idle connections after 5 s, so that a call after a pause needs a new handshake; muse keeps
them for 300 s. A server that sends a byte now and then never triggers a read timeout, so each read gets the time left
of the call.
"""

from __future__ import annotations

import os
import ssl
from functools import lru_cache
from typing import Any

import httpx2
from httpx2 import USE_CLIENT_DEFAULT

from muse.providers import _http
from muse.providers._http.async_transport import AsyncTransport
from muse.providers._http.decoding import ACCEPTED
from muse.providers._http.http1 import MEGABYTE
from muse.types.errors import ConfigError

Response = httpx2.Response
KEEP_ALIVE_S = 300.0
_CONNECT_S = 10.0
DEFAULT_MAX_BYTES = 64 * MEGABYTE
# Values of `send`'s options that change nothing: these clients follow no redirects and do no authentication.
_UNSET = frozenset({USE_CLIENT_DEFAULT, None, False})
_CODINGS = {"Accept-Encoding": ACCEPTED.decode("ascii")}


@lru_cache(maxsize=1)
def tls_context() -> ssl.SSLContext:
    """Return the one TLS context of the process.

    Raises:
        ConfigError: A variable names certificates that are missing or unreadable.
    """
    _require_certificates()
    try:
        return httpx2.create_ssl_context()
    except (OSError, ValueError) as exc:
        named = [name for name in (*_CERTIFICATES, "SSLKEYLOGFILE") if os.environ.get(name)]
        found = f"what cannot be loaded ({exc})"
        raise ConfigError(" or ".join(named) or "certificates", found, "certificates in PEM form") from exc


def _require_certificates() -> None:
    """Check that the certificates named by the environment exist, since OpenSSL ignores a missing folder.

    Raises:
        ConfigError: They do not exist.
    """
    file, folders = (os.environ.get(name) for name in _CERTIFICATES)
    if file:  # the other variable is ignored then
        if not os.path.isfile(file):
            raise ConfigError("SSL_CERT_FILE", f"{file!r}, and there is no such file", "a PEM file, or no variable")
    elif folders and not any(map(os.path.isdir, folders.split(os.pathsep))):
        found = f"{folders!r}, and there is no such folder"
        raise ConfigError("SSL_CERT_DIR", found, "a folder of certificates, or no variable")


_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def sync_client(max_bytes: int = DEFAULT_MAX_BYTES) -> httpx2.Client:
    """Return a client for one provider and key; safe to use from several threads.

    It follows no redirect, which could carry the key to another host, and refuses answers of more than `max_bytes`.
    """
    return _Client(transport=_http.Transport(tls_context(), KEEP_ALIVE_S, max_bytes))


def async_client(max_bytes: int = DEFAULT_MAX_BYTES) -> httpx2.AsyncClient:
    """Return a client for one provider, key and event loop."""
    return _AsyncClient(AsyncTransport(tls_context(), KEEP_ALIVE_S, max_bytes))


@lru_cache(maxsize=256)
def parsed(address: str) -> httpx2.URL:
    """Return a parsed address; the result is cached, since the SDKs pass the same few texts in each call."""
    return httpx2.URL(address)


def _whole(own: httpx2.Headers, method: str, url: httpx2.URL | str, options: dict[str, Any]) -> httpx2.Request | None:
    """Return the complete request that an SDK describes: address, headers and body; None if one of them is missing.

    A client would merge its `own` headers and address into the request. That takes a twelfth of a call and adds only
    the accepted encodings.
    """
    given = {name: value for name, value in options.items() if value is not None}
    headers, timeout, content = (given.pop(name, None) for name in ("headers", "timeout", "content"))
    content = content.encode() if isinstance(content, str) else content
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
    """An httpx2 client that accepts a complete request without rebuilding it.

    It requests the codings that the transport decodes. The transport also handles the proxies of the environment.
    """

    def __init__(self, transport: httpx2.BaseTransport) -> None:
        timeout = httpx2.Timeout(None, connect=_CONNECT_S)
        super().__init__(transport=transport, timeout=timeout, headers=_CODINGS, trust_env=False)

    def build_request(self, method: str, url: httpx2.URL | str, **options: Any) -> httpx2.Request:
        return _whole(self.headers, method, url, options) or super().build_request(method, url, **options)


class _AsyncClient(httpx2.AsyncClient):
    """The async counterpart of `_Client`; it passes a request straight to the transport.

    httpx2's steps for redirects, hooks and cookies have no effect here, and take a twentieth of a call.
    """

    def __init__(self, transport: AsyncTransport) -> None:
        super().__init__(transport=transport, headers=_CODINGS, trust_env=False)
        self._wire = transport

    def build_request(self, method: str, url: httpx2.URL | str, **options: Any) -> httpx2.Request:
        return _whole(self.headers, method, url, options) or super().build_request(method, url, **options)

    async def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        if not _UNSET.issuperset(options.values()) or request.url.userinfo or self.is_closed:
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
