"""What the pages show, out of the index of the token log; it knows no request and no template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from msgspec import Struct
from starlette.exceptions import HTTPException

from apps.tokens.charts import TITLES, by_day, largest
from apps.tokens.filters import GROUPS, SHOWS, SPANS, STACKS, Choice
from apps.tokens.formatting import WORDS
from muse.usage_index.index import LogIndex, Progress, log_index
from muse.usage_index.line_queries import LoggedLine, count_only, lines_of_call, list_lines
from muse.usage_index.queries import Days, UsageFilter, UsageSum, UsageSums, count_bad_lines, days_of, grouped, sums
from muse.usage_log.totals import Field

PAGE_LINES = 100
MOST_ROWS = 500
_MOST_ON_FIRST = 10
# A page reads what is new in the log for so long at most; a long log is read on in the background.
_READ_S = 0.1


class TableRow(Struct, frozen=True):
    """A row of a table of sums: its name, where it leads, its sum, its share of the whole (by cost, or by tokens).

    `is_known` is False where no call of it has a price, but others have: its share is not known.
    """

    name: str
    link: str
    sum: UsageSum
    share: float
    is_known: bool


class SumsTable(Struct, frozen=True):
    """A table of sums by one field; `more` is how many rows are left out, `link` leads to all of them.

    `is_free` says that nothing in it has a cost, so that shares are those of tokens.
    """

    field: Field
    rows: tuple[TableRow, ...]
    total: UsageSum
    more: int
    link: str
    csv: str
    is_free: bool


def current() -> tuple[LogIndex, Progress]:
    """The index with what is new in the log read, or being read."""
    index = log_index()
    progress = index.refresh(_READ_S)
    if not progress.is_complete:
        index.read_on()
    return index, progress


def frame(index: LogIndex, progress: Progress, choice: Choice, place: str) -> dict[str, Any]:
    """What every page of the app shows: how far the index is, and the filters, each with a link that lets it go."""
    days = days_of(index)
    chips = [(name, value, choice.link(place, **{name: ""})) for name, value in choice.filters().items()]
    return {
        **WORDS,
        "choice": choice,
        "progress": progress,
        "chips": chips,
        "known_days": (days[0], days[-1]) if days else None,
        "bad_lines": count_bad_lines(index, choice.days),
        "unreadable": index.unreadable(choice.days),
    }


def overview(choice: Choice) -> dict[str, Any]:
    """The first page: a range of days."""
    index, progress = current()
    where = choice.where()
    per_day = grouped(index, where, dict.fromkeys(("day", choice.stack)))
    named = grouped(index, where, ("context", "provider", "model"))
    picture = by_day(choice, per_day)
    tables = [table(choice, named.sums((name,)), most=_MOST_ON_FIRST) for name in ("context", "provider", "model")]
    tables.append(table(choice, sums(index, where, ("segment",)), most=_MOST_ON_FIRST))
    days = per_day.sums(("day",))
    return {
        **frame(index, progress, choice, "/"),
        "total": days.total,
        "picture": picture,
        "caption": TITLES[choice.show] + ("" if choice.show == "latency" else f", stacked by {choice.stack}"),
        "days": table(choice, days, reverse=True),
        "tables": tables,
        "shows": [(show, choice.link("/", show="" if show == SHOWS[0] else show)) for show in SHOWS],
        "stacks": [(stack, choice.link("/", stack="" if stack == STACKS[0] else stack)) for stack in STACKS],
        "spans": [
            (name, text, choice.link("/", **{"since": name, "from": "", "to": ""})) for name, text in SPANS.items()
        ],
    }


def one_day(choice: Choice, day: int) -> dict[str, Any]:
    """A day."""
    index, progress = current()
    where = choice.where()
    named = grouped(index, where, ("context", "provider", "model"))
    tables = [table(choice, named.sums((name,))) for name in ("context", "provider", "model")]
    tables.append(table(choice, sums(index, where, ("segment",)), most=MOST_ROWS))
    days = days_of(index)
    return {
        **frame(index, progress, choice, f"/{day}"),
        "day": day,
        "total": tables[0].total,
        "tables": tables,
        "chart": largest(named.sums(("context",)), [row.link for row in tables[0].rows]),
        "token_types": token_types(tables[0].total),
        "before": max((known for known in days if known < day), default=None),
        "after": min((known for known in days if known > day), default=None),
        "is_future": day > int(date.today().strftime("%Y%m%d")),
    }


def by_field(choice: Choice, name: Field) -> dict[str, Any]:
    """All groups of one field."""
    index, progress = current()
    found = sums(index, choice.where(), (name,))
    shown = table(choice, found, most=MOST_ROWS)
    return {
        **frame(index, progress, choice, f"/by/{name}"),
        "field": name,
        "table": shown,
        "total": found.total,
        "chart": largest(found, [row.link for row in shown.rows]),
        "groups": [(group, choice.link(f"/by/{group}")) for group in GROUPS],
    }


def lines(choice: Choice, before: tuple[int, int] | None) -> dict[str, Any]:
    """A page of the lines themselves, the last ones first."""
    index, progress = current()
    place = {"before": before} if before else {}
    found = list_lines(index, choice.where(), choice.wanted(), limit=PAGE_LINES + 1, **place)
    shown, rest = found[:PAGE_LINES], found[PAGE_LINES:]
    total = sums(index, choice.where()).total
    is_searched = bool(choice.run or choice.word)
    return {
        **frame(index, progress, choice, "/lines"),
        "lines": shown,
        "total": total,
        "count": None if is_searched else count_only(total, choice.only),
        "offered": _offered(index, choice),
        "is_narrowed": is_searched or bool(choice.only or choice.filters()),
        "older": choice.link("/lines", before=_place(shown[-1])) if rest else None,
        "newest": choice.link("/lines") if before else None,
    }


def _offered(index: LogIndex, choice: Choice) -> dict[str, list[str]]:
    """The values that each filter can take: those of the lines of these days, and the one that is set."""
    found = grouped(index, UsageFilter(choice.days), ("context", "provider", "model"))
    names: tuple[Field, ...] = ("context", "provider", "model")
    values = {
        name: {row.key[0] for row in found.sums((name,)).rows} | {choice.filters().get(name, "")} for name in names
    }
    return {name: sorted(filter(None, values[name])) for name in names}


def attempts(index: LogIndex, line: LoggedLine) -> list[LoggedLine]:
    """The attempts of the call that a line belongs to; the line alone where it states no call, as older ones do."""
    return lines_of_call(index, line.call_id) if line.call_id else [line]


def _place(line: LoggedLine) -> str:
    return f"{line.day}-{line.at}"


def table(choice: Choice, found: UsageSums, *, most: int = MOST_ROWS, reverse: bool = False) -> SumsTable:
    """Sums by one field as a table, each row with where it leads."""
    name = found.by[0]
    rows = found.rows[::-1] if reverse else found.rows
    whole = found.total.total
    is_free = not whole.cost_usd
    shown = []
    for row in rows[:most]:
        part = row.total.usage.total_tokens if is_free else row.total.cost_usd
        all_of_it = whole.usage.total_tokens if is_free else whole.cost_usd
        link = _link(choice, name, row.key[0])
        share = max(0.0, part / all_of_it) if all_of_it else 0.0
        shown.append(TableRow(row.key[0], link, row, share, is_free or row.total.unpriced < row.total.calls))
    more = max(0, len(rows) - most)
    links = (choice.link(f"/by/{name}"), choice.link(f"/csv/{name}"))
    return SumsTable(name, tuple(shown), found.total, more, *links, is_free)


def _link(choice: Choice, name: Field, value: str) -> str:
    """Where a group leads: a day to its page, another one to the next finer view of it."""
    if name == "day":
        plain = {"since": "", "from": "", "to": "", "show": "", "stack": ""}
        return choice.link(f"/{value}", **plain)
    deeper = next((group for group in ("model", "context") if group != name and not choice.filters().get(group)), None)
    if choice.filters().get(name) or deeper is None or len(choice.filters()) > 1:
        return choice.link("/lines", **{name: value})
    return choice.link(f"/by/{deeper}", **{name: value})


def token_types(total: UsageSum) -> Sequence[tuple[str, int, str]]:
    """`(name, tokens, what they are part of)` of each kind of token."""
    usage = total.total.usage
    return (
        ("input", usage.input_tokens, ""),
        ("cached", usage.cached_tokens, "input"),
        ("cache write", usage.cache_write_tokens, "input"),
        ("output", usage.output_tokens, ""),
        ("reasoning", usage.reasoning_tokens, "output"),
    )


def _read(days: Days) -> LogIndex:
    """The index with the log read to its end.

    Raises:
        HTTPException: 503, the log of one of the days cannot be read.
    """
    index = log_index()
    index.refresh()
    for day, reason in index.unreadable(days).items():
        detail = f"{index.log_path(day).name}: it cannot be read ({reason}); see that it is a file muse may read"
        raise HTTPException(503, detail=detail)
    return index


def usage_of_day(day: int) -> Mapping[str, Any]:
    """What the API says of a day; the log is read to its end first."""
    index = _read((day, day))
    choice = Choice((day, day), "")
    named = grouped(index, choice.where(), ("context", "provider", "model"))
    found = {name: named.sums((name,)) for name in ("provider", "model", "context")}
    segments = sums(index, choice.where(), ("segment",))
    total = found["provider"].total
    return {
        "day": str(day),
        "total": counts(total),
        "by_provider": _by_name(found["provider"]),
        "by_model": _by_name(found["model"]),
        "by_token_type": {name.replace(" ", "_"): tokens for name, tokens, _ in token_types(total)},
        "by_context": _by_name(found["context"]),
        "by_segment": _by_name(segments),
        "unreadable": count_bad_lines(index, (day, day)),
    }


def costs_of_month(month: str) -> dict[str, float]:
    """`{day: dollars}` of the days of a month `YYYYMM` that have lines."""
    days = (int(f"{month}01"), int(f"{month}31"))
    found = sums(_read(days), Choice(days, "").where(), ("day",))
    return {row.key[0]: round(row.total.cost_usd, 10) for row in found.rows}


def _by_name(found: UsageSums) -> dict[str, dict[str, Any]]:
    return {row.key[0]: counts(row) for row in found.rows}


def counts(row: UsageSum) -> dict[str, Any]:
    """A sum's numbers by name, as `muse usage --json` has them, and what the app counts beside."""
    return {
        **row.total.counts(),
        "estimated": row.estimated,
        "from_cache": row.kept,
        "overnight": row.overnight,
    }
