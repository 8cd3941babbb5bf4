"""Recognition of content-policy refusals in error bodies, as opposed to errors of the account or key.

Entry points: `reasons_of`, `is_moderation`.

Sources: the error references of OpenAI (`content_policy_violation`, `invalid_prompt`, `moderation_blocked`), Azure
OpenAI (400 `content_filter` with `innererror.code`), Anthropic ("Output blocked by content filtering policy"),
OpenRouter (403 with `metadata.reasons` and `metadata.flagged_input`), xAI (403 "Content violates usage guidelines"),
DeepSeek ("Content Exists Risk"), Alibaba (`data_inspection_failed`), Moonshot (`content_filter`, "considered high
risk"), Volcengine (`InputTextSensitiveContentDetected`), Amazon Bedrock ("guardrail") and Vertex AI ("Responsible AI").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

# The statuses of a content policy's refusal; 200 is an error in the middle of a stream.
_STATUSES = frozenset({200, 400, 403, 422, 451})
_CODE = (
    r"contentfilter|content(policy|moderation|safety)|moderation|responsibleai|datainspection|sensitive(content|word)"
    r"|safety(violation|filter|block|check)|flagged|invalidprompt$|cyberpolicy|guardrail|prohibitedcontent|^safety$"
    r"|(usage|safety)policyviolation|promptblocked|contentblocked|^blocklist$|^spii$|^recitation$"
)
_SAID = r"(?:input|prompt|content|message|request|text|image|output|response|answer|conversation|query)s?"
_POLICY = (
    r"(?:usage|use|content|safety|community|moderation|ai)\b.{0,30}\b(?:polic(?:y|ies)|guidelines?|rules|standards)"
)
_WORDS = (
    rf"\b{_SAID}\b.{{0,60}}\bflagged\b|\bflagged\b.{{0,40}}\b(?:moderation|{_SAID}|unsafe|violence|sexual|hate)\b"
    r"|\b(?:blocked|rejected|refused|stopped|filtered|denied|failed|triggered|did not pass)\b.{0,60}"
    r"\b(?:moderation|content filter\w*|safety (?:system|filter|check|polic\w+|setting\w*)|guardrails?)\b"
    r"|\bmoderation (?:blocked|failed|rejected|refused|system|policy|error)\b"
    rf"|\bviolat\w*\b.{{0,60}}\b{_POLICY}\b|\b{_POLICY}\b.{{0,30}}\bviolat"
    r"|\bcontent (?:management|filter\w*|moderation|usage) polic"
    r"|\bcontent exists risk\b|\bconsidered high risk\b|\bresponsible ai\b"
    r"|\b(?:inappropriate|harmful|unsafe|sensitive) (?:content|words|information|material)\b"
    r"|\bprohibited (?:content|use)\b"
)
# Words of a policy that refuses the account, whatever the request contains.
_ACCOUNT = (
    r"\b(?:account|organi[sz]ation|workspace|project|team|api key|your key|credential\w*|token|country|region|territory"
    r"|permissions?|not authori[sz]ed|not have access|access to|ip address)\b"
)


def reasons_of(body: object) -> tuple[str, ...] | None:
    """Return the reasons of a moderation as an error body lists them; None if the body has no sign of a moderation.

    An empty tuple means that the body shows a moderation without a reason.
    """
    if not isinstance(body, Mapping):
        return None
    for holder in _holders(body):
        reasons = holder.get("reasons")
        if "flagged_input" in holder or ("flagged" in holder and holder["flagged"] is True):
            return tuple(str(reason) for reason in reasons) if isinstance(reasons, (list, tuple)) else ()
        code = holder.get("code")
        if isinstance(code, str) and _has(_CODE, _plain(code)):
            return ()
    return None


def _holders(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of an error body that may hold details of a moderation."""
    error = body.get("error")
    for outer in (body, error if isinstance(error, Mapping) else {}):
        for name in ("metadata", "innererror", "inner_error", "moderation"):
            inner = outer.get(name)
            if isinstance(inner, Mapping):
                yield inner


def is_moderation(status: int, code: str, words: str) -> bool:
    """Return True if an error with this HTTP status, code and message is a content policy's refusal."""
    if status not in _STATUSES:
        return False
    if _has(_CODE, _plain(code)):
        return True
    return _has(_WORDS, words) and not _has(_ACCOUNT, words)


def _has(pattern: str, text: str) -> bool:
    """Return True if the pattern matches; it is compiled at first use, since most processes see no such error."""
    return re.search(pattern, text, re.IGNORECASE | re.DOTALL) is not None


def _plain(code: str) -> str:
    return "".join(char for char in code.lower() if char.isalnum())
