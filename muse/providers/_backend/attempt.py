"""The record of one attempt at a call: duration, translated errors, usage-log entry and reply checks.

Entry points: `AttemptRecorder`, `translate`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from muse.journal.secrets import redact_exception
from muse.policies.deadline import Deadline
from muse.policies.resend_guard import STALE, ResendGuard
from muse.providers._backend.fitting import with_own_names
from muse.providers._backend.provider import Provider
from muse.providers._replies.errors import malformed_response_error, timeout_error
from muse.providers._replies.finish_reasons import is_transient_end
from muse.streaming.stream_base import MISREAD
from muse.types.call_ids import Attempted, new_call_id
from muse.types.errors import (
    BlockedReply,
    EmptyReply,
    MuseError,
    ProviderDown,
    ProviderError,
    ReplyError,
    TruncatedReply,
)
from muse.types.formatting import exact_usd
from muse.types.messages import Attempt, Reply, Request, Route
from muse.types.usage import Usage, estimate_usage, parse_usage
from muse.usage_log import in_flight, ledger, prices


class CallMetadata(Struct, frozen=True):
    """The origin of a call, for the usage log.

    Attributes:
        context: The context the call belongs to.
        route: How the call was routed.
        segment: The journal segment the call is about.
        attempt: The logical call and the number of this attempt; None for a call that is not part of another one.
    """

    context: str | None = None
    route: Route | None = None
    segment: str | None = None
    attempt: Attempted | None = None


class BatchPricing(Struct, frozen=True):
    """The pricing of an answer that did not come from a live call.

    Attributes:
        name: The name of the lane, as it is written to the usage log.
        price: The share of the list price that is charged.
        item: The id of the request in its batch.
        since_ts: When the request was sent, in seconds since the epoch.
        is_logged: True if the usage log already has an entry for this answer.
    """

    name: str
    price: float
    item: str
    since_ts: float
    is_logged: bool = False


class AttemptRecorder:
    """A record of one attempt, which ends with exactly one entry in the usage log.

    As a context manager it translates exceptions: SDK and transport errors become `ProviderError`s, a time-out becomes
    a `ProviderTimeout`, and a cancellation passes through. Each of these failures gets its usage-log entry.
    """

    def __init__(
        self,
        provider: Provider,
        request: Request,
        origin: CallMetadata,
        deadline: Deadline,
        dropped: tuple[str, ...],
        lane: BatchPricing | None = None,
    ) -> None:
        self._provider = provider
        self._request = request
        self._origin = origin
        self._deadline = deadline
        self._dropped = dropped
        self._raw: Mapping[str, Any] = {}
        self._lane = lane
        self._attempt = origin.attempt or Attempted(new_call_id())
        self._started_s = time.perf_counter()
        self._ticket: in_flight.Ticket | None = None
        self._sending = ResendGuard(must_be_new=self._attempt.on_new_connection)

    def begin(self) -> ResendGuard:
        """Record the attempt just before its request is sent, so that a killed process leaves a trace of it.

        Returns:
            The context manager in which the request must be sent.
        """
        origin, spec, request = self._origin, self._provider.spec, self._request
        route = origin.route
        record = in_flight.Record(
            self._attempt.call_id,
            self._attempt.number,
            time.time(),
            origin.context,
            spec.name,
            request.model,
            route.reason if route else None,
            origin.segment,
            None,
            max(estimate_usage(request.text_chars, 0).input_tokens, 1),
            spec.free,
            "",
            0,
        )
        self._ticket = ledger.begin(record)
        return self._sending

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if exc is None:
            return
        error = self.failed(exc, usage=_told(self._raw))
        if error is not exc:
            raise error from exc

    def answered(self, raw: Mapping[str, Any]) -> Reply:
        """Decode an answer, log it, and return it if it is usable.

        Raises:
            ProviderError: The answer is an error despite its good status.
            BlockedReply, TruncatedReply, EmptyReply: The answer has no usable text.
        """
        self._raw = raw
        with self:
            decoded = self._provider.decode(raw, self._request)
            names = (call.name for call in decoded.turn.calls)
            _require_text(decoded.model, decoded.text, decoded.thinking, *names)
            usage = _counted(decoded, self._request)
        decoded = decoded if usage is decoded.usage else replace(decoded, usage=usage)
        decoded = with_own_names(decoded, self._request.tools, self._provider.tool_rules)
        problem = _unusable(decoded, self._request)
        cost_usd, note = self._cost(decoded.model, decoded.usage)
        duration_s = self._log(decoded.model, decoded.usage, decoded.finish, cost_usd, note, problem)
        failure = None if problem is None else type(problem).__name__
        attempt = Attempt(decoded.provider, decoded.model, duration_s, decoded.usage, failure)
        if problem is not None:
            problem.attempts = (attempt,)
            raise problem
        return replace(
            decoded,
            route=self._origin.route,
            cost_usd=cost_usd,
            attempts=(attempt,),
            dropped=self._dropped,
            call_id=self._attempt.call_id,
        )

    def failed(self, exc: BaseException, *, usage: Usage | None = None, text: str = "") -> BaseException:
        """Log a failure with the tokens spent so far as they are known, and return the error to raise for it."""
        error = self._translated(exc)
        spent = self._spent(usage, text) if usage or text else Usage()
        cost_usd, note = self._cost(self._request.model, spent)
        if self._ticket is not None and not spent.requests and type(exc).__name__ == "CancelledError":
            spent = estimate_usage(self._request.text_chars, 0)  # the provider may have read the prompt and bill it
            if not self._provider.spec.free:
                cost_usd, note = None, "cancelled before the answer came: what it cost is not known"
        duration_s = self._log(self._request.model, spent, None, cost_usd, note, error)
        if isinstance(error, MuseError):
            name, model = self._provider.spec.name, self._request.model
            error.attempts = (Attempt(name, model, duration_s, spent, type(error).__name__),)
        return error

    def closed(self, usage: Usage | None, text: str) -> None:
        """Log a stream that its caller closed early, with the tokens spent so far as they are known."""
        spent = self._spent(usage, text)
        cost_usd, note = self._cost(self._request.model, spent)
        self._log(self._request.model, spent, "closed", cost_usd, note, None)

    def _translated(self, exc: BaseException) -> BaseException:
        if isinstance(exc, (ProviderError, ReplyError)):
            exc.provider = exc.provider or self._provider.spec.name
            exc.model = exc.model or self._request.model
        error = translate(self._provider, self._request.model, self._deadline.timeout_s, exc)
        if self._sending.is_stale and isinstance(error, ProviderDown):
            error.code = STALE
        return error

    def _spent(self, usage: Usage | None, text: str) -> Usage:
        """Return the usage of an answer that did not end, at least as large as an estimate from its text.

        Providers report the output count at the end of a stream. Before that they report a first count (Anthropic) or
        none.
        """
        estimated = estimate_usage(self._request.text_chars, len(text))
        if usage is None or (usage.requests and not usage.total_tokens):
            return estimated
        if usage.output_tokens >= estimated.output_tokens and (usage.input_tokens or not usage.requests):
            return usage
        counted_in = usage.input_tokens or estimated.input_tokens
        counted_out = max(usage.output_tokens, estimated.output_tokens)
        return replace(usage, input_tokens=counted_in, output_tokens=counted_out, estimated=True)

    def _cost(self, model: str, usage: Usage) -> tuple[float | None, str | None]:
        """Return `(dollars, None)`, or `(None, reason)` if the cost is unknown."""
        spec = self._provider.spec
        if spec.free or not usage.total_tokens:
            return 0.0, None
        cost = prices.cost_of(model, usage, spec.price_id)
        if cost is None and model != self._request.model:
            cost = prices.cost_of(self._request.model, usage, spec.price_id)
        if cost is None:
            return None, "no price known"
        return exact_usd(cost.total_cost * (self._lane.price if self._lane else 1.0)), None

    def _log(
        self,
        model: str,
        usage: Usage,
        finish: str | None,
        cost_usd: float | None,
        note: str | None,
        error: BaseException | None,
    ) -> float:
        """Write the usage-log entry of the attempt and return the attempt's duration in seconds."""
        lane = self._lane
        duration_s = time.perf_counter() - self._started_s if lane is None else max(0.0, time.time() - lane.since_ts)
        if lane is not None and lane.is_logged:
            return duration_s
        origin = self._origin
        entry: dict[str, Any] = {
            "timestamp": time.time(),
            "call_id": self._attempt.call_id,
            "attempt": self._attempt.number,
            "model": model,
            "context": origin.context,
            "usage": usage.as_dict(),
            "provider": self._provider.spec.name,
            "model_asked": self._request.model,
            "route": origin.route.reason if origin.route else None,
            "duration_s": round(duration_s, 6),
            "finish": finish,
            "cost_usd": cost_usd,
        }
        if lane is not None:
            entry |= {"lane": lane.name, "batch_item": lane.item}
        if origin.segment:
            entry["segment"] = origin.segment
        if note:
            entry["cost_note"] = note
        if usage.estimated:
            entry["estimated"] = True
        if error is not None:
            entry["error"] = _error_entry(error)
        ledger.append(entry, self._ticket)
        return duration_s


