"""Answers of each wire form with chosen words, calls, end and counts: whole, and as the bytes of a stream."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.loopback.behaviours import Raw
from tests.provider_cases import Case

Call = tuple[str | None, str, Any]
"""Id, name and arguments of a call."""

GOOD_END = {"openai": "completed", "anthropic": "end_turn", "google": "STOP", "compatible": "stop"}
LIMIT_END = {"openai": "max_output_tokens", "anthropic": "max_tokens", "google": "MAX_TOKENS", "compatible": "length"}
NO_COUNTS: Mapping[str, Mapping[str, int]] = {
    "openai": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0},
    "anthropic": {"input_tokens": 0, "output_tokens": 0},
    "google": {"promptTokenCount": 0, "candidatesTokenCount": 0, "totalTokenCount": 0},
    "compatible": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
}


def body(wire: str, text: str, end: Any, calls: Sequence[Call] = (), usage: Any = None) -> dict[str, Any]:
    """A whole answer."""
    match wire:
        case "openai":
            return _response(text, end, calls, usage)
        case "anthropic":
            said = [{"type": "text", "text": text}] if text else []
            used = [_bare({"type": "tool_use", "id": one[0], "name": one[1], "input": one[2]}) for one in calls]
            return {"type": "message", "model": "m", "content": said + used, "stop_reason": end, "usage": usage}
        case "google":
            parts: list[Any] = [{"text": text}] if text else []
            parts += [{"functionCall": _bare({"id": one[0], "name": one[1], "args": one[2]})} for one in calls]
            candidate = {"content": {"role": "model", "parts": parts}, "finishReason": end}
            return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m"}
    message = {"role": "assistant", "content": text, "tool_calls": [_chat_call(one) for one in calls]}
    return {
        "id": "c",
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": end}],
        "usage": usage,
    }


def _response(text: str, end: Any, calls: Sequence[Call], usage: Any) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text}]
    said = [{"type": "message", "role": "assistant", "content": content}] if text else []
    used = [
        _bare({"type": "function_call", "call_id": call_id, "name": name, "arguments": args})
        for call_id, name, args in calls
    ]
    is_limit = end == LIMIT_END["openai"]
    told = {"status": "incomplete", "incomplete_details": {"reason": end}} if is_limit else {"status": end}
    return {"object": "response", "model": "m", "output": said + used, "usage": usage} | told


def _chat_call(call: Call) -> dict[str, Any]:
    call_id, name, args = call
    return _bare({"id": call_id, "type": "function", "function": {"name": name, "arguments": args}})


def _bare(entries: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entries.items() if name not in {"id", "call_id"} or value is not None}


def events(wire: str, text: str, end: Any, usage: Any = None) -> list[dict[str, Any]]:
    """The events of a streamed text, a word each."""
    words = [word + " " for word in text.split(" ")[:-1]] + [text.rsplit(" ", maxsplit=1)[-1]]
    match wire:
        case "openai":
            whole = body(wire, text, end, (), usage)
            place = {"output_index": 0, "content_index": 0}
            deltas: list[dict[str, Any]] = [
                {"type": "response.output_text.delta", "delta": word, **place} for word in words
            ]
            return [*deltas, {"type": "response.completed", "response": whole}]
        case "anthropic":
            message = {"type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
            pieces = [{"type": "content_block_delta", "index": 0, "delta": _text(word)} for word in words]
            return [
                {"type": "message_start", "message": message},
                {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
                *pieces,
                {"type": "content_block_stop", "index": 0},
                {"type": "message_delta", "delta": {"stop_reason": end}, "usage": usage},
                {"type": "message_stop"},
            ]
        case "google":
            chunks: list[dict[str, Any]] = [body(wire, word, None) for word in words]
            chunks[-1]["candidates"][0]["finishReason"] = end
            chunks[-1]["usageMetadata"] = usage
            return chunks
    chunks = [{"model": "m", "choices": [{"index": 0, "delta": {"content": word}}]} for word in words]
    return [*chunks, {"model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": end}], "usage": usage}]


def _text(word: str) -> dict[str, str]:
    return {"type": "text_delta", "text": word}


def streamed_call(wire: str, args: str = '{"city": "Rome"}', end: Any = None) -> list[dict[str, Any]]:
    """The events of a streamed call of `get` with these arguments."""
    end = end or {"anthropic": "tool_use", "compatible": "tool_calls"}.get(wire, GOOD_END[wire])
    match wire:
        case "openai":
            item = {"type": "function_call", "call_id": "a1", "name": "get", "arguments": ""}
            response = body(wire, "", end, [("a1", "get", args)])
            name = "response.incomplete" if end == LIMIT_END[wire] else "response.completed"
            return [
                {"type": "response.output_item.added", "output_index": 0, "item": item},
                {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": args},
                {"type": name, "response": response},
            ]
        case "anthropic":
            block = {"type": "tool_use", "id": "a1", "name": "get", "input": {}}
            delta = {"type": "input_json_delta", "partial_json": args}
            return [
                {"type": "message_start", "message": {"content": [], "model": "m"}},
                {"type": "content_block_start", "index": 0, "content_block": block},
                {"type": "content_block_delta", "index": 0, "delta": delta},
                {"type": "message_delta", "delta": {"stop_reason": end}},
                {"type": "message_stop"},
            ]
        case "google":
            return [body(wire, "", end, [] if end == LIMIT_END[wire] else [("a1", "get", json.loads(args))])]
    function = {"name": "get", "arguments": args}
    delta = {"tool_calls": [{"index": 0, "id": "a1", "function": function}]}
    return [{"choices": [{"index": 0, "delta": delta, "finish_reason": end}]}]


def sse(told: Sequence[Mapping[str, Any]]) -> bytes:
    """Events as the body of a stream, with the names that Anthropic and OpenAI give them."""
    lines = []
    for event in told:
        name = f"event: {event['type']}\n" if "type" in event else ""
        lines.append(f"{name}data: {json.dumps(event)}\n\n")
    return "".join(lines).encode()


def whole(content: bytes, media_type: str = "application/json") -> Raw:
    """A good HTTP answer with this body, whose end is the end of the connection."""
    return Raw(f"HTTP/1.1 200 OK\r\ncontent-type: {media_type}\r\n\r\n".encode() + content)


def answer(case: Case, way: str, text: str, end: Any, usage: Any = None) -> Raw:
    """An answer in the way in which it is asked for."""
    if way in ("stream", "astream"):
        return whole(sse(events(case.wire, text, end, usage)), "text/event-stream")
    return whole(json.dumps(body(case.wire, text, end, (), usage)).encode())
