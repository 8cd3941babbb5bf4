"""Shows that a ledger pays for nothing twice, whatever is updated, and what of a failure is left for the next run."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from subprocess import PIPE
from typing import Any

import pytest

from muse import batch as batches
from muse.batch import Batch, BatchRequest
from muse.batching.notifier import Notifier
from muse.batching.provider_batches.job_runner import Answer
from muse.batching.provider_batches.lane import keep
from muse.batching.store.serialization import pack
from muse.batching.store.store import Store, path_of, requests
from muse.errors import (
    AuthError,
    CircuitOpen,
    ConfigError,
    ContentsError,
    DeadlineExceeded,
    LimitReached,
    ProviderDown,
    RateLimitError,
    RequestError,
)
from muse.types.messages import Assistant, Reply
from muse.types.usage import Usage
from tests.batch_calls import CONTEXT, ask, drained
from tests.journal_folder import JournalFolder

NAME = "insights-2026-11"


class Calls:
    """Stands at `muse.batch.agenerate`; what is asked is answered from `_end_all` on, by its text or with `problem`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.problem: Exception | None = None
        self.gate = asyncio.Event()
        self._notifier = Notifier()

    async def __call__(self, **options: Any) -> str:
        """One call."""
        self.asked.append(str(options["contents"]))
        self._notifier.ring()
        await self.gate.wait()
        if self.problem is not None:
            raise self.problem
        return str(options["contents"]).upper()

    async def until(self, count: int) -> None:
        """Wait until so many were asked."""
        while len(self.asked) < count:
            await self._notifier.wait()


@pytest.fixture(name="calls")
def _calls(monkeypatch: pytest.MonkeyPatch, journal: JournalFolder) -> Calls:
    calls = Calls()
    monkeypatch.setattr(batches, "agenerate", calls)
    return calls


async def _end_all(batch: Batch, calls: Calls, problem: Exception | None = None) -> list[BatchRequest]:
    """Drain, with every call answered."""
    calls.problem = problem
    calls.gate.set()
    try:
        async with asyncio.timeout(180):
            return await drained(batch)
    finally:
        calls.gate.clear()


def _states() -> dict[str, int]:
    with closing(Store(NAME, must_exist=True)) as store:
        return {one.state: one.items for one in store.sums()}


def _named(text: str) -> BatchRequest:
    request = BatchRequest(text, CONTEXT)
    request.fid = 7  # type: ignore[attr-defined]
    return request


@pytest.mark.parametrize("key", [None, "fid"])
@pytest.mark.parametrize("new", ["a", "b"])
@pytest.mark.parametrize("is_begun", [True, False])
async def test_an_update_keeps_its_place(calls: Calls, key: str | None, new: str, is_begun: bool) -> None:
    for _ in range(2):
        before = len(calls.asked)
        batch, request = Batch(ledger=NAME, key=key), _named("a")
        batch.add(request)
        if is_begun and request.state == "waiting":
            await calls.until(before + 1)
        batch.update(request, contents=new)
        assert [done.response for done in await _end_all(batch, calls)] == [new.upper()]
        assert _states() == {"done": 1}
        batch.close()
    begun = ["a"] if is_begun else []
    again = begun if key is None and new == "b" else []  # another question by another name: "a" has no answer
    assert calls.asked == [*begun, new, *again]


async def test_an_update_after_a_failure_takes_its_place(calls: Calls) -> None:
    batch = Batch(ledger=NAME)
    (request,) = ask(batch, "a")
    await _end_all(batch, calls, RequestError("no"))
    assert _states() == {"failed": 1}
    batch.update(request)
    assert [done.response for done in await _end_all(batch, calls)] == ["A"]
    assert _states() == {"done": 1}
    batch.close()
    again = Batch(ledger=NAME)
    ask(again, "a")
    assert [(done.response, done.restored) for done in await _end_all(again, calls)] == [("A", True)]
    assert len(calls.asked) == 2


async def test_asking_a_finished_one_again_is_an_item_of_its_own(calls: Calls) -> None:
    for _ in range(2):
        batch = Batch(ledger=NAME)
        (request,) = ask(batch, "a")
        await _end_all(batch, calls)
        batch.update(request)
        await _end_all(batch, calls)
        batch.close()
    assert len(calls.asked) == 2
    assert _states() == {"done": 2}


async def test_items_taken_from_the_file_keep_their_places_and_keys(calls: Calls) -> None:
    batch = Batch(ledger=NAME, key="fid")
    batch.add(_named("a"))
    await _end_all(batch, calls, ProviderDown("gone", retryable=True))
    assert _states() == {"deferred": 1}
    batch.close()
    other = Batch(ledger=NAME)
    assert other.ledger is not None
    (request,) = requests(other.ledger, "deferred")
    other.add(request)
    await _end_all(other, calls, RequestError("no"))
    other.update(request)
    assert [done.state for done in await _end_all(other, calls)] == ["done"]
    assert _states() == {"done": 1}