def translate(provider: Provider, model: str, timeout_s: float, exc: BaseException) -> BaseException:
    """Return muse's error for an exception of a provider's SDK or transport; return any other exception unchanged."""
    if isinstance(exc, MuseError) or not isinstance(exc, Exception):
        return exc
    redact_exception(exc)
    name = provider.spec.name
    try:
        known = provider.fault(exc, model)
    except MISREAD:
        known = malformed_response_error(name, model, exc)  # the error body itself has an unknown form
    if known is not None:
        return known
    if isinstance(exc, TimeoutError):
        return timeout_error(name, model, timeout_s)
    return malformed_response_error(name, model, exc) if isinstance(exc, MISREAD) else exc


def _require_text(*said: object) -> None:
    """Check that all values are text, since a name or answer of another type would be misread later.

    Raises:
        TypeError: A value is not a string.
    """
    odd = next((value for value in said if not isinstance(value, str)), None)
    if odd is not None:
        raise TypeError(f"{type(odd).__name__} where text belongs")


def _error_entry(error: BaseException) -> dict[str, Any]:
    entry: dict[str, Any] = {"class": type(error).__name__}
    if isinstance(error, ProviderError):
        entry |= {"status": error.status, "code": error.code}
    return entry


def _told(raw: Mapping[str, Any]) -> Usage | None:
    """Return the token counts in an answer that turned out to be an error; None if it has none."""
    counts = raw.get("usage") or raw.get("usageMetadata")
    usage = parse_usage(counts) if isinstance(counts, Mapping) else Usage()
    return usage if usage.total_tokens else None


