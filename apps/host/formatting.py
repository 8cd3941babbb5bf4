"""How values read on a page: moments, days, Markdown, amounts; it knows no request and no template."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from html import unescape
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from muse.types.formatting import format_count, format_duration, format_usd
from muse.types.surrogates import join_surrogates

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
    text = "" if value is None else join_surrogates(str(value))
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


def plain(text: str) -> str:
    """A line of Markdown without its marks.

    >>> plain("The release **1.8** goes out on `Thursday`")
    'The release 1.8 goes out on Thursday'
    """
    return unescape(nh3.clean(_MARKDOWN.renderInline(text), tags=set()))


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


def ago(value: float | str | datetime | None) -> Markup:
    """A moment as `when`; scripts show one of the last day as how long ago it was, with the moment as its title."""
    return Markup(str(when(value)).replace("<time ", "<time data-ago ", 1))  # noqa: S704  `when` has escaped it


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
    "markdown": markdown,
    "usd": format_usd,
    "count": format_count,
    "duration": format_duration,
    "when": when,
    "ago": ago,
    "day": day,
}
