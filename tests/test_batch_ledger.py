"""Shows that a batch with a ledger loses nothing and asks nothing twice, and what it says of a file it cannot use."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from muse import batch as batches
from muse import testing
from muse.batch import Batch, BatchRequest
from muse.batching.store.serialization import pack, unpack
from muse.batching.store.store import Store, names, path_of, requests
from muse.errors import BudgetExceeded, ConfigError, ContentsError, ProviderDown
from muse.types.messages import Assistant, File, Image, User
from muse.types.usage import Usage
from tests.batch_calls import CONTEXT, Calls, ask, drained
from tests.journal_folder import JournalFolder

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
NAME = "insights-2026-11"


class Answers:
    """Stands at `muse.batch.agenerate`; `of` says how some contents are answered."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.of: dict[str, Exception] = {}

    async def __call__(self, **options: Any) -> str:
        """One call."""
        self.asked.append(options["contents"])
        await asyncio.sleep(0)
        if str(options["contents"]) in self.of:
            raise self.of[str(options["contents"])]
        return str(options["contents"]).upper()


@pytest.fixture(name="answers")
def _answers(monkeypatch: pytest.MonkeyPatch, journal: JournalFolder) -> Answers:
    answers = Answers()
    monkeypatch.setattr(batches, "agenerate", answers)
    return answers


async def _once(*texts: str, **options: Any) -> dict[str, BatchRequest]:
    """One run over these texts, in a batch of its own: the results by text."""
    batch = Batch(ledger=NAME, **options)
    ask(batch, *texts)
    return {str(request.contents): request for request in await drained(batch)}


def _states() -> dict[str, int]:
    with closing(Store(NAME, must_exist=True)) as store:
        return {one.state: one.items for one in store.sums()}


async def test_finished_items_come_from_the_file_and_the_others_are_asked(answers: Answers) -> None:
    await _once("a", "b")
    again = await _once("a", "b", "c")
    assert answers.asked == ["a", "b", "c"]
    assert [again[name].restored for name in "abc"] == [True, True, False]
    assert [again[name].response for name in "abc"] == ["A", "B", "C"]
    assert names() == [NAME]


async def test_another_question_is_another_item(answers: Answers) -> None:
    await _once("a")
    batch = Batch(ledger=NAME)
    batch.add(BatchRequest("a", CONTEXT, temperature=0.9))
    batch.add(BatchRequest("a", "app.other"))
    batch.add(BatchRequest("a", CONTEXT, timeout_s=5.0))  # a time limit is no part of the question
    assert sorted(request.restored for request in await drained(batch)) == [False, False, True]


async def test_the_same_question_twice_is_asked_twice_and_kept_twice(answers: Answers) -> None:
    await _once("a", "a")
    batch = Batch(ledger=NAME)
    ask(batch, "a", "a", "a")
    assert sorted(request.restored for request in await drained(batch)) == [False, True, True]
    assert answers.asked == ["a"] * 3


@pytest.mark.parametrize("key", ["frame", lambda request: request.frame], ids=["attribute", "function"])
async def test_a_key_of_ones_own_names_an_item(answers: Answers, key: Any) -> None:
    for text in ("asked at nine", "asked at ten"):
        batch = Batch(ledger=NAME, key=key)
        request = BatchRequest(text, CONTEXT)
        request.frame = 7  # type: ignore[attr-defined]
        batch.add(request)
        (done,) = await drained(batch)
        assert done.response == "ASKED AT NINE"
    assert answers.asked == ["asked at nine"]


async def test_a_request_without_the_key_is_refused(answers: Answers) -> None:
    batch = Batch(ledger=NAME, key="frame")
    with pytest.raises(ConfigError, match="key: found 'frame', which BatchRequest"):
        ask(batch, "a")
    batch.feed([BatchRequest("a", CONTEXT)])
    with pytest.raises(ConfigError, match="key: found 'frame'"):
        await drained(batch)


async def test_failed_items_come_from_the_file_until_they_are_wanted_again(answers: Answers) -> None:
    answers.of["a"] = ProviderDown("gone", provider="openai")
    await _once("a")
    again = (await _once("a"))["a"]
    assert (again.state, again.error, str(again.exception), again.restored) == (
        "failed",
        "openai: gone",
        "openai: gone",
        True,
    )
    answers.of.clear()
    assert (await _once("a", retry_failed=True))["a"].response == "A"
    assert answers.asked == ["a", "a"]


