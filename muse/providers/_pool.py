"""An aiohttp session that outlives its server's patience: a request on a connection just closed is sent again; no SDK.

A server may hang up an idle connection at the moment when a request is on its way to it. Where a kept connection ends
so, before an answer has begun, the request goes out once more, on a connection made for it. aiohttp does this by itself
for GET and its like alone, and calls of a model are POST.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any
from weakref import WeakSet

from muse.policies.once import may_send_again, must_be_new


class _Attempt:
    """One sending of a request: whether its connection had served another one, and whether it may."""

    __slots__ = ("is_kept", "must_be_new")

    def __init__(self) -> None:
        self.is_kept = False
        self.must_be_new = must_be_new()


_attempt: ContextVar[_Attempt] = ContextVar("_attempt")


def session(aiohttp: Any, *, keep_alive_s: float, **options: Any) -> Any:
    """A session without a bound of its own on connections (to aiohttp that is 0).

    `ssl` goes to the connector and all other options to the session; aiohttp itself is given, as only calls that are
    made over it load it.
    """
    connector = _connector(aiohttp)(limit=0, keepalive_timeout=keep_alive_s, ssl=options.pop("ssl"))
    return aiohttp.ClientSession(connector=connector, middlewares=(_middleware(aiohttp),), **options)


def _connector(aiohttp: Any) -> Any:
    """A connector that says which connections are kept ones, and lets go of them where a new one is wanted."""

    class Connector(aiohttp.TCPConnector):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self._served: WeakSet[Any] = WeakSet()

        async def connect(self, *place: Any, **options: Any) -> Any:
            attempt = _attempt.get()
            connection = await super().connect(*place, **options)
            while connection.protocol in self._served and attempt.must_be_new:
                connection.close()
                connection = await super().connect(*place, **options)
            attempt.is_kept = connection.protocol in self._served
            self._served.add(connection.protocol)
            return connection

    return Connector


def _middleware(aiohttp: Any) -> Any:
    """What sends a request the second time."""
    lost = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientConnectionResetError)

    async def send(request: Any, pass_on: Any) -> Any:
        attempt = _Attempt()
        mark = _attempt.set(attempt)
        try:
            return await pass_on(request)
        except lost as exc:
            if not attempt.is_kept or _has_begun(exc) or not may_send_again():
                raise
            attempt.must_be_new = True
            return await pass_on(request)
        finally:
            _attempt.reset(mark)

    return send


def _has_begun(exc: Any) -> bool:
    """Whether a part of the answer's head was there when the connection ended; aiohttp brings it in the error."""
    return not isinstance(getattr(exc, "message", ""), str)
