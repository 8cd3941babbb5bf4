"""Long tool results: what a model sees of them at once, and how it reads the rest; it knows no tool and no model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muse.types.errors import ToolError
from muse.types.messages import Part, Tool

READ_MORE = "read_more"
_HEAD_CHARS = 8_000
_TAIL_CHARS = 2_000
_PAGE_CHARS = 8_000
_KEPT_CHARS = 20_000_000
_MOST_PICTURES = 8
_LARGEST_PICTURE_BYTES = 5_000_000


class TruncatedResults:
    """The long results of one run, each under a handle; past 20 million characters the oldest are let go."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._count = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing was cut short so far."""
        return not self._texts

    def cap(self, parts: tuple[Part, ...]) -> tuple[Part, ...]:
        """`parts` with long texts cut to head, tail and a handle, and pictures limited in number and size."""
        pictures = 0
        capped: list[Part] = []
        for part in parts:
            if isinstance(part, str):
                capped.append(self._cut(part))
                continue
            pictures += 1
            size = len(part.data)
            fits = pictures <= _MOST_PICTURES and size <= _LARGEST_PICTURE_BYTES
            capped.append(part if fits else f"[{part.media_type} of {size} bytes left out: too many or too large]")
        return tuple(capped)

    def _cut(self, text: str) -> str:
        """Head, what is left out and how to read it, tail."""
        if len(text) <= _HEAD_CHARS + _TAIL_CHARS + _PAGE_CHARS // 4:
            return text
        self._count += 1
        handle = f"result-{self._count}"
        self._texts[handle] = text[:_KEPT_CHARS]
        while sum(map(len, self._texts.values())) > _KEPT_CHARS and len(self._texts) > 1:
            self._texts.pop(next(iter(self._texts)))
        skipped = len(text) - _HEAD_CHARS - _TAIL_CHARS
        hint = f'{READ_MORE}(handle="{handle}", offset={_HEAD_CHARS})'
        return (
            f"{text[:_HEAD_CHARS]}\n\n[… {skipped} of {len(text)} characters left out; read on with {hint} …]\n\n"
            f"{text[-_TAIL_CHARS:]}"
        )

    def read(self, args: Mapping[str, Any]) -> str:
        """A page of a kept result, with where the next one begins.

        Raises:
            ToolError: no such handle, or an offset outside it; the text says what there is.
        """
        handle, offset = args.get("handle"), args.get("offset", 0)
        text = self._texts.get(str(handle))
        if text is None:
            raise ToolError(f"handle: found {handle!r}, expected one of {', '.join(self._texts) or 'none yet'}")
        if not isinstance(offset, int) or not 0 <= offset < len(text):
            raise ToolError(f"offset: found {offset!r}, expected a whole number from 0 to {len(text) - 1}")
        page = text[offset : offset + _PAGE_CHARS]
        end = offset + len(page)
        more = f"\n\n[next: offset={end} of {len(text)}]" if end < len(text) else "\n\n[end]"
        return page + more


READ_MORE_TOOL = Tool(
    READ_MORE,
    "Read on in a tool result that was cut short: give the handle named there, and the offset to read from.",
    {
        "type": "object",
        "properties": {
            "handle": {"type": "string", "description": "The handle named where the result was cut"},
            "offset": {"type": "integer", "minimum": 0, "description": "The character to read from"},
        },
        "required": ["handle"],
    },
    read_only=True,
)
