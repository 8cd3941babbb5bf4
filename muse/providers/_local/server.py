"""The child process that holds the model: it reads requests as JSON lines and writes answers as JSON lines.

It is started by file path, so that its start does not import the package around it.
Lines in: `{"id", "op": "chat" | "complete" | "info", "stream", "body"}` or
`{"id", "op": "cancel"}`. Lines out: `{"id", "chunk"}`, then one `{"id", "done"}` or
`{"id", "error": {"status", "code", "message"}}`.
It never outlives its parent process, and always ends with `os._exit`: llama.cpp's own teardown hangs
or aborts when a request is in flight.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

EXIT_NOT_LOADED = 3
EXIT_NO_PACKAGE = 4
BATCH_TOKENS = 256
"""Prompt tokens between two checks for cancellation: about half a second for the small model."""
FIT_FROM_BYTES = 1_000_000_000
"""From this file size on, llama.cpp fits the layers to the memory; the test costs 0.1 s."""
WATCH_INTERVAL_S = 0.2
LONGEST_PARENT = 60
"""The longest folder path, in characters, for the Unix socket: the whole path may have 103."""
PR_SET_PDEATHSIG = 1
GROWING = ("content", "reasoning_content", "text", "arguments")

Message = dict[str, Any]


class OutputStream:
    """The pipe to the parent process: the original standard output, which native code cannot write to."""

    def __init__(self) -> None:
        self._fd = os.dup(1)
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Write one line; end this process if nobody reads it, since its parent is gone."""
        data = memoryview(json.dumps(message).encode() + b"\n")
        try:
            with self._lock:
                while data:
                    data = data[os.write(self._fd, data) :]
        except OSError:
            os._exit(0)


def grow(whole: Message, piece: Message) -> None:
    """Add a streamed piece to what has come before: text is appended, other values are replaced."""
    for key, value in piece.items():
        if value is None:
            whole.setdefault(key, None)
        elif key in GROWING and isinstance(value, str):
            whole[key] = (whole.get(key) or "") + value
        elif key == "tool_calls":
            calls = whole.setdefault(key, {})
            for call in value:
                grow(calls.setdefault(call["index"], {}), call)
        elif isinstance(value, dict):
            whole[key] = whole.get(key) or {}
            grow(whole[key], value)
        elif isinstance(value, list):
            whole[key] = (whole.get(key) or []) + value
        else:
            whole[key] = value


class FrameBuffer:
    """An accumulator that joins the chunks of a stream into the one answer llama.cpp gives without a stream.

    Every request is streamed internally, because only a stream can be stopped.
    """

    def __init__(self) -> None:
        self._facts: Message = {}
        self._choices: dict[int, Message] = {}

    def add(self, chunk: Message) -> None:
        """Take one chunk, in the order of arrival."""
        for choice in chunk["choices"]:
            grow(self._choices.setdefault(choice["index"], {}), choice)
        self._facts.update({key: value for key, value in chunk.items() if key != "choices"})

    def whole(self) -> Message:
        """Return the answer so far, in the form of an answer that was not streamed."""
        choices = [self._settle(choice) for _, choice in sorted(self._choices.items())]
        kind = str(self._facts.get("object", "")).removesuffix(".chunk")
        return {**self._facts, "object": kind, "choices": choices}

    @staticmethod
    def _settle(choice: Message) -> Message:
        if "delta" not in choice:
            return choice
        said = {"role": "assistant", "content": None, **choice.pop("delta")}
        if "tool_calls" in said:
            calls = sorted(said["tool_calls"].items())
            said["tool_calls"] = [{key: value for key, value in call.items() if key != "index"} for _, call in calls]
        return {**choice, "message": said}


