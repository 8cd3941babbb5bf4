"""Translation of providers' finish reasons to muse's own; an unknown finish reason is an error.

Entry points: `finish_of`, `is_transient_end`.
"""

from __future__ import annotations

from collections.abc import Collection

from muse.types.messages import Finish

# The words of all APIs are listed together, since a gateway may offer one API in the form of another.
_TRUNCATED = frozenset(
    {
        *("length", "max_tokens", "max_output_tokens", "max_completion_tokens", "max_new_tokens", "max_length"),
        *("model_length", "token_limit", "tokens_limit", "context_length", "context_length_exceeded"),
        *("model_context_window_exceeded", "context_window_exceeded", "maxtokens", "max_tokens_reached"),
    }
)
_BLOCKED = frozenset(
    {
        *("content_filter", "content_filtered", "contentfiltered", "refusal", "safety", "sensitive", "moderation"),
        *("blocked", "guardrail_intervened", "recitation", "language", "blocklist", "prohibited_content", "spii"),
        *("image_safety", "image_prohibited_content", "image_recitation", "model_armor"),
    }
)
# The same request may succeed the next time: the server cut it short, or the model wrote a malformed tool call.
_TRANSIENT = frozenset(
    {
        *("error", "failed", "cancelled", "canceled", "abort", "aborted", "in_progress", "queued", "timeout"),
        *("other", "malformed_function_call", "malformed_response", "unexpected_tool_call", "too_many_tool_calls"),
        *("network_error", "insufficient_system_resource", "repetition", "no_image", "image_other"),
    }
)


def is_no_end(word: object) -> bool:
    """Return True if a finish reason means that there is none; DashScope writes the text `null` into each chunk."""
    return word in (None, "", "null", "None", "none")


def finish_of(word: object, good: Collection[str]) -> Finish:
    """Return muse's finish reason for a provider's finish reason.

    No word, or an empty one, counts as good: by then other signs have shown that the answer is over.

    Args:
        word: The provider's finish reason.
        good: The lower-case finish reasons of its wire form that mean "stop".
    """
    if is_no_end(word):
        return "stop"
    lower = str(word).lower()
    if lower in good:
        return "stop"
    return "length" if lower in _TRUNCATED else "blocked" if lower in _BLOCKED else "error"


def is_transient_end(word: str) -> bool:
    """Return True if the same request may end differently the next time."""
    return word.lower() in _TRANSIENT
