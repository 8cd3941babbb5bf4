"""Everything that can go wrong, one drawn tree; it knows no provider, no file and no network.

MuseError
├── ConfigError (also ValueError)      where in a file or variable, what was found, what is allowed
│   ├── UnknownProviderError
│   ├── TrustError                     a project's entry counts only after `muse trust`
│   ├── MissingKeyError
│   └── UnavailableError               what a provider needs is not here: its package, its address, a model file
│       └── PluginError                a plug-in or provider file cannot be loaded, or its name is taken
├── ContentsError (also ValueError)    the caller's contents cannot be sent
├── OptionError (also TypeError)       the caller gave an option that is not known, with strict=True
├── ProviderError                      what the provider or the way to it did
│   ├── AuthError                      401, 403: the key is not accepted
│   ├── NotFoundError                  404: no such model or address
│   ├── RequestError                   other 4xx: the request is not accepted
│   ├── RateLimitError                 429: too much at once
│   ├── QuotaError                     the account's quota or credit is used up
│   ├── ProviderTimeout                no answer within the time
│   ├── AnswerTooLarge                 an answer of more bytes than `providers.answers` allows
│   └── ProviderDown                   5xx, refused or broken connection, unreadable answer
├── ReplyError (also ValueError)       an answer came, and it is not one to use
│   ├── BlockedReply · TruncatedReply · EmptyReply · InvalidReply
│   └── InterruptedReply               the stream broke off; the partial text is kept
├── LimitError                         a limit that was set on our side
│   ├── DeadlineExceeded (also TimeoutError)
│   ├── LimitReached                   too much a minute, a day or at once (`on_limit: "raise"`)
│   ├── BudgetExceeded                 the money for a context is spent
│   └── CircuitOpen                    the provider failed so often that it is left alone for a while
└── AgentError
    ├── TurnLimitError
    └── ToolError

Errors are named after who must act: a `ConfigError` is mended in a file, a `ContentsError` in the calling code,
a `ProviderError` by waiting, by another key or by another provider, a `ReplyError` by another question.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from muse.types.trust_claim import Claim


class MuseError(Exception):
    """The root: whatever muse raises on purpose is one of these.

    `attempts` are the tries at the call (`muse.types.messages.Attempt`), as far as there were any; `others` is what the
    targets of a fallback chain raised after this error.
    """

    attempts: tuple[Any, ...] = ()
    others: tuple[Exception, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """What it says and carries, whatever its class is made from; a copy in another process is made of that."""
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[MuseError], args: tuple[Any, ...], carried: dict[str, Any]) -> MuseError:
    """An error as it was, without what its class does when one is made."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(carried)
    return error


def cause_of(exc: BaseException) -> dict[str, Any]:
    """Return what a program can use of an error: its class, and provider, model, status, wait and path as it has them.

    `retry_after_s` are the seconds until the same call may succeed.
    """
    said = {name: getattr(exc, name, None) for name in ("provider", "model", "status", "retry_after_s", "path")}
    return {"class": type(exc).__name__, **{name: value for name, value in said.items() if value not in (None, "")}}


class ConfigError(MuseError, ValueError):
    """A setting is not usable: `path` is where, `found` what stands there, `allowed` what may."""

    def __init__(self, path: str, found: str, allowed: str) -> None:
        super().__init__(f"{path}: found {found}, expected {allowed}")
        self.path = path
        self.found = found
        self.allowed = allowed


class UnknownProviderError(ConfigError):
    """A provider name that is not registered."""

    def __init__(self, name: object, valid: Iterable[str], *, path: str = "provider") -> None:
        names = ", ".join(sorted(valid))
        super().__init__(path, repr(name), f"one of {names}")
        self.args = (f"Unknown provider: {name!r}. Valid providers: {names} (asked for in {path})",)


class MissingKeyError(ConfigError):
    """No usable API key: the text names the variable and the places where it is looked for, never a value."""

    def __init__(self, env_key: str, *, problem: str = "not found in environment") -> None:
        super().__init__(env_key, problem, "an API key")
        where = "Set it in the environment, in a .env file or in the journal's own .env"
        self.args = (f"{env_key} {problem}. {where}, or route to a provider that needs no key (see: muse providers)",)


class UnavailableError(ConfigError):
    """A provider cannot be used on this machine as it is: its package, its address or a model file is missing."""


