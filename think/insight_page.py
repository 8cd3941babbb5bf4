"""How the insight of a day looks, as Markdown and on a screen, with its calls as a table; it asks nothing."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from muse.cli._terminal import Column, draw, fits, say, width
from muse.messages import Route
from muse.usage import Usage
from think.digest import Digest, Finding
from think.questions import Call

_WIDEST = 100
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

Line = tuple[str, str]
"""A line of text, and rich's words for how it looks on a terminal."""


def day_title(day: str) -> str:
    """A day for people: `Friday 6 November 2026`.

    >>> day_title("20261106")
    'Friday 6 November 2026'
    """
    date = datetime.strptime(day, "%Y%m%d")
    return f"{date:%A} {date.day} {date:%B %Y}"


def markdown_page(digest: Digest, made_by: str) -> str:
    """The page as `insights/daily.md` keeps it: front matter, headline, then each part; `made_by` names who chose."""
    title = day_title(digest.day)
    sources = [finding.source for finding in digest.findings]
    lines = ["---", f"title: {title}", "topic: daily", f"day: {digest.day}", f"sources: {json.dumps(sources)}", "---"]
    lines += [f"# {title}", ""]
    head = _headline(digest)
    if head is not None:
        lines += [f"**{head.title}**", "", *_markdown_quote(head)]
    for finding in digest.findings:
        lines += [f"## {_heading(finding)}", ""]
        lines += [f"*Nothing: {finding.error}*", ""] if finding.error else _markdown_quote(finding)
    lines += [f"Each quotation stands word for word in its source. Chosen by {made_by}."]
    return "\n".join(lines) + "\n"


def show_page(digest: Digest) -> None:
    """Print the page; on a terminal in colour, into a pipe as plain lines."""
    for text, style in _screen_lines(digest):
        say(text, style)


def show_calls(calls: Sequence[Call], routes: Mapping[str, Route]) -> None:
    """Print for each context who was asked and why, how often, with how many tokens, for how long and at what cost."""
    rows = [
        _row(context, route, [call for call in calls if call.context == context]) for context, route in routes.items()
    ]
    _draw(rows, ["all", "", "", *_figures(calls)])
    failed = sum(1 for call in calls if call.error)
    if failed:
        say(f"{failed} of {len(calls)} calls failed; what they used stands in the token log (muse usage).", "yellow")


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


def _headline(digest: Digest) -> Finding | None:
    return next((finding for finding in digest.findings if finding.source == digest.headline), None)


def _heading(finding: Finding) -> str:
    return " ".join(piece for piece in (finding.at, finding.title or "(no title)") if piece)


def _who(finding: Finding) -> str:
    """Who said it and when: `Ravi, 11:09`, or `note`."""
    if not finding.speaker:
        return "note" if finding.source.startswith("notes/") else finding.said_at
    return ", ".join(piece for piece in (finding.speaker, finding.said_at) if piece)


def _markdown_quote(finding: Finding) -> list[str]:
    return [f"> {finding.sentence}", f"> – {_who(finding)} ([{finding.source}](../{finding.source}))", ""]


def _screen_lines(digest: Digest) -> Iterator[Line]:
    yield day_title(digest.day), "bold underline"
    yield "", ""
    head = _headline(digest)
    if head is not None:
        yield f"  {head.title}", "bold green"
        yield from _wrapped(f"“{head.sentence}”", "  ", "green")
        yield f"  {_who(head)}", "dim"
        yield "", ""
    if digest.error:
        yield from _wrapped(f"No headline: {digest.error}", "  ", "red")
    for finding in digest.findings:
        yield from _part_lines(finding)


def _part_lines(finding: Finding) -> Iterator[Line]:
    yield _heading(finding), "bold"
    if finding.error:
        yield from _wrapped(finding.error, "      ", "red")
    else:
        yield from _wrapped(f"“{finding.sentence}”", "      ")
        yield f"      {_who(finding)}  {finding.source}", "dim"
    yield "", ""


def _wrapped(text: str, indent: str, style: str = "") -> Iterator[Line]:
    columns = max(min(width(), _WIDEST), 30)
    for line in textwrap.wrap(text, columns, initial_indent=indent, subsequent_indent=indent):
        yield line, style


def _row(context: str, route: Route, calls: Sequence[Call]) -> list[str]:
    served = next((f"{call.provider} {call.model}" for call in reversed(calls)), f"{route.provider} {route.model}")
    return [context, served, route.reason, *_figures(calls)]


def _figures(calls: Sequence[Call]) -> list[str]:
    used = sum((call.usage for call in calls), Usage())
    seconds = _busy_s((call.started_s, call.started_s + call.duration_s) for call in calls)
    return [str(len(calls)), f"{used.input_tokens:,}", f"{used.output_tokens:,}", f"{seconds:.1f}", _cost(calls)]


def _busy_s(spans: Iterable[tuple[float, float]]) -> float:
    """How long at least one of some calls was under way, in seconds."""
    total_s, end_s = 0.0, float("-inf")
    for start_s, stop_s in sorted(spans):
        total_s += max(0.0, stop_s - max(start_s, end_s))
        end_s = max(end_s, stop_s)
    return total_s


def _cost(calls: Sequence[Call]) -> str:
    """The dollars of the calls whose cost is known, with a `+` where there are others."""
    known = [call.cost_usd for call in calls if call.cost_usd is not None]
    more = "+" if len(known) < len(calls) else ""
    return f"${sum(known):.4f}{more}" if any(known) else f"$0{more}"
