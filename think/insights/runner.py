"""The topics of a day or week, made: sources read, models asked, quotations checked, pages kept; no printing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Literal

from msgspec import Struct, field

from muse import models
from muse.batch import Batch, BatchRequest
from muse.errors import ConfigError, MuseError, ReplyError
from muse.journal import paths
from muse.types.messages import Route
from think.entries.entries import read_events
from think.entries.sources import read_insights, read_sources, week_of
from think.entries.transcripts import Part
from think.insights.definition import Topic, find_topics
from think.insights.extractive import Pool, choose_occurrences, count_questions, pools_of
from think.insights.generative import LEAST_TOKENS, Ask, asks_of, read_answers
from think.insights.markdown import topic_markdown, topic_title
from think.insights.state import KeptTopic, TopicShelf
from think.insights.validation import Checked, Occurrence
from think.llm.cached_calls import Call, Questions, served_by
from think.output.formatting import brief

MOST_AT_ONCE = 4

State = Literal["new", "unchanged", "nothing", "failed"]
Step = Callable[[], None]


class TopicMade(Struct, frozen=True):
    """What became of a topic; `nothing` means that the day has none of its sources, `day` is where its page stands."""

    topic: str
    title: str
    day: str
    state: State
    occurrences: tuple[Occurrence, ...] = ()
    dropped: int = 0
    made_by: str = ""
    problem: str = ""
    aside: str = ""


class Made(Struct, frozen=True):
    """What became of some topics, and every call that was made for them."""

    topics: tuple[TopicMade, ...]
    calls: tuple[Call, ...]


class _Job(Struct):
    """One topic under way: what is asked for it, and the answers that are there."""

    topic: Topic
    day: str
    truncated_results: TopicShelf
    kept: KeptTopic
    route: Route | None = None
    parts: tuple[Part, ...] = ()
    asks: list[Ask] = field(default_factory=list)
    pools: list[Pool] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    asked: int = 0
    calls: list[Call] = field(default_factory=list)
    error: MuseError | OSError | None = None

    def keep(self, key: str, answer: str) -> None:
        """Note an answer, on the disk too."""
        self.answers[key] = answer
        self.asked += 1
        self.truncated_results.keep_answers(self.kept, self.answers)

    def first_day(self) -> str:
        """Where what it is about begins."""
        return week_of(self.day)[0] if self.topic.is_weekly else self.day

    def questions_left(self) -> int:
        """How many questions it takes at most."""
        if self.pools:
            return count_questions(self.topic, self.pools)
        return sum(ask.key not in self.answers for ask in self.asks)


async def make_topics(
    day: str,
    topics: Sequence[Topic],
    *,
    force: bool = False,
    on_total: Callable[[int], None] | None = None,
    on_step: Step | None = None,
) -> Made:
    """Make these topics of a day, weekly ones of its week; one that fails keeps its earlier page, and the others go on.

    `on_total` hears how many questions there are at most, `on_step` of each that is over. What has not changed since an
    earlier run is not asked again, unless `force` is given.
    """
    made: dict[str, TopicMade] = {}
    calls: list[Call] = []
    expected = 0
    for group in _rounds(topics):
        jobs = [_job(topic, day, force=force) for topic in group]
        for job in jobs:
            _prepare(job)
        expected += sum(job.questions_left() for job in jobs)
        if on_total is not None:
            on_total(expected)
        outcomes, asked = await _make(jobs, on_step or (lambda: None))
        made |= {one.topic: one for one in outcomes}
        calls += asked
    return Made(tuple(made[topic.name] for topic in topics), tuple(calls))


def _rounds(topics: Sequence[Topic]) -> tuple[list[Topic], list[Topic]]:
    """The topics that read what was recorded, and then those that read what the first were made into."""
    later = [topic for topic in topics if "insights" in topic.sources]
    return [topic for topic in topics if topic not in later], later


async def _make(jobs: Sequence[_Job], step: Step) -> tuple[list[TopicMade], list[Call]]:
    calls = await _read([job for job in jobs if job.asks], step)
    outcomes: list[TopicMade] = []
    for job in jobs:
        checked, made = await _checked(job, step)
        calls += made
        outcomes.append(_finished(job, checked))
    return outcomes, calls


def _job(topic: Topic, day: str, *, force: bool) -> _Job:
    where = week_of(day)[-1] if topic.is_weekly else day
    truncated_results = TopicShelf(where, topic.name)
    try:
        kept = truncated_results.load()
    except OSError as exc:
        return _Job(topic, where, truncated_results, KeptTopic(day=where, topic=topic.name), error=exc)
    return _Job(topic, where, truncated_results, kept, answers={} if force else dict(kept.answers))


def _prepare(job: _Job) -> None:
    """Gather what a topic reads, and what is to be asked for it; a route that leads nowhere, say, is its error."""
    topic = job.topic
    if job.error is not None:
        return
    try:
        job.parts = _parts(job)
        if not job.parts:
            return
        job.route = models.route(topic.context)
        holds = models.context_tokens(job.route)
        if holds >= LEAST_TOKENS:
            job.asks = asks_of(topic, job.parts, job.route, (job.first_day(), job.day), holds)
        elif topic.choose is not None:
            job.pools = pools_of(topic, topic.choose, job.parts, read_events(paths.journal_path(), job.day))
        else:
            found = f"{job.route.provider} {job.route.model}, which holds {holds:,} tokens"
            allowed = f"a model of {LEAST_TOKENS:,} tokens or more, or `choose` in {topic.path}"
            raise ConfigError(f"providers.contexts[{topic.context!r}]", found, allowed)
    except (MuseError, OSError) as exc:
        job.error = exc


def _parts(job: _Job) -> tuple[Part, ...]:
    kinds = set(job.topic.sources)
    parts = read_sources(job.day, kinds - {"insights"})
    if "insights" not in kinds:
        return parts
    without = {job.topic.name, *(one.name for one in find_topics().found if one.is_weekly)}
    return (*read_insights(job.day, without=without), *parts)


async def _read(jobs: Sequence[_Job], step: Step) -> list[Call]:
    """Have everything asked that is not answered yet, a few questions at a time."""
    calls: list[Call] = []
    batch = Batch(max_concurrent=MOST_AT_ONCE)
    owners: dict[int, tuple[_Job, Ask]] = {}
    requests: list[BatchRequest] = []
    for job in jobs:
        job.used = {ask.key for ask in job.asks}
        for ask in job.asks:
            if ask.key not in job.answers:
                request = batch.create(
                    contents=ask.prompt, context=job.topic.context, temperature=0.0, json_schema=ask.schema
                )
                owners[id(request)] = job, ask
                requests.append(request)
    for request in requests:
        batch.add(request)
    async for request in batch.drain_batch():
        job, ask = owners[id(request)]
        _take(request, job, ask)
        call = _call(request, job)
        job.calls.append(call)
        calls.append(call)
        step()
    return calls


def _take(request: BatchRequest, job: _Job, ask: Ask) -> None:
    """Keep an answer, or note why there is none.

    Raises:
        BaseException: it failed by a fault of the program, which is nobody's result.
    """
    if request.response is not None:
        job.keep(ask.key, request.response)
    elif isinstance(request.exception, MuseError):
        job.error = job.error or request.exception
    elif request.exception is not None:
        raise request.exception


def _call(request: BatchRequest, job: _Job) -> Call:
    duration_s = request.duration or 0.0
    route = job.route or models.route(request.context)
    return Call(
        request.context,
        request.provider_used or route.provider,
        request.model_used or route.model,
        route.reason,
        request.usage,
        time.perf_counter() - duration_s,
        duration_s,
        request.cost_usd,
        type(request.exception).__name__ if request.exception else "",
    )


async def _checked(job: _Job, step: Step) -> tuple[Checked | None, list[Call]]:
    """The occurrences of a topic, None if they cannot be had; and the calls that were made for it now."""
    if job.error is not None or not job.parts:
        return None, []
    if job.asks:
        return read_answers(job.asks, job.answers), []
    questions = Questions(job.answers, on_answer=job.keep, on_asked=step)
    try:
        found = await choose_occurrences(job.topic, job.pools, job.day, questions)
    except MuseError as exc:
        job.error = exc
        found = None
    job.used = set(questions.used)
    job.calls += questions.calls
    return found, questions.calls


def _finished(job: _Job, checked: Checked | None) -> TopicMade:
    """What became of a topic, kept; one whose page cannot be written failed."""
    try:
        return _finish(job, checked)
    except OSError as exc:
        return TopicMade(job.topic.name, topic_title(job.topic, job.day), job.day, "failed", problem=f"OSError: {exc}")


def _finish(job: _Job, checked: Checked | None) -> TopicMade:
    """Keep what a topic came to: a page and its state, or what failed."""
    made = partial(TopicMade, job.topic.name, topic_title(job.topic, job.day), job.day)
    if checked is None:
        if job.error is None:
            return made("nothing")
        if isinstance(job.error, ReplyError):
            job.truncated_results.keep_failed(job.error, job.route or models.route(job.topic.context), _now())
        kind = "" if isinstance(job.error, ConfigError) else f"{type(job.error).__name__}: "
        return made("failed", problem=brief(f"{kind}{job.error}"))
    job.truncated_results.forget_failed()
    kept, route = job.kept, job.route
    sources = tuple(dict.fromkeys(part.source for part in job.parts))
    result = made("unchanged", occurrences=checked.occurrences, dropped=checked.dropped, made_by=kept.made_by)
    is_same = (kept.occurrences, kept.dropped, kept.sources) == (checked.occurrences, checked.dropped, sources)
    if not job.asked and is_same and job.truncated_results.has_page(kept):
        return result
    made_by = served_by(job.calls) or kept.made_by or (f"{route.provider} {route.model}" if route else "")
    aside = _keep(job, checked, sources, made_by)
    return made(
        "new",
        occurrences=checked.occurrences,
        dropped=checked.dropped,
        made_by=made_by,
        aside=aside.name if aside else "",
    )


def _keep(job: _Job, checked: Checked, sources: tuple[str, ...], made_by: str) -> Path | None:
    """Write page and state; where a page that somebody else wrote is now, if there was one."""
    kept = job.kept
    kept.title, kept.made_at, kept.made_by = topic_title(job.topic, job.day), _now(), made_by
    kept.sources, kept.occurrences, kept.dropped = sources, checked.occurrences, checked.dropped
    kept.answers = {key: answer for key, answer in job.answers.items() if key in job.used}
    aside = job.truncated_results.put_page(kept, topic_markdown(kept))
    job.truncated_results.save(kept)
    return aside


def _now() -> str:
    return datetime.now().isoformat(sep=" ", timespec="seconds")
