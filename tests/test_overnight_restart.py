"""The overnight lane killed at its worst moments, in real processes: each request is sent once, each answer comes."""

from __future__ import annotations

import random
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import aclosing

import pytest

from muse.batching.provider_batches import submitter
from muse.batching.provider_batches.submitter import Item
from muse.errors import ConfigError, ProviderDown
from muse.types.messages import Reply
from tests.journal_folder import start
from tests.loopback.batch_jobs import Script
from tests.provider_batch_helpers import Night, items_for, texts
from tests.provider_cases import FAMILY, Case

every = pytest.mark.parametrize("case", FAMILY, ids=str)
OPENAI, ANTHROPIC, _ = FAMILY
STEPS = [(case, step) for case in FAMILY for step in ("make", "look")]
STEPS += [(OPENAI, "upload"), (OPENAI, "results"), (ANTHROPIC, "results")]
COUNT = 12

CHILD = """
import asyncio, sys
from tests.provider_batch_helpers import QUICK, items_for
from tests.provider_cases import FAMILY
from muse.batching.provider_batches.submitter import ProviderBatchSubmitter

async def main():
    case = next(case for case in FAMILY if case.name == sys.argv[1])
    lane = ProviderBatchSubmitter(sys.argv[2], rhythm=QUICK, upload_bytes=int(sys.argv[4]))
    taken = set(sys.argv[5].split(","))
    async for answer in lane.run(item for item in items_for(case, int(sys.argv[3])) if item.key not in taken):
        print(answer.key, type(answer.outcome).__name__, flush=True)
        if "stay" in taken:
            await asyncio.sleep(3600)

asyncio.run(main())
"""


def child(
    provider_lane: Night, case: Case, count: int = COUNT, *, taken: Iterable[str] = (), size: int = 1_000_000
) -> subprocess.Popen[str]:
    """A process with the overnight lane on this journal, asking for all but what is `taken` ("stay": for one only)."""
    return start(CHILD, case.name, str(provider_lane.path), str(count), str(size), ",".join(taken))


def killer(process: Callable[[], subprocess.Popen[str]], at: str) -> Callable[[str], None]:
    """What kills the process when it asks for a step, before that is done and answered."""

    def on_step(step: str) -> None:
        if step == at and process().poll() is None:
            process().kill()
            process().wait()

    return on_step


def heard(process: subprocess.Popen[str]) -> list[str]:
    """The keys that a process was given before its end."""
    out, _ = process.communicate(timeout=60)
    return [line.split()[0] for line in out.splitlines()]


@pytest.mark.parametrize(("case", "step"), STEPS, ids=[f"{case}-{step}" for case, step in STEPS])
async def test_a_kill_between_two_steps_never_pays_twice(case: Case, step: str, provider_lane: Night) -> None:
    provider_lane.server.plan(case.name, Script(polls=2))
    running: list[subprocess.Popen[str]] = []
    provider_lane.server.on_step = killer(lambda: running[0], f"{case.name}_{step}")
    running.append(child(provider_lane, case))
    assert heard(running[0]) == []
    provider_lane.server.on_step = None
    outcomes = await provider_lane.run(items_for(case, COUNT))
    assert len(texts(outcomes, [f"{case.name}-{number}" for number in range(COUNT)])) == COUNT
    assert len(provider_lane.server.jobs[case.name]) == 1
    assert len(provider_lane.journal.lines()) == COUNT


@every
async def test_a_kill_while_answers_are_given_logs_none_of_them_twice(case: Case, provider_lane: Night) -> None:
    process = child(provider_lane, case, taken=["stay"])
    assert process.stdout is not None
    first = process.stdout.readline().split()[0]
    assert provider_lane.journal.lines()
    process.kill()
    process.communicate()
    outcomes = await provider_lane.run(items_for(case, COUNT))
    assert first in outcomes  # it was given, and no sign came that it was taken
    assert len(texts(outcomes, [f"{case.name}-{number}" for number in range(COUNT)])) == COUNT
    lines = provider_lane.journal.lines()
    assert len({line["batch_item"] for line in lines}) == len(lines) == COUNT
    assert len(provider_lane.server.jobs[case.name]) == 1


async def test_killed_again_and_again_it_still_asks_once(provider_lane: Night) -> None:
    dice = random.Random(4)
    count = 40
    taken: set[str] = set()
    for _ in range(6):
        left = dice.randint(1, 12)
        running: list[subprocess.Popen[str]] = []
        provider_lane.server.on_step = countdown(lambda: running[0], left)  # noqa: B023 - it is called within this round
        running.append(child(provider_lane, OPENAI, count, taken=taken, size=3_000))
        taken.update(heard(running[0]))
    provider_lane.server.on_step = None
    outcomes = await provider_lane.run([item for item in items_for(OPENAI, count) if item.key not in taken])
    assert taken | set(outcomes) == {f"openai-{number}" for number in range(count)}
    sent = [custom_id for job in provider_lane.server.jobs["openai"].values() for custom_id, _ in job.requests]
    assert len(sent) == count
    items = [line["batch_item"] for line in provider_lane.journal.lines()]
    assert len(set(items)) == len(items) == count


