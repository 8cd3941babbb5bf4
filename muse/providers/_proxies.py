"""Which proxy the environment names for an address; it opens no connection.

The rules are those of `urllib.request` (`http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` in lower or upper case,
the system's own settings on macOS and Windows). `no_proxy` may in addition have `*` among other entries, and addresses
and networks (`10.0.0.0/8`, `::1`).
"""

from __future__ import annotations

import os
from base64 import b64encode
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2
from msgspec import Struct

from muse.errors import ConfigError

_LOWER = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_VARIABLES = (*_LOWER, *(name.upper() for name in _LOWER), "REQUEST_METHOD")
_PORTS = {"http": 80, "https": 443}
_EXPECTED = "http://host:port, or the host of the call in NO_PROXY"


class Proxy(Struct, frozen=True):
    """A proxy, the variable that names it, and the value of Proxy-Authorization for it; that stays out of `repr`."""

    variable: str
    host: str
    port: int
    authorization: bytes = b""

    def __repr__(self) -> str:
        return f"Proxy({self.variable}: http://{self.host}:{self.port})"


class Destination(Struct, frozen=True):
    """Where a connection leads, and through which proxy."""

    scheme: str
    host: str
    port: int
    proxy: Proxy | None = None

    @property
    def netloc(self) -> str:
        """Host and port, as CONNECT names them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def first_hop(self) -> tuple[str, int]:
        """Host and port to connect to."""
        return (self.proxy.host, self.proxy.port) if self.proxy else (self.host, self.port)

    def connect_bytes(self) -> bytes:
        """The request for a tunnel."""
        netloc = self.netloc.encode("ascii")
        said = self.proxy.authorization if self.proxy else b""
        authorization = b"Proxy-Authorization: %s\r\n" % said if said else b""
        return b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n" % (netloc, netloc, authorization)

    def may_do_without_tunnel(self, status: int) -> bool:
        """Whether requests may go to a proxy that refused a tunnel with this status: nothing leaves this machine."""
        is_here = self.proxy is not None and is_loopback(self.proxy.host) and is_loopback(self.host)
        return is_here and self.scheme == "http" and status in (400, 403, 404, 405, 501)

    def refusal(self, status: int) -> Exception:
        """The error for a proxy that refused a tunnel with this status."""
        variable = self.proxy.variable if self.proxy else ""
        found = f"a proxy that answers {status} to CONNECT {self.netloc}"
        if status == 407:
            return ConfigError(variable, found, "http://user:password@host:port with the right user and password")
        if status >= 500 and status != 501:
            return httpx2.ProxyError(f"{variable}: found {found}")
        return ConfigError(variable, found, f"a proxy that opens a tunnel there, or {self.host} in NO_PROXY")


def destination(url: httpx2.URL) -> Destination:
    """Where a request to this address goes now.

    Raises:
        ConfigError: the environment names a proxy that cannot be used.
        httpx2.UnsupportedProtocol: it is no http address.
    """
    scheme, host = url.scheme, url.raw_host.decode("ascii")
    if scheme not in _PORTS:
        raise httpx2.UnsupportedProtocol(f"found an address with the scheme {scheme!r}, expected http or https")
    port = url.port or _PORTS[scheme]
    get = os.environ.get
    return _destination(tuple([get(name) for name in _VARIABLES]), scheme, host, port)


@lru_cache(maxsize=1024)
def _destination(_values: tuple[str | None, ...], scheme: str, host: str, port: int) -> Destination:
    """The decision for these values of the variables."""
    return Destination(scheme, host, port, proxy_for(scheme, host, port))


def proxy_for(scheme: str, host: str, port: int) -> Proxy | None:
    """The proxy that the environment names for an address now; None: connect directly.

    Raises:
        ConfigError: it names one that cannot be used, such as a SOCKS proxy.
    """
    proxies = getproxies()
    address = proxies.get(scheme) or proxies.get("all")
    if not address or _is_exempt(host, port, proxies.get("no", "")):
        return None
    return _parsed(address, _variable_of(address, scheme))


def _is_exempt(host: str, port: int, listed: str) -> bool:
    entries = [entry.strip().lower().lstrip(".") for entry in listed.split(",")]
    if "*" in entries or host.lower() in entries:
        return True
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if f"[{host.lower()}]" in entries or place.lower() in entries or proxy_bypass(place):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in map(_network, entries) if network is not None)


def _network(entry: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(entry, strict=False)
    except ValueError:
        return None


def _variable_of(address: str, scheme: str) -> str:
    """The variable that has this value."""
    names = (f"{scheme}_proxy", f"{scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY")
    return next((name for name in names if os.environ.get(name) == address), f"the system's proxy for {scheme}")


def _parsed(address: str, variable: str) -> Proxy:
    """A proxy's address; it may hold a password, so it is quoted in no error."""
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise ConfigError(variable, "a proxy's address that cannot be read", _EXPECTED) from exc
    if parts.scheme != "http":
        raise ConfigError(variable, f"a proxy with the scheme {parts.scheme[:16]!r}", _EXPECTED)
    if not host or port == 0 or not host.isascii() or any(sign <= " " for sign in host):
        raise ConfigError(variable, "a proxy's address without a usable host and port", _EXPECTED)
    authorization = b""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = b"Basic " + b64encode(pair.encode())
    return Proxy(variable, host, port or _PORTS["http"], authorization)


def is_loopback(host: str) -> bool:
    """Whether a host's name or address means this machine."""
    if host.lower().rstrip(".") == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
