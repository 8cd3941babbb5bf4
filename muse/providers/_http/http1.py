"""HTTP/1.1 messages as bytes (RFC 9112), by the same rules for sync and async transports; no sockets.

Entry points: `request_bytes`, `ResponseBuffer`, `read_head`.
"""

from __future__ import annotations

import re
from typing import Literal

import httpx2
from msgspec import Struct

from muse.types.errors import AnswerTooLarge

Pairs = list[tuple[bytes, bytes]]
Framing = Literal["length", "chunked", "close"]
MEGABYTE = 1_000_000
_HEAD_BYTES = 65_536
_FIELDS = 256
_INTERIM = 16
_LINE_BYTES = 8_192
_HEAD_END = re.compile(rb"\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t\x20-\x7e\x80-\xff]*)")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_DIGITS = re.compile(rb"[0-9]{1,18}")
_TARGET = re.compile(rb"[\x21-\x7e]+")


class Head(Struct, frozen=True):
    """The status line and header fields of an answer.

    Attributes:
        framing: How the body ends.
        length: The size of the body in bytes if `framing` is "length", else 0.
        is_kept: True if the connection may be used again.
    """

    status: int
    reason: str
    fields: Pairs
    framing: Framing
    length: int
    is_kept: bool

    def get(self, name: bytes) -> bytes:
        """Return the value of the first field with this lower-case name; empty if there is none."""
        return next((value for key, value in self.fields if key.lower() == name), b"")


def request_bytes(request: httpx2.Request, content: bytes, *, target: bytes, further: Pairs | None = None) -> bytes:
    """Return the bytes of a request with its body.

    Raises:
        httpx2.LocalProtocolError: There is a line break or NUL in a header or in the target.
    """
    fields = [(name, value) for name, value in request.headers.raw if name.lower() not in _OWN_FIELDS]
    if content or request.method not in ("GET", "HEAD"):
        fields.append((b"Content-Length", b"%d" % len(content)))
    lines = [b"%s: %s\r\n" % pair for pair in (*fields, *(further or ()))]
    head = b"".join(lines)
    breaks = (head.count(b"\n"), head.count(b"\r"))
    if breaks != (len(lines), len(lines)) or b"\0" in head or not _TARGET.fullmatch(target):
        raise httpx2.LocalProtocolError("a line break or NUL in a header or in the address of a request")
    return b"%s %s HTTP/1.1\r\n%s\r\n%s" % (request.method.encode("ascii"), target, head, content)


_OWN_FIELDS = frozenset({b"content-length", b"transfer-encoding"})


class ResponseBuffer:
    """A parser of one answer: `feed` it bytes, read `head`, then `take` the body in pieces.

    It refuses more than `most_bytes` bytes (None: no limit), framing included, and a head of more than 64 KiB or 256
    fields. It skips up to 16 interim answers (1xx).
    """

    __slots__ = ("_interim", "_left", "_method", "_most", "_pieces", "_read", "_rest", "_state", "has_excess", "head")

    def __init__(self, method: str, most_bytes: int | None = None) -> None:
        self.head: Head | None = None
        self.has_excess = False
        self._method = method
        self._most = most_bytes
        self._read = 0
        self._interim = 0
        self._left = 0
        self._rest = bytearray()
        self._pieces: list[bytes] = []
        self._state = "head"

    @property
    def is_over(self) -> bool:
        """Return True if the whole answer has come."""
        return self._state == "over"

    @property
    def is_reusable(self) -> bool:
        """Return True if the connection can carry another request after this answer."""
        return self._state == "over" and not self.has_excess and self.head is not None and self.head.is_kept

    @property
    def waiting_bytes(self) -> int:
        """Return the number of bytes of the body that have come and were not taken."""
        return sum(map(len, self._pieces))

    def feed(self, data: bytes) -> None:
        """Take received bytes.

        Raises:
            httpx2.RemoteProtocolError: They are not HTTP/1.1.
            AnswerTooLarge: There are more than allowed.
        """
        self._read += len(data)
        if self._most is not None and self._read > self._most + _HEAD_BYTES:
            raise too_large(self._most)
        if self._state == "head":
            data = self._take_head(data)
        if data:
            self._take_body(data)

    def feed_end(self) -> None:
        """Take the end of the connection.

        Raises:
            httpx2.RemoteProtocolError: The answer is incomplete.
        """
        if self._state == "body" and self.head is not None and self.head.framing == "close":
            self._state = "over"
        if self._state == "head":
            begun = " within the head of an answer" if self._rest or self._interim else " without an answer"
            raise httpx2.RemoteProtocolError(f"the server closed the connection{begun}")
        if self._state != "over":
            raise httpx2.RemoteProtocolError("the server closed the connection within an answer")

    def take(self) -> bytes | None:
        """Return the new part of the body: empty at the end of the answer, None if more must be received first."""
        if self._pieces:
            taken = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces.clear()
            return taken
        return b"" if self._state == "over" else None

    def _take_head(self, data: bytes) -> bytes:
        """Look for the end of the head and return the bytes after it."""
        rest = self._rest
        begin = max(0, len(rest) - 2)
        rest += data
        while True:
            end = _HEAD_END.search(rest, begin)
            if (end.start() if end else len(rest)) > _HEAD_BYTES:
                raise httpx2.RemoteProtocolError(f"found an answer's head of more than {_HEAD_BYTES} bytes")
            if end is None:
                return b""
            head = read_head(bytes(rest[: end.start()]), self._method)
            del rest[: end.end()]
            if head.status >= 200:
                break
            self._interim += 1
            begin = 0
            if head.status == 101 or self._interim > _INTERIM:
                raise httpx2.RemoteProtocolError(f"found {self._interim} interim answers ({head.status}) without one")
        behind = bytes(rest)
        rest.clear()
        self.head = head
        self._left = head.length
        is_empty = head.framing == "length" and not head.length
        self._state = "over" if is_empty else "size" if head.framing == "chunked" else "body"
        if self._most is not None and head.length > self._most:
            raise too_large(self._most)
        return behind

    def _take_body(self, data: bytes) -> None:
        if self._state == "over":
            self.has_excess = True
        elif self._state != "body":
            self._take_chunks(data)
        elif self.head is not None and self.head.framing == "close":
            self._pieces.append(data)
        else:
            self._pieces.append(data[: self._left])
            self.has_excess = len(data) > self._left
            self._left -= min(len(data), self._left)
            self._state = "body" if self._left else "over"

    def _take_chunks(self, data: bytes) -> None:
        """Take bytes of a chunked body; an unfinished line is kept for the next time."""
        data = bytes(self._rest) + data if self._rest else data
        at, size = 0, len(data)
        while at < size:
            if self._state == "chunk":
                piece = data[at : at + self._left]
                self._pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                self._state = "chunk" if self._left else "chunk end"
                continue
            if self._state == "over":
                self.has_excess = True
                break
            end = data.find(b"\n", at)
            if (end if end >= 0 else size) - at > _LINE_BYTES:
                raise httpx2.RemoteProtocolError(f"found a line of more than {_LINE_BYTES} bytes in a chunked answer")
            if end < 0:
                break
            self._take_line(data[at:end].removesuffix(b"\r"))
            at = end + 1
        self._rest = bytearray() if self._state == "over" else bytearray(data[at:])

    def _take_line(self, line: bytes) -> None:
        """Take a line between chunks, or one of the trailer."""
        match = None
        if self._state == "size":
            match = _CHUNK.fullmatch(line)
            self._left = int(match[1], 16) if match else 0
            self._state = "chunk" if self._left else "trailer"
        elif self._state == "trailer":
            match = _FIELD.fullmatch(line) if line else None
            self._interim += 1
            self._state = self._state if line else "over"
        else:
            self._state = "size"
        if (match is None and (line or self._state == "trailer")) or self._interim > _FIELDS:
            raise httpx2.RemoteProtocolError("found a chunked answer whose chunks are not as RFC 9112 has them")