def countdown(process: Callable[[], subprocess.Popen[str]], steps: int) -> Callable[[str], None]:
    """What kills the process at its nth request."""
    seen: list[str] = []

    def on_step(step: str) -> None:
        seen.append(step)
        if len(seen) == steps and process().poll() is None:
            process().kill()
            process().wait()

    return on_step


async def test_a_second_run_at_the_same_time_is_refused(provider_lane: Night) -> None:
    provider_lane.server.plan("openai", Script(polls=10_000))
    looked = threading.Event()
    provider_lane.server.on_step = lambda step: looked.set() if step == "openai_look" else None
    process = child(provider_lane, OPENAI)
    assert looked.wait(180)
    with pytest.raises(ConfigError, match="another run"):
        await provider_lane.run(items_for(OPENAI, COUNT))
    process.kill()
    process.communicate()


async def test_leaving_the_iteration_leaves_the_job_at_the_service(provider_lane: Night) -> None:
    items = items_for(ANTHROPIC, 4)
    lane = provider_lane.lane()
    async with aclosing(lane.run(items)) as answers:
        first = (await anext(answers)).key
    lane.close()
    outcomes = await provider_lane.run(items)
    assert set(outcomes) | {first} == {item.key for item in items}
    assert provider_lane.server.count("anthropic_make") == 1
    assert provider_lane.server.count("anthropic_cancel") == 0


async def test_an_answer_that_comes_while_requests_are_read_is_not_asked_for_again(
    provider_lane: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submitter, "_TURN", 1)  # let the other jobs go on after each request that is read
    items = items_for(ANTHROPIC, 4)
    left = provider_lane.lane()
    async with aclosing(left.run(items)) as answers:
        await anext(answers)
    left.close()
    taken: list[str] = []

    def slowly() -> Iterator[Item]:
        others = iter(items_for(ANTHROPIC, 20_000, first=100))
        while len(taken) < 2:  # the job of before is over, and its first answer was taken
            yield next(others)
        yield from items

    lane = provider_lane.lane()
    async for answer in lane.run(slowly()):
        taken.append(answer.key)  # noqa: PERF401 - while they come it is looked at
    lane.close()
    assert len(set(taken)) == len(taken)
    sent = [str(payload) for job in provider_lane.server.jobs["anthropic"].values() for _, payload in job.requests]
    assert [sum(f"Question {number}?" in payload for payload in sent) for number in range(4)] == [1, 1, 1, 1]


async def test_a_question_that_changed_is_asked_anew(provider_lane: Night) -> None:
    provider_lane.server.plan("openai", Script(polls=10_000))
    lane = provider_lane.lane()
    provider_lane.server.on_step = lambda step: lane.cancel() if step == "openai_look" else None
    before = items_for(OPENAI, 2)
    await provider_lane.run(before, lane)
    provider_lane.server.on_step = None
    after = [
        type(old)(old.key, new.request, old.origin)
        for old, new in zip(before, items_for(OPENAI, 2, first=7), strict=True)
    ]
    outcomes = await provider_lane.run(after)
    assert "Question 7?" in texts(outcomes, ["openai-0"])[0]


async def test_a_batch_that_was_not_ours_leaves_its_items_to_be_sent_again(provider_lane: Night) -> None:
    script = Script(polls=4)
    provider_lane.server.plan("anthropic", script, script)
    items = items_for(ANTHROPIC, 3)
    theirs = provider_lane.lane()
    async with aclosing(theirs.run(items_for(ANTHROPIC, 3, first=50))) as answers:
        await anext(answers)
    job = next(iter(provider_lane.server.jobs["anthropic"].values()))
    job.looks = 0  # it runs again, so nobody can see whose it is
    job.script = script
    theirs.close()
    provider_lane.path = provider_lane.journal.path / "ours.sqlite"
    provider_lane.server.plan("anthropic", Script(submit_faults=("lost",)))
    outcomes = await provider_lane.run(items)
    lost = [outcome for outcome in outcomes.values() if not isinstance(outcome, Reply)]
    assert {type(error) for error in lost} == {ProviderDown}
    assert {getattr(error, "code", None) for error in lost} == {"batch_lost"}
    again = await provider_lane.run(items)
    assert len(texts(again, [item.key for item in items])) == 3
