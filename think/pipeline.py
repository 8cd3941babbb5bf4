"""A day from what was recorded to what was made of it: observe, think, agents, step by step; it prints nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from muse.agent_loop.run_config import RunConfig
from muse.cortex import due_runs
from muse.cortex.due_runs import DueRun
from muse.cortex.scheduled_runs import RunResult, carry_out, wanted_of
from muse.errors import ConfigError, MuseError
from observe.describe import describe_day
from observe.enrich import enrich_day
from observe.segments.results import OnStep, Work
from observe.summarize import summarize_day
from think.daily_report.run_state import DayRun, Stage, State, StepDone
from think.daily_report.schedule_table import name_of
from think.daily_summary.build import BUILT_IN, CONTEXT
from think.daily_summary.command import make_daily
from think.entries.sources import is_end_of_week, recorded_days
from think.entries.transcripts import read_day
from think.insights.definition import Topic, find_topics, is_due
from think.insights.runner import TopicMade, make_topics
from think.output.call_table import busy_s

STAGES: tuple[Stage, ...] = ("observe", "think", "agents")
_DAYS_BACK = 7
_AGENTS = "agents"


class Observing(Struct, frozen=True):
    """A step of observe: its command's name, what it calls, the contexts that its calls stand under."""

    name: str
    run: Work
    contexts: tuple[str, ...]


OBSERVING = (
    Observing("describe", describe_day, ("observe.describe", "observe.extract")),
    Observing("enrich", enrich_day, ("observe.enrich",)),
    Observing("summarize", summarize_day, ("observe.summarize",)),
)


def days_to_do(asked: str | None) -> list[str]:
    """The days to go through: the one asked for; else those of the last week that are over; else the latest."""
    if asked is not None:
        return [asked]
    now = datetime.now()
    first, last = (f"{now - timedelta(days=back):%Y%m%d}" for back in (_DAYS_BACK, 1))
    every = recorded_days()
    return [day for day in every if first <= day <= last] or every[-1:]


def due_topics(day: str) -> tuple[tuple[Topic, ...], tuple[ConfigError, ...]]:
    """The topics that are due for a day, and the files that cannot be used."""
    known = find_topics()
    is_end = is_end_of_week(day)
    return tuple(one for one in known.found if is_due(one, day, is_end_of_week=is_end)), known.problems


def run_day(day: str, stages: Sequence[Stage], run: DayRun, on_step: OnStep) -> Iterator[StepDone]:
    """Do what observe and think have to do for a day, in order; a failing step keeps none from its turn."""
    if "observe" in stages:
        for step in OBSERVING:
            yield _observe(step, day, run, on_step)
    if "think" in stages:
        yield _digest(day, run, on_step)
        yield from _topics(day, run, on_step)


def run_agents(planned: Sequence[DueRun], run: DayRun, on_step: OnStep) -> list[StepDone]:
    """Carry out the scheduled runs of a plan; what came of each, and of those that cannot be used."""
    wanted = wanted_of(planned)
    ended: list[RunResult] = []

    def note(one: RunResult) -> None:
        ended.append(one)
        on_step("agents", len(ended), len(wanted))

    run.begin(_AGENTS)
    on_step("agents", 0, len(wanted))
    is_whole = asyncio.run(carry_out(wanted, note)) if wanted else True
    steps = [_unusable(one) for one in planned if one.state == "unusable"]
    if not is_whole:
        again = "muse daily --only agents"
        steps.append(StepDone("agents", "the rest", "", "failed", problems=("it was stopped",), again=again))
    seen: set[str] = set()
    for one in ended:
        context = RunConfig(prompt="-", model="-", persona=one.persona).ledger_context
        own = () if context in seen else (context,)  # two runs of one persona: their costs count once
        seen.add(context)
        steps.append(run.end(f"agents {one.agent_id}", _ran(one), own, since=_AGENTS))
    return steps


def _observe(step: Observing, day: str, run: DayRun, on_step: OnStep) -> StepDone:
    again = f"muse {step.name} {day}"
    run.begin(step.name)
    on_step(step.name, 0, 0)
    try:
        found = asyncio.run(step.run(day, on_step=lambda what, done, of: on_step(f"{step.name} {what}", done, of)))
    except (MuseError, OSError) as exc:
        # A model that sees no pictures, say: what is routed there cannot do it, and the rest of the day can.
        state: State = "not done" if type(exc) is ConfigError else "failed"
        return run.end(step.name, StepDone("observe", step.name, day, state, "", (_text(exc),), again), step.contexts)
    state = "failed" if found.failed else "done" if found.done else "unchanged" if found.skipped else "nothing"
    about = _counts((found.done, "done"), (found.skipped, "unchanged"), (found.failed, "failed"))
    made = StepDone("observe", step.name, day, state, about, found.problems, again if found.failed else "")
    return run.end(step.name, made, step.contexts)


