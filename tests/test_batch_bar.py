"""Shows what the bar of a batch says, and that it is drawn for people alone."""

from __future__ import annotations

import pytest

from muse.batching.progress_bar import drawn, words
from muse.batching.request import BatchRequest
from muse.batching.stats import BatchStats
from muse.types.usage import Usage
from tests.at_terminal import STYLE, Terminal

DRAWN = """
import asyncio
from muse import batch as batches

async def answer(**options):
    await asyncio.sleep(0.3)
    return "Six."

async def main():
    batch = batches.Batch(progress=True)
    batch.feed([batch.create(contents=f"q{n}", context="app.tides") for n in range(8)])
    async for request in batch.drain_batch():
        print("answer", request.response)

batches.agenerate = answer
asyncio.run(main())
"""


def _at(monkeypatch: pytest.MonkeyPatch, now_s: float) -> None:
    monkeypatch.setattr("muse.batching.stats.time.monotonic", lambda: now_s)


def test_it_says_how_far_the_batch_is_and_how_long_it_will_take(monkeypatch: pytest.MonkeyPatch) -> None:
    tally = BatchStats(
        added=20, announced=80, done=24, failed=1, restored=5, in_flight=5, tokens=12_345, started_s=100.0
    )
    tally.cost_usd, tally.unpriced = 0.25, 2
    _at(monkeypatch, 140.0)
    said = "25/100 · 24 done · 1 failed · 5 in flight · 12k tokens · $0.25+ · ETA 2:30"
    assert words(tally) == said


@pytest.mark.parametrize(
    ("tally", "end"),
    [
        (BatchStats(added=10, restored=10, done=10), "ETA –"),
        (BatchStats(added=10, done=4, deferred=6), "ETA 0:00"),
        (BatchStats(added=100_000, done=1, started_s=0.0), "ETA 277:46:40"),
    ],
)
def test_it_says_no_more_than_can_be_known(monkeypatch: pytest.MonkeyPatch, tally: BatchStats, end: str) -> None:
    _at(monkeypatch, tally.started_s + 10.0 if tally.started_s else 10.00010000100001)
    assert words(tally).endswith(end)


def test_what_came_from_the_ledger_costs_nothing_now() -> None:
    tally, request = BatchStats(), BatchRequest("a", "app.tides")
    request.state, request.restored = "done", True
    request.usage, request.cost_usd = Usage(10, 5), 0.5
    tally.count(request)
    assert (tally.done, tally.restored, tally.tokens, tally.cost_usd) == (1, 1, 0, 0.0)
    request.restored, request.cost_usd = False, None
    tally.count(request)
    assert (tally.tokens, tally.unpriced) == (15, 1)


def test_nothing_is_drawn_into_a_pipe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert drawn(BatchStats()) is None
    assert capsys.readouterr() == ("", "")


def test_the_bar_stands_at_a_terminal_and_is_gone_at_the_end() -> None:
    with Terminal(DRAWN) as terminal:
        terminal.read_until("5 in flight")
        assert terminal.end() == 0
    shown = STYLE.sub("", terminal.shown)
    assert shown.count("answer Six.") == 8
    assert "/8 · " in shown
    assert terminal.shown.rstrip().endswith("\x1b[2K")
