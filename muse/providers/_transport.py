"""HTTP/1.1 of the standard library as an httpx2 transport: connections are kept, each wait is bounded; no SDK here.

A call over `http.client` takes a fifth less CPU time than over httpx2's own pool (docs/BENCHMARKS.md). httpx2 asks of a
transport that it answer a request and raise httpx2's errors; redirects, decoding and what the SDK does stay as they are.
"""

from __future__ import annotations

import io
import select
import socket
import ssl
import sys
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Literal

import httpx2

from muse.policies.deadline import wait_s

_PIECE_BYTES = 65_536
_EXTENSIONS = {"http_version": b"HTTP/1.1"}
_Origin = tuple[str, str, int | None]


class Transport(httpx2.BaseTransport):
    """Answers requests over kept connections; safe to use from several threads."""

    def __init__(self, tls: ssl.SSLContext, keep_alive_s: float) -> None:
        self._tls = tls
        self._keep_alive_s = keep_alive_s
        self._idle: defaultdict[_Origin, deque[_Connection]] = defaultdict(deque)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and read its answer; a body of unknown length is left to whoever iterates it."""
        url = request.url
        origin = (url.scheme, url.raw_host.decode("ascii"), url.port)
        timeouts = request.extensions.get("timeout", {})
        connection = self._kept(origin) or _connected(origin, self._tls, timeouts.get("connect"))
        connection.wire.timeout_s = timeouts.get("read")
        try:
            answer = connection.ask(request)
            content = answer.read() if answer.length is not None else None
        except (OSError, HTTPException) as exc:
            connection.close()
            raise _error(exc) from exc
        headers = answer.getheaders()
        if content is None:
            body = _Body(answer, connection, self._idle[origin])
            return httpx2.Response(answer.status, headers=headers, stream=body, extensions=_EXTENSIONS)
        connection.end(answer, self._idle[origin])
        return httpx2.Response(answer.status, headers=headers, content=content, extensions=_EXTENSIONS)

    def close(self) -> None:
        """Close the connections that no call is using."""
        for idle in self._idle.values():
            while idle:
                idle.pop().close()

    def _kept(self, origin: _Origin) -> _Connection | None:
        """The connection used last, if it is young enough and the server has not closed it."""
        idle = self._idle[origin]
        while True:
            try:
                connection = idle.pop()
            except IndexError:
                return None
            if time.monotonic() - connection.used_s < self._keep_alive_s and not connection.wire.is_readable():
                return connection
            connection.close()


class _Connection:
    """A connection of `http.client` and the socket beneath it."""

    __slots__ = ("_http", "used_s", "wire")

    def __init__(self, http: HTTPConnection, wire: _Wire) -> None:
        self._http = http
        self.wire = wire
        self.used_s = 0.0

    def ask(self, request: httpx2.Request) -> HTTPResponse:
        """Send the request; the answer with its head read."""
        target = request.url.raw_path.decode("ascii")
        chunked = "transfer-encoding" in request.headers
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.raw}
        self._http.request(request.method, target, request.read(), headers, encode_chunked=chunked)
        return self._http.getresponse()

    def end(self, answer: HTTPResponse, idle: deque[_Connection]) -> None:
        """The answer is read: keep the connection, if the server does."""
        answer.close()
        if self._http.sock is not None:
            self.used_s = time.monotonic()
            idle.append(self)

    def close(self) -> None:
        """Hang up."""
        self._http.close()


class _Wire:
    """A connected socket as `http.client` uses one; each wait ends with the call, however little arrives each time."""

    __slots__ = ("_socket", "timeout_s")

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self.timeout_s: float | None = None

    def sendall(self, data: bytes) -> None:
        self._socket.settimeout(wait_s(self.timeout_s))
        self._socket.sendall(data)

    def makefile(self, mode: Literal["rb"]) -> io.BufferedReader:
        return io.BufferedReader(_Reads(self, self._socket.makefile(mode, buffering=0)))

    def await_more(self) -> None:
        """Bound the next read."""
        self._socket.settimeout(wait_s(self.timeout_s))

    def close(self) -> None:
        self._socket.close()

    def is_readable(self) -> bool:
        """Whether something waits to be read: on an idle connection, that the server has closed it."""
        if sys.platform == "win32":
            return bool(select.select([self._socket], [], [], 0)[0])
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))


class _Reads(io.RawIOBase):
    """The reading side of a wire."""

    def __init__(self, wire: _Wire, raw: Any) -> None:
        self._wire = wire
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._wire.await_more()
        count: int | None = self._raw.readinto(buffer)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Body(httpx2.SyncByteStream):
    """The body of an answer; read to its end, its connection goes back among the idle ones."""

    def __init__(self, answer: HTTPResponse, connection: _Connection, idle: deque[_Connection]) -> None:
        self._answer = answer
        self._connection = connection
        self._idle = idle
        self._is_over = False

    def __iter__(self) -> Iterator[bytes]:
        try:
            while piece := self._answer.read1(_PIECE_BYTES):
                yield piece
        except (OSError, HTTPException) as exc:
            raise _error(exc) from exc
        self._is_over = True

    def close(self) -> None:
        if self._is_over:
            self._connection.end(self._answer, self._idle)
        else:
            self._answer.close()
            self._connection.close()


def _connected(origin: _Origin, tls: ssl.SSLContext, timeout_s: float | None) -> _Connection:
    """A new connection."""
    scheme, host, port = origin
    wait = wait_s(timeout_s)
    secure = scheme == "https"
    http = (
        HTTPSConnection(host, port, timeout=wait, context=tls) if secure else HTTPConnection(host, port, timeout=wait)
    )
    try:
        http.connect()
    except TimeoutError as exc:
        raise httpx2.ConnectTimeout(str(exc)) from exc
    except OSError as exc:
        raise httpx2.ConnectError(str(exc)) from exc
    wire: Any = _Wire(http.sock)
    http.sock = wire
    return _Connection(http, wire)


def _error(exc: OSError | HTTPException) -> httpx2.TransportError:
    """What httpx2 calls an error of a connection that was there."""
    if isinstance(exc, TimeoutError):
        return httpx2.ReadTimeout(str(exc))
    if isinstance(exc, HTTPException):
        return httpx2.RemoteProtocolError(str(exc) or type(exc).__name__)
    return httpx2.ReadError(str(exc))
