"""A server on loopback that answers with given bytes, one connection after the other; it knows no provider."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

_PIECE_BYTES = 65_536
_HEAD_END = b"\r\n\r\n"


class Drip(bytes):
    """Bytes that are sent one by one, 20 ms apart."""


class Reset(bytes):
    """Bytes after which the connection is reset."""


Step = bytes
HANG_UP = b""
"""Read the request and close the connection without a byte."""


class OddServer:
    """Each row of `rows` is one connection: its answers, in the order of the requests; after the last one it is closed.

    Attributes:
        requests: the requests read, as bytes, with the number of their connection before them.
    """

    def __init__(self, *rows: Sequence[Step], tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[tuple[int, bytes]] = []
        self._rows = rows
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._closed = [threading.Event() for _ in rows]
        self._stopping = threading.Event()
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    @property
    def address(self) -> str:
        """Host and port."""
        return f"localhost:{self._listener.getsockname()[1]}"

    @property
    def url(self) -> str:
        """A place on this server."""
        return f"{'https' if self._tls else 'http'}://{self.address}/v1/tides?when=now"

    def await_close(self, number: int) -> None:
        """Wait until connection `number` is closed by this server."""
        assert self._closed[number].wait(180)

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        with contextlib.suppress(OSError):  # not every system lets a listener be shut down; closing it does there
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):  # the client has hung up first
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(180)

    def _accept(self) -> None:
        for number, row in enumerate(self._rows):
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed: the test is over
                return
            thread = threading.Thread(target=self._serve, args=(number, connection, row), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, number: int, plain: socket.socket, row: Sequence[Step]) -> None:
        try:
            connection = self._tls.wrap_socket(plain, server_side=True) if self._tls else plain
        except OSError:  # the client does not trust this server
            plain.close()
            return
        self._open.append(connection)
        with connection:
            for step in row:
                request = _read(connection)
                if request is None:
                    return
                self.requests.append((number, request))
                self._send(connection, step)
        self._closed[number].set()

    def _send(self, connection: socket.socket, step: Step) -> None:
        if isinstance(step, Drip):
            for at in range(len(step)):
                if self._stopping.wait(0.02):
                    return
                with contextlib.suppress(OSError):  # the client has had enough
                    connection.sendall(step[at : at + 1])
            return
        connection.sendall(step)
        if isinstance(step, Reset):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _read(connection: socket.socket) -> bytes | None:
    """One request with a body of a known length; None if the client hung up."""
    received = b""
    while True:
        head, end, body = received.partition(_HEAD_END)
        if end and len(body) >= _length(head):
            return received
        try:
            piece = connection.recv(_PIECE_BYTES)
        except OSError:
            return None
        if not piece:
            return None
        received += piece


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return int(value)
    return 0
