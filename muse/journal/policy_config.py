"""What journal.json may say about how calls are made: rules of a context, limits, budgets; it knows no provider.

Everything here is data with a default that is right for a program that says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from muse.journal.lenient_parser import LenientParser, describe_value
from muse.types.formatting import format_usd
from muse.types.provider_spec import Tier

DEFAULT_RETRIES = 2
UNPRICED_USD = 0.01
_MOST_RETRIES = 20
_MAX_TARGETS = 16
_LONGEST_S = 1e9
_MOST = 1e15
OnLimit = Literal["wait", "raise"]
Window = Literal["day", "week", "month"]
Unusable = Literal["blocked", "truncated"]
# The model of a provider at a tier, None if it has none.
ModelForTier = Callable[[str, int], str | None]
# Whose a line of the token log is and what it cost, where it does not say so itself: `(provider, dollars or None)`.
PriceFn = Callable[[Mapping[str, Any]], tuple[str, float | None]]


class FallbackTarget(Struct, frozen=True):
    """Who is asked next where the one before could not answer; what it leaves open is the context's own."""

    provider: str | None = None
    tier: Tier | None = None
    model: str | None = None


class CallPolicy(Struct, frozen=True):
    """The policy for the calls of a context; None where an entry says nothing.

    Attributes:
        fallbacks: the targets to try after the route, in order.
        fallback_on: answers that fall back too, besides failures: blocked, truncated.
        allow, local_only: the providers that may serve, whatever else is written.
        first_token_s, stall_s: bounds on the waits of a stream.
        retries: further tries on each target.
        interactive: whether the context is exempt from budgets.
        hedge_s: seconds without an answer after which the next target is asked too; 0 turns hedging off.
        cache_s: how long an answer may be served again to the same request.
    """

    fallbacks: tuple[FallbackTarget, ...] | None = None
    fallback_on: tuple[Unusable, ...] | None = None
    allow: tuple[str, ...] | None = None
    local_only: bool | None = None
    interactive: bool | None = None
    timeout_s: float | None = None
    first_token_s: float | None = None
    stall_s: float | None = None
    retries: int | None = None
    on_limit: OnLimit | None = None
    hedge_s: float | None = None
    cache_s: float | None = None


class Limit(Struct, frozen=True):
    """At most so much of what its globs select; `where` is its place in journal.json.

    `key` is what processes know it by: its globs, and its number among those of the same globs.
    """

    where: str
    key: str = ""
    provider: str = "*"
    model: str = "*"
    context: str = "*"
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    usd_per_day: float | None = None
    in_flight: int | None = None

    def selects(self, context: str, provider: str, model: str) -> bool:
        """Whether it is about such a call."""
        return (
            fnmatchcase(provider, self.provider)
            and fnmatchcase(model, self.model)
            and fnmatchcase(context, self.context)
        )

    def described(self) -> str:
        """The limit in words: `openai, 500 requests a minute`."""
        globs = [glob for glob in (self.provider, self.model, self.context) if glob != "*"]
        amounts = (
            (self.requests_per_minute, "{:,} requests a minute"),
            (self.tokens_per_minute, "{:,} tokens a minute"),
            (self.in_flight, "{:,} calls at once"),
            (self.tokens_per_day, "{:,} tokens a day"),
        )
        said = [words.format(amount) for amount, words in amounts if amount is not None]
        return ", ".join(
            [*globs, *said, *([] if self.usd_per_day is None else [f"{format_usd(self.usd_per_day)} a day"])]
        )


class Budget(Struct, frozen=True):
    """Dollars that the contexts of a glob may cost in a day, week or month of the calendar.

    From `degrade_at` (a share of it) on, calls go one tier down. A call whose price nobody knows counts `unpriced_usd`.
    """

    where: str
    context: str
    usd: float
    window: Window = "day"
    degrade_at: float = 0.8
    unpriced_usd: float = UNPRICED_USD


class Breaker(Struct, frozen=True):
    """After so many failures in a row a provider's model is left alone for so many seconds; 0 failures: never."""

    failures: int = 5
    cool_down_s: float = 30.0


class AnswerLimits(Struct, frozen=True):
    """The most megabytes of an answer, as read and as decompressed; `providers` has those with a bound of their own."""

    max_mb: float = 64.0
    providers: Mapping[str, float] = {}

    def max_bytes(self, provider: str) -> int:
        """The bound for answers of a provider, in bytes."""
        return int(self.providers.get(provider, self.max_mb) * 1_000_000)


class Policies(Struct, frozen=True):
    """What holds for all calls."""

    limits: tuple[Limit, ...] = ()
    budgets: tuple[Budget, ...] = ()
    breaker: Breaker = Breaker()
    cache_mb: float = 256.0
    answers: AnswerLimits = AnswerLimits()


