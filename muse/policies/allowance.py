"""What providers say of the room that is left, in the headers of their answers; it waits for nothing.

Sources: OpenAI's guide on rate limits (`x-ratelimit-remaining-*` and `x-ratelimit-reset-*`, these as durations such as
`6m0s`; gateways and Azure send the same); Anthropic's page on rate limits (`anthropic-ratelimit-*-remaining` and
`-reset`, these as RFC 3339 times).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime

_KINDS = ("requests", "tokens", "input-tokens", "output-tokens")
_PAIRS = {f"x-ratelimit-remaining-{kind}": f"x-ratelimit-reset-{kind}" for kind in _KINDS}
_PAIRS |= {f"anthropic-ratelimit-{kind}-remaining": f"anthropic-ratelimit-{kind}-reset" for kind in _KINDS}
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_UNITS_S = (86_400.0, 3_600.0, 60.0, 1.0, 0.001)
# They say when an allowance will be whole again, and it fills all the while.
_LONGEST_S = 60.0
_BREATH_S = 1.0

_told: ContextVar[float] = ContextVar("_told", default=0.0)


def reset_s(headers: Mapping[str, str]) -> float | None:
    """How long until there is room again where some kind of allowance is used up; None if none is, or nobody says."""
    waits = [_seconds(str(headers.get(reset, ""))) for left, reset in _PAIRS.items() if headers.get(left) == "0"]
    known = [wait for wait in waits if wait is not None]
    return min(max(known), _LONGEST_S) if known else None


def note(headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Keep, for `taken`, that an answer says of an allowance that it has used it up."""
    for name, value in headers:
        if value == b"0" and b"atelimit-" in name:
            found = reset_s({name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers})
            _told.set(min(found or 0.0, _BREATH_S))
            return


def taken() -> float:
    """Seconds to hold back after the last answer of this thread or task, said once; 0: there is room."""
    told = _told.get()
    if told:
        _told.set(0.0)
    return told


def _seconds(text: str) -> float | None:
    """A duration such as `1m2.5s`, or the time until a moment of RFC 3339."""
    match = _DURATION.fullmatch(text)
    if text and match:
        return sum(float(part) * unit for part, unit in zip(match.groups(), _UNITS_S, strict=True) if part)
    try:
        then = datetime.fromisoformat(text)
    except ValueError:
        return None
    return max(0.0, (then - datetime.now(UTC)).total_seconds()) if then.tzinfo else None
