"""HTTP status, code and headers of any provider -> the one error class for it; it knows no SDK."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from muse.errors import (
    AuthError,
    NotFoundError,
    ProviderDown,
    ProviderError,
    ProviderTimeout,
    QuotaError,
    RateLimitError,
    RequestError,
)
from muse.keys import mask
from muse.policies.allowance import reset_s

_LONGEST_MESSAGE = 500
_RETRYABLE = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
# Codes by which providers tell a used-up account from too much at once.
_QUOTA_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "quota_exceeded"})
_QUOTA_WORDS = ("credit balance is too low", "exceeded your current quota")
_QUOTA_STATUSES = frozenset({400, 402, 403, 429})
# A wrong key that comes as a 400 (Google), or in the middle of a stream.
_KEY_CODES = frozenset({"API_KEY_INVALID", "authentication_error", "invalid_api_key", "permission_error"})
_OVERLOADED = frozenset({"overloaded_error", "server_error", "internal_error", "server_overloaded", "slow_down"})


def status_error(
    provider: str,
    model: str,
    status: int,
    *,
    code: object = None,
    message: object = "",
    headers: Mapping[str, str] | None = None,
    is_quota: bool | None = None,
) -> ProviderError:
    """The error for an HTTP answer that is not a good one; keys are masked in its text.

    `is_quota` says whether the account is used up where the caller knows it; None tells it by code and words.

    401 and 403 are `AuthError`, 404 `NotFoundError`, a used-up quota `QuotaError` whatever its status, 408 and 504
    `ProviderTimeout`, 429 `RateLimitError`, 5xx and overload codes `ProviderDown`, other 4xx `RequestError`.
    """
    words = _shorten(str(message or "no message"))
    sign = _shorten(str(code)) if code not in (None, "", status, str(status)) else None
    kind = _class_of(status, sign or "", words, is_quota)
    return kind(
        words,
        provider=provider,
        model=model,
        status=status,
        code=sign,
        retryable=kind is not QuotaError and (status in _RETRYABLE or kind in (RateLimitError, ProviderDown)),
        retry_after_s=_retry_after_s(headers) if headers else None,
    )


def timeout_error(provider: str, model: str, timeout_s: float) -> ProviderTimeout:
    """No answer within the time of the call."""
    text = f"no answer within {timeout_s:.3g} s"
    return ProviderTimeout(text, provider=provider, model=model, code="timeout", retryable=True)


def connection_error(provider: str, model: str, exc: BaseException) -> ProviderDown:
    """The connection was refused or broke off; the innermost cause is the one that says why."""
    cause: BaseException = exc
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = _shorten(f"connection failed: {str(cause) or str(exc) or type(cause).__name__}")
    return ProviderDown(text, provider=provider, model=model, code="connection", retryable=True)


def unreadable_error(provider: str, model: str, body: bytes, *, expected: str = "a JSON object") -> ProviderDown:
    """A good status with a body that is not what was `expected`."""
    what = "an empty body" if not body.strip() else f"{len(body)} bytes that are not {expected}"
    return ProviderDown(f"answered with {what}", provider=provider, model=model, code="unreadable", retryable=True)


def misread_error(provider: str, model: str, exc: Exception) -> ProviderDown:
    """An answer of a form that nobody knows; the exception says where reading it ended."""
    text = _shorten(f"answered in a form that cannot be read ({type(exc).__name__}: {exc})")
    return ProviderDown(text, provider=provider, model=model, code="unreadable", retryable=True)


def _class_of(status: int, code: str, message: str, is_quota: bool | None) -> type[ProviderError]:
    if is_quota or (is_quota is None and _tells_quota(status, code, message)):
        return QuotaError
    if code in _KEY_CODES:
        return AuthError
    by_status: dict[int, type[ProviderError]] = {
        401: AuthError,
        402: QuotaError,
        403: AuthError,
        404: NotFoundError,
        408: ProviderTimeout,
        429: RateLimitError,
        504: ProviderTimeout,
    }
    if status in by_status:
        return by_status[status]
    if code.startswith("rate_limit"):
        return RateLimitError
    if status >= 500 or code in _OVERLOADED or status < 300:
        return ProviderDown
    return RequestError


def _tells_quota(status: int, code: str, message: str) -> bool:
    lower = message.lower()
    return code in _QUOTA_CODES or (status in _QUOTA_STATUSES and any(word in lower for word in _QUOTA_WORDS))


def _retry_after_s(headers: Mapping[str, Any]) -> float | None:
    """`retry-after-ms`, or `retry-after` in seconds or as an HTTP date (RFC 9110, 10.2.3); None if unreadable.

    Without either, when the allowance that is used up is whole again, as far as headers say that.
    """
    exact = _number(headers.get("retry-after-ms"))
    if exact is not None:
        return exact / 1000
    plain = headers.get("retry-after")
    if plain is None:
        return reset_s(headers)
    seconds = _number(plain)
    return seconds if seconds is not None else _until_s(str(plain))


def _number(text: object) -> float | None:
    """A number of zero or more that is one; None else."""
    try:
        number = float(str(text))
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None


def _until_s(date: str) -> float | None:
    """Seconds from now until an HTTP date, such as `Fri, 20 Nov 2026 09:30:00 GMT`."""
    try:
        then = datetime.strptime(date, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    except ValueError:
        return None
    return max(0.0, then.timestamp() - time.time())


def _shorten(text: str) -> str:
    masked = " ".join(mask(text).split())
    return masked if len(masked) <= _LONGEST_MESSAGE else masked[: _LONGEST_MESSAGE - 1] + "…"
