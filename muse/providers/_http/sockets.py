"""Sockets whose waits are bounded as a whole: looking a name up, connecting, the TLS handshake; no HTTP here."""

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
    """The addresses of a host, looked up in a thread of its own.

    The system's resolver takes no time limit: whoever waits may go on without it. The thread is a daemon, so that a
    resolver that hangs holds neither an event loop's end nor the process's.
    """
    future: Future[Found] = Future()
    if _is_address(host):
        future.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
        return future

    future.set_running_or_notify_cancel()  # from here on it cannot be cancelled under the thread

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
    """A connection to a host, by the first of its addresses that answers.

    `left_s` says how many seconds are left (None: any); an address that does not answer takes its share of them.

    Raises:
        OSError: none can be reached, or there is no such host.
        TimeoutError: the time is over.
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
    """What a transport needs of a connected socket."""

    def settimeout(self, seconds: float | None, /) -> None: ...
    def sendall(self, data: bytes, /) -> None: ...
    def recv(self, count: int, /) -> bytes: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


def secured(below: BufferedSocket, tls: ssl.SSLContext, host: str, left_s: float | None) -> BufferedSocket:
    """The connection with TLS upon it, which may have TLS already; it is closed with whatever is raised.

    Raises:
        OSError: the handshake failed, or took longer than `left_s` seconds.
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
    """TLS to a server within the TLS to a proxy, which `ssl` cannot do with sockets alone."""

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
        """The outcome of a step of TLS, with the bytes carried that it asks for; all of it within the time set."""
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
        """Send what TLS has ready, and set what is left of the time."""
        left_s = None if end_s is None else end_s - time.monotonic()
        if left_s is not None and left_s <= 0:
            raise TimeoutError("the time ran out within TLS")
        self._below.settimeout(left_s)
        if self._to_send.pending:
            self._below.sendall(self._to_send.read())


def share(until_s: float, places: int) -> float:
    """The seconds until a moment of monotonic time, divided among so many addresses."""
    return max(until_s - time.monotonic(), 0.0) / places
