"""Which failures pass by themselves and how long to wait before the next try; it makes no call and does not sleep.

Transient are lost connections, time-outs, 408, 409, 429, 5xx, 529 and what providers call overloaded: an error says so
itself (`retryable`). A used-up quota is none of these. Waits double from half a second to eight, with jitter, and are
never shorter than what the provider asked for (`Retry-After`).
"""

from __future__ import annotations

from muse.types.errors import InterruptedReply, ProviderError, QuotaError

_FIRST_S = 0.5
_LONGEST_S = 8.0


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed a little later; an answer that broke off counts by what broke it."""
    if isinstance(error, InterruptedReply):
        return error.__cause__ is None or is_transient(error.__cause__)
    return isinstance(error, ProviderError) and error.retryable and not isinstance(error, QuotaError)


def backoff_s(error: BaseException, tries: int) -> float:
    """Seconds to wait after the failure of try number `tries` (from 1 on)."""
    from random import random  # 1 ms, and only who tries again pays it

    backoff: float = min(_LONGEST_S, _FIRST_S * 2 ** (tries - 1)) * (0.5 + random() / 2)  # noqa: S311 - no secret
    asked = error.retry_after_s if isinstance(error, ProviderError) else None
    return max(backoff, asked or 0.0)
