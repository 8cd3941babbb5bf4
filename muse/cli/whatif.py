"""`muse whatif`: what a change of journal.json would have moved and cost, from the token log; it writes nothing."""

from __future__ import annotations

import argparse
import copy
import re
from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from muse.cli._terminal import terminal
from muse.cli._terminal.arguments import usage_error
from muse.cli._terminal.progress import progress
from muse.cli._terminal.terminal import Column
from muse.diagnostics import whatif
from muse.diagnostics.whatif import RouteChange, WhatIf
from muse.journal import config_loader
from muse.journal.config import Config, parse_config
from muse.providers import get_provider_list
from muse.types.errors import ConfigError
from muse.types.formatting import format_usd, pluralize
from muse.usage_index.index import LogIndex, close_indexes, log_index
from muse.usage_index.queries import contexts_of, days_since

HELP = (
    "Say which calls of the last days would have gone elsewhere with another journal.json, and what they would have"
    " cost: the tokens that were counted, at today's prices. An estimate, as models count tokens differently. Nothing"
    " is written."
)
_FIELDS = ("provider", "tier", "model")
_FIELD = re.compile(rf"(?:^|,)({'|'.join(_FIELDS)}):")
_NUMBER = re.compile(r"[0-9]{1,9}")
_DEFAULT = "default"
_FORM = "PATTERN=FIELD:VALUE[,FIELD:VALUE] with the fields provider, tier, model, such as 'insight.*=tier:3'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The changes, and of which days."""
    parser.add_argument(
        "--set",
        dest="changes",
        metavar="PATTERN=FIELD:VALUE",
        action="append",
        required=True,
        help="what a context or pattern of providers.contexts should say, or 'default' for providers.default:"
        " provider, tier, model, several with commas (may be repeated); what the entry says beside stays, but a new"
        " provider or tier replaces its model",
    )
    parser.add_argument(
        "--since",
        metavar="7d|YYYYMMDD",
        default="7d",
        help="the last 7 days with today (unless said), or from a day on",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print what would have moved; 0, or 2 if a change cannot be read."""
    try:
        days = days_since(args.since)
        before, after = _configs(args.changes)
    except ConfigError as exc:
        return usage_error("whatif", str(exc))
    index = log_index()
    try:
        _read_log(index)
        found = whatif.compare(before, after, since=args.since, index=index, most_s=None)
        idle = _idle(args.changes, contexts_of(index, days))
    finally:
        close_indexes()
    if args.json:
        terminal.print_json(msgspec.to_builtins(found))
    else:
        _print(found, args.since, idle)
    return 0


def _idle(changes: Sequence[str], contexts: Collection[str]) -> list[str]:
    """The patterns of the changes that match none of the contexts."""
    patterns = (change.rpartition("=")[0].strip() for change in changes)
    return [one for one in patterns if one != _DEFAULT and not any(fnmatchcase(name, one) for name in contexts)]


def _configs(changes: Sequence[str]) -> tuple[Config, Config]:
    """journal.json as it is, and as it would be.

    Raises:
        ConfigError: a change is of another form, or brings a problem in.
    """
    snapshot = config_loader.load()
    data: dict[str, Any] = copy.deepcopy(dict(snapshot.data))
    for change in changes:
        _apply(data, change)
    names = {row["name"] for row in get_provider_list()}
    _, old = parse_config(snapshot.data, names)
    after, problems = parse_config(data, names)
    fresh = next((problem for problem in problems if problem not in old), None)
    if fresh is not None:
        raise ConfigError(f"--set: {fresh.path}", fresh.found, fresh.allowed)
    return snapshot.config, after


def _apply(data: dict[str, Any], change: str) -> None:
    """Put one change into the data of journal.json."""
    pattern, equals, said = change.rpartition("=")
    pattern = pattern.strip()
    fields = _fields(said.strip())
    if not equals or not pattern or not fields:
        raise ConfigError("--set", repr(change), _FORM)
    providers = data.setdefault("providers", {})
    if not isinstance(providers, dict):
        raise ConfigError("providers", type(providers).__name__, "an object {...}; mend journal.json first")
    place = providers if pattern == _DEFAULT else providers.setdefault("contexts", {})
    entry = place.get(pattern) if isinstance(place, dict) else None
    kept = dict(entry) if isinstance(entry, dict) else {}
    if "model" not in fields:
        kept.pop("model", None)
    if isinstance(place, dict):
        place[pattern] = {**kept, **fields}


def _fields(said: str) -> dict[str, Any]:
    """`tier:3,provider:google` as an entry; empty if it is of another form. A model's name may hold colons."""
    parts = _FIELD.split(said)
    if parts[0] or len(parts) < 3 or len(set(parts[1::2])) < len(parts[1::2]):
        return {}
    pairs = dict(zip(parts[1::2], (value.strip() for value in parts[2::2]), strict=True))
    if not all(pairs.values()):
        return {}
    return {name: int(value) if name == "tier" and _NUMBER.fullmatch(value) else value for name, value in pairs.items()}


def _read_log(index: LogIndex) -> None:
    """Read what is new in the log, with a bar on a terminal."""
    with progress(figures="share") as step:
        while not (read := index.refresh(0.5)).is_complete:
            step("Reading the token log", round(read.share * 1000), 1000)


def _print(found: WhatIf, since: str, idle: Sequence[str]) -> None:
    if not found.calls:
        terminal.say(f"No calls in the token log since {since}; nothing would have moved.")
        return
    terminal.say(f"{found.moved:,} of {found.calls:,} calls since {since} would have gone elsewhere.", "bold")
    if found.rows:
        print()
        is_unknown = found.moved == sum(move.calls if move.problem else move.unpriced for move in found.rows)
        total = ["all", f"{found.moved:,}", "", "", *(_UNKNOWN if is_unknown else _money(found))]
        terminal.draw(_COLUMNS, [_row(move) for move in found.rows], total=total)
        print()
    for line in (*(f"{pattern!r} matches no context of these calls." for pattern in idle), *_notes(found)):
        terminal.say(line, "dim")


_COLUMNS = (
    Column("context"),
    Column("calls", numbers=True),
    Column("now"),
    Column("then"),
    Column("cost now", numbers=True),
    Column("cost then", numbers=True),
    Column("change", numbers=True),
)


_UNKNOWN = ["unknown", "unknown", ""]


def _row(move: RouteChange) -> list[str]:
    now = f"{move.from_provider} {move.from_model}".strip() or "not routed"
    then = f"{move.to_provider} {move.to_model}".strip() or "not routed"
    money = _UNKNOWN if move.unpriced == move.calls or move.problem else _money(move)
    return [move.context, f"{move.calls:,}", now, then, *money]


def _money(sums: RouteChange | WhatIf) -> list[str]:
    change = sums.cost_after_usd - sums.cost_before_usd
    return [
        format_usd(sums.cost_before_usd),
        format_usd(sums.cost_after_usd),
        f"{'+' if change > 0 else ''}{format_usd(change)}",
    ]


def _notes(found: WhatIf) -> Iterator[str]:
    """What one has to know of the figures."""
    for move in found.rows:
        if move.problem:
            yield f"{move.context} could not be routed: {move.problem}"
    notes = (
        (found.unpriced, "moved without a known price on both sides: in neither cost."),
        (found.no_context, "moved without a context: by the default."),
        (found.overnight, "moved from a batch service: where the other provider has one, at its price."),
        (found.own_model, "not moved: by a model that the caller named."),
        (found.kept, "not moved: answered from the cache."),
        (found.elsewhere, "not moved: made by other code and only logged here."),
    )
    yield from (f"{pluralize(count, 'call')} {text}" for count, text in notes if count)
    if found.rows:
        yield "Costs are today's prices for the tokens that were counted; other models count other tokens: an estimate."
