"""An entry of `providers.contexts` or `providers.default` as a form shows it and reads it back; it checks no value."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from muse.errors import ConfigError
from muse.journal.config import parse_json

Kind = Literal["provider", "tier", "model", "yes_no", "choice", "number", "whole", "names", "targets"]
Delta = Mapping[str, Any]
NOBODY = "nobody"


class Field(Struct, frozen=True):
    """One field of the form: its name in journal.json, its label, how it is written, and what it means."""

    name: str
    label: str
    kind: Kind
    hint: str
    choices: tuple[str, ...] = ()


FIELDS: tuple[Field, ...] = (
    Field("provider", "Provider", "provider", "Who serves. Left open, the next rule says."),
    Field("tier", "Tier", "tier", "1 the most capable, 2 balanced, 3 the fastest and cheapest.", ("1", "2", "3")),
    Field("model", "Model", "model", "A model by name; it goes before the tier."),
    Field(
        "fallbacks",
        "Fallbacks",
        "targets",
        "Who is asked next, one a line: a provider's name, or for instance provider:openai,tier:3",
    ),
    Field("fallback_on", "Fall back on", "names", "Answers that go down the fallback chain too: blocked, truncated."),
    Field("allow", "Only these providers", "names", f"Names with commas; {NOBODY} keeps everybody out."),
    Field("local_only", "Only on this machine", "yes_no", "Only the embedded model may serve.", ("yes", "no")),
    Field("interactive", "Somebody waits", "yes_no", "Budgets neither degrade nor refuse the call.", ("yes", "no")),
    Field("timeout_s", "Seconds for a call", "number", "All tries, waits and fallbacks together. Else 600."),
    Field("retries", "Further tries", "whole", "After a passing failure, on each target. Else 2."),
    Field("on_limit", "At a limit", "choice", "Wait in line, or raise an error at once.", ("wait", "raise")),
    Field("hedge_s", "Ask the next too, after", "number", "Seconds without an answer; the first answer wins."),
    Field("first_token_s", "Seconds to first text", "number", "How long a stream may keep silent at first."),
    Field("stall_s", "Seconds between texts", "number", "How long a stream may keep silent after that."),
    Field("cache_s", "Keep answers, seconds", "number", "The same request gets the same answer for so long."),
)
AMOUNT_FIELDS: tuple[Field, ...] = (
    Field("limit.requests_per_minute", "Requests a minute", "whole", "At most; all processes count together."),
    Field("limit.tokens_per_minute", "Tokens a minute", "whole", "At most, read and written."),
    Field("limit.in_flight", "Calls at once", "whole", "At most."),
    Field("limit.tokens_per_day", "Tokens a day", "whole", "At most, from the token log."),
    Field("limit.usd_per_day", "Dollars a day", "number", "At most; then calls wait or fail."),
    Field("budget.usd", "Budget, dollars", "number", "From 80 % on calls go a tier down, at 100 % they are refused."),
    Field("budget.window", "Budget for a", "choice", "Of the calendar. Else a day.", ("day", "week", "month")),
)
ROUTE_FIELDS = FIELDS[:3]
CALL_FIELDS = FIELDS[3:]


def shown(field: Field, entry: Mapping[str, Any]) -> str:
    """What stands in the form for a field of an entry; a value of another form stands there as JSON."""
    if field.name not in entry:
        return ""
    raw = entry[field.name]
    match field.kind:
        case "yes_no" if isinstance(raw, bool):
            return "yes" if raw else "no"
        case "names" if isinstance(raw, list) and all(isinstance(name, str) for name in raw):
            return ", ".join(raw) or NOBODY
        case "targets" if isinstance(raw, list):
            return "\n".join(map(_rung_shown, raw)) or NOBODY
        case _:
            return raw if isinstance(raw, str) else json.dumps(raw, ensure_ascii=False)


def wanted(form: Mapping[str, str], base: Mapping[str, Any]) -> dict[str, Any]:
    """What a filled-in form changes in the entry it was drawn from: `{field: value, or None to take it out}`.

    A field that was left as it was drawn changes nothing, also where its value is not usable. What cannot be read as
    the field's kind stays text, so that the check of journal.json says what is wrong with it.
    """
    delta: dict[str, Any] = {}
    for field in (*FIELDS, *AMOUNT_FIELDS):
        if field.name not in form:
            continue
        text = form[field.name].replace("\r\n", "\n").strip()
        if text != shown(field, base).strip():
            delta[field.name] = _read(field, text) if text else None
    return delta


def applied(entry: Mapping[str, Any], delta: Delta) -> dict[str, Any]:
    """An entry with a delta; fields keep their order, new ones come last."""
    after = {**entry, **delta}
    return {name: value for name, value in after.items() if name not in delta or value is not None}


def base_from(text: str) -> Mapping[str, Any]:
    """The entry that a form carries as the one it was drawn from.

    Raises:
        ConfigError: it is none.
    """
    try:
        return parse_json(text or "{}", "base")[0]
    except ConfigError as exc:
        raise ConfigError("base", exc.found, "the form as the page drew it; reload it") from exc


def in_words(delta: Delta) -> str:
    """A delta as the list of saves shows it: `provider anthropic, tier removed`."""
    parts = (
        f"{name} removed" if value is None else f"{name} {value if isinstance(value, str) else json.dumps(value)}"
        for name, value in delta.items()
    )
    return ", ".join(parts) or "nothing"


def _rung_shown(raw: Any) -> str:
    if isinstance(raw, str):
        return raw
    if isinstance(raw, Mapping) and set(raw) <= {"provider", "tier", "model"}:
        return ",".join(f"{name}:{value}" for name, value in raw.items())
    return json.dumps(raw, ensure_ascii=False)


def _read(field: Field, text: str) -> Any:
    """A field's text as its value in journal.json."""
    match field.kind:
        case "yes_no":
            return {"yes": True, "no": False}.get(text, text)
        case "tier" | "whole" | "number":
            return _number(text)
        case "names":
            return [] if text == NOBODY else [name.strip() for name in text.split(",") if name.strip()]
        case "targets":
            return [] if text == NOBODY else [_target(line.strip()) for line in text.splitlines() if line.strip()]
        case _:
            return text


def _target(line: str) -> Any:
    """One line of fallbacks: a name, or `provider:openai,tier:3,model:...`."""
    if not line.startswith(("provider:", "tier:", "model:")):
        return line
    pairs = (part.partition(":") for part in line.split(","))
    return {
        name.strip(): _number(value.strip()) if name.strip() == "tier" else value.strip() for name, _, value in pairs
    }


def _number(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        return text
    return value if math.isfinite(value) else text
