"""Sockets with one time limit over name lookup, connecting and the TLS handshake; no HTTP.

Entry points: `look_up`, `connect`, `secured`.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from ipaddress import ip_address
from typing import Any, Protocol, TypeVar, cast

_T = TypeVar("_T")
Address = tuple[Any, ...]
Found = Sequence[tuple[int, int, int, str, Address]]


def look_up(host: str, port: int) -> Future[Found]:
    """Look up the addresses of a host in a separate thread and return a future of them.

    The system's resolver accepts no time limit, so the caller must be able to stop waiting. The thread is a daemon: a
    hanging resolver delays neither the end of an event loop nor that of the process.
    """
    future: Future[Found] = Future()
    if _is_address(host):
        future.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
        return future

    future.set_running_or_notify_cancel()  # from here on nobody can cancel it while the thread uses it

    def find() -> None:
        try:
            future.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as exc:
            future.set_exception(exc if isinstance(exc, OSError) else OSError(f"no name of a host ({exc})"))

    threading.Thread(target=find, name=f"look up {host}", daemon=True).start()
    return future


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def connect(host: str, port: int, left_s: Callable[[], float | None]) -> socket.socket:
    """Connect to a host by the first of its addresses that answers.

    Args:
        host: The host.
        port: The port.
        left_s: Returns the seconds left (None: no limit); an address that does not answer takes its share of them.

    Raises:
        OSError: No address can be reached, or there is no such host.
        TimeoutError: The time is over.
    """
    found = look_up(host, port).result(left_s())
    failure: OSError = OSError(f"no address of {host}")
    for place, (family, kind, protocol, _, address) in enumerate(found):
        left = left_s()
        connected = socket.socket(family, kind, protocol)
        try:
            connected.settimeout(None if left is None else left / (len(found) - place))
            connected.connect(address)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as exc:
            connected.close()
            failure = exc
        except BaseException:
            connected.close()
            raise
        else:
            return connected
    left_s()
    raise failure


class BufferedSocket(Protocol):
    """The methods of a connected socket that a transport uses."""

    def settimeout(self, seconds: float | None, /) -> None: ...
    def sendall(self, data: bytes, /) -> None: ...
    def recv(self, count: int, /) -> bytes: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


def secured(below: BufferedSocket, tls: ssl.SSLContext, host: str, left_s: float | None) -> BufferedSocket:
    """Return the connection with TLS on top, also if it has TLS already; any exception closes it.

    Raises:
        OSError: The handshake failed, or took longer than `left_s` seconds.
    """
    try:
        below.settimeout(left_s)
        if isinstance(below, ssl.SSLSocket):
            return _TlsWithinTls(below, tls, host)
        return tls.wrap_socket(cast(socket.socket, below), server_hostname=host)
    except BaseException:
        below.close()
        raise


class _TlsWithinTls:
    """TLS to a server inside the TLS to a proxy, which `ssl` cannot do with sockets alone."""

    def __init__(self, below: ssl.SSLSocket, tls: ssl.SSLContext, host: str) -> None:
        self._below = below
        self._timeout_s = below.gettimeout()
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = tls.wrap_bio(self._received, self._to_send, server_hostname=host)
        self._done(self._tls.do_handshake)

    def settimeout(self, seconds: float | None, /) -> None:
        self._timeout_s = seconds

    def sendall(self, data: bytes, /) -> None:
        left = memoryview(data)
        while left:
            left = left[self._done(self._tls.write, left) :]

    def recv(self, count: int, /) -> bytes:
        try:
            return self._done(self._tls.read, count)
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    def fileno(self) -> int:
        return self._below.fileno()

    def close(self) -> None:
        self._below.close()

    def _done(self, step: Callable[..., _T], *given: Any) -> _T:
        """Run a step of TLS within the time limit, transfer the bytes it needs, and return its result."""
        end_s = None if self._timeout_s is None else time.monotonic() + self._timeout_s
        while True:
            try:
                outcome = step(*given)
            except ssl.SSLWantReadError:
                self._carry(end_s)
                data = self._below.recv(65_536)
                if data:
                    self._received.write(data)
                else:
                    self._received.write_eof()
            else:
                self._carry(end_s)
                return outcome

    def _carry(self, end_s: float | None) -> None:
        """Send the bytes that TLS has ready, and set the socket's timeout to the time left."""
        left_s = None if end_s is None else end_s - time.monotonic()
        if left_s is not None and left_s <= 0:
            raise TimeoutError("the time ran out within TLS")
        self._below.settimeout(left_s)
        if self._to_send.pending:
            self._below.sendall(self._to_send.read())


def share(until_s: float, places: int) -> float:
    """Return the seconds until a moment of monotonic time, divided by the number of addresses."""
    return max(until_s - time.monotonic(), 0.0) / places
