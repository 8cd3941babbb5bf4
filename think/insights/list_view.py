"""The topics as a list: what each reads and when it is due, what there is of it for a day; it asks nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from muse.cli._terminal.terminal import Column, draw, fits, print_json, say
from think.daily_summary.build import BUILT_IN, CONTEXT
from think.daily_summary.state import digest_shelf
from think.entries.sources import week_of
from think.insights.definition import Topic, find_topics
from think.insights.state import TopicShelf
from think.output.formatting import brief

_COLUMNS = (
    Column("topic", style="bold"),
    Column("title"),
    Column("schedule"),
    Column("reads"),
    Column("context"),
    Column("day"),
    Column("state"),
)
_ALWAYS = ("topic", "schedule", "day", "state")


def show_list(day: str, *, as_json: bool) -> int:
    """Print every topic with what there is of it for a day; 1 if a topic's file cannot be used or a reply failed."""
    known = find_topics()
    rows = [_built_in(day), *(_row(topic, day) for topic in known.found)]
    problems = [str(problem) for problem in known.problems]
    failed = [row for row in rows if row["failed"]]
    if as_json:
        print_json({"day": day, "topics": rows, "problems": problems})
        return 1 if problems or failed else 0
    _draw(rows)
    for row in failed:
        say(f"{row['topic']}: {row['failed']} (kept as {row['failed_file']}; the next run asks again)", "red")
    for problem in problems:
        say(problem, "red")
    return 1 if problems or failed else 0


def _draw(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the table; in a window too narrow for it without what the topics' files say anyway."""
    cells = [[str(row[column.name]) for column in _COLUMNS] for row in rows]
    if fits(_COLUMNS, cells):
        draw(_COLUMNS, cells)
        return
    slim = [column for column in _COLUMNS if column.name in _ALWAYS]
    draw(slim, [[str(row[column.name]) for column in slim] for row in rows])
    say("A wider window shows title, sources and context as well; so does --json.", "dim")


def _built_in(day: str) -> Mapping[str, Any]:
    kept = digest_shelf(day).load()
    return {
        "topic": BUILT_IN,
        "title": "The day",
        "schedule": "daily",
        "reads": "transcripts, notes",
        "context": CONTEXT,
        "day": day,
        "state": f"kept {kept.made_at[:16]}" if kept.digest else "-",
        "failed": "",
    }


def _row(topic: Topic, day: str) -> Mapping[str, Any]:
    where = week_of(day)[-1] if topic.is_weekly else day
    truncated_results = TopicShelf(where, topic.name)
    kept, failed = truncated_results.load(), truncated_results.failed()
    state = f"kept {kept.made_at[:16]}, {len(kept.occurrences)} found" if kept.made_at else "-"
    return {
        "topic": topic.name,
        "title": topic.title,
        "schedule": topic.schedule,
        "reads": ", ".join(topic.sources),
        "context": topic.context,
        "day": where,
        "state": "failed" if failed else state,
        "failed": brief(failed.problem) if failed else "",
        "failed_file": str(truncated_results.failed_path) if failed else "",
        "file": topic.path,
    }
