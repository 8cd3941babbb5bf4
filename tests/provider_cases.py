"""How each provider is reached on the loopback server and what it says there; it makes no call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from muse.errors import (
    AuthError,
    BlockedReply,
    EmptyReply,
    MuseError,
    NotFoundError,
    ProviderDown,
    ProviderError,
    QuotaError,
    RateLimitError,
    RequestError,
    TruncatedReply,
)
from tests.loopback.outcomes import OUTCOMES, REFUSAL, SERVED, TEXT, Outcome, outcome
from tests.loopback.scenarios import names

GATEWAY = "harbour"
"""The name of the endpoint that the tests' journal.json defines itself."""


@dataclass(frozen=True)
class Case:
    """One provider on the loopback server.

    Attributes:
        name: muse's name of it.
        wire: the loopback server's name of its wire form.
        model: the model it is asked for.
        path: what its address has beyond host and port.
        has_key: whether it is used with a key here.
    """

    name: str
    wire: str
    model: str
    path: str = "/v1"
    has_key: bool = True

    @property
    def key(self) -> str:
        """A key that no other provider has, and that is easily found where it must not be."""
        return f"sk-{self.name}-0123456789abcdef-secret"

    @property
    def key_env(self) -> str:
        """The variable that holds its key."""
        return f"{self.name.upper()}_API_KEY"

    @property
    def url_env(self) -> str:
        """The variable that holds its address."""
        return "GOOGLE_GEMINI_BASE_URL" if self.name == "google" else f"{self.name.upper()}_BASE_URL"

    def environment(self, url: str) -> dict[str, str]:
        """The variables by which it is reached at `url`; the gateway of journal.json has its address there."""
        key = {self.key_env: self.key} if self.has_key else {}
        return key if self.name == GATEWAY else key | {self.url_env: url + self.path}

    def providers(self, url: str) -> dict[str, Any]:
        """The `providers` section of a journal.json that routes everything to it, each call tried once."""
        section: dict[str, Any] = {"default": {"provider": self.name, "model": self.model, "retries": 0}}
        if self.name == GATEWAY:
            row = {"base_url": url + self.path, "env_key": self.key_env, "models": {"2": self.model}, "images": True}
            section["compatible"] = {GATEWAY: row}
        return section

    def __str__(self) -> str:
        """The test's id."""
        return self.name


FAMILY = (
    Case("openai", "openai", "gpt-5-mini"),
    Case("anthropic", "anthropic", "claude-haiku-4-5", path=""),
    Case("google", "google", "gemini-2.5-flash", path=""),
)
GATEWAYS = (
    Case("openrouter", "compatible", "openai/gpt-4o-mini"),
    Case("lobechat", "compatible", "gpt-4o-mini"),
    Case("mindbridge", "compatible", "gpt-4o-mini"),
    Case("ollama", "compatible", "llama3.2-vision", has_key=False),
    Case("azure", "compatible", "gpt-4o-mini", path="/openai/v1"),
    Case(GATEWAY, "compatible", "dyke-7b"),
)
CASES = (*FAMILY, *GATEWAYS)
WIRES = (*FAMILY, GATEWAYS[0])
"""One provider for each wire form."""


@dataclass(frozen=True)
class Failure:
    """The error that a scenario ends in.

    Attributes:
        status: the HTTP status, None where there is no `ProviderError`.
        code: the provider's own code.
    """

    kind: type[MuseError]
    status: int | None = None
    code: str | None = None
    retryable: bool = False
    retry_after_s: float | None = None

    @classmethod
    def of(cls, error: MuseError) -> Failure:
        """What a caught error amounts to."""
        if isinstance(error, ProviderError):
            return cls(type(error), error.status, error.code, error.retryable, error.retry_after_s)
        return cls(type(error))


@dataclass(frozen=True)
class Seen:
    """What came of one call: the reply's neutral part, or the failure and the text kept with it."""

    outcome: Outcome | None = None
    model: str = ""
    failure: Failure | None = None
    text: str = ""
    estimated: bool = False


