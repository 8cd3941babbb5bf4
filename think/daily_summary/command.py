"""The built-in topic `daily`: of each part of a day the sentence that tells most; made, kept, shown."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from muse import models
from muse.cli._terminal.terminal import near, say
from muse.journal import paths
from muse.journal.secrets import look_up
from muse.providers import specs
from muse.types.messages import Route
from think.daily_summary.build import CONTEXT, TITLE_CONTEXT, Digest, make_digest
from think.daily_summary.markdown import markdown_page, show_page
from think.daily_summary.state import KeptDigest, digest_shelf
from think.entries.transcripts import Part
from think.llm.cached_calls import Questions, served_by
from think.output.call_table import show_calls
from think.output.store import Shelf


class DailyMade(Struct, frozen=True):
    """The insight of a day, made or found unchanged; `error` says why there is none (nothing was written then)."""

    kept: KeptDigest
    digest: Digest
    questions: Questions
    routes: Mapping[str, Route]
    notice: str = ""
    error: str = ""

    @property
    def is_new(self) -> bool:
        """Whether anything was asked for it."""
        return bool(self.questions.calls)

    def as_json(self) -> dict[str, Any]:
        """The result and its calls, for programs."""
        kept, digest = self.kept, self.digest
        facts = {"day": kept.day, "made_at": kept.made_at, "made_by": kept.made_by, "complete": not digest.failed}
        return {**facts, **msgspec.to_builtins(digest), "calls": msgspec.to_builtins(self.questions.calls)}


def make_daily(day: str, parts: Sequence[Part], *, force: bool, on_step: Callable[[], None]) -> DailyMade:
    """Make the insight of a day, or take the kept one, and keep it.

    Raises:
        ConfigError: nothing can be asked: no such provider, no key, no model.
    """
    truncated_results = digest_shelf(day)
    kept = truncated_results.load()
    answers = {} if force else dict(kept.answers)
    routes = {context: models.route(context) for context in (CONTEXT, TITLE_CONTEXT)}
    questions = Questions(answers, on_answer=_result_writer(truncated_results, kept, answers), on_asked=on_step)
    digest = asyncio.run(make_digest(day, parts, questions))
    if all(finding.error for finding in digest.findings):
        error = f"none of {len(parts)} parts could be done; {digest.findings[0].error}"
        return DailyMade(kept, digest, questions, routes, error=error)
    notice = _keep(truncated_results, kept, digest, questions, routes[CONTEXT])
    return DailyMade(kept, digest, questions, routes, notice)


def show_daily(made: DailyMade) -> None:
    """Print the page, where it is kept, what the calls took, and what to type next."""
    show_page(made.digest)
    say(made.notice, "dim")
    if made.digest.failed:
        say("Something is missing: run it again, and only what failed is asked again.", "yellow")
    say("")
    show_calls(made.questions.calls, made.routes)
    say("")
    for line in _next_steps():
        say(line)


def _result_writer(
    truncated_results: Shelf[KeptDigest], kept: KeptDigest, answers: dict[str, str]
) -> Callable[[str, str], None]:
    """What keeps each answer as it comes, so that a run that is broken off loses none."""

    def keep(key: str, answer: str) -> None:
        answers[key] = answer
        truncated_results.keep_answers(kept, answers)

    return keep


def _keep(
    truncated_results: Shelf[KeptDigest], kept: KeptDigest, digest: Digest, questions: Questions, route: Route
) -> str:
    """Write page and state where something has changed; a sentence about what was done."""
    if not questions.calls and kept.digest == digest and truncated_results.has_page(kept):
        return f"Nothing has changed since {kept.made_at}: this is the kept result (--force makes it anew)."
    kept.made_at = datetime.now().isoformat(sep=" ", timespec="seconds")
    chose = served_by(call for call in questions.calls if call.context == route.context)
    kept.made_by = chose or kept.made_by or f"{route.provider} {route.model}"
    kept.digest, kept.answers = digest, questions.used
    aside = truncated_results.put_page(kept, markdown_page(digest, kept.made_by))
    truncated_results.save(kept)
    moved = f" The page that was there is now {aside.name}." if aside else ""
    return f"Kept as {near(str(truncated_results.page_path))} and {truncated_results.state_path.name}.{moved}"


def _next_steps() -> tuple[str, ...]:
    """What to type next; the provider in the example is one whose key is set, if there is any."""
    paid = [spec for spec in specs().values() if spec.key_required]
    other = next((spec for spec in paid if look_up(spec.env_key)), paid[0])
    entry = f'"contexts": {{"insight.*": {{"provider": "{other.name}"}}}}'
    muse = near(sys.argv[0]) if os.path.basename(sys.argv[0]) == "muse" else "muse"
    return (
        f"{muse} usage                          what all calls so far used and cost",
        f"{muse} route insight.daily --explain  why this model answers",
        f"Another model: put {entry} under providers in {near(paths.config_path())}, with {other.env_key} set.",
    )
