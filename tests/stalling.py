"""Servers on loopback that take a request and never finish their answer, each in a way of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Self

_EVENT = (
    b'data: {"id": "1", "object": "chat.completion.chunk", "model": "m",'
    b' "choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n'
)
_OK = b"HTTP/1.1 200 OK\r\n"
_JSON = _OK + b"content-type: application/json\r\ncontent-length: 100000\r\n\r\n"
_EVENTS = _OK + b"content-type: text/event-stream\r\n\r\n"

# What each sends at once, and what it drips endlessly afterwards, a byte every 50 ms.
HABITS: Mapping[str, tuple[bytes, bytes]] = {
    "silent": (b"", b""),
    "drips its head": (b"", _OK + b"x: " + b"y" * 1000),
    "drips a JSON body": (_JSON, b'{"a": "' + b"b" * 1000),
    "drips a stream": (_EVENTS, b": a comment\n\n" * 100),
    "stalls in a body": (_JSON + b'{"a": ', b""),
    "stalls in a stream": (_EVENTS + _EVENT, b""),
}


class StallingServers:
    """A server for each of `HABITS`; `port` has their ports."""

    def __init__(self) -> None:
        self.port: dict[str, int] = {}
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="stalling", daemon=True)
        self._loop: asyncio.AbstractEventLoop
        self._stopping: asyncio.Event
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        servers = []
        for habit in HABITS:
            server = await asyncio.start_server(self._behaving(habit), "127.0.0.1", 0, backlog=256)
            servers.append(server)
            self.port[habit] = int(server.sockets[0].getsockname()[1])
        self._ready.set()
        await self._stopping.wait()
        for server in servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _behaving(self, habit: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        at_once, dripped = HABITS[habit]

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            try:
                await reader.read(1)
                writer.write(at_once)
                for at in range(len(dripped)):
                    writer.write(dripped[at : at + 1])
                    await writer.drain()
                    await asyncio.sleep(0.05)
                await reader.read()
            except (OSError, asyncio.CancelledError):
                return
            finally:
                self._tasks.discard(task)
                writer.transport.abort()

        return answer
