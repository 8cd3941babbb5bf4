"""An HTTP proxy on loopback, in a thread or as a process: tunnels (CONNECT), requests in absolute form, and bad habits.

As a process, for benchmarks: ``python -m tests.loopback.proxy`` prints one JSON line with its address, and ends when
stdin closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import sys
import threading
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

Habit = Literal["work", "silent", "drip", "deaf tunnel", "drip tunnel"]
_HEAD_END = b"\r\n\r\n"
_PIECE_BYTES = 65_536


class LoopbackProxy:
    """A proxy on 127.0.0.1; whatever host is asked for by a name, the connection goes to 127.0.0.1.

    Attributes:
        heads: the head of each request to the proxy itself, in order.
        sent: all other bytes that clients sent, joined.
        habit: what it does: "work"; "silent" reads and never answers; "drip" answers a byte every 50 ms; "deaf tunnel"
            opens a tunnel that leads nowhere; "drip tunnel" brings answers a byte every 50 ms.
        refusal: with this status it refuses tunnels; 0: it opens them.
    """

    def __init__(self, habit: Habit = "work", *, refusal: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.heads: list[bytes] = []
        self.sent = b""
        self.habit: Habit = habit
        self.refusal = refusal
        self.port = 0
        self._tls = tls
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._loop: asyncio.AbstractEventLoop
        self._stopping: asyncio.Event
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Its address."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.run(self.serve())

    async def serve(self) -> None:
        """Serve until it is stopped."""
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        listener = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=1024, ssl=self._tls)
        self.port = int(listener.sockets[0].getsockname()[1])
        self._ready.set()
        await self._stopping.wait()
        listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):  # an end hung up, or the test is over
            return
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(_HEAD_END)
            self.heads.append(head)
            method, target, _ = head.split(b"\r\n", 1)[0].split(b" ")
            if self.habit == "silent":
                await reader.read()
                return
            if method == b"CONNECT":
                await self._tunnel(target.decode(), reader, writer)
                return
            parts = urlsplit(target.decode())
            path = parts.path + (f"?{parts.query}" if parts.query else "")
            start = b"%s %s HTTP/1.1\r\nconnection: close\r\n" % (method, path.encode())
            upstream = await asyncio.open_connection("127.0.0.1", parts.port or 80)
            upstream[1].write(start + head.split(b"\r\n", 1)[1])
            await self._pump(reader, writer, *upstream)
            return

    async def _tunnel(self, netloc: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusal:
            writer.write(b"HTTP/1.1 %d No\r\ncontent-length: 0\r\n\r\n" % self.refusal)
            await writer.drain()
            return
        answer = b"HTTP/1.1 200 Connection established\r\n\r\n"
        if self.habit == "drip":
            await _drip(writer, answer + b"x" * 1000)
            return
        writer.write(answer)
        if self.habit == "deaf tunnel":
            await reader.read()
            return
        upstream = await asyncio.open_connection("127.0.0.1", int(netloc.rpartition(":")[2]))
        await self._pump(reader, writer, *upstream)

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
    ) -> None:
        """Carry bytes both ways until one side ends."""
        ways = [
            asyncio.create_task(self._carry(reader, up_writer, is_upward=True)),
            asyncio.create_task(self._carry(up_reader, writer, is_upward=False)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            with contextlib.suppress(OSError):
                await writer.drain()
            up_writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_upward: bool) -> None:
        while data := await reader.read(_PIECE_BYTES):
            if is_upward and len(self.sent) < _PIECE_BYTES:
                self.sent += data
            if not is_upward and self.habit == "drip tunnel":
                await _drip(writer, data)
            else:
                writer.write(data)
                await writer.drain()


async def _drip(writer: asyncio.StreamWriter, data: bytes) -> None:
    for at in range(len(data)):
        writer.write(data[at : at + 1])
        await writer.drain()
        await asyncio.sleep(0.05)


def main() -> int:
    """Serve until stdin closes."""
    with LoopbackProxy() as proxy:
        sys.stdout.write(json.dumps({"url": proxy.url}) + "\n")
        sys.stdout.flush()
        sys.stdin.buffer.read()
        sys.stdout.write("{}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
