"""The page of a summary: front matter, Markdown, and whether it is still the one that was made; it asks nothing."""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from muse.journal.storage.atomic_files import write_atomic
from muse.journal.storage.backups import backup
from observe.segments.state_files import now
from observe.summaries.sources import Source
from observe.summaries.summary import Summary

FILE = "summary.md"
_HEAD = re.compile(r"---\n(.*?)\n---\n\n?(.*)", re.DOTALL)
_FIELD = re.compile(r"^(\w+): (.*)$", re.MULTILINE)
_PLAIN = re.compile(r"[^\W\d_](?:[\w .,()/'’-]*[\w.)])?")
_YAML_WORDS = {"true", "false", "yes", "no", "on", "off", "y", "n", "null"}
_MARKS = re.compile(r"([\\`*_\[\]#|])")


class Head(Struct, frozen=True):
    """What a page is about: day, segment, its local start in seconds since midnight, and what was read."""

    day: str
    segment: str
    start_s: int
    source: Source


def page_of(made: Summary, start_s: int) -> str:
    """The body of a page; times are local, counted from `start_s` (seconds since midnight)."""
    return "\n".join(_lines(made, start_s)).strip() + "\n"


def is_made_from(path: Path, mark: str) -> bool:
    """Whether the page that is there was made from what has this mark."""
    fields, _ = _read(path)
    return fields.get("made_from") == mark


def put_page(path: Path, head: Head, made: Summary) -> Path | None:
    """Write the page; where one that somebody else wrote or changed was set aside, if there was one."""
    body = page_of(made, head.start_s)
    fields = {
        "title": made.title,
        "day": head.day,
        "segment": head.segment,
        "sources": list(head.source.files),
        "made_at": now(),
        "made_by": made.made_by,
        "made_from": head.source.mark,
        "body": _hash(body),
    }
    aside = backup(path) if path.exists() and not _is_ours(path) else None
    lines = (f"{name}: {_value(value)}" for name, value in fields.items())
    write_atomic(path, "---\n" + "\n".join(lines) + "\n---\n\n" + body)
    return aside


def _value(value: object) -> str:
    """A value of front matter: plain where YAML reads it as nothing but that text, otherwise as JSON."""
    is_plain = isinstance(value, str) and _PLAIN.fullmatch(value) and value.casefold() not in _YAML_WORDS
    return str(value) if is_plain else json.dumps(value, ensure_ascii=False)


def _text_of(value: str) -> str:
    """What a value of front matter says."""
    return str(json.loads(value)) if value.startswith('"') else value


def _lines(made: Summary, start_s: int) -> Iterator[str]:
    yield f"# {_safe(made.title)}"
    yield ""
    if made.text:
        yield _safe(made.text)
        yield ""
    todos = [f"{todo.who}: {todo.what}" if todo.who else todo.what for todo in made.todos]
    dues = [f" ({todo.due})" if todo.due else "" for todo in made.todos]
    lists = (
        ("Points", made.points),
        ("Decisions", made.decisions),
        ("To do", [text + due for text, due in zip(todos, dues, strict=True)]),
    )
    for heading, rows in lists:
        if rows:
            yield f"## {heading}"
            yield ""
            yield from (f"- {_safe(row)}" for row in rows)
            yield ""
    for quote in made.quotes:
        yield f"> {_safe(quote.text)}"
        by = ", ".join(part for part in (_safe(quote.speaker), _clock(quote.start_s, start_s)) if part)
        yield from (f"> – {by}",) if by else ()
        yield ""


def _clock(offset_s: float | None, start_s: int) -> str:
    if offset_s is None:
        return ""
    minutes = int(start_s + offset_s) // 60
    return f"{minutes // 60 % 24:02}:{minutes % 60:02}"


def _safe(text: str) -> str:
    """Text that stays text in Markdown: what a model or a transcript says is no markup."""
    return _MARKS.sub(r"\\\1", html.escape(text, quote=False))


def _read(path: Path) -> tuple[dict[str, str], str]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return {}, ""
    found = _HEAD.fullmatch(text)
    if found is None:
        return {}, text
    try:
        return {name: _text_of(value) for name, value in _FIELD.findall(found[1])}, found[2]
    except ValueError:  # a value that somebody else wrote
        return {}, text


def _is_ours(path: Path) -> bool:
    fields, body = _read(path)
    return fields.get("body") == _hash(body)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]
