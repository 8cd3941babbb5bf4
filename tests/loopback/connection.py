"""One connection to the loopback server; it does not know threads or fixture files."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from tests.loopback.behaviours import (
    Answer,
    Close,
    CloseHalfway,
    Delay,
    Drip,
    Hang,
    HangHalfway,
    Raw,
    Step,
)
from tests.loopback.events import Json
from tests.loopback.request import Request, cut
from tests.loopback.scenarios import Asked, Rendered, render, render_fixture

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_UNKNOWN: Json = {
    "status": 404,
    "headers": {"content-type": "application/json"},
    "body": {"error": {"message": "path: expected one that a provider has", "code": 404}},
}


class Host(Protocol):
    """What a connection needs of its server."""

    latency_s: float

    def opened(self, connection: Connection) -> int:
        """Count a connection and return its number."""

    def closed(self, number: int) -> None:
        """Forget a connection."""

    def answered(self, number: int) -> None:
        """Take note that a connection's request has its answer."""

    def choose(self, request: Request, asked: Asked) -> Step:
        """Record a request of a provider's path and return what to do with it."""

    def outside(self, request: Request) -> Json | bytes | None:
        """Return the fixture, or the bytes to close the connection with, for a path that no live call has."""

    def statistics(self) -> Json:
        """Return the counts so far."""


class Connection(asyncio.Protocol):
    """Cuts requests out of what arrives and answers them one after the other."""

    __slots__ = ("_buffer", "_busy", "_host", "_loop", "_number", "_transport")

    def __init__(self, host: Host) -> None:
        """Belong to `host`."""
        self._host = host
        self._buffer = bytearray()
        self._busy = False
        self._number = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to listen."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._number = self._host.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the host that the client or we hung up."""
        del exc  # both ends look alike to the host
        self._host.closed(self._number)

    def data_received(self, data: bytes) -> None:
        """Take what arrived; a request may come in many pieces."""
        self._buffer += data
        if len(data) < 2048 and b"100-continue" in data:
            self._transport.write(_CONTINUE)
        self._advance()

    def abort(self) -> None:
        """Hang up at once."""
        self._transport.abort()

    def _advance(self) -> None:
        while not self._busy:
            taken = cut(self._buffer)
            if taken is None:
                return
            self._handle(Request(*taken, time.monotonic(), self._number))

    def _handle(self, request: Request) -> None:
        asked = request.asked
        if asked is None:
            self._answer_outside(request)
            return
        step = self._host.choose(request, asked)
        if self._host.latency_s:
            self._wait(self._host.latency_s, lambda: self._perform(step, asked))
        else:
            self._perform(step, asked)

    def _answer_outside(self, request: Request) -> None:
        own = self._host.outside(request)
        if isinstance(own, bytes):
            self._end(own)
        else:
            self._send(render_fixture(Asked("openai"), own) if own is not None else _outside(request, self._host))

    def _perform(self, step: Step, asked: Asked) -> None:
        match step:
            case str():
                self._send(render(asked, step))
            case Answer():
                headers = {"content-type": "application/json", **step.headers}
                fixture = {"status": step.status, "headers": headers, "body": step.body}
                self._send(render_fixture(asked, fixture))
            case Delay():
                self._wait(step.seconds, lambda: self._send(render(asked, step.scenario)))
            case Drip():
                self._drip(render(asked, step.scenario), step.interval_s)
            case Hang():
                self._busy = True
            case HangHalfway():
                self._busy = True
                self._transport.write(render(asked, step.scenario).half)
            case CloseHalfway():
                self._end(render(asked, step.scenario).half)
            case Close():
                self._end(b"")
            case Raw():
                self._end(step.data)

    def _send(self, answer: Rendered) -> None:
        self._transport.write(answer.whole)
        self._host.answered(self._number)
        if answer.closes:
            self._end(b"")

    def _end(self, data: bytes) -> None:
        self._busy = True
        self._transport.write(data)
        self._transport.close()

    def _wait(self, delay_s: float, act: Callable[[], None]) -> None:
        self._busy = True

        def resume() -> None:
            if self._transport.is_closing():
                return
            self._busy = False
            act()
            self._advance()

        self._loop.call_later(delay_s, resume)

    def _drip(self, answer: Rendered, interval_s: float) -> None:
        self._busy = True
        self._transport.write(answer.head)
        self._drip_next(iter(answer.pieces), answer, interval_s)

    def _drip_next(self, pieces: Iterator[bytes], answer: Rendered, interval_s: float) -> None:
        piece = next(pieces, None)
        if piece is None:
            self._busy = False
            self._send(Rendered(b"", (), answer.closes))
            self._advance()
            return

        def drop() -> None:
            if not self._transport.is_closing():
                self._transport.write(piece)
                self._drip_next(pieces, answer, interval_s)

        self._loop.call_later(interval_s, drop)


def _outside(request: Request, host: Host) -> Rendered:
    if request.path != "/_loopback":
        return render_fixture(Asked("openai"), _UNKNOWN)
    fixture = {"status": 200, "headers": {"content-type": "application/json"}}
    return render_fixture(Asked("openai"), {**fixture, "body": host.statistics()})
