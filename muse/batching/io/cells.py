"""Conversion of row values to the text and JSON that files hold.

Entry points: `cell`, `json_text`, `stringify`.
"""

from __future__ import annotations

import base64
import json
import math
from typing import Any

from muse.types.formatting import expand_exponents

_OF_JSON = (bool, int, float, dict, list, tuple)


class StringifiedValue(str):
    """The text of a file's value for which Python has no type."""

    __slots__ = ()


def storable(text: str) -> str:
    """Return `text` with question marks in place of lone surrogates, which UTF-8 cannot hold."""
    return text if text.isascii() else text.encode("utf-8", errors="replace").decode("utf-8")


def stringify(value: object) -> str:
    """Return a value that JSON cannot represent as text: bytes as UTF-8 if they are that, else in base64."""
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(value).decode("ascii")


def json_text(value: Any) -> str:
    """Return `value` as JSON, without exponents; NaN and infinity become null."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=stringify, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False, default=stringify)
    return expand_exponents(text) if "e-" in text or "e+" in text else text


def cell(value: Any) -> str | None:
    """Return `value` as text for a table: text unchanged, objects as JSON, None for None, NaN and infinity."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, _OF_JSON):
        return json_text(value)
    return stringify(value)


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {name: _finite(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_finite(inner) for inner in value]
        case _:
            return value
