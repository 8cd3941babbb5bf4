"""Connections to the pages, bounded in number and in how long they may say nothing; it knows no request's content."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

log = logging.getLogger(__name__)

MOST_CONNECTIONS, BACKLOG = 128, 64  # a browser takes six; together less than the 256 files of a process
SILENCE_S = 20.0


class Connection(H11Protocol):
    """One connection; it is closed if it is one too many, or if no whole request comes for `SILENCE_S` or twice that.

    A request under way, such as an open stream, may last as long as it will.
    """

    _was_full: ClassVar[bool] = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._timer: asyncio.TimerHandle | None = None
        self._answered: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin, if there are not too many."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            self._say_it_is_full()
            transport.abort()
            return
        self._timer = self.loop.call_later(SILENCE_S, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; a request that it was the body of hears that the browser left, and answers nobody."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete:
            super().send_400_response(msg)
            return
        if cycle.response_started:
            self.transport.close()
        else:
            super().send_400_response(msg)
        cycle.disconnected = True

    def _look(self) -> None:
        """Close the connection if there was no request under way at the last look, and none since."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete:
            if cycle is self._answered:
                self.transport.close()
                return
            self._answered = cycle
        self._timer = self.loop.call_later(SILENCE_S, self._look)

    @classmethod
    def _say_it_is_full(cls) -> None:
        if not cls._was_full:
            log.warning("more than %d connections at once; further ones are closed", MOST_CONNECTIONS)
        cls._was_full = True
