"""The insight of a day, made of its transcripts and notes; it names contexts, journal.json says who answers."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator
from datetime import date

import msgspec
from msgspec import Struct

from muse.cli._terminal.arguments import add_day, day_of, parsed, parser_for, print_error, usage_error
from muse.cli._terminal.progress import Counter, progress
from muse.cli._terminal.terminal import near, print_json, say
from muse.errors import ConfigError, MuseError
from muse.journal import paths
from think.daily_summary.build import BUILT_IN, count_questions
from think.daily_summary.command import DailyMade, make_daily, show_daily
from think.entries.sources import is_end_of_week, is_recorded, recorded_days, week_of
from think.entries.transcripts import day_with_words, read_day
from think.insights.definition import Topic, Topics, find_topics, is_due
from think.insights.list_view import show_list
from think.insights.markdown import screen_lines
from think.insights.runner import Made, TopicMade, make_topics
from think.insights.state import TopicShelf
from think.output.call_table import show_call_totals
from think.output.formatting import day_title

_EPILOG = """\
The topic `daily`: for each part of the day (transcripts, notes) a model
chooses the sentence that tells most and gives it a title; of these it chooses
the headline. What is shown in quotation marks stands word for word in the
journal. The page is kept as insights/daily.md in the day's folder, with
insights/daily.json beside it: a later run asks only what has changed since, or
what failed.

Other topics (decisions, commitments, people, ...) are files that say what to
look for: --list shows them. Each occurrence carries its quotation and source;
one whose quotation does not stand there is thrown away. A reply that is not of
the asked form, twice, is kept as insights/TOPIC.failed.json and asked again by
the next run.

Who is asked says journal.json, for the contexts insight.TOPIC:
  muse route insight.daily --explain

For example:
  muse insight                           the latest day
  muse insight 20261103                  another day
  muse insight 20261103 --force          made anew
  muse insight --topic decisions         one topic of the latest day
  muse insight 20261103 --all            all topics that are due for a day
  muse insight 20261103 --week           the week that the day lies in
  muse insight --list                    the topics, and what there is of them
