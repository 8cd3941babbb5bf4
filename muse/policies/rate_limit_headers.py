"""Read from response headers how much of a rate limit is left and when to ask again; waits for nothing itself.

Sources: RFC 9110, 10.2.3 (`Retry-After`) and 5.6.7 (the three date forms); OpenAI's guide on rate limits
(`x-ratelimit-remaining-*` and `x-ratelimit-reset-*`, durations such as `6m0s`; Azure and gateways send plain seconds);
OpenRouter's page on limits (`X-RateLimit-Reset` in epoch milliseconds); Anthropic's page on rate limits
(`anthropic-ratelimit-*-remaining` and `-reset`, RFC 3339 times).
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

_KINDS = ("requests", "tokens", "input-tokens", "output-tokens")
PAIRS = {f"x-ratelimit-remaining-{kind}": f"x-ratelimit-reset-{kind}" for kind in _KINDS}
PAIRS |= {f"anthropic-ratelimit-{kind}-remaining": f"anthropic-ratelimit-{kind}-reset" for kind in _KINDS}
PAIRS |= {f"{start}ratelimit-remaining": f"{start}ratelimit-reset" for start in ("x-", "")}
_PIECE = r"(?a:(\d+(?:\.\d+)?)(ms|us|µs|ns|d|h|m|s)\s*)"
_DURATION = f"(?:{_PIECE})+"
_UNITS_S = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
# A plain number from here on (2001 in seconds) is a moment and no span; a thousand times as much is in milliseconds.
_FIRST_EPOCH_S = 1e9
_FIRST_EPOCH_MS = 1e11
# They say when an allowance will be whole again, and it fills all the while.
_LONGEST_S = 60.0
_BREATH_S = 1.0

_told: ContextVar[float] = ContextVar("_told", default=0.0)


def retry_after_s(headers: Mapping[str, Any]) -> float | None:
    """Return the seconds to wait before the next request, or None if the headers do not say.

    Read in order: `retry-after-ms`, `retry-after` (seconds or one of the date forms), the reset of a used-up limit, the
    reset of a limit of which nobody says what is left. A value that cannot be read is passed over.
    """
    exact = _number(headers.get("retry-after-ms"))
    if exact is not None:
        return exact / 1000
    plain = headers.get("retry-after")
    wait = None if plain is None else span_s(str(plain))
    return _first_known(wait, reset_s(headers), _unsaid_reset_s(headers))


def _first_known(*waits: float | None) -> float | None:
    return next((wait for wait in waits if wait is not None), None)


def _unsaid_reset_s(headers: Mapping[str, Any]) -> float | None:
    """Return the seconds until the limits are reset whose headers do not say what is left, at most 60."""
    return _longest(span_s(str(headers.get(reset) or "")) for left, reset in PAIRS.items() if headers.get(left) is None)


def _longest(waits: Iterable[float | None]) -> float | None:
    known = [wait for wait in waits if wait is not None]
    return min(max(known), _LONGEST_S) if known else None


def reset_s(headers: Mapping[str, Any]) -> float | None:
    """Return the seconds until every used-up limit is reset, at most 60; None if none is used up or nobody says."""
    used_up = [reset for left, reset in PAIRS.items() if _is_none(headers.get(left))]
    return _longest(span_s(str(headers.get(reset) or "")) for reset in used_up)


def _is_none(left: object) -> bool:
    return left is not None and _number(left) == 0


def record_headers(headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Keep, for `pop_reset`, that an answer says of an allowance that it has used it up."""
    for name, value in headers:
        if value == b"0" and b"ratelimit-" in name.lower():
            found = reset_s({name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers})
            _told.set(min(found or 0.0, _BREATH_S))
            return


def pop_reset() -> float:
    """Seconds to hold back after the last answer of this thread or task, said once; 0: there is room."""
    told = _told.get()
    if told:
        _told.set(0.0)
    return told


def span_s(text: str) -> float | None:
    """Return the seconds that a header value asks to wait, 0 if that is past; None if it cannot be read.

    Taken are seconds (`12`, `0.5`), a moment in epoch seconds or milliseconds, a duration (`1m30s`, `20ms`), an RFC
    3339 time (UTC if it names no zone), and the three date forms of RFC 9110.
    """
    bare = text.strip()
    number = _number(bare)
    if number is not None:
        if number >= _FIRST_EPOCH_MS:
            number /= 1000
        return number if number < _FIRST_EPOCH_S else max(0.0, number - time.time())
    if re.fullmatch(_DURATION, bare):
        return sum(float(size) * _UNITS_S[unit] for size, unit in re.findall(_PIECE, bare))
    then = _moment(bare)
    return None if then is None else max(0.0, (then - datetime.now(UTC)).total_seconds())


def _number(text: object) -> float | None:
    """Return a finite number, negative ones as 0; None if `text` is none."""
    try:
        number = float(str(text))
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None


def _moment(text: str) -> datetime | None:
    """Return the moment that a date names, in UTC where it says no zone or `-0000`."""
    if not text[:1].isalnum():
        return None
    try:
        then = datetime.fromisoformat(text) if text[0].isdigit() else _http_date(text)
    except (ValueError, OverflowError):
        return None
    return then if then.tzinfo else then.replace(tzinfo=UTC)


def _http_date(text: str) -> datetime:
    """Parse a date in one of the three forms of RFC 9110, 5.6.7.

    The obsolete form with two digits for the year means the past where it would be more than 50 years ahead.

    Raises:
        ValueError: it has none of the forms.
    """
    from email.utils import parsedate_to_datetime  # only a response that asks to wait needs it

    then = parsedate_to_datetime(text)
    year = re.search(_SHORT_YEAR, text)
    if year is None:
        return then
    now = datetime.now(UTC).year
    full = now // 100 * 100 + int(year[1])
    return then.replace(year=full - 100 if full > now + 50 else full)


_SHORT_YEAR = r"\d-[A-Za-z]{3}-(\d\d)(?!\d)"