def _counted(reply: Reply, request: Request) -> Usage:
    """Return the reported usage of an answer, with an estimate for each count that cannot be zero."""
    usage, turn = reply.usage, reply.turn
    said = len(reply.text) + len(reply.thinking) + sum(len(call.name) + len(str(call.args)) for call in turn.calls)
    if usage.input_tokens and (usage.output_tokens or not said):
        return usage
    if not usage.total_tokens and not said and reply.finish == "blocked":  # the prompt never reached a model
        return usage
    estimated = estimate_usage(request.text_chars, said)
    known = replace(
        usage,
        input_tokens=usage.input_tokens or estimated.input_tokens,
        output_tokens=usage.output_tokens or estimated.output_tokens,
    )
    return usage if known == usage else replace(known, estimated=True)


def _unusable(reply: Reply, request: Request) -> ReplyError | ProviderError | None:
    """Return the error for a reply that is blocked, cut off, empty or has an unknown end; None if it is usable."""
    name = f"{reply.provider} {reply.model}"
    who = {"text": reply.text, "provider": reply.provider, "model": reply.model}
    match reply.finish:
        case "error":
            return _unfinished(reply)
        case "blocked":
            return BlockedReply(f"{name}: the answer was blocked by the provider", **who)
        case "length":
            return TruncatedReply(
                f"{name}: the answer was cut off at {reply.usage.output_tokens} output tokens;"
                f" raise max_output_tokens (the text so far is in .text)",
                **who,
            )
        case _ if not reply.text.strip() and (request.needs_text or not reply.turn.calls):
            calls = ", ".join(sorted({call.name for call in reply.turn.calls}))
            what = f"called {calls}, which was not offered, and said nothing" if calls else "finished without any text"
            return EmptyReply(f"{name}: the model {what}", **who)
        case _:
            return None


def _unfinished(reply: Reply) -> ProviderDown:
    """Return the error for an answer whose finish reason is not one of a complete answer."""
    return ProviderDown(
        f"ended its answer with {reply.ended_with!r}, which is no end of a whole answer;"
        f" {len(reply.text)} characters of it had come",
        provider=reply.provider,
        model=reply.model,
        code="unfinished",
        retryable=is_transient_end(reply.ended_with),
    )
