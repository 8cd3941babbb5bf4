"""What a page of the app is asked for by its address: days, filters, and how to show them; it reads no log."""

from __future__ import annotations

import re
from datetime import date
from typing import get_args
from urllib.parse import urlencode

from msgspec import Struct
from msgspec.structs import replace
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException

from muse.errors import ConfigError
from muse.journal import paths
from muse.usage_index.line_queries import ONLY, LineFilter, Only
from muse.usage_index.queries import Days, UsageFilter
from muse.usage_log import ledger
from muse.usage_log.totals import Field

BASE = "/app/tokens"
GROUPS: tuple[Field, ...] = ("context", "provider", "model", "segment")
STACKS: tuple[Field, ...] = ("provider", "context", "model")
SHOWS = ("cost", "tokens", "calls", "failed", "latency")
SPANS = {"7d": "7 days", "30d": "30 days", "90d": "90 days", "all": "all days"}
ALL: Days = (0, 99_999_999)
_USUAL = "30d"
_LONGEST = 300


class Choice(Struct, frozen=True):
    """The days and filters in force, and what the chart shows.

    `since` is a span such as 30d, or "all"; empty if first and last day were named. `only`, `run` (an agent run's id)
    and `word` (text that a line contains) narrow the list of lines.
    """

    days: Days
    since: str = _USUAL
    context: str = ""
    provider: str = ""
    model: str = ""
    segment: str = ""
    only: Only = ""
    run: str = ""
    word: str = ""
    show: str = SHOWS[0]
    stack: Field = STACKS[0]

    def where(self) -> UsageFilter:
        """The lines that are meant."""
        return UsageFilter(self.days, self.context, self.provider, self.model, self.segment)

    def wanted(self) -> LineFilter:
        """Which of those lines are listed."""
        return LineFilter(self.only, self.run, self.word)

    def filters(self) -> dict[Field, str]:
        """The fields that are bound."""
        return self.where().named()

    def link(self, place: str = "/", **changes: str) -> str:
        """The address of a page of the app with these filters, some of them changed ("" lets one go)."""
        pairs = {name: value for name, value in {**self._pairs(), **changes}.items() if value}
        return f"{BASE}{place}" + (f"?{urlencode(pairs)}" if pairs else "")

    def on(self, day: int | str) -> Choice:
        """The same filters on one day."""
        return replace(self, days=(int(day), int(day)), since="")

    @property
    def is_one_day(self) -> bool:
        """Whether the days are a single one."""
        return self.days[0] == self.days[1]

    def _pairs(self) -> dict[str, str]:
        span = {"from": str(self.days[0]), "to": str(self.days[1])} if not self.since else {"since": self.since}
        if self.since == _USUAL:
            span = {}
        shown = {
            "show": "" if self.show == SHOWS[0] else self.show,
            "stack": "" if self.stack == STACKS[0] else self.stack,
        }
        named = {str(name): value for name, value in self.filters().items()}
        return {**span, **named, "only": self.only, "run": self.run, "word": self.word, **shown}


def read_choice(query: QueryParams) -> Choice:
    """What an address asks for.

    Raises:
        HTTPException: 400, a value is of another form; the text says which are allowed.
    """
    since, days = _days(query)
    filters = {name: _text(query, name) for name in GROUPS}
    return Choice(
        days,
        since,
        filters["context"],
        filters["provider"],
        filters["model"],
        filters["segment"],
        _only(query.get("only", "")),
        _text(query, "run"),
        _text(query, "word").strip(),
        _one_of("show", query.get("show") or SHOWS[0], SHOWS),
        next(name for name in STACKS if name == _one_of("stack", query.get("stack") or STACKS[0], STACKS)),
    )


def read_day(text: str, *, where: str = "day", may_have_dashes: bool = False) -> int:
    """A day of the form YYYYMMDD as a number; `may_have_dashes` allows YYYY-MM-DD too, as date fields send it.

    Raises:
        HTTPException: 400, it is none.
    """
    is_dashed = may_have_dashes and re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII)
    plain = text.replace("-", "") if is_dashed else text
    if not paths.is_day(plain):
        raise HTTPException(400, detail=f"{where}: found {text[:40]!r}, expected a day YYYYMMDD such as 20261103")
    return int(plain)


def _days(query: QueryParams) -> tuple[str, Days]:
    """`(span, days)`; the span is empty if the days were named."""
    first, last = query.get("from"), query.get("to")
    if first or last:
        begin = read_day(first, where="from", may_have_dashes=True) if first else ALL[0]
        end = read_day(last, where="to", may_have_dashes=True) if last else ALL[1]
        if begin > end:
            raise HTTPException(400, detail=f"from: found {begin}, expected a day that is not after {end} (to)")
        return "", (begin, end)
    since = query.get("since") or _USUAL
    if since == "all":
        return since, ALL
    try:
        begin = int(ledger.first_day(since))
    except ConfigError as exc:
        raise HTTPException(400, detail=f"since: found {exc.found}, expected {exc.allowed}, or all") from None
    return since, (begin, max(begin, int(f"{date.today():%Y%m%d}")))


def _text(query: QueryParams, name: str) -> str:
    text = query.get(name, "")
    if len(text) > _LONGEST:
        raise HTTPException(400, detail=f"{name}: found {len(text):,} characters, expected {_LONGEST} at most")
    return text


def _only(text: str) -> Only:
    if text and text not in ONLY:
        raise HTTPException(400, detail=f"only: found {text[:40]!r}, expected one of {', '.join(ONLY)}")
    return next(only for only in get_args(Only) if only == text)


def _one_of(name: str, text: str, allowed: tuple[str, ...]) -> str:
    if text not in allowed:
        raise HTTPException(400, detail=f"{name}: found {text[:40]!r}, expected one of {', '.join(allowed)}")
    return text
