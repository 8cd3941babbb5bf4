"""The words by which providers say how an answer ended -> muse's own; a word that is not listed is an error."""

from __future__ import annotations

from collections.abc import Collection

from muse.types.messages import Finish

# Truncation and refusal are told in each other's words where one API is offered in the form of another.
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
# The same request may be answered the next time: the server cut it short, or the model wrote a call that is none.
_TRANSIENT = frozenset(
    {
        *("error", "failed", "cancelled", "canceled", "abort", "aborted", "in_progress", "queued", "timeout"),
        *("other", "malformed_function_call", "malformed_response", "unexpected_tool_call", "too_many_tool_calls"),
        *("network_error", "insufficient_system_resource", "repetition", "no_image", "image_other"),
    }
)


def is_no_end(word: object) -> bool:
    """Whether a word in the place of an end says nothing; DashScope writes the text `null` into each chunk."""
    return word in (None, "", "null", "None", "none")


def finish_of(word: object, good: Collection[str]) -> Finish:
    """How an answer ended that says `word`: "stop" for one of the `good` words of its wire form (lower case).

    No word, or an empty one, counts as good: what else says that the answer is over was read by then.
    """
    if is_no_end(word):
        return "stop"
    lower = str(word).lower()
    if lower in good:
        return "stop"
    return "length" if lower in _TRUNCATED else "blocked" if lower in _BLOCKED else "error"


def is_transient_end(word: str) -> bool:
    """Whether the same request may end otherwise the next time."""
    return word.lower() in _TRANSIENT
