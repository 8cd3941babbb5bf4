"""Connections to the pages: bounded in number, in all and for each client, and in how long a request takes to come."""

from __future__ import annotations

import asyncio
import logging
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

log = logging.getLogger(__name__)

MOST_CONNECTIONS, BACKLOG = 128, 64  # a browser takes six; together less than the 256 files of a process
MOST_OF_ONE_ADDRESS = 64
# Seconds for a request's head, counted from the connection or the answer before, and between pieces of a body.
SILENCE_S = 10.0
# Seconds for a whole body.
BODY_S = 120.0
_NETWORK_BITS = 64  # of an IPv6 address: whoever has one of such a network has all


class Connection(H11Protocol):
    """One connection; it ends if a request's head or body does not come in time.

    Where there are too many, for its client's address or in all, the one that has waited longest for a request gives
    way to a new one; only where all have a whole request under way is the new one closed. A request that has come
    whole, such as an open stream, may last as long as it will.
    """

    _was_full: ClassVar[bool] = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._timer: asyncio.TimerHandle | None = None
        self._waits_since_s = self._heard_s = self._begun_s = self.loop.time()
        self._known: RequestResponseCycle | None = None
        self.address = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin, if there is room or another gives way."""
        super().connection_made(transport)
        self.address = _address_of(self.client)
        others = [one for one in self.connections if isinstance(one, Connection) and one.is_open and one is not self]
        own = [one for one in others if one.address == self.address]
        is_too_many = len(own) >= MOST_OF_ONE_ADDRESS
        if is_too_many or len(others) >= MOST_CONNECTIONS:
            self._say_it_is_full()
            if not _give_way(own if is_too_many else others):
                transport.abort()
                return
        self._timer = self.loop.call_later(SILENCE_S, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Note when something came."""
        self._heard_s = self.loop.time()
        super().data_received(data)

    def on_response_complete(self) -> None:
        """Wait for the next request from now on."""
        self._waits_since_s = self.loop.time()
        super().on_response_complete()

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

    @property
    def is_open(self) -> bool:
        """Whether it is in use, and not about to close."""
        return not self.transport.is_closing()

    @property
    def waits_since_s(self) -> float | None:
        """Since when (on the loop's clock) a request or the rest of its body is waited for; None if it came whole."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete:
            return self._waits_since_s
        return self._heard_s if cycle.more_body else None

    def _look(self) -> None:
        """Close the connection if what is waited for did not come in time; else look again then."""
        now, until = self.loop.time(), self._until_s()
        if until is not None and now >= until:
            self.transport.close()
            return
        self._timer = self.loop.call_at(now + SILENCE_S if until is None else until, self._look)

    def _until_s(self) -> float | None:
        """When patience is over (on the loop's clock); None while nothing is waited for."""
        cycle: RequestResponseCycle | None = self.cycle
        since_s = self.waits_since_s
        if since_s is None:
            return None
        if cycle is None or cycle.response_complete:
            return since_s + SILENCE_S
        if cycle is not self._known:
            self._known, self._begun_s = cycle, self.loop.time()
        return min(since_s + SILENCE_S, self._begun_s + BODY_S)

    @classmethod
    def _say_it_is_full(cls) -> None:
        if not cls._was_full:
            most = f"{MOST_OF_ONE_ADDRESS} of one address or {MOST_CONNECTIONS} in all"
            log.warning("more connections at once than %s; those that wait longest for a request are closed", most)
        cls._was_full = True


def _give_way(others: list[Connection]) -> bool:
    """Close the connection that has waited longest for a request or its body; whether there was one."""
    waiting = [(since_s, number) for number, one in enumerate(others) if (since_s := one.waits_since_s) is not None]
    if not waiting:
        return False
    others[min(waiting)[1]].transport.abort()
    return True


def _address_of(client: tuple[str, int] | None) -> str:
    """What a client is told from others by: its IPv4 address, or the network of its IPv6 address."""
    try:
        address = ip_address(client[0].partition("%")[0]) if client else None
    except ValueError:
        return ""
    if isinstance(address, IPv6Address) and not address.is_loopback:
        mapped = address.ipv4_mapped
        return str(mapped or ip_network((address, _NETWORK_BITS), strict=False))
    return str(address)
