"""Turns a generateContent reply into its stream of partial replies; it does not know HTTP.

Source of the form: the streamGenerateContent page of the Gemini API. Each event is a whole
reply with a piece of the content; the last one carries the finish reason and the final counts.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.loopback.events import Event, Json, split_words


def google_events(body: Json) -> list[Event]:
    """Return the partial replies that add up to `body`."""
    if not body.get("candidates"):
        return [Event(body)]
    candidate = body["candidates"][0]
    parts = candidate.get("content", {}).get("parts", [])
    pieces = [piece for part in parts for piece in _pieces(part)]
    events = [Event(_partial(body, piece)) for piece in pieces[:-1]]
    last = {**candidate, "content": {**candidate.get("content", {}), "parts": pieces[-1:]}}
    if not pieces:
        last = candidate
    return [*events, Event({**body, "candidates": [last]})]


def _partial(body: Json, part: Json) -> Json:
    usage = body["usageMetadata"]
    counts = {"promptTokenCount", "promptTokensDetails", "cachedContentTokenCount"}
    early = {key: value for key, value in usage.items() if key in counts}
    early["totalTokenCount"] = usage["promptTokenCount"]
    candidate = {"content": {"parts": [part], "role": "model"}, "index": 0}
    tail = {key: body[key] for key in ("modelVersion", "responseId")}
    return {"candidates": [candidate], "usageMetadata": early, **tail}


def _pieces(part: Json) -> Iterator[Json]:
    if "text" not in part:
        yield part
        return
    rest = {key: value for key, value in part.items() if key not in ("text", "thoughtSignature")}
    words = split_words(part["text"])
    for start in range(0, len(words), 2):
        yield {"text": "".join(words[start : start + 2]), **rest}
    if "thoughtSignature" in part:
        yield {"text": "", **rest, "thoughtSignature": part["thoughtSignature"]}
