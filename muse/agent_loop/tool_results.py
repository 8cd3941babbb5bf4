"""What an MCP server answers to a call of a tool, repaired: a call that has run is not reported as a failed one.

Servers leave out `content` where they send `structuredContent`, send text in place of a list, or parts of kinds that
the protocol does not have.
"""

from __future__ import annotations

import json
from typing import Any

# The fields that a part of each kind must have, all of them text.
_FIELDS = {
    "text": ("text",),
    "image": ("data", "mimeType"),
    "audio": ("data", "mimeType"),
    "resource_link": ("uri", "name"),
}


def repair_result(result: dict[str, Any]) -> None:
    """Make the result of a `tools/call` one that the protocol allows, in place; what is no part of one becomes text."""
    told = result.get("content", result.pop("toolResult", None))
    parts = told if isinstance(told, list) else [] if told is None else [told]
    content = [_part(part) for part in parts if not _is_nothing(part)]
    structured = result.get("structuredContent")
    if structured is None or not isinstance(structured, dict):
        result.pop("structuredContent", None)
        content += [] if structured is None or content else [_text(structured)]
    if not isinstance(result.get("isError", False), bool):
        result["isError"] = str(result["isError"]).lower() not in ("none", "false", "0", "")
    result["content"] = content


def _is_nothing(part: Any) -> bool:
    return part is None or (isinstance(part, dict) and part.get("type") == "text" and part.get("text") is None)


def _part(part: Any) -> dict[str, Any]:
    """Return a part as it is if the protocol allows it, else as text."""
    if not isinstance(part, dict):
        return _text(part)
    kind = part.get("type")
    if kind == "resource":
        inner = part.get("resource")
        fits = isinstance(inner, dict) and (_has(inner, "uri", "text") or _has(inner, "uri", "blob"))
    else:
        fits = kind in _FIELDS and _has(part, *_FIELDS[kind])
    if fits:
        return part if isinstance(part.get("annotations", {}), dict) else {**part, "annotations": {}}
    return _text(part["text"] if kind == "text" else part)


def _has(part: dict[str, Any], *names: str) -> bool:
    return all(isinstance(part.get(name), str) for name in names)


def _text(value: Any) -> dict[str, Any]:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return {"type": "text", "text": text}
