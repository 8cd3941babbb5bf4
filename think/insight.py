"""The insight of a day, made of its transcripts and notes; it names contexts, journal.json says who answers."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from muse import journal, models
from muse.cli._terminal import is_terminal, print_json, say
from muse.keys import look_up
from muse.messages import Route
from muse.providers import specs
from think.digest import CONTEXT, TITLE_CONTEXT, Digest, count_questions, make_digest
from think.insight_page import day_title, markdown_page, show_calls, show_page
from think.kept_digest import Kept, Shelf
from think.questions import Questions
from think.transcripts import Part, find_day, read_day

_EPILOG = """\
For each part of the day (transcripts, notes) a model chooses the sentence that tells most and gives it a title; of
these it chooses the headline. What is shown in quotation marks stands word for word in the journal. The page is kept as
insights/daily.md in the day's folder, with insights/daily.json beside it: a later run asks only what has changed since,
or what failed.

Who is asked says journal.json, for the contexts insight.daily and insight.daily.title:
  muse route insight.daily --explain

For example:
  muse insight                   the latest day
  muse insight 20261103          another day
  muse insight 20261103 --force  made anew
"""


def main(argv: list[str] | None = None) -> int:
    """Run `muse insight`; 0 done, 1 something is missing in the result, 2 used wrongly.

    Raises:
        MuseError: nothing could be made: no such day, no key, no model.
    """
    try:
        args = _parser().parse_args(argv)
    except SystemExit as exc:  # argparse ends the process after --help and wrong usage
        return exc.code if isinstance(exc.code, int) else 2
    if args.day and args.named and args.day != args.named:
        return _misused(f"DAY {args.named} and --day {args.day} are two days; give one")
    day = find_day(args.day or args.named)
    parts = read_day(day)
    if not parts:
        say(f"{day_title(day)} has no transcript and no note with words in it; nothing to do.")
        return 0
    return _run(day, parts, force=args.force, as_json=args.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="muse insight",
        description="Write the insight of a day of the journal: its headline, and what each part comes to.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "named", nargs="?", metavar="DAY", help="YYYYMMDD; the latest day with a transcript if left out"
    )
    parser.add_argument("--day", metavar="DAY", help="the same, as an option")
    parser.add_argument("--force", action="store_true", help="ask everything again, also if nothing has changed")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else")
    parser.add_argument("-v", "--verbose", action="store_true", help="say more of what is done")
    parser.add_argument("-d", "--debug", action="store_true", help="log everything")
    return parser


def _misused(what: str) -> int:
    _complain(f"{what} (muse insight --help)")
    return 2


def _complain(what: str) -> None:
    sys.stderr.write(f"muse insight: {what}\n")


def _run(day: str, parts: Sequence[Part], *, force: bool, as_json: bool) -> int:
    """Make the insight of a day, or take the kept one; keep it, and print it."""
    shelf = Shelf(day)
    kept = shelf.load()
    answers = {} if force else dict(kept.answers)
    routes = {context: models.route(context) for context in (CONTEXT, TITLE_CONTEXT)}
    with _progress(day, count_questions(parts), shown=not as_json) as step:
        questions = Questions(answers, on_answer=_keeper(shelf, kept, answers), on_asked=step)
        digest = asyncio.run(make_digest(day, parts, questions))
    if all(finding.error for finding in digest.findings):
        _complain(f"none of {len(parts)} parts could be done; {digest.findings[0].error}")
        return 1
    notice = _keep(shelf, kept, digest, questions, routes[CONTEXT])
    if as_json:
        print_json(_as_json(kept, digest, questions))
    else:
        _show(digest, questions, routes, notice)
    return 1 if digest.failed else 0


def _keeper(shelf: Shelf, kept: Kept, answers: dict[str, str]) -> Callable[[str, str], None]:
    """What keeps each answer as it comes, so that a run that is broken off loses none."""

    def keep(key: str, answer: str) -> None:
        answers[key] = answer
        kept.answers = answers
        shelf.save(kept)

    return keep


def _keep(shelf: Shelf, kept: Kept, digest: Digest, questions: Questions, route: Route) -> str:
    """Write page and state where something has changed; a sentence about what was done."""
    if not questions.calls and kept.digest == digest and shelf.has_page(kept):
        return f"Nothing has changed since {kept.made_at}: this is the kept result (--force makes it anew)."
    kept.made_at = datetime.now().isoformat(sep=" ", timespec="seconds")
    kept.made_by = f"{route.provider} {route.model}"
    kept.digest, kept.answers = digest, questions.used
    shelf.state_path.parent.mkdir(exist_ok=True)
    aside = shelf.put_page(kept, markdown_page(digest, kept.made_by))
    shelf.save(kept)
    moved = f" The page that was there is now {aside.name}." if aside else ""
    return f"Kept as {_near(str(shelf.page_path))} and {shelf.state_path.name}.{moved}"


def _as_json(kept: Kept, digest: Digest, questions: Questions) -> dict[str, Any]:
    facts = {"day": kept.day, "made_at": kept.made_at, "made_by": kept.made_by, "complete": not digest.failed}
    return {**facts, **msgspec.to_builtins(digest), "calls": msgspec.to_builtins(questions.calls)}


def _show(digest: Digest, questions: Questions, routes: Mapping[str, Route], notice: str) -> None:
    """Print the page, where it is kept, what the calls took, and what to type next."""
    show_page(digest)
    say(notice, "dim")
    if digest.failed:
        say("Something is missing: run it again, and only what failed is asked again.", "yellow")
    say("")
    show_calls(questions.calls, routes)
    say("")
    for line in _next_steps():
        say(line)


def _next_steps() -> tuple[str, ...]:
    """What to type next; the provider in the example is one whose key is set, if there is any."""
    paid = [spec for spec in specs().values() if spec.key_required]
    other = next((spec for spec in paid if look_up(spec.env_key)), paid[0])
    entry = f'"contexts": {{"insight.*": {{"provider": "{other.name}"}}}}'
    muse = _near(sys.argv[0]) if os.path.basename(sys.argv[0]) == "muse" else "muse"
    return (
        f"{muse} usage                          what all calls so far used and cost",
        f"{muse} route insight.daily --explain  why this model answers",
        f"Another model: put {entry} under providers in {_near(journal.config_path())}, with {other.env_key} set.",
    )


def _near(path: str) -> str:
    """A path as one types it: relative where it lies below the working folder."""
    here = os.path.relpath(path)
    return path if here.startswith(os.pardir) else here


@contextmanager
def _progress(day: str, total: int, *, shown: bool) -> Iterator[Callable[[], None]]:
    """A progress bar on a terminal, nothing into a pipe; what it gives is called once for each step."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    is_seen = shown and is_terminal() and sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not is_seen) as progress:
        task = progress.add_task(day_title(day), total=total)
        yield lambda: progress.advance(task)