class PluginError(UnavailableError):
    """A plug-in or a provider file cannot be used; each call to its provider raises this.

    `name` is the provider's name, `package` and `version` what brings it, `reason` what is wrong, `remedy` what to do.
    """

    def __init__(self, name: str, package: str, version: str, reason: str, remedy: str) -> None:
        super().__init__(f"provider {name!r}", reason, remedy)
        brought = " ".join(part for part in (package, version) if part)
        self.args = (f"Provider {name!r} (from {brought}) cannot be used: {reason}. {remedy}",)
        self.name = name
        self.package = package
        self.version = version
        self.reason = reason
        self.remedy = remedy


class TrustError(ConfigError):
    """A project's entry would count only after `muse trust`; `claim` says which one and what it would do."""

    def __init__(self, claim: Claim) -> None:
        where = os.path.join(claim.folder, claim.place)
        super().__init__(
            where, f"an entry without your consent: it {claim.does}", f"consent first, with: {claim.command}"
        )
        self.args = (f"{where}: not trusted: it {claim.does}. Read it; then, to let it count: {claim.command}",)
        self.claim = claim


class ContentsError(MuseError, ValueError):
    """The contents handed to a call cannot be sent: empty, of a wrong type, or not what they claim to be."""


class OptionError(MuseError, TypeError):
    """A call was given an option that nobody knows, with `strict=True`; the text says what was probably meant."""


class ProviderError(MuseError):
    """A call failed on the provider's side or on the way to it.

    `status` is the HTTP status if there was an answer, `code` the provider's own code or type, `retryable` whether
    the same call may succeed later, `retry_after_s` how long the provider asks to wait.
    """

    def __init__(
        self,
        message: str,
        *,
        provider: str = "",
        model: str = "",
        status: int | None = None,
        code: str | None = None,
        retryable: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.provider = provider
        self.model = model
        self.status = status
        self.code = code
        self.retryable = retryable
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        """`openai gpt-6-luna: 429 rate_limit_exceeded: Rate limit reached`."""
        who = " ".join(part for part in (self.provider, self.model) if part)
        what = " ".join(str(part) for part in (self.status, self.code) if part)
        return ": ".join(part for part in (who, what, self.message) if part)


class AuthError(ProviderError):
    """The key is wrong, expired or lacks the right (401, 403)."""


class NotFoundError(ProviderError):
    """No such model or address (404)."""


class RequestError(ProviderError):
    """The provider does not accept the request as it stands (other 4xx)."""


class RateLimitError(ProviderError):
    """Too many requests or tokens at once (429): wait and try again."""


class QuotaError(ProviderError):
    """The account's quota or credit is used up: waiting does not mend it."""


class ProviderTimeout(ProviderError):
    """No answer within the time the call was given."""


class AnswerTooLarge(ProviderError):
    """The answer is larger, as it was sent or once decompressed, than `providers.answers` allows."""


class ProviderDown(ProviderError):
    """The provider failed (5xx), refused or dropped the connection, or sent something unreadable."""


class ReplyError(MuseError, ValueError):
    """An answer came but is not one to use; `text` is what there is of it, `usage` was spent all the same."""

    def __init__(self, message: str, *, text: str = "", provider: str = "", model: str = "") -> None:
        super().__init__(message)
        self.text = text
        self.provider = provider
        self.model = model


class BlockedReply(ReplyError):
    """The provider refused or filtered the answer."""


class TruncatedReply(ReplyError):
    """The answer hit the output limit; `text` holds what there is of it."""


class EmptyReply(ReplyError):
    """The model finished without saying anything, or called a tool where text was asked for."""


class InvalidReply(ReplyError):
    """The answer is not of the asked form (JSON, schema)."""


class InterruptedReply(ReplyError):
    """The stream broke off; `text` holds what had arrived, `__cause__` says why."""


class LimitError(MuseError):
    """A limit that was set on our side was reached."""


class DeadlineExceeded(LimitError, TimeoutError):
    """The time given to the whole call ran out before it could be sent."""


class LimitReached(LimitError):
    """A limit of `providers.limits` leaves no room now; `retry_after_s` is when it will, None if nobody can tell."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BudgetExceeded(LimitError):
    """The budget of a context is spent; the text says what was spent on what, and when the window ends."""


class CircuitOpen(LimitError):
    """A provider's model failed so often in a row that calls are not sent to it for a while."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class AgentError(MuseError):
    """An agent run ended without an answer."""


class TurnLimitError(AgentError):
    """The model kept calling tools up to the limit of turns."""


class ToolError(AgentError):
    """A tool could not be called."""
