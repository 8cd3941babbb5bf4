"""An asynchronous httpx2 transport: HTTP/1.1 over asyncio, with the same rules as `transport`.

Entry point: `AsyncTransport`.

It has no time limit of its own: the caller bounds the wait for the whole answer (`Deadline.bound`). There is no limit
of connections, and the cost of a call is flat from 50 to 500 in flight.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from typing import cast

import httpx2

from muse.policies.rate_limit_headers import record_headers
from muse.policies.resend_guard import may_send_again, must_be_new
from muse.providers._http.decoding import Decoder, plain_fields
from muse.providers._http.destination import Destination, destination
from muse.providers._http.http1 import Head, ResponseBuffer
from muse.providers._http.sockets import look_up, share
from muse.providers._http.transport import (
    DONE,
    EXTENSIONS,
    LAST_WAIT_S,
    PIECE_BYTES,
    decoder_of,
    is_whole,
    most_of,
    sent_bytes,
)

# Reading pauses while more than this many bytes of the body wait for the caller.
_MOST_WAITING_BYTES = 1_048_576
_LONGEST_S = 1e6
_LAST_CLOSE_S = 1.0


class AsyncTransport(httpx2.AsyncBaseTransport):
    """An httpx2 transport that keeps the connections of one event loop; an answer over `most_bytes` is refused."""

    def __init__(self, tls: ssl.SSLContext, keep_alive_s: float, most_bytes: int) -> None:
        self._tls = tls
        self._keep_alive_s = keep_alive_s
        self._most = most_bytes
        self._idle: defaultdict[Destination, deque[_Connection]] = defaultdict(deque)
        self._all: set[_Connection] = set()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and read its answer; the caller reads the body of a stream by iterating it."""
        most = most_of(request, self._most)
        where = destination(request.url)
        connection, inbox, head = await self._ask(where, request, most)
        record_headers(head.fields)
        body = _Body(connection, inbox, decoder_of(connection, head, most))
        body.idle = self._idle[where]
        fields = head.fields if body.is_plain else plain_fields(head.fields)
        if not is_whole(head):
            return httpx2.Response(head.status, headers=fields, stream=body, extensions=EXTENSIONS)
        try:
            content = b"".join([piece async for piece in body])
        finally:
            body.close()
        return httpx2.Response(head.status, headers=fields, content=content, extensions=EXTENSIONS)

    async def aclose(self) -> None:
        """Close all connections, and wait until the event loop has released them."""
        self._idle.clear()
        gone = [connection.gone for connection in self._all]
        for connection in list(self._all):
            connection.close()
        if gone:
            await asyncio.wait(gone, timeout=_LAST_CLOSE_S)

    async def _ask(
        self, where: Destination, request: httpx2.Request, most: int | None
    ) -> tuple[_Connection, ResponseBuffer, Head]:
        """Do the same as `Transport._ask`, asynchronously."""
        kept = None if must_be_new() else self._kept(where)
        if kept is not None:
            try:
                return kept, *await kept.ask(request, most)
            except httpx2.NetworkError:
                if kept.has_answered or not may_send_again():
                    raise
        connection = await self._connected(where, request)
        return connection, *await connection.ask(request, most)

    def _kept(self, where: Destination) -> _Connection | None:
        """Return the most recently used connection that is young enough and still open; None if there is none."""
        idle = self._idle[where]
        while idle:
            connection = idle.pop()
            if not connection.is_lost and time.monotonic() - connection.used_s < self._keep_alive_s:
                return connection
            connection.close()
        return None

    async def _connected(self, where: Destination, request: httpx2.Request) -> _Connection:
        """Return a new connection, through a proxy's tunnel if there is one, with TLS for https."""
        timeout_s = request.extensions.get("timeout", {}).get("connect")
        until_s = time.monotonic() + (_LONGEST_S if timeout_s is None else timeout_s)
        try:
            connection = await self._reached(where, until_s)
            if where.scheme == "https" and where.proxy is not None:
                await self._secure(connection)
        except TimeoutError as exc:
            raise httpx2.ConnectTimeout(str(exc)) from exc
        except OSError as exc:
            raise where.unreachable(exc) from (None if where.proxy else exc)
        return connection

    async def _reached(self, where: Destination, until_s: float) -> _Connection:
        connection = await self._opened(where, until_s)
        if where.proxy is None:
            return connection
        try:
            status = await connection.tunnel()
        except BaseException:
            connection.close()
            raise
        if status < 300:
            return connection
        connection.close()
        if not where.may_do_without_tunnel(status):
            raise where.refusal(status)
        connection = await self._opened(where, until_s)
        connection.is_tunnelled = False
        return connection

    async def _opened(self, where: Destination, until_s: float) -> _Connection:
        """Return a connection to the first hop, by the first of its addresses that answers."""
        host, port = where.first_hop
        found = await asyncio.wrap_future(look_up(host, port))
        scheme, server = (where.proxy.scheme, where.proxy.host) if where.proxy else (where.scheme, where.host)
        tls, name = (self._tls, server) if scheme == "https" else (None, None)
        loop = asyncio.get_running_loop()

        def make() -> _Connection:
            return _Connection(where, self._all)

        failure: OSError = OSError(f"no address of {host}")
        for place, (family, _, _, _, address) in enumerate(found):
            try:
                async with asyncio.timeout(share(until_s, len(found) - place)):
                    connected = await loop.create_connection(
                        lambda: _Connection(where, self._all),
                        address[0],
                        address[1],
                        family=family,
                        ssl=tls,
                        server_hostname=name,
                    )
                    return connected[1]
            except OSError as exc:  # includes a time-out
                failure = exc
        raise failure

    async def _secure(self, connection: _Connection) -> None:
        """Do the TLS handshake through a tunnel."""
        loop = asyncio.get_running_loop()
        try:
            upgraded = await loop.start_tls(
                connection.wire, connection, self._tls, server_hostname=connection.where.host
            )
        except BaseException as exc:
            connection.close()
            connection.connection_lost(exc if isinstance(exc, Exception) else None)  # asyncio does not call it here
            raise
        if upgraded is None:
            raise ConnectionResetError("the connection was lost within the TLS handshake")
        connection.wire = upgraded


