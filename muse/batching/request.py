"""One request of a batch, and what came of it; it makes no call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct

from muse.policies.retry import is_transient
from muse.types.errors import AuthError, LimitError, MissingKeyError, QuotaError
from muse.types.messages import Attempt
from muse.types.usage import Usage

State = Literal["waiting", "done", "failed", "deferred", "cancelled"]


# What stands between any request and its answer, and not between this one and its.
_OUTER = (LimitError, AuthError, QuotaError, MissingKeyError)


def passes(exc: BaseException) -> bool:
    """Whether the same request may be answered another time: an outage, a limit, a budget, a key that is not good."""
    return isinstance(exc, _OUTER) or is_transient(exc)


class Place(Struct, frozen=True):
    """An item of a ledger: the mark of its opening, the number, and the key the request goes by; None if by any."""

    mark: str
    number: int
    key: str | None


class Call(Protocol):
    """What one call came to: a `muse.types.messages.Reply`, or what is known of a call that failed."""

    @property
    def model(self) -> str:
        """The model that served."""

    @property
    def provider(self) -> str:
        """Its provider."""

    @property
    def usage(self) -> Usage:
        """The tokens."""

    @property
    def cost_usd(self) -> float | None:
        """The dollars, if there is a price."""

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Each try."""


class BatchRequest:
    """What is to be asked, with the options of `muse.models.agenerate`, and after the run what came of it.

    `response` is the text, or None; `error` says why there is none, `exception` is the error itself. `state` is
    "deferred" where what was in the way may pass (an outage, a budget) and a ledger keeps it for the next run. `usage`,
    `cost_usd` (None: no price known) and `attempts` count every call that was made for it; `model_used` and
    `provider_used` answered (where no reply tells it, `model_used` is the model asked for). `restored` says that the
    result came from the ledger. Further attributes are the caller's own; `note` (a JSON value) is kept in the ledger
    with the request, and neither is sent. `segment` is what the token log says that it is about.

    With `json_schema` the response is JSON that fits it; an answer that does not is sent back once.
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
    place: Place | None = None  # its item in a ledger, until a response was handed over
    turn = 0  # counts how often it was added, so that a result of an earlier time is known as one

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
        """The keywords for `agenerate`; those that have no common default go along only if they are set."""
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
        """Forget the results of an earlier run."""
        if self.state == "waiting":
            return
        self.response = self.error = self.exception = self.duration = None
        self.model_used = self.provider_used = self.cost_usd = None
        self.usage, self.attempts = Usage(), ()
        self.state, self.restored = "waiting", False

    def answered(self, response: str) -> None:
        """Note the response."""
        self.response = response
        self.state = "done"

    def refused(self, exc: BaseException, *, deferrable: bool) -> None:
        """Note what went wrong; what is not its own fault is put off where there is a next run to put it off to."""
        self.error = str(exc) or type(exc).__name__
        self.exception = exc
        self.state = "deferred" if deferrable and passes(exc) else "failed"

    def cancelled(self) -> None:
        """Note that nobody asks it any more."""
        self.state = self.error = "cancelled"

    def spent(self, calls: Sequence[Call], duration_s: float) -> None:
        """Note what the calls that were made for it came to."""
        self.duration = duration_s or 1e-9  # a clock may stand still between two looks at it
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