_UNUSABLE: Mapping[str, type[MuseError]] = {
    "blocked": BlockedReply,
    "blocked_prompt": BlockedReply,
    "blocked_refusal": BlockedReply,
    "truncated": TruncatedReply,
    "empty": EmptyReply,
}
_KEPT = {"truncated": OUTCOMES["truncated"].text, "blocked_refusal": REFUSAL}
_OPENAI = {
    "error_400": Failure(RequestError, 400, "unsupported_parameter"),
    "error_401": Failure(AuthError, 401, "invalid_api_key"),
    "error_403": Failure(AuthError, 403, "model_not_found"),
    "error_404": Failure(NotFoundError, 404, "model_not_found"),
    "error_429": Failure(RateLimitError, 429, "rate_limit_exceeded", True, 1.0),
    "error_quota": Failure(QuotaError, 429, "insufficient_quota"),
    "error_500": Failure(ProviderDown, 500, "server_error", True),
    "error_503": Failure(ProviderDown, 503, "server_overloaded", True),
    "error_529": Failure(ProviderDown, 503, "server_overloaded", True, 1.0),
    "error_in_200": Failure(ProviderDown, 200, "server_error", True),
}
FAILURES: Mapping[str, Mapping[str, Failure]] = {
    "openai": _OPENAI,
    "anthropic": {
        "error_400": Failure(RequestError, 400, "invalid_request_error"),
        "error_401": Failure(AuthError, 401, "authentication_error"),
        "error_402": Failure(QuotaError, 402, "billing_error"),
        "error_403": Failure(AuthError, 403, "permission_error"),
        "error_404": Failure(NotFoundError, 404, "not_found_error"),
        "error_429": Failure(RateLimitError, 429, "rate_limit_error", True, 1.0),
        "error_quota": Failure(QuotaError, 400, "invalid_request_error"),
        "error_500": Failure(ProviderDown, 500, "api_error", True),
        "error_503": Failure(ProviderDown, 503, "api_error", True),
        "error_529": Failure(ProviderDown, 529, "overloaded_error", True),
        "error_in_200": Failure(ProviderDown, 200, "api_error", True),
    },
    "google": {
        "error_400": Failure(RequestError, 400, "INVALID_ARGUMENT"),
        "error_401": Failure(AuthError, 401, "ACCESS_TOKEN_TYPE_UNSUPPORTED"),
        "error_403": Failure(AuthError, 403, "SERVICE_DISABLED"),
        "error_404": Failure(NotFoundError, 404, "NOT_FOUND"),
        "error_429": Failure(RateLimitError, 429, "RESOURCE_EXHAUSTED", True, 1.0),
        "error_key": Failure(AuthError, 400, "API_KEY_INVALID"),
        "error_quota": Failure(QuotaError, 429, "RESOURCE_EXHAUSTED", False, 41.0),
        "error_500": Failure(ProviderDown, 500, "INTERNAL", True),
        "error_503": Failure(ProviderDown, 503, "UNAVAILABLE", True),
        "error_529": Failure(ProviderDown, 503, "UNAVAILABLE", True),
        "error_in_200": Failure(ProviderDown, 500, "INTERNAL", True),
    },
    "compatible": _OPENAI
    | {
        "error_400": Failure(RequestError, 400, "unsupported_value"),
        "error_401": Failure(AuthError, 401),
        "error_402": Failure(QuotaError, 402),
        "error_403": Failure(BlockedReply),
        "error_503": Failure(ProviderDown, 503, None, True),
        "error_in_200": Failure(ProviderDown, 502, None, True),
    },
}
"""The error by wire form and scenario; a code that only repeats the status is no code."""

REPLIES: Mapping[str, tuple[str, ...]] = {
    wire: tuple(sorted({*OUTCOMES, *_UNUSABLE, "thinking_content", "no_usage"} & names(wire))) for wire in SERVED
}
"""The scenarios of each wire form that are an answer, usable or not."""


def expected_reply(wire: str, scenario: str) -> Seen:
    """What a call is to see of an answer, by whatever way it was made."""
    if scenario in _UNUSABLE:
        return Seen(failure=Failure(_UNUSABLE[scenario]), text=_KEPT.get(scenario, ""))
    if scenario == "no_usage":
        return Seen(Outcome(TEXT, 0, 0), SERVED[wire], estimated=True)
    return Seen(outcome(wire, scenario.removesuffix("_content")), SERVED[wire])
