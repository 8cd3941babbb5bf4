"""Server-sent events as values and as bytes; it does not know which provider sends them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

_WORD = re.compile(r"\S+\s*|\s+")


@dataclass(frozen=True)
class Event:
    """One server-sent event.

    Attributes:
        data: a JSON object, or a bare string such as ``[DONE]``.
        name: the ``event:`` line, for wire forms that write one.
    """

    data: Json | str
    name: str | None = None

    def encode(self, newline: str) -> bytes:
        """Return the event as it stands on the wire, with its closing blank line."""
        text = self.data if isinstance(self.data, str) else dump(self.data)
        head = "" if self.name is None else f"event: {self.name}{newline}"
        return f"{head}data: {text}{newline}{newline}".encode()


def dump(value: Json) -> str:
    """Return compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def split_words(text: str) -> list[str]:
    """Return `text` in word-sized pieces that join to the same text."""
    return _WORD.findall(text)


def split_arguments(text: str) -> list[str]:
    """Return JSON arguments in pieces that end in the middle of tokens, as models send them."""
    return [text[start : start + 7] for start in range(0, len(text), 7)]


def named(data: Json) -> Event:
    """Return an event whose name is its own ``type`` field."""
    return Event(data, str(data["type"]))
