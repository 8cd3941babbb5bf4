"""The destination of a connection: scheme, host and port, and the proxy to go through.

Entry point: `destination`.
"""

from __future__ import annotations

import os
from functools import lru_cache

import httpx2
from msgspec import Struct

from muse.providers._http.proxies import PORTS, VARIABLES, Proxy, is_loopback, proxy_for
from muse.types.errors import ConfigError


class Destination(Struct, frozen=True):
    """The server that a connection leads to, and its proxy."""

    scheme: str
    host: str
    port: int
    proxy: Proxy | None = None

    @property
    def netloc(self) -> str:
        """Return host and port in the form that CONNECT uses."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def first_hop(self) -> tuple[str, int]:
        """Return the host and port to connect to."""
        return (self.proxy.host, self.proxy.port) if self.proxy else (self.host, self.port)

    def connect_bytes(self) -> bytes:
        """Return the bytes of the request for a tunnel."""
        netloc = self.netloc.encode("ascii")
        said = self.proxy.authorization if self.proxy else b""
        authorization = b"Proxy-Authorization: %s\r\n" % said if said else b""
        return b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n" % (netloc, netloc, authorization)

    def may_do_without_tunnel(self, status: int) -> bool:
        """Return True if requests may be sent without a tunnel to a proxy that refused one with this status.

        That needs proxy and server on this machine, so that nothing leaves it.
        """
        is_here = self.proxy is not None and is_loopback(self.proxy.host) and is_loopback(self.host)
        return is_here and self.scheme == "http" and status in (400, 403, 404, 405, 501)

    def unreachable(self, exc: OSError) -> httpx2.ConnectError:
        """Return the error for a connection that failed; it says so if that was the connection to a proxy."""
        if self.proxy is None:
            return httpx2.ConnectError(str(exc))
        return httpx2.ConnectError(f"{exc} (through the proxy that {self.proxy.variable} names)")

    def refusal(self, status: int) -> Exception:
        """Return the error for a proxy that refused a tunnel with this status."""
        variable = self.proxy.variable if self.proxy else ""
        found = f"a proxy that answers {status} to CONNECT {self.netloc}"
        if status == 407:
            return ConfigError(variable, found, "http://user:password@host:port with the right user and password")
        if status >= 500 and status != 501:
            return httpx2.ProxyError(f"{variable}: found {found}")
        return ConfigError(variable, found, f"a proxy that opens a tunnel there, or {self.host} in NO_PROXY")


def destination(url: httpx2.URL) -> Destination:
    """Return where a request to this address goes now.

    Raises:
        ConfigError: The environment names a proxy that cannot be used.
        httpx2.UnsupportedProtocol: The address is not HTTP.
    """
    scheme, host = url.scheme, url.raw_host.decode("ascii")
    if scheme not in PORTS:
        raise httpx2.UnsupportedProtocol(f"found an address with the scheme {scheme!r}, expected http or https")
    port = url.port or PORTS[scheme]
    get = os.environ.get
    return _destination(tuple([get(name) for name in VARIABLES]), scheme, host, port)


@lru_cache(maxsize=1024)
def _destination(_values: tuple[str | None, ...], scheme: str, host: str, port: int) -> Destination:
    """Return the destination for these values of the variables, which are part of the cache key."""
    return Destination(scheme, host, port, proxy_for(scheme, host, port))
