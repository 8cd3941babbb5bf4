"""Turns a Responses API reply into its event sequence; it does not know HTTP.

Source of the order: the streaming events of the Responses API and the SDK's event types.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.loopback.events import Event, Json, named, split_arguments, split_words

_UNKNOWN = "output item: found type {!r}, expected message, function_call or reasoning"


def openai_events(body: Json) -> list[Event]:
    """Return the events that lead to `body`, numbered from 0."""
    numbered = []
    for number, data in enumerate(_events(body)):
        numbered.append(named({**data, "sequence_number": number}))
    return numbered


def _events(body: Json) -> Iterator[Json]:
    opened = {**body, "status": "in_progress", "output": [], "usage": None, "completed_at": None}
    opened |= {"incomplete_details": None, "error": None}
    yield {"type": "response.created", "response": opened}
    yield {"type": "response.in_progress", "response": opened}
    for index, item in enumerate(body["output"]):
        place = {"output_index": index}
        yield {"type": "response.output_item.added", "item": _opened_item(item), **place}
        yield from _item_events(item, {"item_id": item["id"], **place})
        yield {"type": "response.output_item.done", "item": item, **place}
    yield {"type": f"response.{body['status']}", "response": body}


def _opened_item(item: Json) -> Json:
    match item["type"]:
        case "message":
            return {**item, "status": "in_progress", "content": []}
        case "function_call":
            return {**item, "status": "in_progress", "arguments": ""}
        case "reasoning":
            return {**item, "summary": []}
        case kind:
            raise ValueError(_UNKNOWN.format(kind))


def _item_events(item: Json, place: Json) -> Iterator[Json]:
    match item["type"]:
        case "message":
            for index, part in enumerate(item["content"]):
                yield from _part_events(part, {**place, "content_index": index})
        case "function_call":
            yield from _argument_events(item["arguments"], place)
        case "reasoning":
            for index, part in enumerate(item["summary"]):
                yield from _summary_events(part, {**place, "summary_index": index})
        case kind:
            raise ValueError(_UNKNOWN.format(kind))


def _part_events(part: Json, place: Json) -> Iterator[Json]:
    refused = part["type"] == "refusal"
    field = "refusal" if refused else "text"
    kind = "response.refusal" if refused else "response.output_text"
    extra: Json = {} if refused else {"logprobs": []}
    yield {"type": "response.content_part.added", "part": {**part, field: ""}, **place}
    for piece in split_words(part[field]):
        yield {"type": f"{kind}.delta", "delta": piece, **extra, **place}
    yield {"type": f"{kind}.done", field: part[field], **extra, **place}
    yield {"type": "response.content_part.done", "part": part, **place}


def _argument_events(arguments: str, place: Json) -> Iterator[Json]:
    kind = "response.function_call_arguments"
    for piece in split_arguments(arguments):
        yield {"type": f"{kind}.delta", "delta": piece, **place}
    yield {"type": f"{kind}.done", "arguments": arguments, **place}


def _summary_events(part: Json, place: Json) -> Iterator[Json]:
    kind = "response.reasoning_summary"
    yield {"type": f"{kind}_part.added", "part": {**part, "text": ""}, **place}
    for piece in split_words(part["text"]):
        yield {"type": f"{kind}_text.delta", "delta": piece, **place}
    yield {"type": f"{kind}_text.done", "text": part["text"], **place}
    yield {"type": f"{kind}_part.done", "part": part, **place}