"""


class _Wanted(Struct, frozen=True):
    """What is to be made: the built-in topic, those of files, and the files that cannot be used."""

    is_daily: bool
    topics: tuple[Topic, ...]
    problems: tuple[ConfigError, ...] = ()


def main(argv: list[str] | None = None) -> int:
    """Run `muse insight`; 0 done, 1 something is missing in the result, 2 used wrongly.

    Raises:
        MuseError: nothing could be made: no such day, no key, no model.
    """
    args = parsed(_parser(), argv)
    if isinstance(args, int):
        return args
    if wrong := _contradiction(args):
        return usage_error("insight", wrong)
    asked = day_of(args)
    if args.list:
        return show_list(_day_of_list(asked), as_json=args.json)
    day = asked if args.week and asked else day_with_words(asked)
    wanted = _wanted(args, day)
    if not wanted.topics and not wanted.problems:
        return _only_daily(day, force=args.force, as_json=args.json)
    return _several(day, wanted, force=args.force, as_json=args.json)


def _day_of_list(asked: str | None) -> str:
    """The day to list for: that which is asked for, else the latest with words in it, or with anything, else today."""
    try:
        return day_with_words(asked)
    except ConfigError:
        if asked:
            raise
        return (recorded_days() or [f"{date.today():%Y%m%d}"])[-1]


def _parser() -> argparse.ArgumentParser:
    told = "Write the insights of a day of the journal: its headline and what each part comes to, or topics."
    parser = parser_for("insight", told, _EPILOG)
    add_day(parser, "YYYYMMDD; the latest day with a transcript (or a note) if left out")
    parser.add_argument("--topic", metavar="NAME", action="append", default=[], help="this topic; may be repeated")
    parser.add_argument("--week", action="store_true", help="the weekly topics, of the week that the day lies in")
    parser.add_argument("--all", action="store_true", help="every topic that is due for the day")
    parser.add_argument("--list", action="store_true", help="print the topics and what there is of them; ask nothing")
    parser.add_argument("--force", action="store_true", help="ask everything again, also if nothing has changed")
    return parser


def _contradiction(args: argparse.Namespace) -> str:
    """What of the command line does not go together; "" if all of it does."""
    if args.all and args.topic:
        return "--all and --topic do not go together; give one"
    if args.list and (args.topic or args.week or args.all or args.force):
        return "--list goes with DAY and --json alone: it shows every topic and makes none"
    return ""


def _wanted(args: argparse.Namespace, day: str) -> _Wanted:
    """What the command line asks for.

    Raises:
        ConfigError: it names a topic that is not there, or whose file cannot be used.
    """
    if not (args.topic or args.week or args.all):
        return _Wanted(True, ())
    known = find_topics()
    names = list(dict.fromkeys(args.topic))
    topics = [known.named(name) for name in names if name != BUILT_IN]
    further = _further(args, known, day)
    topics += [topic for topic in further if topic not in topics]
    is_daily = BUILT_IN in names or args.all
    return _Wanted(is_daily, tuple(topics), known.problems if args.all or args.week else ())


def _further(args: argparse.Namespace, known: Topics, day: str) -> list[Topic]:
    """The topics that --all and --week name."""
    is_end = is_end_of_week(day)
    weekly = [topic for topic in known.found if topic.is_weekly and args.week]
    due = [topic for topic in known.found if args.all and is_due(topic, day, is_end_of_week=is_end)]
    return [*due, *(topic for topic in weekly if topic not in due)]


def _only_daily(day: str, *, force: bool, as_json: bool) -> int:
    """The built-in topic alone, with its calls and what to type next."""
    made = _daily(day, force=force, shown=not as_json)
    if made is None:
        say(f"{day_title(day)} has no transcript and no note with words in it; nothing to do.")
        return 0
    if made.error:
        print_error("insight", made.error)
        return 1
    if as_json:
        print_json(made.as_json())
    else:
        show_daily(made)
    return 1 if made.digest.failed else 0


def _daily(day: str, *, force: bool, shown: bool) -> DailyMade | None:
    """The built-in topic, made; None for a day without words."""
    parts = read_day(day)
    if not parts:
        return None
    with progress(shown=shown) as step:
        counter = Counter(day_title(day), step, count_questions(parts))
        return make_daily(day, parts, force=force, on_step=counter.advance)


def _several(day: str, wanted: _Wanted, *, force: bool, as_json: bool) -> int:
    """Topics of files, with the built-in one if it is asked for; broken files are said, and the others made."""
    for problem in wanted.problems:
        print_error("insight", f"{problem}; the other topics are made")
    daily, error = _try_daily(day, force=force, shown=not as_json) if wanted.is_daily else (None, "")
    with progress(shown=not as_json) as step:
        counter = Counter(day_title(day), step)
        making = make_topics(day, wanted.topics, force=force, on_total=counter.expect, on_step=counter.advance)
        made = asyncio.run(making)
    if as_json:
        _print_json(day, daily, made)
    else:
        _show(day, daily, made, is_weekly=any(topic.is_weekly for topic in wanted.topics))
    failed = [one for one in made.topics if one.state == "failed"]
    for text in dict.fromkeys(one.problem for one in failed):
        names = ", ".join(one.topic for one in failed if one.problem == text)
        print_error("insight", f"{names}: {text}; what was kept stays, and the next run asks again")
    if error:
        print_error("insight", f"{BUILT_IN}: {error}")
    is_whole = not (failed or wanted.problems or error or (daily is not None and daily.digest.failed))
    return 0 if is_whole else 1


def _try_daily(day: str, *, force: bool, shown: bool) -> tuple[DailyMade | None, str]:
    """The built-in topic beside others, or why there is none."""
    try:
        made = _daily(day, force=force, shown=shown)
    except MuseError as exc:
        return None, f"{type(exc).__name__}: {exc}"
    return made, made.error if made is not None else ""


def _print_json(day: str, daily: DailyMade | None, made: Made) -> None:
    topics = [{**msgspec.to_builtins(one), "occurrences": msgspec.to_builtins(one.occurrences)} for one in made.topics]
    whole = {"day": day, "topics": topics, "calls": msgspec.to_builtins(made.calls)}
    print_json({**whole, "daily": daily.as_json()} if daily is not None else whole)


def _show(day: str, daily: DailyMade | None, made: Made, *, is_weekly: bool) -> None:
    if daily is not None and not daily.error:
        show_daily(daily)
        say("")
    for one in made.topics:
        _show_topic(one)
    if is_weekly:
        _show_missing_days(day)
    if made.calls:
        show_call_totals(made.calls)


def _show_topic(one: TopicMade) -> None:
    """Print a topic, and where it is kept."""
    truncated_results = TopicShelf(one.day, one.topic)
    if one.state in ("new", "unchanged"):
        for text, style in screen_lines(one.title, one.occurrences, one.dropped):
            say(text, style)
    moved = f" The page that was there is now {one.aside}." if one.aside else ""
    say(
        {
            "new": f"Kept as {near(str(truncated_results.page_path))} and {truncated_results.state_path.name}.{moved}",
            "unchanged": f"Nothing has changed: this is the kept result of {one.topic} (--force makes it anew).",
            "nothing": f"{one.title}: the journal has none of what it is made of; nothing to do.",
            "failed": f"{one.title}: failed, see below.",
        }[one.state],
        "red" if one.state == "failed" else "dim",
    )
    say("")


def _show_missing_days(day: str) -> None:
    """Say which days of a week have records and no insights yet."""
    days = [one for one in week_of(day) if is_recorded(one) and not any(_insights(one))]
    if days:
        say(f"Without insights yet: {', '.join(days)} (muse insight {days[0]} --all, and the like).", "yellow")


def _insights(day: str) -> Iterator[str]:
    return (path.name for path in (paths.journal_path() / day / "insights").glob("*.md"))
