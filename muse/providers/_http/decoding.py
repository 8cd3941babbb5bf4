"""Decompression of answers (Content-Encoding) in small pieces, up to a size limit.

Entry point: `Decoder`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

import httpx2

from muse.providers._http.http1 import MEGABYTE, Head, Pairs, too_large
from muse.types.errors import AnswerTooLarge

ACCEPTED = b"gzip, deflate"
_PIECE_BYTES = 262_144
_MOST_CODINGS = 4
_EVENT_BYTES = 16_000_000
_ENDS = (b"\n\n", b"\n\r\n", b"\r\r")


class Decoder:
    """The content codings of one answer, decoded piece by piece; each stage yields at most `most_bytes` (None: any).

    In a stream of events, no event may have more than 16 MB, since its reader keeps a whole event in memory.
    """

    __slots__ = ("_is_stream", "_most", "_since_end", "_stages", "_tail")

    def __init__(self, head: Head, most_bytes: int | None) -> None:
        """Prepare to decode the answer with this head.

        Raises:
            httpx2.DecodingError: There are too many codings, or one other than the requested gzip and deflate.
        """
        said = b",".join(value for name, value in head.fields if name.lower() == b"content-encoding").lower()
        codings = [coding for coding in (part.strip() for part in said.split(b",")) if coding not in (b"", b"identity")]
        odd = [coding for coding in codings if coding not in (b"gzip", b"x-gzip", b"deflate")]
        if odd or len(codings) > _MOST_CODINGS:
            shown = b", ".join(codings)[:80].decode("latin-1")
            raise httpx2.DecodingError(f"found Content-Encoding {shown!r}, expected gzip or deflate")
        self._stages = [_Inflater(coding == b"deflate", most_bytes) for coding in reversed(codings)]
        self._most = most_bytes
        self._is_stream = head.get(b"content-type").startswith(b"text/event-stream")
        self._since_end = 0
        self._tail = b""

    @property
    def is_plain(self) -> bool:
        """Return True if the answer is not compressed."""
        return not self._stages

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Yield the decoded `data`, in pieces of at most 256 KiB if it was compressed.

        Raises:
            httpx2.DecodingError: The data is not compressed as the head says.
            AnswerTooLarge: The decoded data exceeds the limit.
        """
        pieces: Iterable[bytes] = (data,)
        for stage in self._stages:
            pieces = stage.inflate(pieces)
        for piece in pieces:
            if self._is_stream and self._most is not None:
                self._look_for_end(piece)
            yield piece

    def finish(self) -> None:
        """Check that the compressed data is complete at the end of the answer.

        Raises:
            httpx2.DecodingError: The compressed data is truncated.
        """
        if not all(stage.is_whole for stage in self._stages):
            raise httpx2.DecodingError("found compressed data that is cut off")

    def _look_for_end(self, piece: bytes) -> None:
        """Count the bytes since the last event of a stream ended.

        Raises:
            AnswerTooLarge: The current event is too large.
        """
        seen = self._tail + piece
        end = max(seen.rfind(mark) for mark in _ENDS)
        self._since_end = len(seen) - end if end >= 0 else self._since_end + len(piece)
        self._tail = seen[-2:]
        if self._since_end > _EVENT_BYTES:
            raise AnswerTooLarge(
                f"found an event of a stream of more than {_EVENT_BYTES / MEGABYTE:g} MB, expected a smaller one",
                code="answer_too_large",
            )


class _Inflater:
    """The decoder of one coding: gzip (also several members in a row) or deflate (with or without zlib's header).

    Servers differ in whether they send deflate data with zlib's header.
    """

    __slots__ = ("_count", "_is_deflate", "_most", "_object")

    def __init__(self, is_deflate: bool, most_bytes: int | None) -> None:
        self._is_deflate = is_deflate
        self._most = most_bytes
        self._count = 0
        self._object: zlib._Decompress | None = None

    @property
    def is_whole(self) -> bool:
        return self._object is None or self._object.eof

    def inflate(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for data in pieces:
            left, piece = data, b""
            while left or len(piece) == _PIECE_BYTES:  # after a full piece zlib may hold more decoded data
                piece, left = self._step(left)
                self._count += len(piece)
                if self._most is not None and self._count > self._most:
                    raise too_large(self._most)
                if piece:
                    yield piece

    def _step(self, data: bytes) -> tuple[bytes, bytes]:
        """Return `(decompressed piece, the unread rest of data)`."""
        if self._object is None or (self._object.eof and data):
            self._object = zlib.decompressobj(_frame_of(data) if self._is_deflate else 16 + zlib.MAX_WBITS)
        inflating = self._object
        try:
            piece = inflating.decompress(data, _PIECE_BYTES)
        except zlib.error as exc:
            raise httpx2.DecodingError(f"found data that is not compressed as its head says ({exc})") from exc
        if inflating.eof:
            return piece, inflating.unused_data
        return piece, inflating.unconsumed_tail


def _frame_of(data: bytes) -> int:
    """Return zlib's window bits for deflate data.

    Data with zlib's header begins with 0x?8 (RFC 1950); data without it mostly does not.
    """
    is_framed = data[0] & 0x0F == 8 and data[0] >> 4 <= 7 and (len(data) < 2 or (data[0] << 8 | data[1]) % 31 == 0)
    return zlib.MAX_WBITS if is_framed else -zlib.MAX_WBITS


def plain_fields(fields: Pairs) -> Pairs:
    """Return the header fields of an answer without those that describe its compressed form."""
    return [(name, value) for name, value in fields if name.lower() not in (b"content-encoding", b"content-length")]
