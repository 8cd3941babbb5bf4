"""The parent process's interface to the embedded model: request, stream, cancel.

Entry point: `Engine.shared`.

There is one engine process per model file and parent process. It starts at the first request, and again after it died,
after a fork or after `stop`. All methods may be called from any thread and any event loop.
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
"""llama.cpp's `/v1/chat/completions` and `/v1/completions`; a request's body is the body of these endpoints."""


class Engine:
    """An embedded model that starts when it is first needed.

    Requests wait in order for the single slot, which makes answers at temperature 0 repeatable. Results and chunks are
    llama.cpp's own dicts, including `usage` and `timings`.
    """

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._lock = threading.Lock()
        self._link: EngineProcess | None = None

    @classmethod
    def shared(cls, model_path: Path, *, n_ctx: int = 4096, threads: int = 1, batch_threads: int = 2) -> Engine:
        """Return this process's engine for a model file, without starting it.

        Args:
            model_path: The model file.
            n_ctx: The number of tokens of prompt and answer together.
            threads: The threads that generate. More are slower for a small model on a busy machine.
            batch_threads: The threads that read the prompt. The same holds for them.
        """
        launch = Launch(Path(model_path).resolve(), n_ctx, threads, batch_threads)
        with _shared.lock:
            return _shared.engines.setdefault(launch, cls(launch))

    def ready(self, *, timeout_s: float | None = None) -> Message:
        """Start the engine if it is not running and return its description.

        Keys: `model`, `quantization`, `parameters`, `n_ctx`, `n_ctx_train`, `supports_tools`, `supports_system_role`,
        `chat_template`, `modalities`, `load_s`, `pid`.
        """
        return self._ask("info", {}, timeout_s)

    async def aready(self, *, timeout_s: float | None = None) -> Message:
        """Do the same as `ready`, asynchronously."""
        return await self._aask("info", {}, timeout_s)

    def request(self, op: Operation, body: Message, *, timeout_s: float | None = None) -> Message:
        """Send a request and return the whole answer.

        Args:
            op: The operation.
            body: The body of the request.
            timeout_s: The time limit in seconds from now, including start and queue.

        Raises:
            EngineRefused: llama.cpp refused the request, for example with `exceed_context_size_error`.
            EngineDied: The process ended before it answered.
            EngineMissing: The engine package is not installed.
            TimeoutError: There was no answer in time; the work is cancelled.
        """
        return self._ask(op, body, timeout_s)

    async def arequest(self, op: Operation, body: Message, *, timeout_s: float | None = None) -> Message:
        """Do the same as `request`, asynchronously; cancelling the coroutine cancels the work."""
        return await self._aask(op, body, timeout_s)

    def stream(self, op: Operation, body: Message, *, timeout_s: float | None = None) -> Iterator[Message]:
        """Yield llama.cpp's chunks as they come; closing the iterator cancels the work.

        The last chunk carries `usage` and `timings`. The same errors as for `request` are raised. `timeout_s` is the
        limit of the whole stream.
        """
        inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        deadline = _deadline(timeout_s)
        with self._current().exchange(op, body, inbox.put, stream=True) as link:
            while "chunk" in (message := link.unwrap(_receive(inbox, deadline, op))):
                yield message["chunk"]

    async def astream(self, op: Operation, body: Message, *, timeout_s: float | None = None) -> AsyncIterator[Message]:
        """Do the same as `stream`, asynchronously; cancelling the coroutine, or `aclose()`, cancels the work."""
        inbox = _AsyncInbox(timeout_s)
        with self._current().exchange(op, body, inbox.put, stream=True) as link:
            while "chunk" in (message := link.unwrap(await inbox.receive(op))):
                yield message["chunk"]

    def stop(self) -> None:
        """End the process, if one runs; waiting callers get `EngineDied`."""
        with self._lock:
            link, self._link = self._link, None
        if link is not None:
            link.stop()

    def after_fork(self) -> None:
        """Forget the engine process of the parent, in a forked process."""
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
    """A queue in which another thread leaves messages for one coroutine of one event loop."""

    def __init__(self, timeout_s: float | None) -> None:
        # An async caller has imported asyncio already; at the top it would cost every other program 27 ms.
        self._asyncio: Any = importlib.import_module("asyncio")
        self._loop = self._asyncio.get_running_loop()
        self._messages = self._asyncio.Queue()
        self._deadline = None if timeout_s is None else self._loop.time() + timeout_s

    def put(self, message: Message) -> None:
        """Leave a message.

        Raises:
            RuntimeError: The event loop has been closed.
        """
        self._loop.call_soon_threadsafe(self._messages.put_nowait, message)

    async def receive(self, op: str) -> Message:
        """Wait for the next message and return it.

        Raises:
            TimeoutError: The deadline has passed.
        """
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
        """End every engine process, so that the interpreter's exit does not wait for one."""
        for engine in list(self.engines.values()):
            engine.stop()

    def after_fork(self) -> None:
        """Give a forked process fresh locks and engines that have not started."""
        self.lock = threading.Lock()
        for engine in self.engines.values():
            engine.after_fork()


_shared = _Shared()
atexit.register(_shared.stop)
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_shared.after_fork)
