"""A cache of SDK clients: sync clients per process, async clients per event loop, both per credentials.

Entry point: `ClientCache`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from msgspec import Struct

from muse.providers._backend.provider import Credentials

_C = TypeVar("_C")
_KEPT_CLIENTS = 64


class _LoopClients(Struct, Generic[_C]):
    """The clients of one event loop, and the generator that closes them when the loop shuts down."""

    clients: dict[Credentials, _C]
    result_writer: AsyncGenerator[None, None]


class ClientCache(Generic[_C]):
    """The clients of one provider, made at first use.

    A forked child starts with an empty cache. An event loop that shuts down (as `asyncio.run` does at its end) closes
    its own clients: an asynchronous generator holds them, and a loop closes its generators.
    """

    def __init__(
        self,
        make: Callable[[Credentials], _C],
        amake: Callable[[Credentials], _C],
        close: Callable[[_C], Awaitable[Any]],
    ) -> None:
        self._make = make
        self._amake = amake
        self._close = close
        self._clients: dict[Credentials, _C] = {}
        self._loops: WeakKeyDictionary[Any, _LoopClients[_C]] = WeakKeyDictionary()
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def get(self, access: Credentials) -> _C:
        """Return the sync client for `access`."""
        client = self._clients.get(access)
        if client is not None:
            return client
        with self._lock:
            if access not in self._clients:
                _make_room(self._clients)
                self._clients[access] = self._make(access)
            return self._clients[access]

    async def aget(self, access: Credentials) -> _C:
        """Return the async client for `access` on the running event loop."""
        import asyncio  # free within a coroutine; at the top it would add 20 ms to programs without asyncio

        loop = asyncio.get_running_loop()
        kept = self._loops.get(loop)
        if kept is None:
            clients: dict[Credentials, _C] = {}
            kept = _LoopClients(clients, self._keep(clients))
            self._loops[loop] = kept
            await anext(kept.result_writer)
        client = kept.clients.get(access)
        if client is None:
            client = kept.clients[access] = self._amake(access)
        return client

    async def _keep(self, clients: dict[Credentials, _C]) -> AsyncGenerator[None, None]:
        """Wait at `yield` until the event loop shuts down its generators, then close the loop's clients."""
        try:
            yield
        finally:
            for client in list(clients.values()):
                await self._close(client)
            clients.clear()

    def _forget(self) -> None:
        self._clients = {}
        self._loops = WeakKeyDictionary()
        self._lock = threading.Lock()


def _make_room(clients: dict[Credentials, Any]) -> None:
    while len(clients) >= _KEPT_CLIENTS:
        clients.pop(next(iter(clients)))
