"""Turns a Messages API reply into its event sequence; it does not know HTTP.

Source of the order: the streaming page of the Messages API and the SDK's event types.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.loopback.events import Event, Json, dump, named, split_arguments, split_words

_FINAL_USAGE = (
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
    "output_tokens_details",
    "server_tool_use",
)
_UNKNOWN = "content block: found type {!r}, expected text, thinking or tool_use"


def anthropic_events(body: Json) -> list[Event]:
    """Return the events that lead to `body`; the final counts stand in ``message_delta``."""
    return [named(data) for data in _events(body)]


def _events(body: Json) -> Iterator[Json]:
    usage = body["usage"]
    opened = {**body, "content": [], "stop_reason": None, "stop_sequence": None}
    opened["usage"] = {**usage, "output_tokens": min(1, usage["output_tokens"])}
    opened["usage"].pop("output_tokens_details", None)
    opened.pop("stop_details", None)
    yield {"type": "message_start", "message": opened}
    for index, block in enumerate(body["content"]):
        yield {"type": "content_block_start", "index": index, "content_block": _opened(block)}
        if index == 0:
            yield {"type": "ping"}
        for delta in _deltas(block):
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    delta = {"stop_reason": body["stop_reason"], "stop_sequence": body["stop_sequence"]}
    if body.get("stop_details") is not None:
        delta["stop_details"] = body["stop_details"]
    final = {key: usage[key] for key in _FINAL_USAGE if key in usage}
    yield {"type": "message_delta", "delta": delta, "usage": final}
    yield {"type": "message_stop"}


def _opened(block: Json) -> Json:
    match block["type"]:
        case "text":
            return {**block, "text": ""}
        case "thinking":
            return {**block, "thinking": "", "signature": ""}
        case "tool_use":
            return {**block, "input": {}}
        case kind:
            raise ValueError(_UNKNOWN.format(kind))


def _deltas(block: Json) -> Iterator[Json]:
    match block["type"]:
        case "text":
            for piece in split_words(block["text"]):
                yield {"type": "text_delta", "text": piece}
        case "thinking":
            for piece in split_words(block["thinking"]):
                yield {"type": "thinking_delta", "thinking": piece}
            yield {"type": "signature_delta", "signature": block["signature"]}
        case "tool_use":
            yield {"type": "input_json_delta", "partial_json": ""}
            for piece in split_arguments(dump(block["input"])):
                yield {"type": "input_json_delta", "partial_json": piece}
        case kind:
            raise ValueError(_UNKNOWN.format(kind))
