"""SDK clients kept for reuse: sync ones per process, async ones per event loop, both per key; it knows no SDK."""

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
    """The clients of one provider, made by `make` at first use.

    A forked child starts with none of its parent's. An event loop that shuts down (as `asyncio.run` does at its end)
    closes its own: they are held by an asynchronous generator, and a loop closes those.
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
        """The sync client for `access`."""
        client = self._clients.get(access)
        if client is not None:
            return client
        with self._lock:
            if access not in self._clients:
                _make_room(self._clients)
                self._clients[access] = self._make(access)
            return self._clients[access]

    async def aget(self, access: Credentials) -> _C:
        """The async client for `access` on the running loop."""
        import asyncio  # a coroutine runs, so it is loaded; 20 ms for whoever imports muse without one

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
        """Waits at its `yield` until the loop shuts its generators down, then closes the loop's clients."""
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
