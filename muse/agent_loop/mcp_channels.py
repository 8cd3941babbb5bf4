"""The ways to an MCP server as the SDK's transports, with what muse has to know of them: what was sent and taken.

A call may be sent a second time only if the server provably did not take the first: it was never written, no connection
could be made, or the server answered that it does not know the session (HTTP 404, as the protocol has it).
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any, TextIO

from msgspec import Struct

from muse.agent_loop.tool_results import repair_result
from muse.journal.secrets import redact
from muse.terminal.text import escape_control

_SESSION = "mcp-session-id"
_LONGEST_LINE = 10_000
_LAST_LINES_S = 0.2
_UNKNOWN_SESSION = 404
# The loggers of the SDK and its HTTP client, which write whole addresses.
_LOGGERS = ("httpx2", "httpcore2", "mcp.client.streamable_http", "mcp.client.stdio", "client")


class SendState(Struct):
    """One call on its way: whether any of it was written, and whether the server said that it did not take it."""

    is_written: bool = False
    is_refused: bool = False

    @property
    def was_not_taken(self) -> bool:
        """Whether the server provably did not take the call."""
        return self.is_refused or not self.is_written


ATTEMPT: ContextVar[SendState | None] = ContextVar("muse_mcp_attempt", default=None)


class _WatchedStream:
    """A stream of the SDK with `receive` and `send` looked at; everything else is the stream's own."""

    def __init__(self, stream: Any, on_received: Callable[[Any], None], on_sent: Callable[[Any], None]) -> None:
        self._stream = stream
        self._on_received = on_received
        self._on_sent = on_sent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def receive(self) -> Any:
        """Return the next item, looked at."""
        item = await self._stream.receive()
        self._on_received(item)
        return item

    async def send(self, item: Any) -> None:
        """Send an item; the call that it belongs to counts as written from then on."""
        attempt = ATTEMPT.get()
        if attempt is not None:
            attempt.is_written = True
        self._on_sent(item)
        await self._stream.send(item)

    def __aiter__(self) -> _WatchedStream:
        return self

    async def __anext__(self) -> Any:
        item = await self._stream.__anext__()
        self._on_received(item)
        return item

    async def __aenter__(self) -> _WatchedStream:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *reason: Any) -> Any:
        return await self._stream.__aexit__(*reason)


@asynccontextmanager
async def watched(transport: Any, on_listing: Callable[[dict[str, Any]], None]) -> AsyncIterator[Any]:
    """The streams of a transport; `on_listing` gets the result of each `tools/list` before the SDK reads it.

    Results of `tools/call` are repaired.
    """
    calls: set[str] = set()

    def note(item: Any) -> None:
        message = getattr(item, "message", None)
        if getattr(message, "method", None) == "tools/call":
            calls.add(str(getattr(message, "id", None)))

    def look(item: Any) -> None:
        message = getattr(item, "message", None)
        result, number = getattr(message, "result", None), str(getattr(message, "id", None))
        is_call = number in calls
        calls.discard(number)
        if not isinstance(result, dict):
            return
        if is_call:
            repair_result(result)
        elif "tools" in result and "content" not in result:
            on_listing(result)

    async with transport as (read_stream, write_stream):
        yield _WatchedStream(read_stream, look, note), _WatchedStream(write_stream, look, note)


def http_client(headers: Mapping[str, str]) -> Any:
    """Return an HTTP client for the SDK that notes in `ATTEMPT` what the server provably did not take."""
    from mcp.shared._httpx_utils import create_mcp_http_client

    client: Any = create_mcp_http_client(headers=dict(headers))
    send = client.send

    async def noted(request: Any, **options: Any) -> Any:
        attempt = ATTEMPT.get()
        try:
            response = await send(request, **options)
        except Exception as exc:
            if attempt is not None and type(exc).__name__ in ("ConnectError", "ConnectTimeout"):
                attempt.is_refused = True
            raise
        if attempt is not None and response.status_code == _UNKNOWN_SESSION and _SESSION in request.headers:
            attempt.is_refused = True
        return response

    client.send = noted
    return client


@contextmanager
def error_output(name: str) -> Iterator[TextIO]:
    """A file for the standard error of the server `name`: its lines are shown escaped, masked and with its name before.

    Given the terminal itself, a server could clear the screen or write over a question.
    """
    read_end, write_end = os.pipe()
    reader = threading.Thread(target=_show_lines, args=(name, read_end), name=f"mcp {name} stderr", daemon=True)
    reader.start()
    with open(write_end, "w", encoding="utf-8") as file:
        yield file
    reader.join(_LAST_LINES_S)  # a process that the server left behind may still hold the other end


def _show_lines(name: str, read_end: int) -> None:
    with open(read_end, "rb") as lines:
        while line := lines.readline(_LONGEST_LINE):
            text = line.decode("utf-8", errors="replace").rstrip("\r\n")
            sys.stderr.write(escape_control(f"{name}: {redact(text)}") + "\n")


class _Masking(logging.Filter):
    """Takes known secrets out of what others log."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask the record's message."""
        text = record.getMessage()
        masked = redact(text)
        if masked != text:
            record.msg, record.args = masked, ()
        if record.exc_info:
            record.exc_text = redact(_tracebacks.formatException(record.exc_info))
        return True


_tracebacks = logging.Formatter()
_masking = _Masking()


def mask_logs() -> None:
    """See that the loggers of the SDK and its HTTP client write no known secret."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_masking)  # the same filter is added once
