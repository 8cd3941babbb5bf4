"""How values read on a page: money, counts, times, days, Markdown; it knows no request and no template."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

_MARKDOWN = MarkdownIt("commonmark", {"html": False, "linkify": False}).enable(["table", "strikethrough"])
_MOST_MARKDOWN_CHARS = 60_000  # the worst text of this length takes 0.8 s, one twice as long up to 3 s
_MOST_ISO_CHARS = 40
_MS_FROM = 100_000_000_000  # seconds reach this in the year 5138, milliseconds did in 1973
_TAGS = frozenset({
    "a", "abbr", "b", "blockquote", "br", "code", "dd", "del", "div", "dl", "dt", "em", "h1", "h2", "h3", "h4", "h5",
    "h6", "hr", "i", "li", "ol", "p", "pre", "s", "strong", "sub", "sup", "table", "tbody", "td", "th", "thead", "tr",
    "ul",
})  # fmt: skip


def markdown(value: object) -> Markup:
    """Markdown as clean HTML: no HTML of the text's own, no pictures, no scripts; links open nothing but http(s)."""
    text = "" if value is None else str(value).encode("utf-8", errors="replace").decode()  # halves of surrogates
    if len(text) > _MOST_MARKDOWN_CHARS:
        return Markup('<pre class="plain">{}</pre>').format(text)
    html = nh3.clean(
        _MARKDOWN.render(text),
        tags=set(_TAGS),
        attributes={"a": {"href", "title"}, "td": set(), "th": set(), "ol": {"start"}},
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
    )
    return Markup(html)  # noqa: S704  nh3 has cleaned it


def usd(value: float | None) -> str:
    """An amount of US dollars with the digits that tell something; `–` where there is none.

    >>> usd(12.5), usd(0.5), usd(0.115), usd(0.0076702), usd(0.0000042), usd(0), usd(None)
    ('$12.50', '$0.50', '$0.1150', '$0.0077', '$0.0000042', '$0', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    if size == 0:
        return "$0"
    sign = "-" if value < 0 else ""
    if size < 0.001:
        text = f"{size:.{min(7, 1 - math.floor(math.log10(size)))}f}".rstrip("0")
        return f"{sign}${text}" if text != "0." else f"{sign}<$0.0000001"
    is_cents = math.isclose(size * 100, round(size * 100), abs_tol=1e-7)
    return f"{sign}${size:,.{2 if size >= 1 or is_cents else 4}f}"


def count(value: float | None) -> str:
    """A number with commas between thousands; `–` where there is none.

    >>> count(12345), count(1.5), count(None)
    ('12,345', '1.5', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.1f}" if value % 1 else f"{int(value):,}"


def duration(value: float | None) -> str:
    """A span of time, given in seconds.

    >>> duration(0.0042), duration(1.26), duration(75), duration(7260), duration(200000)
    ('4 ms', '1.3 s', '1 min 15 s', '2 h 1 min', '2 d 7 h')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if value < 0:
        return f"-{duration(-value)}"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 59.95:
        return f"{value:.1f} s"
    whole = round(float(value))
    for size, unit, below, lower in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {unit} {rest} {lower}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def when(value: float | str | datetime | None) -> Markup:
    """A moment as a `<time>` in local time, from epoch seconds or milliseconds, or an ISO text.

    Text that is no moment is shown as it stands.
    """
    if value is None or value == "":
        return Markup("–")
    try:
        moment = _moment(value)
        shown, there = moment.astimezone(), moment.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return escape(str(value))
    stamp = there.isoformat(timespec="seconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}">{}</time>').format(stamp, shown.strftime(f"{shown.day} %b %Y %H:%M:%S"))


def _moment(value: float | str | datetime) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, str):
        return datetime.fromisoformat(value if len(value) <= _MOST_ISO_CHARS else "")
    return datetime.fromtimestamp(value / 1000 if abs(value) >= _MS_FROM else value, UTC)


def day(value: object) -> str:
    """A day YYYYMMDD in words; other text as it stands.

    >>> day("20261106"), day("no day")
    ('Friday 6 November 2026', 'no day')
    """
    text = str(value)
    if len(text) != 8 or not (text.isascii() and text.isdigit()):
        return text
    try:
        parsed = time.strptime(text, "%Y%m%d")
    except ValueError:
        return text
    return time.strftime(f"%A {parsed.tm_mday} %B %Y", parsed)


FILTERS: dict[str, Any] = {
    "markdown": markdown, "usd": usd, "count": count, "duration": duration, "when": when, "day": day,
}  # fmt: skip
