"""A synchronous httpx2 transport: HTTP/1.1 over sockets, with kept connections and bounded waits.

Entry point: `Transport`.

It takes a sixth less CPU time than httpx2's own pool (docs/BENCHMARKS.md). Its rules are those of the asynchronous
transport, since both read answers with `http1.ResponseBuffer`. httpx2 expects a transport to answer a request and to
raise httpx2's errors. Redirects and the SDKs' behaviour are unaffected.
"""

from __future__ import annotations

import select
import ssl
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Protocol

import httpx2

from muse.policies.deadline import wait_s
from muse.policies.rate_limit_headers import record_headers
from muse.policies.resend_guard import may_send_again, must_be_new
from muse.providers._http.decoding import Decoder, plain_fields
from muse.providers._http.destination import Destination, destination
from muse.providers._http.http1 import Head, ResponseBuffer, request_bytes
from muse.providers._http.sockets import BufferedSocket, connect, secured

PIECE_BYTES = 65_536
# The last event of a Chat Completions stream, and how long to wait after it for the end of the body, so that the
# connection can be kept.
DONE = b"data: [DONE]"
LAST_WAIT_S = 0.1
EXTENSIONS = {"http_version": b"HTTP/1.1"}
# The exceptions of a connection that the server has closed.
_HUNG_UP = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)


class Transport(httpx2.BaseTransport):
    """An httpx2 transport that keeps its connections; safe to use from several threads.

    An answer of more than `most_bytes` is refused.
    """

    def __init__(self, tls: ssl.SSLContext, keep_alive_s: float, most_bytes: int) -> None:
        self._tls = tls
        self._keep_alive_s = keep_alive_s
        self._most = most_bytes
        self._idle: defaultdict[Destination, deque[_Connection]] = defaultdict(deque)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and read its answer; the caller reads the body of a stream by iterating it."""
        most = most_of(request, self._most)
        where = destination(request.url)
        try:
            connection, inbox, head = self._ask(where, request, most)
        except OSError as exc:
            raise _error(exc) from exc
        record_headers(head.fields)
        body = _Body(connection, inbox, decoder_of(connection, head, most))
        body.idle = self._idle[where]
        if not is_whole(head):
            fields = head.fields if body.is_plain else plain_fields(head.fields)
            return httpx2.Response(head.status, headers=fields, stream=body, extensions=EXTENSIONS)
        try:
            content = b"".join(body)
        finally:
            body.close()
        fields = head.fields if body.is_plain else plain_fields(head.fields)
        return httpx2.Response(head.status, headers=fields, content=content, extensions=EXTENSIONS)

    def close(self) -> None:
        """Close the connections that no call is using."""
        for idle in self._idle.values():
            while idle:
                idle.pop().close()

    def _ask(
        self, where: Destination, request: httpx2.Request, most: int | None
    ) -> tuple[_Connection, ResponseBuffer, Head]:
        """Send a request; return its connection, the buffer of the answer and the answer's head.

        A server may close a kept connection while the request is being sent. If it has sent no byte of an answer, the
        request is sent again on a new connection. Within a call, the call's own retry does that instead.
        """
        kept = None if must_be_new() else self._kept(where)
        if kept is not None:
            try:
                return kept, *kept.ask(request, most)
            except _HUNG_UP:
                if kept.has_answered or not may_send_again():
                    raise
        connection = self._connected(where, request)
        return connection, *connection.ask(request, most)

    def _kept(self, where: Destination) -> _Connection | None:
        """Return the most recently used connection that is young enough and still open; None if there is none."""
        idle = self._idle[where]
        while True:
            try:
                connection = idle.pop()
            except IndexError:
                return None
            if time.monotonic() - connection.used_s < self._keep_alive_s and not connection.is_readable():
                return connection
            connection.close()

    def _connected(self, where: Destination, request: httpx2.Request) -> _Connection:
        """Return a new connection, with TLS for https."""
        left_s = _clock(request.extensions.get("timeout", {}).get("connect"))
        try:
            connection = self._reached(where, left_s)
            if where.scheme == "https":
                wire = secured(connection.wire, self._tls, where.host, left_s())
                connection = _Connection(wire, where, is_tunnelled=connection.is_tunnelled)
        except TimeoutError as exc:
            raise httpx2.ConnectTimeout(str(exc)) from exc
        except OSError as exc:
            raise where.unreachable(exc) from (None if where.proxy else exc)
        return connection

    def _reached(self, where: Destination, left_s: Callable[[], float | None]) -> _Connection:
        """Return a connection to the server, directly or through a proxy's tunnel, without TLS yet."""
        connection = _Connection(self._to_first_hop(where, left_s), where)
        if where.proxy is None:
            return connection
        try:
            status = connection.tunnel(left_s)
        except BaseException:
            connection.close()
            raise
        if status < 300:
            return connection
        connection.close()
        if not where.may_do_without_tunnel(status):
            raise where.refusal(status)
        return _Connection(self._to_first_hop(where, left_s), where, is_tunnelled=False)

    def _to_first_hop(self, where: Destination, left_s: Callable[[], float | None]) -> BufferedSocket:
        """Return a connection to the server or the proxy, with TLS to a proxy whose address says https."""
        plain = connect(*where.first_hop, left_s)
        if where.proxy is None or where.proxy.scheme != "https":
            return plain
        return secured(plain, self._tls, where.proxy.host, left_s())