async def test_a_call_that_a_budget_refuses_is_kept_for_the_next_run(answers: Answers) -> None:
    answers.of["a"] = BudgetExceeded("$5 of $5 spent")
    first = (await _once("a"))["a"]
    assert (first.state, first.error) == ("deferred", "$5 of $5 spent")
    assert _states() == {"deferred": 1}
    answers.of.clear()
    assert (await _once("a"))["a"].state == "done"
    assert _states() == {"done": 1}


async def test_without_a_ledger_a_refused_call_is_a_failed_one(answers: Answers) -> None:
    answers.of["a"] = BudgetExceeded("$5 of $5 spent")
    batch = Batch()
    ask(batch, "a")
    assert [request.state for request in await drained(batch)] == ["failed"]


async def test_a_result_is_in_the_file_before_it_is_handed_over(answers: Answers) -> None:
    batch = Batch(max_concurrent=3, ledger=NAME)
    batch.feed(BatchRequest(f"q{number}", CONTEXT) for number in range(60))
    seen = 0
    with closing(sqlite3.connect(path_of(NAME))) as other:
        async for request in batch.drain_batch():
            seen += 1
            query = "SELECT count(*) FROM items WHERE response = ? AND state = 'done'"
            assert other.execute(query, (request.response,)).fetchone() == (1,)
    assert seen == 60


async def test_usage_cost_model_and_attempts_are_kept(journal: JournalFolder) -> None:
    journal.route(default={"provider": "echo"})
    with testing.script(testing.Say("Six.", usage=Usage(10, 5))):
        first = (await _once("When?"))["When?"]
    again = (await _once("When?"))["When?"]
    for name in ("response", "model_used", "provider_used", "usage", "cost_usd", "attempts", "duration", "state"):
        assert getattr(again, name) == getattr(first, name)
    assert again.usage.total_tokens == 15


async def test_what_is_under_way_when_a_batch_is_closed_is_asked_again(calls: Calls) -> None:
    batch = Batch(ledger=NAME)
    ask(batch, "a", "b")
    drain = batch.drain_batch()
    await calls.until(2)
    calls.end("a")
    await anext(drain)
    await drain.aclose()
    assert _states() == {"done": 1, "open": 1}
    other = Batch(ledger=NAME)
    ask(other, "a", "b")
    rest = asyncio.create_task(drained(other))
    await calls.until(1)
    calls.end("b")
    assert {request.response for request in await rest} == {"A", "B"}


@pytest.fixture(name="calls")
def _calls(monkeypatch: pytest.MonkeyPatch, journal: JournalFolder) -> Calls:
    calls = Calls()
    monkeypatch.setattr(batches, "agenerate", calls)
    return calls


async def test_an_update_is_an_item_of_its_own_in_every_run(answers: Answers) -> None:
    for run in range(2):
        batch = Batch(ledger=NAME)
        ask(batch, "a")
        seen = []
        async for request in batch.drain_batch():
            seen.append((request.response, request.restored))
            if len(seen) == 1:
                batch.update(request, contents="b")
        assert seen == [("A", run > 0), ("B", run > 0)]


async def test_an_update_of_a_request_under_way_leaves_no_open_item(calls: Calls) -> None:
    batch = Batch(ledger=NAME)
    (request,) = ask(batch, "old")
    await calls.until(1)
    batch.update(request, contents="new")
    await calls.until(2)
    calls.end("new")
    calls.end("old")
    assert [done.response for done in await drained(batch)] == ["NEW"]
    assert _states() == {"done": 1}


async def test_open_items_can_be_asked_from_the_file_alone(answers: Answers) -> None:
    answers.of["b"] = BudgetExceeded("spent")
    await _once("a", "b")
    answers.of.clear()
    batch = Batch(ledger=NAME)
    assert batch.ledger is not None
    batch.feed(requests(batch.ledger, "open", "deferred"))
    (done,) = await drained(batch)
    assert done.contents == [User(("b",))]
    assert _states() == {"done": 2}
    assert all(request.restored for request in (await _once("a", "b")).values())