def _digest(day: str, run: DayRun, on_step: OnStep) -> StepDone:
    """The built-in topic."""
    again = f"muse insight {day}"
    run.begin(BUILT_IN)
    on_step(BUILT_IN, 0, 0)
    try:
        step = _digested(day, again)
    except (MuseError, OSError) as exc:
        step = StepDone("think", BUILT_IN, day, "failed", "", (_text(exc),), again)
    return run.end(BUILT_IN, step, (CONTEXT,))


def _digested(day: str, again: str) -> StepDone:
    parts = read_day(day)
    if not parts:
        return StepDone("think", BUILT_IN, day, "nothing")
    made = make_daily(day, parts, force=False, on_step=lambda: None)
    problems = [made.error] if made.error else [one.error for one in made.digest.findings if one.error]
    problems += [made.digest.error] if made.digest.error else []
    state: State = "failed" if problems else "done" if made.is_new else "unchanged"
    about = f"{sum(not one.error for one in made.digest.findings)} parts"
    return StepDone("think", BUILT_IN, day, state, about, tuple(dict.fromkeys(problems)), again if problems else "")


def _topics(day: str, run: DayRun, on_step: OnStep) -> list[StepDone]:
    """The topics of files that are due, and the files that cannot be used."""
    topics, problems = due_topics(day)
    counts = [0, 0]

    def expect(total: int) -> None:
        counts[1] = total

    def step() -> None:
        counts[0] += 1
        on_step("insights", *counts)

    for topic in topics:
        run.begin(topic.name)
    broken = [
        StepDone("think", "topics", day, "failed", "", (str(problem),), "muse insight --list") for problem in problems
    ]
    try:
        made = asyncio.run(make_topics(day, topics, on_total=expect, on_step=step))
    except OSError as exc:
        again = f"muse insight {day} --all"
        return [*broken, StepDone("think", "topics", day, "failed", "", (_text(exc),), again)]
    contexts = dict.fromkeys(topic.context for topic in topics)  # two topics may share one: its costs count once
    ended = []
    for topic, one in zip(topics, made.topics, strict=True):
        own = (topic.context,) if topic.context in contexts else ()
        contexts.pop(topic.context, None)
        took_s = busy_s(call for call in made.calls if _is_below(call.context, own))
        ended.append(run.end(topic.name, replace(_topic_step(day, one), duration_s=took_s), own))
    return [*broken, *ended]


def _topic_step(day: str, one: TopicMade) -> StepDone:
    states: dict[str, State] = {"new": "done", "unchanged": "unchanged", "nothing": "nothing", "failed": "failed"}
    about = _counts((len(one.occurrences), "found"), (one.dropped, "left out"))
    about = about or ("none found" if one.state in ("new", "unchanged") else "")
    failed = (f"muse insight {day} --topic {one.topic}", (one.problem,)) if one.problem else ("", ())
    return StepDone("think", one.topic, one.day, states[one.state], about, failed[1], failed[0])


def _is_below(context: str, own: Sequence[str]) -> bool:
    return any(context == one or context.startswith(f"{one}.") for one in own)


def _unusable(one: DueRun) -> StepDone:
    return StepDone("agents", one.persona, one.occasion.day, "failed", "", (one.note,), "muse agents")


def _ran(one: RunResult) -> StepDone:
    about = f"run {one.agent_id}"
    if not one.failed:
        return StepDone("agents", name_of(one), one.day, "done", about, duration_s=one.duration_s)
    again = f"muse daily --only agents --day {one.day}"
    return StepDone("agents", name_of(one), one.day, "failed", about, (one.error,), again, duration_s=one.duration_s)


def plan_agents(day: str | None) -> list[DueRun]:
    """The agents' scheduled runs that are due, in order."""
    return due_runs.find_due_runs(datetime.now(), day=day)


def _counts(*counts: tuple[int, str]) -> str:
    """`3 done, 2 unchanged`, without those that are none."""
    return ", ".join(f"{count} {what}" for count, what in counts if count)


def _text(exc: Exception) -> str:
    return str(exc) if isinstance(exc, ConfigError) else f"{type(exc).__name__}: {exc}"