PASSING = [
    ProviderDown("gone", retryable=True),
    RateLimitError("slow down", retryable=True),
    CircuitOpen("left alone", retry_after_s=30.0),
    LimitReached("full"),
    DeadlineExceeded("late"),
    AuthError("no such key"),
]


@pytest.mark.parametrize("problem", PASSING, ids=lambda problem: type(problem).__name__)
async def test_what_may_pass_is_kept_for_the_next_run(calls: Calls, problem: Exception) -> None:
    first = Batch(ledger=NAME)
    ask(first, "a")
    (request,) = await _end_all(first, calls, problem)
    assert (request.state, request.exception) == ("deferred", problem)
    assert _states() == {"deferred": 1}
    first.close()
    second = Batch(ledger=NAME)
    ask(second, "a")
    assert [done.response for done in await _end_all(second, calls)] == ["A"]


async def test_an_outage_ends_the_run_and_leaves_the_rest_open(calls: Calls) -> None:
    batch = Batch(ledger=NAME)
    batch.feed(BatchRequest(f"q{number}", CONTEXT) for number in range(1_000))
    with pytest.raises(LimitReached, match=r"stopped after 50 requests in a row .* The last one: gone"):
        await _end_all(batch, calls, ProviderDown("gone", retryable=True))
    assert 50 <= len(calls.asked) < 60
    assert set(_states()) <= {"deferred", "open"}
    batch.feed(BatchRequest(f"q{number}", CONTEXT) for number in range(100))
    assert {request.state for request in await _end_all(batch, calls)} == {"done"}


async def test_what_cannot_be_sent_is_a_failed_item(calls: Calls) -> None:
    for _ in range(2):
        batch = Batch(ledger=NAME)
        for wrong in (None, "", 5, {"a": object()}):
            batch.add(BatchRequest(wrong, CONTEXT, note={"row": 1}))
        found = await _end_all(batch, calls)
        assert [type(request.exception) for request in found] == [ContentsError] * 4
        batch.close()
        assert _states() == {"failed": 4}
    assert calls.asked == []
    with closing(Store(NAME, must_exist=True)) as store:
        assert [request.contents for request in requests(store, "failed")] == [[]] * 4


async def test_a_key_function_that_stops_iteration_is_named(calls: Calls) -> None:
    batch = Batch(ledger=NAME, key=lambda _: next(iter(())))
    batch.feed(BatchRequest(name, CONTEXT) for name in "ab")
    with pytest.raises(ConfigError, match="key: found a function that raised StopIteration"):
        await drained(batch)


async def test_adding_after_close_says_so(calls: Calls) -> None:
    batch = Batch(ledger=NAME)
    batch.close()
    batch.close()
    with pytest.raises(ConfigError, match="which is closed"):
        ask(batch, "a")


def test_foreign_tables_under_our_version_are_refused(journal: JournalFolder) -> None:
    path = path_of(NAME)
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE songs (name TEXT)")
        database.execute("PRAGMA user_version = 1")
    with pytest.raises(ConfigError, match="another program"):
        Batch(ledger=NAME)


@pytest.mark.parametrize(("text", "state"), [('```json\n{"a": 1}\n```', "done"), ("no JSON", "failed")])
def test_what_a_service_answered_another_run_fits_its_schema(journal: JournalFolder, text: str, state: str) -> None:
    schema = {"type": "object", "required": ["a"]}
    with closing(Store(NAME)) as store:
        from_file = BatchRequest("a", CONTEXT, json_schema=schema)
        number = store.claim("a", pack(from_file)[0], None).number
        reply = Reply(text, Assistant(text), Usage(), "stop", "m", "openai")
        keep(store, Answer("mark", 0, str(number), reply))
        (kept,) = store.items()
    assert (kept.state, kept.response) == (state, '{"a": 1}' if state == "done" else None)


_MAKE = """
import sys
from muse.batching.store.store import Store
print("ready", flush=True)
sys.stdin.readline()
for number in range(60):
    Store(f"shared-{number}").close()
"""


def test_processes_that_make_a_ledger_at_once_all_have_it(journal: JournalFolder) -> None:
    makers = [
        subprocess.Popen([sys.executable, "-c", _MAKE], stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True)
        for _ in range(4)
    ]
    for maker in makers:
        assert maker.stdout is not None
        assert maker.stdout.readline() == "ready\n"
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.write("go\n")
        maker.stdin.flush()
    ended: list[Any] = [(maker.communicate()[1], maker.returncode) for maker in makers]
    assert ended == [("", 0)] * 4


def test_a_ledger_that_another_process_is_just_making_is_waited_for(journal: JournalFolder) -> None:
    path = path_of(NAME)
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.2, other.rollback)
        timer.start()
        Store(NAME).close()
        timer.join()
    assert _states() == {}