class _Connection:
    """A connected socket; every wait on it ends when the call's time is over, however little data arrives each time."""

    __slots__ = ("_timeout_s", "has_answered", "is_tunnelled", "used_s", "where", "wire")

    def __init__(self, wire: BufferedSocket, where: Destination, *, is_tunnelled: bool = True) -> None:
        self.wire = wire
        self.where = where
        self.is_tunnelled = is_tunnelled
        self.has_answered = False
        self.used_s = 0.0
        self._timeout_s: float | None = None

    def ask(self, request: httpx2.Request, most_bytes: int | None) -> tuple[ResponseBuffer, Head]:
        """Send the request; return the buffer of the answer and its head. Any exception closes the connection."""
        self._timeout_s = request.extensions.get("timeout", {}).get("read")
        self.has_answered = False
        inbox = ResponseBuffer(request.method, most_bytes)
        try:
            data = sent_bytes(request, request.read(), self.where, is_tunnelled=self.is_tunnelled)
            self.wire.settimeout(wait_s(self._timeout_s))
            self.wire.sendall(data)
            while inbox.head is None:
                self.receive(inbox)
        except BaseException:  # connection lost, call interrupted, or an invalid header
            self.close()
            raise
        return inbox, inbox.head

    def receive(self, inbox: ResponseBuffer, timeout_s: float | None = None) -> None:
        """Wait for the next bytes of an answer."""
        self.wire.settimeout(wait_s(self._timeout_s if timeout_s is None else timeout_s))
        data = self.wire.recv(PIECE_BYTES)
        if data:
            self.has_answered = True
            inbox.feed(data)
            return
        if not self.has_answered:
            raise ConnectionResetError("the server closed the connection without an answer")
        inbox.feed_end()

    def tunnel(self, left_s: Callable[[], float | None]) -> int:
        """Ask a proxy for a tunnel and return the status of its answer."""
        self.wire.settimeout(left_s())
        self.wire.sendall(self.where.connect_bytes())
        inbox = ResponseBuffer("CONNECT", PIECE_BYTES)
        while inbox.head is None:
            self._timeout_s = left_s()
            self.receive(inbox)
        if inbox.head.status < 300 and inbox.has_excess:
            raise httpx2.RemoteProtocolError("found bytes of a proxy's behind its answer to CONNECT")
        return inbox.head.status

    def close(self) -> None:
        """Close the connection."""
        self.wire.close()

    def is_readable(self) -> bool:
        """Return True if data is waiting; on an idle connection this means that the server has closed it."""
        if sys.platform == "win32":
            return bool(select.select([self.wire], [], [], 0)[0])
        poll = select.poll()
        poll.register(self.wire, select.POLLIN)
        return bool(poll.poll(0))


