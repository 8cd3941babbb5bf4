"""What the server can be told to do with one request; it does not know how it is done."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.loopback.events import Json


@dataclass(frozen=True)
class Hang:
    """Read the request and never answer."""


@dataclass(frozen=True)
class Close:
    """Read the request, then close the connection without a byte."""


@dataclass(frozen=True)
class HangHalfway:
    """Send the head and half of the body, then nothing more."""

    scenario: str = "text"


@dataclass(frozen=True)
class CloseHalfway:
    """Send the head and half of the body, then close."""

    scenario: str = "text"


@dataclass(frozen=True)
class Drip:
    """Send the body piece by piece: a stream by events, a plain reply in eight pieces.

    Attributes:
        interval_s: seconds before each piece.
    """

    interval_s: float
    scenario: str = "stream"


@dataclass(frozen=True)
class Delay:
    """Answer after `seconds`."""

    seconds: float
    scenario: str = "text"


@dataclass(frozen=True)
class Answer:
    """Answer with a body that no fixture holds; it is streamed when the request asks for it."""

    body: Json
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Raw:
    """Send these bytes as they are (status line included), then close."""

    data: bytes


Behaviour = Hang | Close | HangHalfway | CloseHalfway | Drip | Delay | Answer | Raw
Step = str | Behaviour


def scenario_of(step: Step) -> str | None:
    """Return the scenario that `step` needs, or None if it needs none."""
    match step:
        case str():
            return step
        case HangHalfway() | CloseHalfway() | Drip() | Delay():
            return step.scenario
        case Hang() | Close() | Answer() | Raw():
            return None
