"""A process's first call has all of its time for its provider, however long the imports before it take."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from muse import models
from muse.policies import spend
from muse.usage_log import prices
from tests import journal_folder
from tests.desk import Desk
from tests.loopback.outcomes import TEXT
from tests.provider_cases import FAMILY, Case

# The SDK takes longer to import than the call has; the loop's longest step is measured meanwhile.
_SLOW_IMPORT = """
import asyncio, importlib.abc, json, sys, time

class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == SDK:
            sys.meta_path.remove(self)
            time.sleep(4.0)

SDK, WAY = sys.argv[1], sys.argv[2]
sys.meta_path.insert(0, Slow())
from muse import batch, models
OPTIONS = {"timeout_s": 3.5}

async def batched():
    runner = batch.Batch()
    request = runner.create(contents="When?", context="x.first", **OPTIONS)
    runner.add(request)
    async for done in runner.drain_batch():
        return done.response or repr(done.error)

async def drained(stream):
    async with stream:
        return (await stream.reply()).text

async def watched(made):
    longest = 0.0
    async def watch():
        nonlocal longest
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - before)
    watching = asyncio.create_task(watch())
    said = await made
    watching.cancel()
    return said, longest

async def astream():
    return await drained(await models.astream("When?", "x.first", **OPTIONS))

async def agent():
    from muse.agents import run
    events = []
    asked = {"prompt": "When?", "persona": "default", "timeout_s": 3.5, "disable_mcp": True}
    assert await run(asked, events.append), events
    return events[-1]["result"]

longest = 0.0
if WAY == "sync":
    said = models.generate("When?", "x.first", **OPTIONS)
elif WAY == "stream":
    with models.stream("When?", "x.first", **OPTIONS) as stream:
        said = stream.reply.text
elif WAY == "backend":
    from muse.providers import backend_of
    module = backend_of(models.resolve_provider("x.first")[0])
    said = module.generate("When?", models.resolve_provider("x.first")[1], **OPTIONS)
else:
    made = {"async": lambda: models.agenerate("When?", "x.first", **OPTIONS), "astream": astream, "batch": batched,
            "agent": agent}[WAY]
    said, longest = asyncio.run(watched(made()))
print(json.dumps([said, longest]))
"""
SDKS = {"openai": "openai", "anthropic": "anthropic", "google": "google.genai"}


WAYS = ("sync", "stream", "backend", "async", "astream", "batch", "agent")
CALLS = [(FAMILY[0], way) for way in WAYS] + [(case, way) for case in FAMILY[1:] for way in ("sync", "astream")]


@pytest.mark.parametrize(("case", "way"), CALLS, ids=str)
def test_a_first_call_is_not_charged_for_the_imports_before_it(desk: Desk, case: Case, way: str) -> None:
    desk.use(case)
    said, longest_s = json.loads(journal_folder.run(_SLOW_IMPORT, SDKS[case.name], way))
    assert said == TEXT
    assert longest_s < 4.0, "the event loop went on meanwhile"


# The first look-up of a price imports the price list, and the first look at a budget reads a month's log.


@pytest.mark.parametrize("case", FAMILY, ids=str)
async def test_a_first_look_up_of_a_price_does_not_hold_the_loop(
    desk: Desk, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "prices"))
    monkeypatch.setattr(prices, "_price_cache", {})
    monkeypatch.setattr(prices, "_price_cache_is_read", False)
    threads, look_up = list[int](), prices._look_up
    monkeypatch.setattr(prices, "_look_up", lambda *asked: threads.append(threading.get_ident()) or look_up(*asked))
    desk.use(case)
    reply = await models.areply("When?", "x.first")
    assert reply.cost_usd
    assert threads
    assert threads[0] != threading.get_ident()


@pytest.mark.parametrize("rule", [{"budgets": [{"usd": 1}]}, {"limits": [{"usd_per_day": 1}]}], ids=str)
async def test_a_first_look_at_the_log_does_not_hold_the_loop(
    desk: Desk, rule: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, read_on = list[int](), spend.SpendTracker._read_on
    monkeypatch.setattr(
        spend.SpendTracker, "_read_on", lambda *asked: threads.append(threading.get_ident()) or read_on(*asked)
    )
    desk.reach(FAMILY[0])
    desk.journal.route(default={"provider": FAMILY[0].name, "model": FAMILY[0].model}, **rule)
    assert await models.agenerate("When?", "x.first") == TEXT
    assert threads
    assert threads[0] != threading.get_ident()
