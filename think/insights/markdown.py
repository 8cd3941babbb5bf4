"""How the occurrences of a topic look, as a Markdown page and on a screen; it asks nothing and reads no file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from urllib.parse import quote

from think.entries.front_matter import join
from think.entries.sources import FOOT
from think.insights.definition import Topic
from think.insights.state import KeptTopic
from think.insights.validation import Occurrence, headline_of, text_of
from think.output.formatting import Line, day_title, wrapped

_PLAIN = re.compile(r"\w[\w ,.()/–-]*")


def topic_title(topic: Topic, day: str) -> str:
    """The heading of a page: `Decisions of Friday 6 November 2026`, of a week `The week 2026-W45`."""
    if topic.is_weekly:
        return f"{topic.title} {datetime.strptime(day, '%Y%m%d'):%G-W%V}"
    return f"{topic.title} of {day_title(day)}"


def topic_markdown(kept: KeptTopic) -> str:
    """The page as `insights/<topic>.md` keeps it: front matter, then each occurrence with its quotation and source."""
    title = kept.title if _PLAIN.fullmatch(kept.title) else json.dumps(kept.title, ensure_ascii=False)
    sources = json.dumps(kept.sources, ensure_ascii=False)
    lines = [f"# {kept.title}", ""]
    for occurrence in kept.occurrences:
        lines += [f"## {headline_of(occurrence)}", "", *_markdown_fields(occurrence), *_markdown_quote(occurrence), ""]
    if not kept.occurrences:
        lines += ["Nothing was found.", ""]
    lines += [f"{FOOT}{dropped_words(kept.dropped)} Made by {kept.made_by}."]
    fields = {"title": title, "topic": kept.topic, "day": kept.day, "sources": sources}
    return join(fields, "\n".join(lines) + "\n")


def dropped_words(dropped: int) -> str:
    """A sentence on how many occurrences were left out, with a blank before it; "" if none was."""
    if not dropped:
        return ""
    return f" {dropped} more {'was' if dropped == 1 else 'were'} left out: nothing in the journal bears them out."


def screen_lines(title: str, occurrences: Sequence[Occurrence], dropped: int = 0) -> Iterator[Line]:
    """The page as it is printed."""
    yield title, "bold underline"
    yield "", ""
    for occurrence in occurrences:
        yield from wrapped(headline_of(occurrence), "", "bold")
        for name, text in _further(occurrence):
            yield from wrapped(f"{name}: {text}", "      ")
        yield from wrapped(f"“{occurrence.quote}”", "      ")
        yield f"      {'  '.join(filter(None, (_who(occurrence), occurrence.source)))}", "dim"
        yield "", ""
    if not occurrences:
        yield "Nothing was found.", "dim"
        yield "", ""
    if dropped:
        yield dropped_words(dropped).strip(), "dim"


def _markdown_fields(occurrence: Occurrence) -> list[str]:
    rows = [f"- **{name}:** {text}" for name, text in _further(occurrence)]
    return [*rows, ""] if rows else []


def _further(occurrence: Occurrence) -> Iterator[tuple[str, str]]:
    """`(name, text)` of each field but the first, without empty ones and what only repeats the quotation."""
    for name, value in list(occurrence.fields.items())[1:]:
        text = text_of(value)
        if text and text != occurrence.quote:
            yield name.replace("_", " "), text


def _markdown_quote(occurrence: Occurrence) -> list[str]:
    link = f"[{occurrence.source}](../{quote(occurrence.source)})"
    who = _who(occurrence)
    return [f"> {occurrence.quote}", f"> – {who} ({link})" if who else f"> – {link}"]


def _who(occurrence: Occurrence) -> str:
    return ", ".join(piece for piece in (occurrence.speaker, occurrence.time) if piece)
