"""The loopback server, in a thread or as a process; it does not know muse.

In a test::

    with LoopbackServer() as server:
        server.script("openai", ["error_500", "text"])
        ... server.url ... server.requests ...

As a process, for benchmarks: ``python -m tests.loopback.server --port 0 --latency-ms 50`` prints
one JSON line with its port, and on closing stdin a second one with its counts, then ends.
``GET /_loopback`` answers the same counts at any time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self

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
    scenario_of,
)
from tests.loopback.connection import Connection
from tests.loopback.events import Json
from tests.loopback.request import Request
from tests.loopback.scenarios import PROVIDERS, Asked, load, names

__all__ = [
    "Answer",
    "Close",
    "CloseHalfway",
    "Delay",
    "Drip",
    "Hang",
    "HangHalfway",
    "LoopbackServer",
    "Raw",
    "Request",
    "Step",
]

_BACKLOG = 1024


class LoopbackServer:
    """An HTTP/1.1 server on 127.0.0.1 that answers in the providers' wire forms.

    The wire form follows from the path. The scenario is the next scripted step of that wire
    form, else the model's name (``truncated``, ``gpt-scenario-truncated``), else ``text``.

    Attributes:
        requests: every request on a provider's path, oldest first (empty with ``record=False``).
        connections: how many connections were opened.
        latency_s: seconds before each answer.
    """

    def __init__(self, *, port: int = 0, latency_s: float = 0.0, record: bool = True) -> None:
        """Prepare a server; it listens from `start` or ``with`` on.

        Args:
            port: 0 takes a free one.
            latency_s: seconds before each answer.
            record: whether requests are kept.
        """
        self.requests: list[Request] = []
        self.connections = 0
        self.latency_s = latency_s
        self.port = port
        self._record = record
        self._answered = 0
        self._scripts: defaultdict[str, deque[Step]] = defaultdict(deque)
        self._open: dict[int, Connection] = {}
        self._opened = 0
        self._changed = threading.Condition()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loopback", daemon=True)

    @property
    def url(self) -> str:
        """The address without a path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        return len(self._open)

    def is_open(self, number: int) -> bool:
        """Tell whether the connection with this number (`Request.connection`) is still open."""
        return number in self._open

    def script(self, provider: str, steps: Iterable[Step]) -> None:
        """Queue what the next requests of `provider` get, one step per request.

        Raises:
            ValueError: when the provider or a scenario does not exist.
        """
        if provider not in PROVIDERS:
            raise ValueError(f"provider: found {provider!r}, expected one of {PROVIDERS}")
        steps = list(steps)
        for scenario in filter(None, map(scenario_of, steps)):
            load(provider, scenario)
        self._scripts[provider].extend(steps)

    def unused(self) -> dict[str, list[Step]]:
        """Return the scripted steps that no request has taken, by provider."""
        return {name: list(steps) for name, steps in self._scripts.items() if steps}

    def reset(self) -> None:
        """Forget requests, scripts and the count of connections; open connections stay."""
        self.requests.clear()
        self._scripts.clear()
        self.connections = 0
        self.latency_s = 0.0

    def wait_until(self, reached: Callable[[LoopbackServer], bool], timeout_s: float = 180.0) -> bool:
        """Wait until `reached` holds, asked anew at each request and each closed connection."""
        with self._changed:
            return self._changed.wait_for(lambda: reached(self), timeout_s)

    def start(self) -> None:
        """Listen; returns when connections are accepted.

        Raises:
            OSError: when the port is taken.
        """
        self._socket = socket.create_server(("127.0.0.1", self.port), backlog=_BACKLOG)
        self.port = self._socket.getsockname()[1]
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """Close every connection and end the thread."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()

    def opened(self, connection: Connection) -> int:
        """Count a connection and return its number."""
        self.connections += 1
        self._opened += 1
        self._open[self._opened] = connection
        return self._opened

    def closed(self, number: int) -> None:
        """Forget a connection and wake those who wait."""
        with self._changed:
            self._open.pop(number, None)
            self._changed.notify_all()

    def answered(self, number: int) -> None:
        """Take no note of it."""

    def choose(self, request: Request, asked: Asked) -> Step:
        """Record `request` and return what to do with it."""
        self._answered += 1
        if self._record:
            with self._changed:
                self.requests.append(request)
                self._changed.notify_all()
        script = self._scripts.get(asked.provider)
        if script:
            return script.popleft()
        if request.method == "GET":
            return "models"
        name = request.model.rpartition("scenario-")[2]
        return name if name in names(asked.provider) else "text"

    def outside(self, request: Request) -> Json | bytes | None:
        """Return what answers a path that no live call has: here there is none."""
        del request

    def statistics(self) -> Json:
        """Return counts and the CPU seconds of this process."""
        return {
            "requests": self._answered,
            "connections": self.connections,
            "open": len(self._open),
            "cpu_s": time.process_time(),
        }

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        listener = await self._loop.create_server(lambda: Connection(self), sock=self._socket, backlog=_BACKLOG)
        self._ready.set()
        await self._stopping.wait()
        listener.close()
        for connection in tuple(self._open.values()):
            connection.abort()
        await listener.wait_closed()
        await asyncio.sleep(0)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until stdin closes."""
    parser = argparse.ArgumentParser(prog="python -m tests.loopback.server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="before each answer")
    options = parser.parse_args(argv)
    latency_s = options.latency_ms / 1000
    with LoopbackServer(port=options.port, latency_s=latency_s, record=False) as server:
        _say({"port": server.port, "url": server.url})
        sys.stdin.buffer.read()
        _say(server.statistics())
    return 0


def _say(value: Json) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
