"""One request of a batch and its result. Entry point: `BatchRequest`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct

from muse.policies.retry import is_transient
from muse.types.errors import AuthError, LimitError, MissingKeyError, QuotaError
from muse.types.messages import Attempt
from muse.types.usage import Usage

State = Literal["waiting", "done", "failed", "deferred", "cancelled"]


# Errors that would stop any request, not just this one.
_OUTER = (LimitError, AuthError, QuotaError, MissingKeyError)


def passes(exc: BaseException) -> bool:
    """Return True if the same request may succeed later: after an outage, a limit, a budget or an unusable key."""
    return isinstance(exc, _OUTER) or is_transient(exc)


class Place(Struct, frozen=True):
    """An item of a batch store.

    Attributes:
        mark: Identifies the opening of the store in which the item was claimed.
        number: The item's number.
        key: The key that the request was claimed under, or None if it was read from the store and may have any.
    """

    mark: str
    number: int
    key: str | None


class Call(Protocol):
    """The outcome of one call: a `muse.types.messages.Reply`, or what is known of a call that failed."""

    @property
    def model(self) -> str:
        """The model that answered."""

    @property
    def provider(self) -> str:
        """The provider of the model."""

    @property
    def usage(self) -> Usage:
        """The tokens used."""

    @property
    def cost_usd(self) -> float | None:
        """The cost in dollars, or None if no price is known."""

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Every attempt that was made."""


class BatchRequest:
    """A request with the options of `muse.models.agenerate` and, after the run, its result.

    With `json_schema` the response is JSON that fits the schema. An answer that does not fit is sent back to the model
    once. Further attributes are the caller's own and are never sent.

    Attributes:
        response: The text, or None.
        error: Why there is no response.
        exception: The error itself.
        state: "deferred" if the obstacle may pass (an outage, a budget) and a batch store keeps the request for the
            next run.
        usage: The tokens of every call that was made for the request.
        cost_usd: The cost in dollars of every call; None if a price is not known.
        attempts: The attempts of every call.
        model_used: The model that answered; if no reply names it, the model that was requested.
        provider_used: The provider that answered.
        restored: True if the result came from the batch store.
        note: A JSON value that the batch store keeps with the request. It is not sent.
        segment: The segment that the usage log records for the call.
    """

    response: str | None = None
    error: str | None = None
    exception: BaseException | None = None
    state: State = "waiting"
    duration: float | None = None
    model_used: str | None = None
    provider_used: str | None = None
    usage: Usage = Usage()
    cost_usd: float | None = None
    attempts: tuple[Attempt, ...] = ()
    restored: bool = False
    place: Place | None = None  # its item in a batch store, until its response was delivered
    turn = 0  # counts how often it was added, so that a stale result can be recognized

    def __init__(
        self,
        contents: Any,
        context: str,
        model: str | None = None,
        temperature: float = 0.3,
        max_output_tokens: int = 8192 * 2,
        system_instruction: str | None = None,
        json_output: bool = False,
        thinking_budget: int | None = None,
        cached_content: str | None = None,
        timeout_s: float | None = None,
        *,
        json_schema: Mapping[str, Any] | None = None,
        note: Any = None,
        segment: str | None = None,
    ) -> None:
        self.contents = contents
        self.context = context
        self.model = model
        self.temperature = temperature
        self.max_output_tokens = max_output_tokens
        self.system_instruction = system_instruction
        self.json_output = json_output
        self.thinking_budget = thinking_budget
        self.cached_content = cached_content
        self.timeout_s = timeout_s
        self.json_schema = json_schema
        self.note = note
        self.segment = segment

    def options(self, client: Any = None) -> dict[str, Any]:
        """Return the keyword arguments for `agenerate`; options without a common default are included only if set."""
        options: dict[str, Any] = {
            "contents": self.contents,
            "context": self.context,
            "temperature": self.temperature,
            "max_output_tokens": self.max_output_tokens,
            "system_instruction": self.system_instruction,
            "json_output": self.json_output,
            "thinking_budget": self.thinking_budget,
            "timeout_s": self.timeout_s,
        }
        if self.model is not None:
            options["model"] = self.model
        if client is not None:
            options["client"] = client
        if self.cached_content is not None:
            options["cached_content"] = self.cached_content
        if self.json_schema is not None:
            options["json_schema"] = self.json_schema
        if self.segment is not None:
            options["segment"] = self.segment
        return options

    def clear(self) -> None:
        """Discard the results of an earlier run."""
        if self.state == "waiting":
            return
        self.response = self.error = self.exception = self.duration = None
        self.model_used = self.provider_used = self.cost_usd = None
        self.usage, self.attempts = Usage(), ()
        self.state, self.restored = "waiting", False

    def answered(self, response: str) -> None:
        """Record the response."""
        self.response = response
        self.state = "done"

    def refused(self, exc: BaseException, *, deferrable: bool) -> None:
        """Record an error; if it may pass and `deferrable` is True, the request is put off to the next run."""
        self.error = str(exc) or type(exc).__name__
        self.exception = exc
        self.state = "deferred" if deferrable and passes(exc) else "failed"

    def cancelled(self) -> None:
        """Record that the request will not be sent any more."""
        self.state = self.error = "cancelled"

    def spent(self, calls: Sequence[Call], duration_s: float) -> None:
        """Record the usage, cost, attempts and duration (in seconds) of the calls that were made for the request."""
        self.duration = duration_s or 1e-9  # two readings of a coarse clock may be equal
        if not calls:
            return
        last = calls[-1]
        self.model_used, self.provider_used = last.model or None, last.provider or None
        if len(calls) == 1:
            self.usage, self.cost_usd, self.attempts = last.usage, last.cost_usd, last.attempts
            return
        costs = [call.cost_usd for call in calls]
        self.usage = sum((call.usage for call in calls), Usage())
        self.cost_usd = None if None in costs else sum(cost for cost in costs if cost is not None)
        self.attempts = tuple(attempt for call in calls for attempt in call.attempts)

    def __repr__(self) -> str:
        return f"BatchRequest({self.context}, {self.state})"
