"""HTTP clients beneath the SDKs: one TLS context, lasting connections, a deadline on every read; no SDK here.

Three measured facts stand behind this file. Loading the certificates is nearly all that a client costs, so they are
loaded once. The SDKs drop idle connections after 5 s, so a call after a pause pays a new handshake: 300 s here. A read
timeout alone lets a server that drips a byte now and then hold a call for ever, so each read is given what is left of
the call.
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
# What `send` may be given that changes nothing: these clients follow no redirect and know no authentication.
_UNSET = frozenset({USE_CLIENT_DEFAULT, None, False})
_CODINGS = {"Accept-Encoding": ACCEPTED.decode("ascii")}


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


def sync_client(max_bytes: int = DEFAULT_MAX_BYTES) -> httpx2.Client:
    """A client for one provider and key; safe to use from several threads.

    It follows no redirect, which could carry the key to another host, and refuses answers of more than `max_bytes`.
    """
    return _Client(transport=_http.Transport(tls_context(), KEEP_ALIVE_S, max_bytes))


def async_client(max_bytes: int = DEFAULT_MAX_BYTES) -> httpx2.AsyncClient:
    """A client for one provider, key and event loop."""
    return _AsyncClient(AsyncTransport(tls_context(), KEEP_ALIVE_S, max_bytes))


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
    """httpx2's client, which takes a whole request as it is.

    It asks for the codings that the transport undoes; proxies of the environment are the transport's affair too.
    """

    def __init__(self, transport: httpx2.BaseTransport) -> None:
        timeout = httpx2.Timeout(None, connect=_CONNECT_S)
        super().__init__(transport=transport, timeout=timeout, headers=_CODINGS, trust_env=False)

    def build_request(self, method: str, url: httpx2.URL | str, **options: Any) -> httpx2.Request:
        return _whole(self.headers, method, url, options) or super().build_request(method, url, **options)


class _AsyncClient(httpx2.AsyncClient):
    """As `_Client`, awaited; it brings a request straight to the wire.

    The client's rounds for redirects, hooks and cookies have nothing to do here, and take a twentieth of a call.
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