def read_head(text: bytes, method: str) -> Head:
    """Parse the head of an answer, without its empty line, to a request made with `method`.

    Raises:
        httpx2.RemoteProtocolError: The head is malformed, or contradicts itself about the end of the body.
    """
    first, *lines = text.split(b"\n")
    status_line = _STATUS_LINE.fullmatch(first.removesuffix(b"\r"))
    if status_line is None:
        raise httpx2.RemoteProtocolError("found an answer that does not begin with an HTTP/1.1 status line")
    if len(lines) > _FIELDS:
        raise httpx2.RemoteProtocolError(f"found an answer with more than {_FIELDS} header fields")
    fields: Pairs = []
    kept = status_line[1] == b"1"
    lengths: set[bytes] = set()
    codings: list[bytes] = []
    for line in lines:
        field = _FIELD.fullmatch(line.removesuffix(b"\r"))
        if field is None:
            raise httpx2.RemoteProtocolError("found a malformed header field in an answer")
        name, value = field[1], field[2].strip(b" \t")
        fields.append((name, value))
        match name.lower():
            case b"content-length":
                lengths.update(part.strip(b" \t") for part in value.split(b","))
            case b"transfer-encoding":
                codings.append(value.lower())
            case b"connection":
                kept = kept and b"close" not in value.lower()
            case _:
                pass
    status = int(status_line[2])
    framing, length = _framing(method, status, lengths, codings, is_new=status_line[1] == b"1")
    reason = (status_line[3] or b"").decode("latin-1")
    return Head(status, reason, fields, framing, length, kept and framing != "close")


def _framing(
    method: str, status: int, lengths: set[bytes], codings: list[bytes], *, is_new: bool
) -> tuple[Framing, int]:
    """Return the framing and length of an answer's body (RFC 9112, 6.3).

    Raises:
        httpx2.RemoteProtocolError: The framing is ambiguous, so that proxies may read it differently.
    """
    if codings and (lengths or codings != [b"chunked"] or not is_new):
        raise httpx2.RemoteProtocolError("found Transfer-Encoding with Content-Length, in HTTP/1.0 or not chunked")
    if len(lengths) > 1 or not all(map(_DIGITS.fullmatch, lengths)):
        raise httpx2.RemoteProtocolError("found Content-Length that is no number, or two different ones")
    if method == "HEAD" or status in (204, 304) or status < 200 or (method == "CONNECT" and status < 300):
        return "length", 0
    if codings:
        return "chunked", 0
    return ("length", int(lengths.pop())) if lengths else ("close", 0)


def too_large(most_bytes: int) -> AnswerTooLarge:
    """Return the error for an answer of more than this many bytes."""
    return AnswerTooLarge(
        f"found an answer of more than {most_bytes / MEGABYTE:g} MB, read or decompressed;"
        " raise providers.answers.max_mb in journal.json if such answers are wanted",
        code="answer_too_large",
    )
