"""Values of rows as the text and the JSON that files hold; it knows no file."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

from muse.types.formatting import expand_exponents

_OF_JSON = (bool, int, float, dict, list, tuple)


class StringifiedValue(str):
    """A value of a file that Python has no type for, as text."""

    __slots__ = ()


def storable(text: str) -> str:
    """`text` with question marks for half surrogate pairs, which UTF-8 cannot hold."""
    return text if text.isascii() else text.encode("utf-8", errors="replace").decode("utf-8")


def stringify(value: object) -> str:
    """What JSON has no form for as text: bytes as the UTF-8 that they are, else in base64."""
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(value).decode("ascii")


def json_text(value: Any) -> str:
    """`value` as JSON, its numbers in digits; what is no number there (NaN, infinity) is null."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=stringify, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False, default=stringify)
    return expand_exponents(text) if "e-" in text or "e+" in text else text


def cell(value: Any) -> str | None:
    """`value` as text in a table: text as it is, objects as JSON, None where there is nothing."""
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