def test_images_and_files_survive(tmp_path: Path, journal: JournalFolder) -> None:
    (tmp_path / "shot.png").write_bytes(PNG)
    contents = [
        {"role": "system", "content": "Be brief."},
        "Look:",
        PNG,
        tmp_path / "shot.png",
        {"role": "assistant", "content": "I see."},
        b"%PDF-1.7 ...",
    ]
    request = BatchRequest(
        contents, CONTEXT, "m-1", 0.0, 9, "Say it.", True, 0, "kept", 5.0, json_schema={"type": "object"}
    )
    body, shape = pack(request)
    back = unpack(body)
    image = Image(PNG, "image/png")
    assert back.contents == [
        {"role": "system", "content": "Be brief."},
        User(("Look:", image, image)),
        Assistant("I see."),
        User((File(b"%PDF-1.7 ...", "application/pdf"),)),
    ]
    assert {**back.options(), "contents": 0} == {**request.options(), "contents": 0}
    assert pack(back) == (body, shape)


async def test_contents_that_cannot_be_sent_fail_without_a_call(answers: Answers) -> None:
    batch = Batch(ledger=NAME)
    ask(batch, "", "fine")
    came = {request.state: request for request in await drained(batch)}
    assert isinstance(came["failed"].exception, ContentsError)
    assert came["done"].response == "FINE"
    assert answers.asked == ["fine"]


async def test_a_second_writer_is_refused_until_the_first_is_done(calls: Calls) -> None:
    first, second = Batch(ledger=NAME), Batch(ledger=NAME)
    ask(first, "a")
    with pytest.raises(ConfigError, match="another run is writing to"):
        ask(second, "b")
    assert _states() == {}
    await calls.until(1)
    calls.end("a")
    await drained(first)
    ask(second, "b")
    await calls.until(1)
    calls.end("b")
    assert len(await drained(second)) == 1
    assert _states() == {"done": 2}


def _of_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE items (number INTEGER)")
        database.execute("PRAGMA user_version = 7")


def _of_another(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE songs (name TEXT)")


def _garbled(path: Path) -> None:
    path.write_bytes(b"no database, but some text\n" * 400)


def _torn(path: Path) -> None:
    with closing(Store(path.stem)) as store:
        for number in range(200):
            store.claim(f"key {number}", bytes(500), None)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("spoil", "found"),
    [(_of_version, "version 7"), (_of_another, "another program"), (_garbled, "not a database"), (_torn, "malformed")],
)
def test_a_file_that_is_no_ledger_is_named_and_left_as_it_is(journal: JournalFolder, spoil: Any, found: str) -> None:
    path = path_of(NAME)
    path.parent.mkdir(exist_ok=True)
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=found) as caught:
        Batch(ledger=NAME)
    assert str(path) in str(caught.value)
    assert "left as it is" in str(caught.value)
    assert path.read_bytes() == before


def test_an_empty_file_is_an_empty_ledger(journal: JournalFolder) -> None:
    path_of(NAME).parent.mkdir()
    path_of(NAME).touch()
    Batch(ledger=NAME).close()
    assert _states() == {}


async def test_results_that_cannot_be_kept_are_handed_over_and_then_it_is_told(answers: Answers) -> None:
    batch = Batch(max_concurrent=2, ledger=NAME)
    assert batch.ledger is not None
    batch.ledger._db.execute("PRAGMA max_page_count = 20")  # a disk with room for that
    batch.feed(BatchRequest(f"question {number} " * 100, CONTEXT) for number in range(200))
    came: list[BatchRequest] = []
    with pytest.raises(ConfigError, match="database or disk is full"):
        await _into(came, batch)
    assert 0 < len(came) < 200
    assert len(came) == len(answers.asked)
    assert all(request.state == "done" for request in came)


async def _into(came: list[BatchRequest], batch: Batch) -> None:
    drain = batch.drain_batch()
    while not batch.is_drained():
        came.append(await anext(drain))
    await anext(drain)


async def test_only_text_is_kept(monkeypatch: pytest.MonkeyPatch, journal: JournalFolder) -> None:
    async def number(**options: Any) -> Any:
        return 7

    monkeypatch.setattr(batches, "agenerate", number)
    assert (await _once("a"))["a"].error == "found int, expected text: a ledger keeps no other"


async def test_what_utf_8_cannot_hold_spoils_nothing(monkeypatch: pytest.MonkeyPatch, journal: JournalFolder) -> None:
    async def half(**options: Any) -> str:
        return "half a pair: \ud83d"

    monkeypatch.setattr(batches, "agenerate", half)
    batch = Batch(ledger=NAME, key=lambda _: "key \ud83d")
    batch.add(BatchRequest("a", CONTEXT, note={"large": 2**70, "half": "\ud83d", "odd": Path("x")}))
    (done,) = await drained(batch)
    assert done.response == "half a pair: \ud83d"
    assert (await _once("b", key=lambda _: "key \ud83d"))["b"].response == "half a pair: ?"
