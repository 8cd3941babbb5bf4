"""HTTP/1.1 of the standard library as an httpx2 transport: connections are kept, each wait is bounded; no SDK here.

A call over `http.client` takes a sixth less CPU time than over httpx2's own pool (docs/BENCHMARKS.md). httpx2 asks of
a transport that it answer a request and raise httpx2's errors; redirects, decoding and what the SDK does stay the same.
"""

from __future__ import annotations

import io
import select
import socket
import ssl
import sys
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterator, Mapping
from email.message import Message
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from typing import Any, Literal

import httpx2

from muse.policies.allowance import note
from muse.policies.deadline import wait_s
from muse.policies.once import may_send_again, must_be_new

_PIECE_BYTES = 65_536
# How a stream of Chat Completions says that it is over, and how long its connection is worth waiting for.
_DONE = b"data: [DONE]"
_LAST_WAIT_S = 0.1
# How a connection says that the server has closed it; `http.client` has an error of its own, which is one of these.
_HUNG_UP = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
_EXTENSIONS = {"http_version": b"HTTP/1.1"}
_Origin = tuple[str, str, int | None]


class Transport(httpx2.BaseTransport):
    """Answers requests over kept connections; safe to use from several threads."""

    def __init__(self, tls: ssl.SSLContext, keep_alive_s: float) -> None:
        self._tls = tls
        self._keep_alive_s = keep_alive_s
        self._idle: defaultdict[_Origin, deque[_Connection]] = defaultdict(deque)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and read its answer; a stream is left to whoever iterates it."""
        url = request.url
        origin = (url.scheme, url.raw_host.decode("ascii"), url.port)
        try:
            connection, answer = self._ask(origin, request)
            content = connection.read(answer) if _is_whole(answer.headers) else None
        except (OSError, HTTPException) as exc:
            raise _error(exc) from exc
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.getheaders()]
        note(headers)
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

    def _ask(self, origin: _Origin, request: httpx2.Request) -> tuple[_Connection, HTTPResponse]:
        """The answer with its head read, and its connection.

        A server may hang up a kept connection at the moment when the request is on its way. Where it has sent no byte
        of an answer, the request goes out once more, on a new connection.
        """
        kept = None if must_be_new() else self._kept(origin)
        if kept is not None:
            try:
                return kept, kept.ask(request)
            except _HUNG_UP:
                if kept.wire.has_answered or not may_send_again():
                    raise
        connection = _connected(origin, self._tls, request.extensions.get("timeout", {}).get("connect"))
        return connection, connection.ask(request)

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


class AsyncTransport(httpx2.AsyncBaseTransport):
    """Answers requests over an aiohttp session; its errors and its waits are left to whoever awaits the answer."""

    def __init__(self, session: Any) -> None:
        self._session = session

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and read its answer; a stream is left to whoever iterates it."""
        answer = await self._session.request(
            request.method,
            str(request.url),
            headers=_texts(request),
            data=await request.aread(),
            allow_redirects=False,
            auto_decompress=False,
        )
        note(answer.raw_headers)
        if _is_whole(answer.headers):
            content = await answer.read()
            return httpx2.Response(answer.status, headers=answer.raw_headers, content=content, extensions=_EXTENSIONS)
        body = _AsyncBody(answer)
        return httpx2.Response(answer.status, headers=answer.raw_headers, stream=body, extensions=_EXTENSIONS)

    async def aclose(self) -> None:
        await self._session.close()


class _AsyncBody(httpx2.AsyncByteStream):
    """The body of a streamed answer; left before its end, its connection is closed."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._answer.content.iter_any():
            yield piece

    async def aclose(self) -> None:
        self._answer.release()


def _is_whole(headers: Mapping[str, str] | Message) -> bool:
    """Whether an answer is one JSON document, with nothing in it to be had before its end."""
    return headers.get("content-type", "").startswith("application/json")


def _texts(request: httpx2.Request) -> dict[str, str]:
    """The request's headers; its own mapping looks through all of them for each."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.raw}


class _Connection:
    """A connection of `http.client` and the socket beneath it."""

    __slots__ = ("_http", "used_s", "wire")

    def __init__(self, http: HTTPConnection, wire: _Wire) -> None:
        self._http = http
        self.wire = wire
        self.used_s = 0.0

    def ask(self, request: httpx2.Request) -> HTTPResponse:
        """Send the request; the answer with its head read. The connection ends with whatever is raised."""
        target = request.url.raw_path.decode("ascii")
        chunked = "transfer-encoding" in request.headers
        self.wire.timeout_s = request.extensions.get("timeout", {}).get("read")
        self.wire.has_answered = False
        try:
            self._http.request(request.method, target, request.read(), _texts(request), encode_chunked=chunked)
            answer = self._http.getresponse()
            if self.wire.is_over:  # `http.client` takes a head without its end for a whole one
                answer.close()
                raise HTTPException("the connection ended within the head of an answer")
            return answer
        except BaseException:  # lost, interrupted, or a header that no request can hold
            self.close()
            raise

    def read(self, answer: HTTPResponse) -> bytes:
        """The whole body of an answer. The connection ends with whatever is raised."""
        try:
            return answer.read()
        except BaseException:
            self.close()
            raise

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
    """A connected socket as `http.client` uses one; each wait ends with the call, however little arrives each time.

    A request's head and body, which `http.client` sends one by one, leave in one piece when the answer is read.
    """

    __slots__ = ("_socket", "_unsent", "has_answered", "is_over", "timeout_s")

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._unsent: list[bytes] = []
        self.timeout_s: float | None = None
        self.has_answered = False
        self.is_over = False

    def sendall(self, data: bytes) -> None:
        self._unsent.append(data)

    def makefile(self, mode: Literal["rb"]) -> io.BufferedReader:
        return io.BufferedReader(_Reads(self, self._socket.makefile(mode, buffering=0)))

    def await_more(self) -> None:
        """Send what is to be sent, and bound the next read."""
        self._socket.settimeout(wait_s(self.timeout_s))
        if self._unsent:
            self._socket.sendall(b"".join(self._unsent))
            self._unsent.clear()
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
        if count:
            self._wire.has_answered = True
        elif count == 0:
            self._wire.is_over = True
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
        self._last = b""

    def __iter__(self) -> Iterator[bytes]:
        try:
            while piece := self._answer.read1(_PIECE_BYTES):
                self._last = piece
                yield piece
            if self._answer.length:  # of which `read1` says nothing
                raise IncompleteRead(b"", self._answer.length)
        except (OSError, HTTPException) as exc:
            raise _error(exc) from exc
        self._is_over = True

    def close(self) -> None:
        if self._is_over or (self._last.rstrip().endswith(_DONE) and self._ends_here()):
            self._connection.end(self._answer, self._idle)
        else:
            self._answer.close()
            self._connection.close()

    def _ends_here(self) -> bool:
        """Whether nothing is left but the end of the body, which an SDK that stops at `[DONE]` leaves unread."""
        self._connection.wire.timeout_s = _LAST_WAIT_S
        try:
            return not self._answer.read1(1)
        except (OSError, HTTPException):
            return False


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