class _Connection(asyncio.Protocol):
    """A connection of the event loop; received bytes go into the buffer of the awaited answer."""

    wire: asyncio.Transport

    def __init__(self, where: Destination, group: set[_Connection]) -> None:
        self.where = where
        self.is_tunnelled = True
        self.is_lost = False
        self.has_answered = False
        self.used_s = 0.0
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._group = group
        self._inbox: ResponseBuffer | None = None
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._is_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.wire = cast(asyncio.Transport, transport)
        self._group.add(self)

    def data_received(self, data: bytes) -> None:
        if self._inbox is None:  # unrequested data: no later answer on this connection can be trusted
            self.close()
            return
        self.has_answered = True
        try:
            self._inbox.feed(data)
        except Exception as exc:  # noqa: BLE001 - raised where the answer is awaited
            self._error = exc
            self.close()
        if not self._is_paused and self._inbox.waiting_bytes > _MOST_WAITING_BYTES:
            self._is_paused = True
            self.wire.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._group.discard(self)
        if self._error is None:
            self._error = self._end(exc)
        self._wake()
        if not self.gone.done():
            self.gone.set_result(None)

    def _end(self, exc: Exception | None) -> Exception | None:
        """Return the error that the end of the connection means for the awaited answer; None for a complete answer."""
        if self._inbox is None:
            return None
        if exc is not None or not self.has_answered:
            return httpx2.ReadError(str(exc or "the server closed the connection without an answer"))
        try:
            self._inbox.feed_end()
        except httpx2.RemoteProtocolError as error:
            return None if self._inbox.is_over else error
        return None

    async def ask(self, request: httpx2.Request, most_bytes: int | None) -> tuple[ResponseBuffer, Head]:
        """Send the request; return the buffer of the answer and its head. Any exception closes the connection."""
        content = await request.aread()
        data = sent_bytes(request, content, self.where, is_tunnelled=self.is_tunnelled)
        return await self._asked(ResponseBuffer(request.method, most_bytes), data)

    async def tunnel(self) -> int:
        """Ask a proxy for a tunnel and return the status of its answer."""
        inbox, head = await self._asked(ResponseBuffer("CONNECT", PIECE_BYTES), self.where.connect_bytes())
        if head.status < 300 and inbox.has_excess:
            raise httpx2.RemoteProtocolError("found bytes of a proxy's behind its answer to CONNECT")
        return head.status

    async def _asked(self, inbox: ResponseBuffer, data: bytes) -> tuple[ResponseBuffer, Head]:
        self.has_answered = False
        self._inbox = inbox
        try:
            if self.is_lost:
                raise httpx2.ReadError("the server closed the connection without an answer")
            self.wire.write(data)
            while inbox.head is None:
                await self.more()
        except BaseException:
            self.close()
            raise
        return inbox, inbox.head

    async def more(self) -> None:
        """Wait for the next bytes of the answer, or its end."""
        if self._error is not None:
            raise self._error
        if self._is_paused:
            self._is_paused = False
            self.wire.resume_reading()
        if self.is_lost:
            raise httpx2.ReadError("the connection was closed")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def rest(self) -> None:
        """Make the connection idle until the next request."""
        self._inbox = None
        self.used_s = time.monotonic()
        if self._is_paused:
            self._is_paused = False
            self.wire.resume_reading()

    def close(self) -> None:
        """Close the connection."""
        self.is_lost = True
        self.wire.abort()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Body(httpx2.AsyncByteStream):
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

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while (piece := self._inbox.take()) != b"":
                if piece is None:
                    await self._connection.more()
                for decoded in self._decoder.decode(piece) if piece else ():
                    self._last = decoded
                    yield decoded
                    await self._give_way()
            self._decoder.finish()
        except (Exception, asyncio.CancelledError):
            self._connection.close()
            raise

    async def _give_way(self) -> None:
        """Let other tasks run after a decompressed piece; this is also where a time limit can take effect."""
        if not self._decoder.is_plain:
            await asyncio.sleep(0)

    async def aclose(self) -> None:
        if not self._inbox.is_over and self._last.rstrip().endswith(DONE):
            await self._await_end()
        self.close()

    def close(self) -> None:
        """Do the same as `aclose`, without waiting."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._inbox.is_reusable and not self._connection.is_lost:
            self._connection.rest()
            self.idle.append(self._connection)
        else:
            self._connection.close()

    async def _await_end(self) -> None:
        """Wait briefly for the end of the body, which an SDK that stops at `[DONE]` leaves unread."""
        try:
            async with asyncio.timeout(LAST_WAIT_S):  # cancelling `more` leaves the connection intact
                while not self._inbox.is_over and not self._inbox.waiting_bytes:
                    await self._connection.more()
        except (TimeoutError, httpx2.TransportError):
            return
