"""How the insight of a day looks, as Markdown and on a screen; it asks nothing and reads no file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import quote

from muse.cli._terminal.terminal import say
from think.daily_summary.build import Digest, Finding
from think.entries.front_matter import join
from think.entries.sources import FOOT
from think.output.formatting import Line, day_title, wrapped


def markdown_page(digest: Digest, made_by: str) -> str:
    """The page as `insights/daily.md` keeps it: front matter, headline, then each part; `made_by` names who chose."""
    title = day_title(digest.day)
    sources = [finding.source for finding in digest.findings]
    lines = [f"# {title}", ""]
    head = _headline(digest)
    if head is not None:
        lines += [f"**{head.title}**", "", *_markdown_quote(head)]
    for finding in digest.findings:
        lines += [f"## {_heading(finding)}", ""]
        lines += [f"*Nothing: {finding.error}*", ""] if finding.error else _markdown_quote(finding)
    lines += [f"{FOOT} Chosen by {made_by}."]
    fields = {"title": title, "topic": "daily", "day": digest.day, "sources": json.dumps(sources)}
    return join(fields, "\n".join(lines) + "\n")


def show_page(digest: Digest) -> None:
    """Print the page; on a terminal in colour, into a pipe as plain lines."""
    for text, style in _screen_lines(digest):
        say(text, style)


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
    return [f"> {finding.sentence}", f"> – {_who(finding)} ([{finding.source}](../{quote(finding.source)}))", ""]


def _screen_lines(digest: Digest) -> Iterator[Line]:
    yield day_title(digest.day), "bold underline"
    yield "", ""
    head = _headline(digest)
    if head is not None:
        yield f"  {head.title}", "bold green"
        yield from wrapped(f"“{head.sentence}”", "  ", "green")
        yield f"  {_who(head)}", "dim"
        yield "", ""
    if digest.error:
        yield from wrapped(f"No headline: {digest.error}", "  ", "red")
    for finding in digest.findings:
        yield from _part_lines(finding)


def _part_lines(finding: Finding) -> Iterator[Line]:
    yield _heading(finding), "bold"
    if finding.error:
        yield from wrapped(finding.error, "      ", "red")
    else:
        yield from wrapped(f"“{finding.sentence}”", "      ")
        yield f"      {_who(finding)}  {finding.source}", "dim"
    yield "", ""
