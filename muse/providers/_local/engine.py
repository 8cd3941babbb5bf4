"""The owner's side of the embedded model: ask, stream, cancel; knows neither prompts nor providers.

One process per model file and owner, started at the first request, started again after it died,
after a fork or after `stop`. Everything here may be called from any thread and any event loop.
"""

from __future__ import annotations

import atexit
import importlib
import os
import queue
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Literal

from muse.providers._local.errors import (
    EngineDied,
    EngineError,
    EngineMissing,
    EngineRefused,
    WeightsMissing,
)
from muse.providers._local.process import EngineProcess, Launch, Message

__all__ = [
    "Engine",
    "EngineDied",
    "EngineError",
    "EngineMissing",
    "EngineRefused",
    "Message",
    "Operation",
    "WeightsMissing",
]

Operation = Literal["chat", "complete"]
"""llama.cpp's `/v1/chat/completions` and `/v1/completions`; a body is what these take."""


class Engine:
    """An embedded model that starts when it is first needed.

    Requests wait in order for the single slot, which makes answers at temperature 0 repeatable.
    Results and chunks are llama.cpp's own dicts, `usage` and `timings` included.
    """

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._lock = threading.Lock()
        self._link: EngineProcess | None = None

    @classmethod
    def shared(cls, model_path: Path, *, n_ctx: int = 4096, threads: int = 1, batch_threads: int = 2) -> Engine:
        """Give this process's engine for a model file; nothing is started yet.

        `n_ctx` counts tokens of prompt and answer together; `threads` generate, `batch_threads`
        read the prompt (more than these are slower for a small model on a busy machine).
        """
        launch = Launch(Path(model_path).resolve(), n_ctx, threads, batch_threads)
        with _shared.lock:
            return _shared.engines.setdefault(launch, cls(launch))

    def ready(self, *, timeout_s: float | None = None) -> Message:
        """Start the engine if need be and describe it.

        Keys: `model`, `quantization`, `parameters`, `n_ctx`, `n_ctx_train`, `supports_tools`,
        `supports_system_role`, `chat_template`, `modalities`, `load_s`, `pid`.
        """
        return self._ask("info", {}, timeout_s)

    async def aready(self, *, timeout_s: float | None = None) -> Message:
        """As `ready`, for a coroutine."""
        return await self._aask("info", {}, timeout_s)

    def request(self, op: Operation, body: Message, *, timeout_s: float | None = None) -> Message:
        """Ask and wait for the whole answer; `timeout_s` counts from now, start and queue included.

        Raises:
            EngineRefused: llama.cpp declined, for example `exceed_context_size_error`.
            EngineDied: the process ended before it answered.
            EngineMissing: the engine package is not installed.
            TimeoutError: no answer in time; the work is cancelled.
        """
        return self._ask(op, body, timeout_s)

    async def arequest(self, op: Operation, body: Message, *, timeout_s: float | None = None) -> Message:
        """As `request`, for a coroutine; cancelling it cancels the work."""
        return await self._aask(op, body, timeout_s)

    def stream(self, op: Operation, body: Message, *, timeout_s: float | None = None) -> Iterator[Message]:
        """Yield llama.cpp's chunks as they come; closing the iterator cancels the work.

        The last chunk carries `usage` and `timings`. Raises as `request`; `timeout_s` is for the
        whole stream.
        """
        inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        deadline = _deadline(timeout_s)
        with self._current().exchange(op, body, inbox.put, stream=True) as link:
            while "chunk" in (message := link.unwrap(_receive(inbox, deadline, op))):
                yield message["chunk"]

    async def astream(self, op: Operation, body: Message, *, timeout_s: float | None = None) -> AsyncIterator[Message]:
        """As `stream`, for a coroutine; cancelling it, or `aclose()`, cancels the work."""
        inbox = _AsyncInbox(timeout_s)
        with self._current().exchange(op, body, inbox.put, stream=True) as link:
            while "chunk" in (message := link.unwrap(await inbox.receive(op))):
                yield message["chunk"]

    def stop(self) -> None:
        """End the process, if one runs; whoever waits gets `EngineDied`."""
        with self._lock:
            link, self._link = self._link, None
        if link is not None:
            link.stop()

    def after_fork(self) -> None:
        """Forget, in a forked process, the engine process of its parent."""
        self._lock = threading.Lock()
        if self._link is not None:
            self._link.detach()
        self._link = None

    def _current(self) -> EngineProcess:
        with self._lock:
            if self._link is None or self._link.ended:
                self._link = EngineProcess(self._launch)
            return self._link

    def _ask(self, op: str, body: Message, timeout_s: float | None) -> Message:
        inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        deadline = _deadline(timeout_s)
        with self._current().exchange(op, body, inbox.put, stream=False) as link:
            done: Message = link.unwrap(_receive(inbox, deadline, op))["done"]
            return done

    async def _aask(self, op: str, body: Message, timeout_s: float | None) -> Message:
        inbox = _AsyncInbox(timeout_s)
        with self._current().exchange(op, body, inbox.put, stream=False) as link:
            done: Message = link.unwrap(await inbox.receive(op))["done"]
            return done


def _deadline(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else time.monotonic() + timeout_s


def _late(op: str) -> TimeoutError:
    return TimeoutError(f"local: no complete answer to '{op}' within its timeout; it is cancelled")


def _receive(inbox: queue.SimpleQueue[Message], deadline: float | None, op: str) -> Message:
    left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
    try:
        return inbox.get(timeout=left_s)
    except queue.Empty:
        raise _late(op) from None


class _AsyncInbox:
    """Where another thread leaves messages for one coroutine of one event loop."""

    def __init__(self, timeout_s: float | None) -> None:
        # Whoever awaits has loaded asyncio; above, it would cost every other program 27 ms.
        self._asyncio: Any = importlib.import_module("asyncio")
        self._loop = self._asyncio.get_running_loop()
        self._messages = self._asyncio.Queue()
        self._deadline = None if timeout_s is None else self._loop.time() + timeout_s

    def put(self, message: Message) -> None:
        """Leave a message; RuntimeError if the loop has been closed."""
        self._loop.call_soon_threadsafe(self._messages.put_nowait, message)

    async def receive(self, op: str) -> Message:
        """Wait for the next message, or for the deadline."""
        try:
            async with self._asyncio.timeout_at(self._deadline):
                message: Message = await self._messages.get()
        except TimeoutError:
            raise _late(op) from None
        return message


class _Shared:
    """The engines of this process, one per model file and settings."""

    def __init__(self) -> None:
        self.engines: dict[Launch, Engine] = {}
        self.lock = threading.Lock()

    def stop(self) -> None:
        """End every engine process, so that leaving the interpreter does not wait for one."""
        for engine in list(self.engines.values()):
            engine.stop()

    def after_fork(self) -> None:
        """Give a forked process locks that nobody holds and engines that have not started."""
        self.lock = threading.Lock()
        for engine in self.engines.values():
            engine.after_fork()


_shared = _Shared()
atexit.register(_shared.stop)
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_shared.after_fork)