class StdinReader:
    """The private socket that llama.cpp must listen on, unlinked once its descriptions are read.

    Without Unix sockets it is a loopback port, protected by a key that no other process has, without web page or
    foreign origins.
    """

    def __init__(self) -> None:
        self.key = os.urandom(24).hex()
        self._folder = ""
        self.host = "127.0.0.1"
        if sys.platform != "win32":
            parent = os.environ.get("TMPDIR", "")
            usable = len(parent) <= LONGEST_PARENT and os.access(parent, os.W_OK)
            name = f"muse-{os.urandom(8).hex()}"
            # The folder is new, has an unguessable name and is for this user alone: nobody can create it beforehand.
            self._folder = os.path.join(parent if usable else "/tmp", name)  # noqa: S108
            os.mkdir(self._folder, 0o700)
            self.host = os.path.join(self._folder, "e.sock")

    def read(self, address: str, path: str) -> Message:
        """Return one of the server's own descriptions, read from its JSON."""
        with self._connect(address) as line:
            ask = f"GET {path} HTTP/1.0\r\nAuthorization: Bearer {self.key}\r\n\r\n"
            line.sendall(ask.encode())
            reply = b""
            while data := line.recv(65536):
                reply += data
        found: Message = json.loads(reply.partition(b"\r\n\r\n")[2])
        return found

    def shut(self) -> None:
        """Remove the socket from the file system: open connections stay open, and no new ones are possible."""
        if self._folder:
            if os.path.exists(self.host):
                os.unlink(self.host)
            os.rmdir(self._folder)

    def _connect(self, address: str) -> socket.socket:
        if sys.platform == "win32":
            host, _, port = address.removeprefix("http://").rpartition(":")
            line = socket.create_connection((host, int(port)))
        else:
            line = socket.socket(socket.AF_UNIX)
            line.connect(self.host)
        return line


def settings(package: Any, door: StdinReader, model_path: str, sizes: tuple[int, int, int]) -> Any:
    """Return llama.cpp's settings; `sizes` are context tokens, threads, threads for prompts."""
    params = package.CommonParams()
    params.model.path = model_path
    params.model_alias = {os.path.splitext(os.path.basename(model_path))[0]}
    params.n_ctx, params.cpuparams.n_threads, params.cpuparams_batch.n_threads = sizes
    params.n_batch = BATCH_TOKENS
    params.n_parallel = 1
    params.cache_ram_mib = 0
    params.warmup = False
    params.fit_params = os.path.getsize(model_path) >= FIT_FROM_BYTES
    params.verbosity = 1
    params.hostnames = [door.host]
    params.api_keys = [door.key]
    params.cors_origins, params.cors_credentials = "", False
    params.ui = params.endpoint_slots = params.endpoint_props = False
    params.n_threads_http = 1
    return params


def load(model_path: str, sizes: tuple[int, int, int]) -> tuple[Any, Message]:
    """Load the model; return the server and its description.

    Raises:
        ImportError: The engine package is there but cannot be loaded.
        OSError, RuntimeError: The file is not a model this engine can load.
    """
    start_s = time.monotonic()
    import xllamacpp

    door = StdinReader()
    try:
        server = xllamacpp.Server(settings(xllamacpp, door, model_path, sizes))
        props = door.read(server.listening_address, "/props")
        models = door.read(server.listening_address, "/v1/models")
    finally:
        door.shut()
    meta = models["data"][0].get("meta") or {}
    info = {
        "model": props["model_alias"],
        "quantization": props["model_ftype"],
        "parameters": meta.get("n_params"),
        "n_ctx": props["default_generation_settings"]["n_ctx"],
        "n_ctx_train": meta.get("n_ctx_train"),
        "supports_tools": props["chat_template_caps"]["supports_tools"],
        "supports_system_role": props["chat_template_caps"]["supports_system_role"],
        "chat_template": props["chat_template"],
        "modalities": props["modalities"],
        "load_s": round(time.monotonic() - start_s, 3),
        "pid": os.getpid(),
    }
    return server, info


def leave(status: int, reason: Exception) -> None:
    """Write the reason to standard error, where the parent process reads the log, and end this process."""
    sys.stderr.write(f"{reason}\n")
    sys.stderr.flush()
    os._exit(status)


