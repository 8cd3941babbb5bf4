"""Calls of models as a table: who was asked and why, with how many tokens, for how long, at what cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from muse.cli._terminal.terminal import Column, draw, fits, say
from muse.types.formatting import format_usd
from muse.types.messages import Route
from muse.types.usage import Usage
from think.llm.cached_calls import Call

_COLUMNS = (
    Column("context"),
    Column("route"),
    Column("because of"),
    Column("calls", numbers=True),
    Column("tokens in", numbers=True),
    Column("out", numbers=True),
    Column("seconds", numbers=True),
    Column("cost", numbers=True),
)
_REASON = 2


def show_calls(calls: Sequence[Call], routes: Mapping[str, Route]) -> None:
    """Print for each context who was asked and why, how often, with how many tokens, for how long and at what cost."""
    rows = [
        _row(context, route, [call for call in calls if call.context == context]) for context, route in routes.items()
    ]
    _draw(rows, ["all", "", "", *_figures(calls)])
    failed = sum(1 for call in calls if call.error)
    if failed:
        say(f"{failed} of {len(calls)} calls failed; what they used stands in the token log (muse usage).", "yellow")


def show_call_totals(calls: Sequence[Call]) -> None:
    """Print the same for calls that name their own route."""
    reasons = {call.context: call.reason for call in calls}
    rows = [
        [context, _served(own), reason, *_figures(own)]
        for context, reason in sorted(reasons.items())
        if (own := [call for call in calls if call.context == context])
    ]
    _draw(rows, ["all", "", "", *_figures(calls)])


def _served(calls: Sequence[Call]) -> str:
    return f"{calls[-1].provider} {calls[-1].model}"


def _draw(rows: Sequence[Sequence[str]], total: Sequence[str]) -> None:
    """Print the table; in a window too narrow for it the reasons stand beneath."""
    if fits(_COLUMNS, [*rows, total]):
        draw(_COLUMNS, rows, total=total)
    else:
        columns = [*_COLUMNS[:_REASON], *_COLUMNS[_REASON + 1 :]]
        slim = [[*row[:_REASON], *row[_REASON + 1 :]] for row in (*rows, total)]
        draw(columns, slim[:-1], total=slim[-1])
        for row in rows:
            say(f"{row[0]}: because of {row[_REASON]}", "dim")


def _row(context: str, route: Route, calls: Sequence[Call]) -> list[str]:
    served = next((f"{call.provider} {call.model}" for call in reversed(calls)), f"{route.provider} {route.model}")
    return [context, served, route.reason, *_figures(calls)]


def _figures(calls: Sequence[Call]) -> list[str]:
    used = sum((call.usage for call in calls), Usage())
    seconds = busy_s(calls)
    return [str(len(calls)), f"{used.input_tokens:,}", f"{used.output_tokens:,}", f"{seconds:.1f}", _cost(calls)]


def busy_s(calls: Iterable[Call]) -> float:
    """How long at least one of some calls was under way, in seconds."""
    total_s, end_s = 0.0, float("-inf")
    for start_s, stop_s in sorted((call.started_s, call.started_s + call.duration_s) for call in calls):
        total_s += max(0.0, stop_s - max(start_s, end_s))
        end_s = max(end_s, stop_s)
    return total_s


def _cost(calls: Sequence[Call]) -> str:
    """The dollars of the calls whose cost is known, with a `+` where there are others."""
    known = [call.cost_usd for call in calls if call.cost_usd is not None]
    return format_usd(sum(known), more=len(known) < len(calls))
