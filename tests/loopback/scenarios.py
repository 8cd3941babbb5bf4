"""Reads wire fixtures and renders them once to bytes; it does not know sockets or requests.

A fixture holds ``status``, ``headers`` and one of ``body`` (a JSON reply), ``sse`` (events) or
``raw`` (text sent as it is). ``"behaviour": "close"`` closes the connection after the last
event, without the end mark of the body.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from http import HTTPStatus
from pathlib import Path

from tests.loopback.anthropic_stream import anthropic_events
from tests.loopback.compatible_stream import compatible_events, without_usage
from tests.loopback.events import Event, Json, dump
from tests.loopback.google_stream import google_events
from tests.loopback.openai_stream import openai_events

PROVIDERS = ("openai", "anthropic", "google", "compatible")
FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "wire"

_RENDERERS = {
    "openai": openai_events,
    "anthropic": anthropic_events,
    "google": google_events,
    "compatible": compatible_events,
}
_SLICES = 8
_LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True)
class Asked:
    """What of a request decides the form of the answer.

    Attributes:
        provider: the wire form.
        stream: whether events are wanted.
        usage: whether a Chat Completions stream should end with counts.
    """

    provider: str
    stream: bool = False
    usage: bool = True


@dataclass(frozen=True)
class Rendered:
    """An answer as bytes.

    Attributes:
        head: status line, headers and the blank line.
        pieces: the body, one piece per event, or slices of a plain body.
        closes: whether the connection ends with the answer.
    """

    head: bytes
    pieces: tuple[bytes, ...]
    closes: bool = False

    @cached_property
    def whole(self) -> bytes:
        """The whole answer."""
        return self.head + b"".join(self.pieces)

    @property
    def half(self) -> bytes:
        """The head and the first half of the pieces."""
        return self.head + b"".join(self.pieces[: len(self.pieces) // 2])


@cache
def names(provider: str) -> frozenset[str]:
    """Return the scenarios of `provider`."""
    return frozenset(path.stem for path in (FIXTURES / provider).glob("*.json"))


@cache
def load(provider: str, scenario: str) -> Json:
    """Return the fixture as parsed JSON.

    Raises:
        ValueError: when there is no such scenario; it names those there are.
    """
    if scenario not in names(provider):
        known = ", ".join(sorted(names(provider)))
        raise ValueError(f"scenario of {provider}: found {scenario!r}, expected one of {known}")
    text = (FIXTURES / provider / f"{scenario}.json").read_text(encoding="utf-8")
    fixture: Json = json.loads(text)
    return fixture


def resolve(provider: str, scenario: str, *, stream: bool) -> str:
    """Return the fixture to use: the streamed twin for a stream, the plain twin otherwise."""
    twin = f"stream_{scenario}" if stream else scenario.removeprefix("stream").strip("_")
    if not stream and scenario == "stream":
        twin = "text"
    return twin if twin in names(provider) else scenario


@cache
def render(asked: Asked, scenario: str) -> Rendered:
    """Return the bytes that answer `asked` with `scenario`."""
    name = resolve(asked.provider, scenario, stream=asked.stream)
    return render_fixture(asked, load(asked.provider, name))


def render_fixture(asked: Asked, fixture: Json) -> Rendered:
    """Return the bytes of one fixture, turned into events where a stream is asked for."""
    if "sse" in fixture:
        events = [Event(event["data"], event.get("event")) for event in fixture["sse"]]
        return _render_events(asked, fixture, events)
    if asked.stream and _is_reply(fixture):
        headers = {**fixture["headers"], "content-type": "text/event-stream; charset=utf-8"}
        events = _RENDERERS[asked.provider](fixture["body"])
        return _render_events(asked, {**fixture, "headers": headers}, events)
    return _render_plain(fixture)


def _is_reply(fixture: Json) -> bool:
    if fixture["status"] != HTTPStatus.OK or "body" not in fixture:
        return False
    body = fixture["body"]
    kind = body.get("object") or body.get("type")
    return kind in ("response", "chat.completion", "message") or "usageMetadata" in body


def _render_plain(fixture: Json) -> Rendered:
    text = fixture["raw"] if "raw" in fixture else dump(fixture["body"])
    body = text.encode()
    head = _head(fixture, {"content-length": str(len(body))})
    step = -(-len(body) // _SLICES) or 1
    pieces = tuple(body[start : start + step] for start in range(0, len(body), step))
    return Rendered(head, pieces)


def _render_events(asked: Asked, fixture: Json, events: Sequence[Event]) -> Rendered:
    if asked.provider == "compatible" and not asked.usage:
        events = without_usage(events)
    newline = "\r\n" if asked.provider == "google" else "\n"
    chunks = [event.encode(newline) for event in events]
    pieces = [b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks]
    closes = fixture.get("behaviour") == "close"
    if not closes:
        pieces.append(_LAST_CHUNK)
    head = _head(fixture, {"transfer-encoding": "chunked"})
    return Rendered(head, tuple(pieces), closes)


def _head(fixture: Json, extra: dict[str, str]) -> bytes:
    status = fixture["status"]
    known = {item.value: item.phrase for item in HTTPStatus}
    lines = [f"HTTP/1.1 {status} {known.get(status, 'Overloaded')}"]
    lines += [f"{name}: {value}" for name, value in {**fixture["headers"], **extra}.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
