"""Translation of a provider's HTTP status, error code and headers to one of muse's error classes.

Entry points: `status_error`, `timeout_error`, `connection_error`, `local_error`, `malformed_response_error`.
"""

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
# Codes for a used-up account, as opposed to too many requests at once.
_QUOTA_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "quota_exceeded"})
_QUOTA_WORDS = ("credit balance is too low", "exceeded your current quota")
_QUOTA_STATUSES = frozenset({400, 402, 403, 429})
# Codes for a wrong key that comes with status 400 (Google), or in the middle of a stream.
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
    """Return the error for an HTTP answer that is not a good one; keys are masked in its text.

    401 and 403 give `AuthError`, 404 `NotFoundError`, a used-up quota `QuotaError` whatever its status, 408 and 504
    `ProviderTimeout`, 429 `RateLimitError`, 5xx and overload codes `ProviderDown`, other 4xx `RequestError`.

    Args:
        provider: The name of the provider.
        model: The name of the model.
        status: The HTTP status.
        code: The provider's error code.
        message: The provider's message.
        headers: The headers of the answer, which may hold a retry time.
        is_quota: True if the account is used up; None derives that from code and message.
        moderation: The reasons of a content policy that refused the request, which gives a `BlockedReply`; None derives
            a refusal from code and message.
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
    """Return the error for a call without an answer within its time limit."""
    text = f"no answer within {timeout_s:.3g} s"
    return ProviderTimeout(text, provider=provider, model=model, code="timeout", retryable=True)


def connection_error(provider: str, model: str, exc: BaseException) -> ProviderDown:
    """Return the error for a connection that was refused or broke off; its text is that of the innermost cause."""
    cause: BaseException = exc
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = _shorten(f"connection failed: {str(cause) or str(exc) or type(cause).__name__}")
    return ProviderDown(text, provider=provider, model=model, code="connection", retryable=True)


def local_error(exc: BaseException) -> ConfigError | None:
    """Return the error for a fault of this machine or its settings that prevented the sending; None if there is none.

    Such a fault is not the provider's: it is not retried, and does not count against the provider.
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
    """Return the error for an answer with a good status whose body is not what was `expected`."""
    what = "an empty body" if not body.strip() else f"{len(body)} bytes that are not {expected}"
    return ProviderDown(f"answered with {what}", provider=provider, model=model, code="unreadable", retryable=True)


def malformed_response_error(provider: str, model: str, exc: Exception) -> ProviderDown:
    """Return the error for an answer of unknown form; the exception says where reading it failed."""
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
