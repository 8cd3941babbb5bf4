"""Lines of the token log for calls made elsewhere, and what a line cost; it makes no call."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from typing import Any

from muse.providers import specs
from muse.types.call_ids import UNDER_WAY, Attempted, new_call_id
from muse.types.provider_spec import provider_of
from muse.types.usage import normalize_usage, parse_usage
from muse.usage_log import ledger, prices

log = logging.getLogger(__name__)


def log_token_usage(model: str, usage: Any, context: str | None = None, segment: str | None = None) -> None:
    """Write one line of the token log for a call made elsewhere; it never raises.

    `usage` may be the unified dict, OpenAI's, Anthropic's or Gemini's own form, a whole Gemini response, or anything
    with integer entries. `context` None means the caller's `module.function:line`.
    """
    attempt = UNDER_WAY.get() or Attempted(new_call_id())
    entry: dict[str, Any] = {
        "timestamp": time.time(),
        "call_id": attempt.call_id,
        "attempt": attempt.number,
        "model": model,
        "context": context or ledger.caller_context(2),
        "usage": _counts(usage),
    }
    named = segment or os.environ.get("SEGMENT_KEY")
    if named:
        entry["segment"] = named
    ledger.append(entry)


def _counts(usage: Any) -> dict[str, int]:
    """The counts of a usage of any make; none, and a warning, if looking at it fails."""
    try:
        return normalize_usage(usage)
    except Exception as exc:  # noqa: BLE001 - an object of the caller's may do anything, and logging never raises
        log.warning("the usage of a call cannot be read (%s: %s); its line has no counts", type(exc).__name__, exc)
        return {}


def calc_token_cost(entry: Mapping[str, Any]) -> dict[str, Any] | None:
    """A log line's `{total_cost, input_cost, output_cost, currency}`; None without model, usage or price."""
    model, raw = entry.get("model"), entry.get("usage")
    if not model or not isinstance(raw, Mapping) or not raw:
        return None
    provider = str(entry.get("provider") or provider_of(str(model), specs()))
    spec = specs().get(provider)
    if spec is not None and spec.free:
        return _cost(0.0, 0.0)
    usage = parse_usage(raw)
    if not usage.total_tokens and any(normalize_usage(raw).values()):
        return None  # counts of a form that says nothing of input and output
    cost = prices.cost_of(str(model), usage, spec.price_id if spec else None)
    if cost is None:
        return None
    share = (spec.batch_price if spec and entry.get("lane") else None) or 1.0  # the lanes of batch services
    return _cost(cost.input_cost * share, cost.output_cost * share)


def provider_and_cost(entry: Mapping[str, Any]) -> tuple[str, float | None]:
    """`(provider, dollars)` of a line that may say neither; no dollars where no price is known."""
    provider = str(entry.get("provider") or provider_of(str(entry.get("model") or ""), specs()) or "")
    cost = calc_token_cost(entry)
    return provider, None if cost is None else float(cost["total_cost"])


def _cost(input_cost: float, output_cost: float) -> dict[str, Any]:
    total = input_cost + output_cost
    return {"total_cost": total, "input_cost": input_cost, "output_cost": output_cost, "currency": "USD"}