class RequestHandler:
    """A queue of requests that are answered one after the other."""

    def __init__(self, outlet: OutputStream) -> None:
        self._outlet = outlet
        self._jobs: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._wanted: set[int] = set()
        self._server: Any = None
        self._info: Message | None = None

    def take(self, request: Message) -> None:
        """Accept one line of the parent process; `info` and `cancel` do not wait in the queue."""
        if request["op"] == "cancel":
            self._wanted.discard(request["id"])
        elif request["op"] == "info" and self._info is not None:
            self._outlet.send({"id": request["id"], "done": self._info})
        else:
            self._wanted.add(request["id"])
            self._jobs.put(request)

    def work(self, model_path: str, sizes: tuple[int, int, int]) -> None:
        """Load the model, then answer requests forever; a model that does not load ends the process."""
        try:
            self._server, self._info = load(model_path, sizes)
        except ImportError as exc:
            leave(EXIT_NO_PACKAGE, exc)
        except (OSError, RuntimeError) as exc:
            leave(EXIT_NOT_LOADED, exc)
        while True:
            request = self._jobs.get()
            if request["id"] in self._wanted:
                self._outlet.send({"id": request["id"], **self._answer(request)})
                self._wanted.discard(request["id"])

    def _answer(self, request: Message) -> Message:
        if request["op"] == "info":
            return {"done": self._info}
        streamed, whole, faults = request["stream"], FrameBuffer(), []

        def see(chunk: Message) -> bool:
            """Take a chunk and return True to stop the work; progress chunks are requested to allow that."""
            if "error" in chunk:
                faults.append(chunk["error"])
            elif streamed and "prompt_progress" not in chunk:
                self._outlet.send({"id": request["id"], "chunk": chunk})
            elif "prompt_progress" not in chunk:
                whole.add(chunk)
            return request["id"] not in self._wanted

        try:
            self._run(request, see)
        except (ValueError, TypeError, RuntimeError) as exc:  # llama.cpp cannot read the body
            faults.append({"code": 400, "type": "invalid_request_error", "message": str(exc)})
        if faults:
            code, kind, text = (faults[0].get(key) for key in ("code", "type", "message"))
            return {"error": {"status": code, "code": kind, "message": text}}
        return {"done": {} if streamed else whole.whole()}

    def _run(self, request: Message, see: Callable[[Message], bool]) -> None:
        body = request["body"] | {
            "stream": True,
            "return_progress": True,
            "stream_options": {"include_usage": True},
        }
        if request["op"] == "chat":
            self._server.handle_chat_completions(body, see)
        elif request["op"] == "complete":
            self._server.handle_completions(body, see)
        else:
            raise ValueError(f"op: found {request['op']!r}, expected 'chat', 'complete' or 'info'")


def exit_with_parent(owner_pid: int) -> None:
    """End this process when its parent ends, in whatever way, and even if another process holds the pipe open.

    The kernel's signal (Linux) also works while the model loads, which holds the interpreter's lock. It follows the
    *thread* that started this process, which is why the parent starts it from a thread that stays. Polling the parent's
    process id covers the other systems that have fork.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == owner_pid:
            time.sleep(WATCH_INTERVAL_S)
        os._exit(0)

    threading.Thread(target=watch, name="watch", daemon=True).start()


def main(argv: list[str]) -> None:
    """Serve requests until standard input ends.

    Args:
        argv: The parent's process id, package folder, context tokens, threads, threads for prompts, model file.
    """
    owner_pid, package_folder, model_path = int(argv[0]), argv[1], argv[5]
    sizes = (int(argv[2]), int(argv[3]), int(argv[4]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    desk = RequestHandler(OutputStream())
    exit_with_parent(owner_pid)
    sys.path.append(package_folder)
    threading.Thread(target=desk.work, args=(model_path, sizes), name="desk", daemon=True).start()
    for line in sys.stdin.buffer:
        desk.take(json.loads(line))
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
