"""The choice of a proxy for an address by the environment.

Entry point: `proxy_for`.

The rules are those of `urllib.request` (`http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` in lower or upper case,
the system's own settings on macOS and Windows). `no_proxy` may also have `*` among other entries, and addresses and
networks (`10.0.0.0/8`, `::1`).
"""

from __future__ import annotations

import os
from base64 import b64encode
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from msgspec import Struct

from muse.types.errors import ConfigError

_LOWER = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
# The variables that decide. REQUEST_METHOD is one, since urllib ignores HTTP_PROXY in a CGI program.
VARIABLES = (*_LOWER, *(name.upper() for name in _LOWER), "REQUEST_METHOD")
PORTS = {"http": 80, "https": 443}
_EXPECTED = "http://host:port or https://host:port, or the host of the call in NO_PROXY"


class Proxy(Struct, frozen=True):
    """A proxy, the variable that names it, and its Proxy-Authorization value, which `repr` does not show."""

    variable: str
    host: str
    port: int
    authorization: bytes = b""
    scheme: str = "http"

    def __repr__(self) -> str:
        return f"Proxy({self.variable}: {self.scheme}://{self.host}:{self.port})"


def proxy_for(scheme: str, host: str, port: int) -> Proxy | None:
    """Return the proxy that the environment names for an address now; None to connect directly.

    Raises:
        ConfigError: The environment names a proxy that cannot be used, such as a SOCKS proxy.
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
    """Return the name of the variable that has this value."""
    names = (f"{scheme}_proxy", f"{scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY")
    return next((name for name in names if os.environ.get(name) == address), f"the system's proxy for {scheme}")


def _parsed(address: str, variable: str) -> Proxy:
    """Parse a proxy's address.

    Raises:
        ConfigError: The address cannot be used. The text does not quote it, since it may hold a password.
    """
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise ConfigError(variable, "a proxy's address that cannot be read", _EXPECTED) from exc
    if parts.scheme not in PORTS:
        raise ConfigError(variable, f"a proxy with the scheme {parts.scheme[:16]!r}", _EXPECTED)
    if not host or port == 0 or not host.isascii() or any(sign <= " " for sign in host):
        raise ConfigError(variable, "a proxy's address without a usable host and port", _EXPECTED)
    authorization = b""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = b"Basic " + b64encode(pair.encode())
    return Proxy(variable, host, port or PORTS[parts.scheme], authorization, parts.scheme)


def is_loopback(host: str) -> bool:
    """Return True if a host's name or address means this machine."""
    if host.lower().rstrip(".") == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
