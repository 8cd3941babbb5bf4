"""HTTP status, code and headers of any provider -> the one error class for it; it knows no SDK."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence

from muse.journal.secrets import redact
from muse.policies.rate_limit_headers import retry_after_s
from muse.providers._replies.moderation import is_moderation
from muse.types.errors import (
    AuthError,
    BlockedReply,
    ConfigError,
    NotFoundError,
    ProviderDown,
    ProviderError,
    ProviderTimeout,
    QuotaError,
    RateLimitError,
    RequestError,
)
from muse.types.surrogates import join_surrogates

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
    moderation: Sequence[str] | None = None,
) -> ProviderError | BlockedReply:
    """The error for an HTTP answer that is not a good one; keys are masked in its text.

    `is_quota` says whether the account is used up where the caller knows it; None tells it by code and words.
    `moderation` are the reasons of a content policy where the caller knows that one refused; None tells that by code
    and words too, and such a refusal is a `BlockedReply`.

    401 and 403 are `AuthError`, 404 `NotFoundError`, a used-up quota `QuotaError` whatever its status, 408 and 504
    `ProviderTimeout`, 429 `RateLimitError`, 5xx and overload codes `ProviderDown`, other 4xx `RequestError`.
    """
    words = _shorten(str(message or "no message"))
    sign = _shorten(str(code)) if code not in (None, "", status, str(status)) else None
    if moderation is not None or (not is_quota and is_moderation(status, sign or "", words)):
        said = " ".join(part for part in (provider, model) if part)
        why = _shorten(f" ({', '.join(moderation)})") if moderation else ""
        what = " ".join(part for part in (str(status) if status >= 400 else "", sign or "") if part)
        text = ": ".join(
            part for part in (said, what, f"the provider's content policy refused it: {words}{why}") if part
        )
        return BlockedReply(text, provider=provider, model=model)
    kind = _class_of(status, sign or "", words, is_quota)
    return kind(
        words,
        provider=provider,
        model=model,
        status=status,
        code=sign,
        retryable=kind is not QuotaError and (status in _RETRYABLE or kind in (RateLimitError, ProviderDown)),
        retry_after_s=retry_after_s(headers) if headers else None,
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


def local_error(exc: BaseException) -> ConfigError | None:
    """Return the error for a fault of this machine or its settings that kept a request from being sent; None if none.

    Such a fault is no provider's: it is not retried, and does not count against the provider.
    """
    link: BaseException | None = exc
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        if isinstance(link, ConfigError):
            return link
        if type(link).__name__ in _UNUSABLE_ADDRESS:
            found = f"an address that cannot be used ({_shorten(str(link)) or type(link).__name__})"
            return ConfigError("base URL", found, "an address such as https://host.example/v1")
        if isinstance(link, FileNotFoundError) and link.filename:
            return ConfigError(str(link.filename), "no such file", "a file that is there: see where its path is set")
        if isinstance(link, OSError) and link.errno in (errno.EMFILE, errno.ENFILE):
            return ConfigError("open files", f"as many as allowed ({link.strerror})", "a higher limit (ulimit -n)")
        link = link.__cause__ or link.__context__
    return None


_UNUSABLE_ADDRESS = frozenset({"InvalidURL", "InvalidUrlClientError", "UnsupportedProtocol", "LocalProtocolError"})


def invalid_body_error(provider: str, model: str, body: bytes, *, expected: str = "a JSON object") -> ProviderDown:
    """A good status with a body that is not what was `expected`."""
    what = "an empty body" if not body.strip() else f"{len(body)} bytes that are not {expected}"
    return ProviderDown(f"answered with {what}", provider=provider, model=model, code="unreadable", retryable=True)


def malformed_response_error(provider: str, model: str, exc: Exception) -> ProviderDown:
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


def _shorten(text: str) -> str:
    masked = " ".join(redact(join_surrogates(text)).split())
    return masked if len(masked) <= _LONGEST_MESSAGE else masked[: _LONGEST_MESSAGE - 1] + "…"
