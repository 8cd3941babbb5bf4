"""HTTP/1.1 requests cut out of a byte buffer; it does not know sockets or answers."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property

from tests.loopback.events import Json
from tests.loopback.scenarios import PROVIDERS, Asked

_GOOGLE_CALL = re.compile(r"/models/([^/:]+):(stream)?[gG]enerateContent$")
_LENGTH = b"\r\ncontent-length:"
_CHUNKED = b"\r\ntransfer-encoding: chunked"


@dataclass(frozen=True)
class Request:
    """One request as it came.

    Attributes:
        head: request line and headers, without the blank line.
        content: the body's bytes, chunks already joined.
        arrived_s: `time.monotonic()` when the last byte was read.
        connection: number of the connection, counted from 1.
    """

    head: bytes
    content: bytes
    arrived_s: float
    connection: int

    @cached_property
    def _line(self) -> tuple[str, str]:
        method, target, _ = self.head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        return method, target

    @property
    def method(self) -> str:
        """The method, such as POST."""
        return self._line[0]

    @property
    def target(self) -> str:
        """The path with its query."""
        return self._line[1]

    @property
    def path(self) -> str:
        """The path without its query."""
        return self._line[1].partition("?")[0]

    @cached_property
    def headers(self) -> dict[str, str]:
        """The headers, names in lower case; a later one replaces an earlier one."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        pairs = (line.split(":", 1) for line in lines)
        return {name.strip().lower(): value.strip() for name, value in pairs}

    @cached_property
    def body(self) -> Json:
        """The body as a JSON object; empty when there is none or it is not one."""
        try:
            value = json.loads(self.content)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    @cached_property
    def asked(self) -> Asked | None:
        """The wire form by path, or None for a path that no provider has."""
        if self.method == "GET":
            return Asked(self._lister()) if self.path.endswith("/models") else None
        google = _GOOGLE_CALL.search(self.path)
        if google is not None:
            return Asked("google", stream=google[2] is not None)
        provider = self._poster()
        if provider is None:
            return None
        options = self.body.get("stream_options") or {}
        usage = provider != "compatible" or options.get("include_usage") is True
        return Asked(provider, stream=self.body.get("stream") is True, usage=usage)

    @property
    def model(self) -> str:
        """The model asked for; empty when none is named."""
        google = _GOOGLE_CALL.search(self.path)
        return google[1] if google is not None else str(self.body.get("model", ""))

    def _poster(self) -> str | None:
        endings = {
            "/chat/completions": "compatible",
            "/responses": "openai",
            "/messages": "anthropic",
        }
        for ending, provider in endings.items():
            if self.path.endswith(ending):
                return provider
        return None

    def _lister(self) -> str:
        named = next((name for name in PROVIDERS if f"/{name}/" in self.path), None)
        if named is not None:
            return named
        if "anthropic-version" in self.headers:
            return "anthropic"
        return "google" if "x-goog-api-key" in self.headers else "openai"


def cut(buffer: bytearray) -> tuple[bytes, bytes] | None:
    """Take one whole request off the front of `buffer`.

    Returns:
        Head and body, or None while the request is not complete.
    """
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(buffer[:end])
    lowered = head.lower()
    if _CHUNKED in lowered:
        return _cut_chunks(buffer, head, end + 4)
    place = lowered.find(_LENGTH)
    length = 0 if place < 0 else int(lowered[place + len(_LENGTH) :].split(b"\r\n", 1)[0])
    if len(buffer) < end + 4 + length:
        return None
    body = bytes(buffer[end + 4 : end + 4 + length])
    del buffer[: end + 4 + length]
    return head, body


def _cut_chunks(buffer: bytearray, head: bytes, start: int) -> tuple[bytes, bytes] | None:
    parts: list[bytes] = []
    while True:
        line_end = buffer.find(b"\r\n", start)
        if line_end < 0:
            return None
        size = int(buffer[start:line_end].split(b";", 1)[0], 16)
        start = line_end + 2 + size + 2
        if len(buffer) < start:
            return None
        if size == 0:
            break
        parts.append(bytes(buffer[line_end + 2 : start - 2]))
    del buffer[:start]
    return head, b"".join(parts)