RULES: Mapping[str, type] = {
    "fallbacks": list,
    "fallback_on": list,
    "allow": list,
    "local_only": bool,
    "interactive": bool,
    "timeout_s": float,
    "first_token_s": float,
    "stall_s": float,
    "retries": int,
    "on_limit": str,
    "hedge_s": float,
    "cache_s": float,
}
FALLBACK_TARGET: Mapping[str, type] = {"provider": str, "tier": int, "model": str}
LIMIT: Mapping[str, type] = {
    "provider": str,
    "model": str,
    "context": str,
    "requests_per_minute": int,
    "tokens_per_minute": int,
    "tokens_per_day": int,
    "usd_per_day": float,
    "in_flight": int,
}
BUDGET: Mapping[str, type] = {
    "context": str,
    "usd": float,
    "window": str,
    "currency": str,
    "degrade_at": float,
    "unpriced_usd": float,
}
BREAKER: Mapping[str, type] = {"failures": int, "cool_down_s": float}
CACHE: Mapping[str, type] = {"max_mb": float}
ANSWERS: Mapping[str, type] = {"max_mb": float, "providers": dict}
_MOST_ANSWER_MB = 1e6
_SELECTORS = ("provider", "model", "context")
_AMOUNTS = ("requests_per_minute", "tokens_per_minute", "tokens_per_day", "usd_per_day", "in_flight")


def parse_call_policy(
    reader: LenientParser, entry: Mapping[str, Any], fields: Mapping[str, Any], path: str, known: set[str] | None
) -> CallPolicy:
    """The rules among the usable `fields` of an `entry` at `path`; a rule that is not usable says nothing.

    A bound is the exception: one that is not usable allows nobody, since it was meant to keep something in.
    """
    said: dict[str, Any] = {}
    if any(name in entry and name not in fields for name in ("allow", "local_only")):
        said["allow"] = ()
    for name in (name for name in RULES if name in fields):
        value = _rule(reader, name, fields[name], f"{path}.{name}", known)
        if value is not None:
            said.setdefault(name, value)
    return CallPolicy(**said)


def _rule(reader: LenientParser, name: str, raw: Any, path: str, known: set[str] | None) -> Any:
    value = raw
    match name:
        case "fallbacks":
            if len(raw) > _MAX_TARGETS:
                reader.problem(path, f"{len(raw)} targets", f"at most {_MAX_TARGETS}")
            value = reader.rows(raw[:_MAX_TARGETS], path, lambda item, where: _target(reader, item, where, known))
        case "allow":
            value = reader.rows(raw, path, lambda item, where: _provider(reader, item, where, known))
        case "fallback_on":
            value = reader.rows(raw, path, lambda item, where: _one_of(reader, item, where, "blocked", "truncated"))
        case "on_limit":
            value = _one_of(reader, raw, path, "wait", "raise")
        case "retries":
            value = int(raw) if _within(reader, raw, path, 0, _MOST_RETRIES) else None
        case "timeout_s":
            value = float(raw) if _above_0(reader, raw, path, _LONGEST_S) else None
        case "first_token_s" | "stall_s" | "hedge_s" | "cache_s":
            value = float(raw) if _within(reader, raw, path, 0, _LONGEST_S) else None
        case _:
            pass
    return value


def _target(reader: LenientParser, raw: object, path: str, known: set[str] | None) -> FallbackTarget | None:
    """A target of a fallback chain: a provider's name, or an object with provider, tier, model."""
    if isinstance(raw, str):
        name = _provider(reader, raw, path, known)
        return FallbackTarget(provider=name) if name else None
    fields = reader.fields(raw, path, FALLBACK_TARGET)
    tier = fields.pop("tier", None)
    if tier is not None and (isinstance(tier, bool) or tier not in (1, 2, 3)):
        reader.problem(f"{path}.tier", describe_value(tier), "1, 2 or 3")
        return None
    if "provider" in fields and _provider(reader, fields["provider"], f"{path}.provider", known) is None:
        return None
    if not fields and tier is None:
        if isinstance(raw, Mapping):
            reader.problem(path, "neither provider nor tier nor model", "at least one of them")
        return None
    return FallbackTarget(fields.get("provider"), None if tier is None else Tier(int(tier)), fields.get("model"))


def _provider(reader: LenientParser, raw: object, path: str, known: set[str] | None) -> str | None:
    if not reader.is_text(raw, path):
        return None
    if known is not None and raw not in known:
        reader.problem(path, repr(raw), f"one of {', '.join(sorted(known))}")
        return None
    return str(raw)


def _one_of(reader: LenientParser, raw: object, path: str, *allowed: str) -> Any:
    if raw in allowed:
        return raw
    reader.problem(path, describe_value(raw), " or ".join(map(repr, allowed)))
    return None


