"""Sockets whose waits are bounded as a whole: looking a name up, connecting, the TLS handshake; no HTTP here."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from ipaddress import ip_address
from typing import Any

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


def secured(plain: socket.socket, tls: ssl.SSLContext, host: str, left_s: float | None) -> ssl.SSLSocket:
    """The connection with TLS upon it; it is closed with whatever is raised.

    Raises:
        OSError: the handshake failed, or took longer than `left_s` seconds.
    """
    try:
        plain.settimeout(left_s)
        return tls.wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise


def share(until_s: float, places: int) -> float:
    """The seconds until a moment of monotonic time, divided among so many addresses."""
    return max(until_s - time.monotonic(), 0.0) / places
