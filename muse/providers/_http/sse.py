"""Decoding of a streamed answer's body into JSON values: server-sent events or plain JSON.

Entry points: `read_events`, `aread_events`, `EventReader`, `DONE`.

The bytes may be split anywhere.

Source: the WHATWG HTML standard, section 9.2 (server-sent events): one byte order mark may come first, a line ends with
LF, CRLF or CR, a line that begins with a colon is a comment, several `data` lines are joined with LF. Unlike there, the
last event counts without the blank line after it, as OpenAI's Node SDK reads it. A body whose first character is `{` or
`[` is JSON, whatever its content type says: one whole answer, an array of chunks, or one chunk per line.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from muse.providers._replies.errors import invalid_body_error
from muse.types.errors import ProviderError

_decode = msgspec.json.Decoder().decode
_MARK = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n"
# Names of events that carry no content; their data need not be JSON.
_IDLE = frozenset({b"ping", b"keepalive", b"keep-alive", b"heartbeat"})
# How long to wait for the end of the body after `[DONE]`, so that the connection can be kept.
_LAST_WAIT_S = 0.1


class _Done(dict[str, Any]):
    """The type of `DONE`: an event with no content, so that an accumulator that does not know `DONE` can ignore it."""

    def __repr__(self) -> str:
        return "DONE"


# The sign that the answer is complete: `[DONE]`, or the end of a body that is JSON.
DONE: Final = _Done()


class EventReader:
    """A decoder of one body; `feed` and `end` return the values that are complete by then, and `DONE`."""

    __slots__ = ("_data", "_head", "_is_json", "_name", "_provider", "_skips_lf", "_tail", "error", "is_done")

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._head: bytes | None = b""  # the first bytes while the form of the body is unknown
        self._is_json = False
        self._skips_lf = False
        self._tail: list[bytes] = []
        self._name = b""
        self._data: list[bytes] = []
        self.is_done = False
        self.error: ProviderError | None = None

    def feed(self, piece: bytes) -> list[Any]:
        """Take the next bytes; return the values they complete, up to an unreadable event, which sets `error`."""
        if self._head is not None:
            piece = self._begin(piece)
        if self._skips_lf and piece:
            piece = piece.removeprefix(b"\n")
            self._skips_lf = False
        if not piece or self.is_done or self.error is not None:
            return []
        if self._is_json or (b"\n" not in piece and b"\r" not in piece):
            self._tail.append(piece)
            return []
        self._skips_lf = piece.endswith(b"\r")
        lines = piece.splitlines()
        if self._tail:
            lines[0] = b"".join((*self._tail, lines[0]))
            self._tail.clear()
        if not piece.endswith((b"\n", b"\r")):
            self._tail.append(lines.pop())
        return self._events(lines)

    def end(self) -> list[Any]:
        """Take the end of the body and return the values that were still open.

        The data of a truncated event is left out.
        """
        if self.is_done or self.error is not None:
            return []
        if self._is_json:
            return self._json(b"".join(self._tail))
        last = b"".join((self._head or b"", *self._tail))
        if last:
            self._field(last)
        try:
            return self._event(b"\n".join(self._data)) if self._data else []
        except ValueError:
            return []

    def _begin(self, piece: bytes) -> bytes:
        """Determine the form of the body once its first character has come; return the bytes to read by then."""
        head = (self._head or b"") + piece
        if _MARK.startswith(head):
            self._head = b"" if head == _MARK else head
            return b""
        head = head.removeprefix(_MARK)
        begun = head.lstrip(_BLANK)
        if not begun:
            self._head = head[-1:]  # only white space so far, after which no byte order mark can follow
            return b""
        self._head = None
        self._is_json = begun[:1] in (b"{", b"[")
        return begun

    def _events(self, lines: list[bytes]) -> list[Any]:
        events: list[Any] = []
        for line in lines:
            if line.startswith(b"data: "):
                self._data.append(line[6:])
                continue
            if line:
                self._field(line)
                continue
            if self._data:
                data = b"\n".join(self._data)
                self._data.clear()
                try:
                    events += self._event(data)
                except ValueError as exc:
                    self._fail(data, exc)
                if self.is_done or self.error is not None:
                    break
            self._name = b""
        return events

    def _field(self, line: bytes) -> None:
        """Take one line of an event; comments and unknown fields are ignored."""
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        elif name == b"event":
            self._name = value.removeprefix(b" ")

    def _event(self, data: bytes) -> list[Any]:
        """Return the values of an event with this data, mostly a list of one or none.

        Raises:
            ValueError: The data is not a JSON object.
        """
        name = self._name
        if data.startswith(b"[DONE]"):
            self.is_done = True
            return [DONE]
        if name in _IDLE or not data.strip():
            return []
        try:
            value = _loads(data)
        except ValueError:
            if b"\n" in data and (several := self._unseparated(data)):
                return several
            if name != b"error":
                raise
            value = data.decode(errors="replace")
        if name == b"error":
            return [_named_error(value)]
        if not isinstance(value, dict):
            raise ValueError(f"{type(value).__name__} in place of an object")
        return [_named(value, name) if name else value]

    def _unseparated(self, data: bytes) -> list[Any]:
        """Return the values of events that have no blank lines between them; none if one of them is not JSON."""
        bare, is_done, _ = data.partition(b"\n[DONE]")
        values = _lines(bare)
        if not all(isinstance(value, dict) for value in values):
            return []
        self.is_done = bool(is_done)
        return [*values, DONE] if is_done else values

    def _json(self, body: bytes) -> list[Any]:
        """Return the values of a body that is JSON."""
        try:
            value = _loads(body)
            values = value if isinstance(value, list) else [value]
        except ValueError as exc:
            values = _lines(body)
            if not values:
                self._fail(body, exc)
                return []
        if not all(isinstance(value, dict) for value in values):
            self._fail(body, None)
            return []
        self.is_done = True
        return [*values, DONE]

    def _fail(self, data: bytes, cause: Exception | None) -> None:
        self.error = invalid_body_error(self._provider, "", data, expected="an event of a stream")
        self.error.__cause__ = cause


def read_events(pieces: Iterable[bytes], provider: str) -> Iterator[Any]:
    """Yield the values of a streamed body, and `DONE` once the server sends it; nothing is read after that.

    Raises:
        ProviderDown: The body cannot be read.
    """
    reader = EventReader(provider)
    for piece in pieces:
        yield from reader.feed(piece)
        if reader.is_done or reader.error is not None:
            break
    else:
        yield from reader.end()
    if reader.error is not None:
        raise reader.error


async def aread_events(pieces: AsyncIterator[bytes], provider: str) -> AsyncGenerator[Any, None]:
    """Do the same as `read_events`, asynchronously.

    After `DONE` it waits briefly for the end of the body, so that the connection can be kept.
    """
    reader = EventReader(provider)
    async for piece in pieces:
        for event in reader.feed(piece):
            yield event
        if reader.is_done or reader.error is not None:
            break
    else:
        for event in reader.end():
            yield event
    if reader.error is not None:
        raise reader.error
    await _drain(pieces)


async def _drain(pieces: AsyncIterator[bytes]) -> None:
    """Read a body to its end, if the end comes within a moment."""
    import asyncio  # costs nothing: a running coroutine means that it is already imported

    try:
        async with asyncio.timeout(_LAST_WAIT_S):
            async for _ in pieces:
                pass
    except Exception:  # noqa: BLE001, S110 - the answer is complete; the end of its connection cannot fail the call
        pass


def _loads(data: bytes) -> Any:
    """Return a decoded JSON value; halves of surrogate pairs, which msgspec refuses, are kept.

    Raises:
        ValueError: The data is not JSON, or is nested too deeply.
    """
    try:
        return _decode(data)
    except (msgspec.DecodeError, RecursionError):
        pass
    try:
        return json.loads(data.decode(errors="replace"))
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc


def _lines(body: bytes) -> list[Any]:
    """Return the values of a body with one JSON value per line; none if one of them is not JSON."""
    try:
        return [_loads(line) for line in body.splitlines() if line.strip()]
    except ValueError:
        return []


def _named(value: dict[str, Any], name: bytes) -> dict[str, Any]:
    """Return an event with its type; if the data has none, the event's name is the type."""
    return value if "type" in value else {"type": name.decode(errors="replace"), **value}


def _named_error(value: Any) -> Mapping[str, Any]:
    """Return an event named `error` as `{"type": "error", "error": {"message": ...}}`, whatever its data looks like."""
    if isinstance(value, dict) and (value.get("error") or value.get("type") == "error"):
        return {"type": "error", **value}
    return {"type": "error", "error": value if isinstance(value, dict) else {"message": str(value)}}