def parse_limits(reader: LenientParser, raw: object, path: str, known: set[str] | None) -> tuple[Limit, ...]:
    """`providers.limits`: a list of what is selected and how much of it there may be."""
    limits: list[Limit] = []
    for limit in reader.rows(raw, path, lambda item, where: _limit(reader, item, where, known)):
        globs = f"{limit.provider}|{limit.model}|{limit.context}"
        number = sum(other.key.rpartition("|")[0] == globs for other in limits)
        limits.append(replace(limit, key=f"{globs}|{number}"))
    return tuple(limits)


def _limit(reader: LenientParser, raw: object, path: str, known: set[str] | None) -> Limit | None:
    fields = reader.fields(raw, path, LIMIT)
    if "provider" in fields and not set("*?[") & set(fields["provider"]):
        _provider(reader, fields["provider"], f"{path}.provider", known)
    amounts = {name: fields[name] for name in _AMOUNTS if name in fields}
    good = {name: value for name, value in amounts.items() if _above_0(reader, value, f"{path}.{name}", _MOST)}
    if not good:
        if isinstance(raw, Mapping) and not amounts:
            reader.problem(path, "no amount", f"one of {', '.join(_AMOUNTS)}")
        return None
    selected: dict[str, Any] = {name: fields[name] for name in _SELECTORS if name in fields}
    selected |= {name: value if name == "usd_per_day" else int(value) for name, value in good.items()}
    return Limit(path, **selected)


def parse_budgets(reader: LenientParser, raw: object, path: str) -> tuple[Budget, ...]:
    """`providers.budgets`: a list of globs over contexts and the dollars they may cost."""
    return reader.rows(raw, path, lambda item, where: _budget(reader, item, where))


def _budget(reader: LenientParser, raw: object, path: str) -> Budget | None:
    before = len(reader.problems)
    fields = reader.fields(raw, path, BUDGET)
    if "usd" not in fields and isinstance(raw, Mapping) and "usd" not in raw:
        reader.problem(path, "no usd", "the dollars that its contexts may cost")
    if "usd" in fields:
        _above_0(reader, fields["usd"], f"{path}.usd", _MOST)
    if "window" in fields:
        _one_of(reader, fields["window"], f"{path}.window", "day", "week", "month")
    if "currency" in fields:
        _one_of(reader, fields.pop("currency"), f"{path}.currency", "USD")
    if "degrade_at" in fields:
        _within(reader, fields["degrade_at"], f"{path}.degrade_at", 0, 1)
    if "unpriced_usd" in fields:
        _within(reader, fields["unpriced_usd"], f"{path}.unpriced_usd", 0, _MOST)
    if len(reader.problems) > before:  # half a budget could let through what it was to stop
        return None
    return Budget(path, fields.pop("context", "*"), **fields)


def parse_breaker(reader: LenientParser, raw: object, path: str) -> Breaker:
    """`providers.breaker`."""
    fields = reader.fields(raw, path, BREAKER)
    if "failures" in fields and not _within(reader, fields["failures"], f"{path}.failures", 0, _MOST):
        del fields["failures"]
    if "cool_down_s" in fields and not _above_0(reader, fields["cool_down_s"], f"{path}.cool_down_s", _LONGEST_S):
        del fields["cool_down_s"]
    return Breaker(int(fields.get("failures", Breaker().failures)), fields.get("cool_down_s", Breaker().cool_down_s))


def parse_cache_mb(reader: LenientParser, raw: object, path: str) -> float:
    """`providers.cache`: the size on disk up to which answers are kept, in megabytes."""
    wanted = reader.fields(raw, path, CACHE).get("max_mb")
    if wanted is None or not _above_0(reader, wanted, f"{path}.max_mb", _MOST):
        return Policies().cache_mb
    return float(wanted)


def parse_answer_limits(reader: LenientParser, raw: object, path: str, known: set[str] | None) -> AnswerLimits:
    """`providers.answers`: the most megabytes of an answer, for all providers and for single ones."""
    fields = reader.fields(raw, path, ANSWERS)
    wanted = fields.get("max_mb")
    if wanted is None or not _above_0(reader, wanted, f"{path}.max_mb", _MOST_ANSWER_MB):
        wanted = AnswerLimits().max_mb
    own: dict[str, float] = {}
    for name, most in reader.members(fields.get("providers", {}), f"{path}.providers").items():
        place = f"{path}.providers[{name!r}]"
        if isinstance(most, bool) or not isinstance(most, (int, float)):
            reader.problem(place, describe_value(most), "a number")
        elif _provider(reader, name, place, known) and _above_0(reader, most, place, _MOST_ANSWER_MB):
            own[name] = float(most)
    return AnswerLimits(float(wanted), own)


def _above_0(reader: LenientParser, value: Any, path: str, most: float) -> bool:
    if 0 < value <= most:
        return True
    reader.problem(path, describe_value(value), f"a number above 0, up to {most:g}")
    return False


def _within(reader: LenientParser, value: Any, path: str, least: float, most: float) -> bool:
    if least <= value <= most:
        return True
    reader.problem(path, describe_value(value), f"a number from {least:g} to {most:g}")
    return False