class _Body(httpx2.SyncByteStream):
    """The decompressed body of an answer; once it is read to its end, its connection becomes idle again."""

    def __init__(self, connection: _Connection, inbox: ResponseBuffer, decoder: Decoder) -> None:
        self.idle: deque[_Connection] = deque()
        self._connection = connection
        self._inbox = inbox
        self._decoder = decoder
        self._last = b""
        self._is_closed = False

    @property
    def is_plain(self) -> bool:
        """Return True if the answer is not compressed."""
        return self._decoder.is_plain

    def __iter__(self) -> Iterator[bytes]:
        try:
            while (piece := self._inbox.take()) != b"":
                if piece is None:
                    self._connection.receive(self._inbox)
                    continue
                for decoded in self._decoder.decode(piece):
                    self._last = decoded
                    yield decoded
                    wait_s(None)
            self._decoder.finish()
        except Exception as exc:
            self._is_closed = True
            self._connection.close()
            if isinstance(exc, OSError):
                raise _error(exc) from exc
            raise

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if not self._inbox.is_over and self._last.rstrip().endswith(DONE):
            self._await_end()
        if self._inbox.is_reusable:
            self._connection.used_s = time.monotonic()
            self.idle.append(self._connection)
        else:
            self._connection.close()

    def _await_end(self) -> None:
        """Wait briefly for the end of the body, which an SDK that stops at `[DONE]` leaves unread."""
        try:
            while not self._inbox.is_over and not self._inbox.waiting_bytes:
                self._connection.receive(self._inbox, LAST_WAIT_S)
        except (OSError, httpx2.RemoteProtocolError):
            return


def most_of(request: httpx2.Request, most_bytes: int) -> int | None:
    """Return the size limit for the answer to a request; None for a GET, which streams a batch file to disk."""
    return None if request.method == "GET" else most_bytes


class _Closable(Protocol):
    def close(self) -> None: ...


def decoder_of(connection: _Closable, head: Head, most_bytes: int | None) -> Decoder:
    """Return the decoder of an answer; close its connection if the answer has an unrequested coding."""
    try:
        return Decoder(head, most_bytes)
    except httpx2.DecodingError:
        connection.close()
        raise


def is_whole(head: Head) -> bool:
    """Return True if an answer is one JSON document, of which no part is usable before its end."""
    return head.get(b"content-type").startswith(b"application/json")


def sent_bytes(request: httpx2.Request, content: bytes, where: Destination, *, is_tunnelled: bool) -> bytes:
    """Return the bytes of a request; a request to a proxy without a tunnel names the whole address."""
    target = request.url.raw_path
    if is_tunnelled or where.proxy is None:
        return request_bytes(request, content, target=target)
    said = where.proxy.authorization
    further = [(b"Proxy-Authorization", said)] if said else []
    address = b"http://%s%s" % (where.netloc.encode("ascii"), target)
    return request_bytes(request, content, target=address, further=further)


def _clock(timeout_s: float | None) -> Callable[[], float | None]:
    """Return a function that gives the seconds left of `timeout_s` and of the call; it raises when none are left."""
    end_s = None if timeout_s is None else time.monotonic() + timeout_s

    def left_s() -> float | None:
        return wait_s(None if end_s is None else end_s - time.monotonic())

    return left_s


def _error(exc: OSError) -> httpx2.TransportError:
    """Return httpx2's error for an error on an established connection."""
    if isinstance(exc, TimeoutError):
        return httpx2.ReadTimeout(str(exc))
    return httpx2.ReadError(str(exc))
