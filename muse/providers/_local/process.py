"""One running engine process and the pipes to it.

Entry points: `Launch`, `EngineProcess`.
"""

from __future__ import annotations

import collections
import contextlib
import importlib.machinery
import itertools
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from msgspec import Struct

from muse.providers._local.errors import EngineDied, EngineError, EngineMissing, EngineRefused

PACKAGE = "xllamacpp"
CHILD = Path(__file__).with_name("server.py")
EXIT_NOT_LOADED = 3
EXIT_NO_PACKAGE = 4
STOP_TIMEOUT_S = 1.0

Message = dict[str, Any]
Sink = Callable[[Message], None]


class Launch(Struct, frozen=True):
    """The parameters of one engine process; `n_ctx` counts tokens."""

    model_path: Path
    n_ctx: int = 4096
    threads: int = 1
    batch_threads: int = 2

    def command(self) -> list[str]:
        """Return the command line; `-S` leaves out `site`, since only one package is needed.

        Raises:
            EngineMissing: The engine package is not installed.
            EngineError: This interpreter has no executable to start.
        """
        if not sys.executable:
            raise EngineError("local: sys.executable is empty, expected a Python to start")
        return [
            *(sys.executable, "-S", "-P", str(CHILD), str(os.getpid()), str(package_folder())),
            *(str(self.n_ctx), str(self.threads), str(self.batch_threads), str(self.model_path)),
        ]


def package_folder() -> Path:
    """Return the folder that holds the engine package, without importing it.

    Raises:
        EngineMissing: The package is not installed.
    """
    spec = importlib.machinery.PathFinder.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise EngineMissing(
            f"local: the engine package '{PACKAGE}' is not installed in {sys.prefix}; "
            "install it with: pip install 'muse-router[local]'"
        )
    return Path(spec.origin).parent.parent


class EngineProcess:
    """A child process with its three pipes, each served by one thread.

    The keeper starts the process and writes to it. So no caller waits for a busy child, and the child is tied to a
    thread that stays. The reader passes each answer to the caller of its request. The third thread keeps the last lines
    of the log, which say why a process ended.
    """

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._waiting: dict[int, Sink] = {}
        self._ended = False
        self._completed_queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._log: collections.deque[str] = collections.deque(maxlen=8)
        command = launch.command()
        started: queue.SimpleQueue[subprocess.Popen[bytes] | Exception] = queue.SimpleQueue()
        result_writer = self._thread(self._keep, command, started)
        outcome = started.get()
        if isinstance(outcome, Exception):
            raise EngineError(f"local: the engine process did not start: {outcome}") from outcome
        self._process = outcome
        self._logger = self._thread(self._follow_log)
        self._threads = (result_writer, self._logger, self._thread(self._read))

    @property
    def ended(self) -> bool:
        """Return True if the process has ended, even if no thread has noticed yet."""
        return self._ended or self._process.poll() is not None

    @contextlib.contextmanager
    def exchange(self, op: str, body: Message, sink: Sink, *, stream: bool) -> Iterator[EngineProcess]:
        """Send a request, and cancel it on exit if it is unanswered; `sink` receives messages in another thread."""
        request_id = next(self._ids)
        line = json.dumps({"id": request_id, "op": op, "stream": stream, "body": body})
        with self._lock:
            if self._ended:
                raise self._failure()
            self._waiting[request_id] = sink
        self._completed_queue.put(line.encode() + b"\n")
        try:
            yield self
        finally:
            self._withdraw(request_id)

    def unwrap(self, message: Message) -> Message:
        """Return a chunk or a result unchanged; raise the error for any other message.

        Raises:
            EngineRefused: The engine refused the request, or cannot load the model.
            EngineDied: The process has ended.
        """
        if "ended" in message:
            raise self._failure()
        if "error" in message:
            error = message["error"]
            raise EngineRefused(error["status"], error["code"], error["message"])
        return message

    def stop(self) -> None:
        """End the process at once; callers that wait for an answer get `EngineDied`."""
        self._process.kill()
        for thread in self._threads:
            thread.join(STOP_TIMEOUT_S)

    def detach(self) -> None:
        """Release a process that belongs to the parent of this forked one."""
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        self._process.poll()

    def _withdraw(self, request_id: int) -> None:
        with self._lock:
            known = self._waiting.pop(request_id, None)
        if known is not None:
            self._completed_queue.put(json.dumps({"id": request_id, "op": "cancel"}).encode() + b"\n")

    def _failure(self) -> EngineError:
        status, said = self._process.returncode, " ".join(self._log) or "it left no message"
        path = self._launch.model_path
        if status == EXIT_NOT_LOADED:
            text = f"local: the engine cannot load {path}: {said}; name another GGUF file"
            return EngineRefused(422, "model_not_loaded", text)
        if status == EXIT_NO_PACKAGE:
            return EngineMissing(f"local: the engine package '{PACKAGE}' does not load: {said}")
        return EngineDied(
            f"local: the engine process for {path.name} ended with status {status} "
            f"before it answered ({said}); the next request starts a new one"
        )

    @staticmethod
    def _thread(target: Callable[..., None], *args: object) -> threading.Thread:
        name = f"muse-local{target.__name__}"
        thread = threading.Thread(target=target, args=args, name=name, daemon=True)
        thread.start()
        return thread

    def _keep(
        self,
        command: list[str],
        started: queue.SimpleQueue[subprocess.Popen[bytes] | Exception],
    ) -> None:
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(command, bufsize=0, stdin=pipe, stdout=pipe, stderr=pipe)
        except (OSError, ValueError, RuntimeError) as exc:
            started.put(exc)
            return
        started.put(process)
        with cast("IO[bytes]", process.stdin) as line:
            while (data := self._completed_queue.get()) is not None:
                self._write(line.fileno(), data)

    def _write(self, fd: int, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(fd, rest) :]
        except BrokenPipeError:
            self._completed_queue.put(None)

    def _follow_log(self) -> None:
        with cast("IO[bytes]", self._process.stderr) as log:
            while data := log.read(65536):
                lines = data.decode(errors="replace").splitlines()
                self._log.extend(line.strip() for line in lines if line.strip())

    def _read(self) -> None:
        rest = b""
        with cast("IO[bytes]", self._process.stdout) as line:
            while data := line.read(65536):
                *messages, rest = (rest + data).split(b"\n")
                for message in messages:
                    self._deliver(json.loads(message))
        self._process.wait()
        self._logger.join(STOP_TIMEOUT_S)
        self._completed_queue.put(None)
        with self._lock:
            self._ended = True
            orphans = list(self._waiting)
        for request_id in orphans:
            self._deliver({"id": request_id, "ended": True})

    def _deliver(self, message: Message) -> None:
        request_id = message["id"]
        with self._lock:
            take = self._waiting.get if "chunk" in message else self._waiting.pop
            sink = take(request_id, None)
        if sink is None:
            return
        try:
            sink(message)
        except RuntimeError:  # the caller's event loop has been closed
            self._withdraw(request_id)
