"""Kills a batch fifty times at random points and lets it finish: all items once, only what was under way twice."""

from __future__ import annotations

import random
import signal
from collections import Counter
from contextlib import closing
from pathlib import Path

from muse.batching.store.store import Store
from tests.journal_folder import JournalFolder, start

KILLS, ITEMS, AT_ONCE = 50, 2_500, 8
RUN = f"""
import asyncio, os, signal, sys, threading
from muse import batch as batches

log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

async def answer(**options):
    os.write(log, (options["contents"] + "\\n").encode())
    await asyncio.sleep(0.02)
    return options["contents"].upper()

async def main():
    batch = batches.Batch(max_concurrent={AT_ONCE}, ledger="killed")
    batch.feed(batch.create(contents=f"item {{number}}", context="app.tides") for number in range({ITEMS}))
    async for request in batch.drain_batch():
        os.write(1, (f"{{request.contents}}={{request.response}}\\n").encode())

batches.agenerate = answer
if len(sys.argv) > 2:  # the seconds begin here, so that a busy machine does not spend them on imports
    threading.Timer(float(sys.argv[2]), os.kill, (os.getpid(), signal.SIGKILL)).start()
asyncio.run(main())
"""


def test_a_batch_that_is_killed_fifty_times_loses_nothing_and_asks_nothing_twice(
    tmp_path: Path, journal: JournalFolder
) -> None:
    chance = random.Random(20261120)
    log = tmp_path / "calls"
    log.touch()
    given: set[str] = set()
    for _ in range(KILLS):
        before = len(log.read_text().splitlines())
        given |= _run(log, chance.uniform(0.01, 0.2), given, before)
    assert 0 < len(given) < ITEMS
    last = _run(log, None, given, len(log.read_text().splitlines()))
    assert last == {f"item {number}=ITEM {number}" for number in range(ITEMS)}

    asked = Counter(log.read_text().splitlines())
    assert len(asked) == ITEMS
    assert sum(asked.values()) <= ITEMS + KILLS * AT_ONCE
    with closing(Store("killed", must_exist=True)) as store:
        kept = [item.response for item in store.items("done")]
        assert [one.state for one in store.sums()] == ["done"]
    assert sorted(kept) == sorted(f"ITEM {number}" for number in range(ITEMS))


def _run(log: Path, kill_after_s: float | None, given: set[str], before: int) -> set[str]:
    """One run: what it handed over. What earlier ones handed over is not asked for."""
    with start(RUN, str(log), *([str(kill_after_s)] if kill_after_s else [])) as process:
        out, err = process.communicate(timeout=180)
    assert not err
    assert process.returncode == (-signal.SIGKILL if kill_after_s else 0)
    asked = log.read_text().splitlines()[before:]
    assert not {line.partition("=")[0] for line in given} & set(asked)
    assert len(asked) == len(set(asked))
    handed = out.splitlines()
    assert len(handed) == len(set(handed))
    return set(handed)
