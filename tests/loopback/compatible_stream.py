"""Turns a Chat Completions reply into its chunks; it does not know HTTP.

Source of the form: the streaming page of Chat Completions. The counts come in a last chunk
without choices, and only when the request asks for them (``stream_options.include_usage``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tests.loopback.events import Event, Json, split_arguments, split_words

_DONE = Event("[DONE]")


def compatible_events(body: Json) -> list[Event]:
    """Return the chunks that lead to `body`, with counts, then ``[DONE]``."""
    shared = {key: value for key, value in body.items() if key not in ("choices", "usage")}
    shared["object"] = "chat.completion.chunk"
    if "usage" in body:
        shared["usage"] = None
    choice = body["choices"][0]
    events = [Event(_chunk(shared, delta, None)) for delta in _deltas(choice["message"])]
    events.append(Event(_chunk(shared, {}, choice["finish_reason"])))
    if "usage" in body:
        events.append(Event({**shared, "choices": [], "usage": body["usage"]}))
    return [*events, _DONE]


def without_usage(events: Iterable[Event]) -> list[Event]:
    """Return the same chunks as sent to a request that did not ask for counts."""
    return [stripped for event in events for stripped in _strip(event)]


def _strip(event: Event) -> Iterator[Event]:
    if isinstance(event.data, str) or "usage" not in event.data:
        yield event
    elif event.data["choices"]:
        yield Event({key: value for key, value in event.data.items() if key != "usage"})


def _chunk(shared: Json, delta: Json, finish: str | None) -> Json:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {**shared, "choices": [choice]}


def _deltas(message: Json) -> Iterator[Json]:
    yield {"role": "assistant", "content": "", "refusal": None}
    for field in ("reasoning", "reasoning_content", "content", "refusal"):
        for piece in split_words(message.get(field) or ""):
            yield {field: piece}
    if message.get("reasoning_details"):
        yield {"reasoning_details": message["reasoning_details"]}
    for index, call in enumerate(message.get("tool_calls") or ()):
        yield from _call_deltas(index, call)


def _call_deltas(index: int, call: Json) -> Iterator[Json]:
    function = call["function"]
    first = {**call, "index": index, "function": {**function, "arguments": ""}}
    yield {"tool_calls": [first]}
    for piece in split_arguments(function["arguments"]):
        yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
