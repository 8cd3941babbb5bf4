"""The body of a streamed answer -> its JSON values, however the bytes are split: server-sent events, or plain JSON.

Source: the WHATWG HTML standard, section 9.2 (server-sent events): one byte order mark may come first, a line ends with
LF, CRLF or CR, a line that begins with a colon is a comment, several `data` lines are joined with LF. Unlike there, the
last event counts without the blank line after it, as OpenAI's Node SDK reads it. A body whose first character is `{` or
`[` is JSON, whatever its content type says: one whole answer, an array of chunks, or one chunk a line.
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
# Events without a message whose data need not be JSON.
_IDLE = frozenset({b"ping", b"keepalive", b"keep-alive", b"heartbeat"})
# How long the end of a connection is waited for after `[DONE]`, so that the connection can be kept.
_LAST_WAIT_S = 0.1


class _Done(dict[str, Any]):
    """The type of `DONE`: an event that says nothing else, for a gatherer that does not know it."""

    def __repr__(self) -> str:
        return "DONE"


# The server says that its answer is whole: `[DONE]`, or the end of a body that is one JSON value.
DONE: Final = _Done()


class EventReader:
    """Collects the bytes of one body; `feed` and `end` give the values that are whole by then, and `DONE`."""

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
        """Take the next bytes; the values that they complete, up to an event that cannot be read: see `error`."""
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
        """The body is over; the values that were still open. Data of an event that is cut off is left out."""
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
        """See what form the body has, once its first character is there; what is to be read by then."""
        head = (self._head or b"") + piece
        if _MARK.startswith(head):
            self._head = b"" if head == _MARK else head
            return b""
        head = head.removeprefix(_MARK)
        begun = head.lstrip(_BLANK)
        if not begun:
            self._head = head[-1:]  # of blanks alone, a mark no longer can follow
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
        """Take one line of an event; comments and unknown fields are left out."""
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        elif name == b"event":
            self._name = value.removeprefix(b" ")

    def _event(self, data: bytes) -> list[Any]:
        """The value of an event with this data, as a list of one or none.

        Raises:
            ValueError: its data is not a JSON object.
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
        """The values of events without blank lines between them, one on each line; none if one of them is no JSON."""
        bare, is_done, _ = data.partition(b"\n[DONE]")
        values = _lines(bare)
        if not all(isinstance(value, dict) for value in values):
            return []
        self.is_done = bool(is_done)
        return [*values, DONE] if is_done else values

    def _json(self, body: bytes) -> list[Any]:
        """The values of a body that is JSON."""
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
    """The values of a streamed body, and `DONE` where the server says so; nothing is read beyond that.

    Raises:
        ProviderDown: the body cannot be read.
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
    """As `read_events`, awaited; after `DONE` the end of the body is waited for a moment, to keep the connection."""
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
    """Read a body to its end, if that comes at once."""
    import asyncio  # a coroutine runs, so it is loaded

    try:
        async with asyncio.timeout(_LAST_WAIT_S):
            async for _ in pieces:
                pass
    except Exception:  # noqa: BLE001, S110 - the answer is whole; how its connection ends is no concern of the call
        pass


def _loads(data: bytes) -> Any:
    """A JSON value; halves of surrogate pairs, which msgspec refuses, stay as they are.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
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
    """The values of a body with one on each line; none if one of them is no JSON."""
    try:
        return [_loads(line) for line in body.splitlines() if line.strip()]
    except ValueError:
        return []


def _named(value: dict[str, Any], name: bytes) -> dict[str, Any]:
    """An event whose data leaves its type to the event's name."""
    return value if "type" in value else {"type": name.decode(errors="replace"), **value}


def _named_error(value: Any) -> Mapping[str, Any]:
    """An event named `error`, whatever its data looks like, as `{"type": "error", "error": {"message": ...}}`."""
    if isinstance(value, dict) and (value.get("error") or value.get("type") == "error"):
        return {"type": "error", **value}
    return {"type": "error", "error": value if isinstance(value, dict) else {"message": str(value)}}
