"""Shows that an attempt is written down before it is sent, so that what a killed process had under way has its line."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muse.calls.log_pricing import provider_and_cost
from muse.policies.spend import spend_since, window_start
from muse.types.call_ids import new_call_id
from muse.usage_index.index import LogIndex
from muse.usage_index.queries import sums
from muse.usage_log import in_flight, ledger
from muse.usage_log.in_flight import SLOT_BYTES, Record
from tests.desk import CONTEXT, WAYS, Desk
from tests.journal_folder import UNMEASURED, JournalFolder, run, start
from tests.log_days import ALL
from tests.loopback.behaviours import Hang
from tests.provider_cases import FAMILY

OPENAI, *_ = FAMILY
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
CALL = """
import asyncio, sys
from muse import models
way, context = sys.argv[1:]
question = "When does the tide turn?"
async def astream():
    async with await models.astream(question, context) as stream:
        await stream.reply()
match way:
    case "sync": models.reply(question, context)
    case "async": asyncio.run(models.areply(question, context))
    case "stream": models.stream(question, context).reply
    case "astream": asyncio.run(astream())
"""


def record(number: int = 1, **fields: Any) -> Record:
    """What an attempt writes down before it is sent."""
    given = {"context": CONTEXT, "provider": "openai", "model": "gpt-6-luna", "route": "providers.default"}
    values = {"segment": None, "agent_id": None, "input_tokens": 7, "is_free": False, "log_day": "", "log_at": 0}
    return Record(new_call_id(), number, 1_793_700_000.0, **{**given, **values, **fields})


def slot_files(journal: JournalFolder) -> list[Path]:
    return sorted((journal.tokens / "inflight").glob("*"))


def killed(code: str, *arguments: str) -> str:
    """Run `code` until it says that it is ready, kill it, and return what it said."""
    with start(code, *arguments, **UNMEASURED) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    return said.strip()


READY = """
import sys, time
from muse.usage_log import ledger
from muse.usage_log.in_flight import Record
tickets = [
    ledger.begin(Record(f"{number:016x}", 1, time.time(), "app.x", "openai", "m", None, None, None, 7, False, "", 0))
    for number in range(int(sys.argv[1]))
]
"""
WAIT = "print('ready', flush=True); time.sleep(600)\n"


# --- what a kill leaves


@pytest.mark.parametrize("way", WAYS)
def test_a_call_that_was_under_way_when_its_process_was_killed_has_a_line(desk: Desk, way: str) -> None:
    desk.use(OPENAI)
    desk.play(OPENAI, Hang())
    with start(CALL, way, CONTEXT, **UNMEASURED) as process:
        assert desk.server.wait_until(lambda server: len(server.requests) == 1)
        process.send_signal(signal.SIGKILL)
    (line,) = ledger.read()
    assert (line["context"], line["provider"], line["model_asked"]) == (CONTEXT, "openai", OPENAI.model)
    assert (line["attempt"], line["error"]["class"]) == (1, "ProcessKilled")
    assert (line["cost_usd"], line["estimated"]) == (None, True)
    assert line["usage"] == {"input_tokens": 6, "output_tokens": 0, "total_tokens": 6}
    assert "not known" in line["cost_note"]
    assert journal_is_clean(desk.journal)


def journal_is_clean(journal: JournalFolder) -> bool:
    return slot_files(journal) == []


def test_every_reader_counts_it(journal: JournalFolder) -> None:
    readers: list[Callable[[], int]] = [
        lambda: len(list(ledger.read())),
        lambda: spend_since(window_start("day"), provider_and_cost).total(lambda _: True).unpriced,
        lambda: _indexed(journal),
        lambda: json.loads(run("import sys; from muse.cli import main; sys.exit(main(['usage', '--json']))"))["total"][
            "unpriced"
        ],
    ]
    for number, read in enumerate(readers, 1):
        killed(READY + WAIT, "1")
        time_passes()
        assert read() == number


def time_passes() -> None:
    """Have the next look at what was spent read the log."""
    from muse.policies import spend as module

    for known in module._spendings.values():
        known._look_at_s = 0.0


def _indexed(journal: JournalFolder) -> int:
    index = LogIndex(journal.path)
    try:
        index.refresh()
        return sums(index, ALL).total.total.unpriced
    finally:
        index.close()


def test_the_next_call_enters_what_a_killed_process_left(desk: Desk) -> None:
    desk.use(OPENAI)
    killed(READY + WAIT, "3")
    desk.ask("sync")
    assert Counter(line.get("error", {}).get("class") for line in desk.journal.lines()) == {"ProcessKilled": 3, None: 1}


def test_several_processes_enter_it_once(journal: JournalFolder) -> None:
    killed(READY + WAIT, "200")
    readers = [
        start("from muse.usage_log import ledger; print(len(list(ledger.read())))", **UNMEASURED) for _ in range(4)
    ]
    for reader in readers:
        _, err = reader.communicate(timeout=180)
        assert reader.returncode == 0, err
    assert sorted(line["call_id"] for line in journal.lines()) == [f"{number:016x}" for number in range(200)]


def test_an_attempt_whose_line_stands_gets_no_second_one(journal: JournalFolder) -> None:
    logged = "ledger.append({'call_id': f'{3:016x}', 'attempt': 1, 'usage': {}, 'pad': '0' * 9})\n"
    killed(READY + logged + WAIT, "5")
    ids = Counter(line["call_id"] for line in ledger.read())
    assert ids == {f"{number:016x}": 1 for number in range(5)}


def test_one_that_enters_them_and_is_killed_leaves_the_rest_to_the_next(journal: JournalFolder) -> None:
    killed(READY + WAIT, "20")
    half = """
import os, signal
from muse.usage_log import ledger
put, left = ledger._put, [7]
def last(number, line):
    put(number, line)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
ledger._put = last
ledger.write_abandoned()
"""
    with start(half, **UNMEASURED) as process:
        process.wait(180)
    assert len(journal.lines()) == 7
    assert sorted(line["call_id"] for line in ledger.read()) == [f"{number:016x}" for number in range(20)]


def test_a_process_that_lives_keeps_its_records(journal: JournalFolder) -> None:
    with start(READY + WAIT, "2", **UNMEASURED) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert list(ledger.read()) == []
        assert len(slot_files(journal)) == 1
        process.kill()
    assert len(list(ledger.read())) == 2


def test_a_process_that_ends_by_itself_leaves_no_file(desk: Desk) -> None:
    desk.use(OPENAI)
    with start(CALL, "sync", CONTEXT) as process:
        _, err = process.communicate(timeout=180)
        assert process.returncode == 0, err
    assert journal_is_clean(desk.journal)
    assert len(desk.journal.lines()) == 1


def test_what_is_under_way_when_a_process_ends_by_itself_is_entered_too(journal: JournalFolder) -> None:
    run(READY, "2")
    assert [line["error"]["class"] for line in ledger.read()] == ["ProcessKilled"] * 2
    assert journal_is_clean(journal)


# --- while the process lives


@pytest.mark.parametrize("way", WAYS)
def test_an_answered_call_frees_its_slot_for_the_next(desk: Desk, way: str) -> None:
    desk.use(OPENAI)
    desk.play(OPENAI, "text", "error_quota", "text")
    desk.ask(way)
    desk.fail(way)
    desk.ask(way)
    (path,) = slot_files(desk.journal)
    assert path.stat().st_size <= SLOT_BYTES
    in_flight.close_all()
    assert journal_is_clean(desk.journal)
    assert len(desk.journal.lines()) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_has_records_of_its_own_and_holds_no_lock_of_its_parent(journal: JournalFolder) -> None:
    said = killed(FORKS)
    child = int(said)
    try:
        assert {line["context"] for line in ledger.read()} == {"parent"}
    finally:
        os.kill(child, signal.SIGKILL)
    assert wait_until_gone(child)
    assert sorted(str(line["context"]) for line in ledger.read()) == ["child", "parent"]


def wait_until_gone(number: int) -> bool:
    """Wait for the end of a process that is no child of this one."""
    for _ in range(3_600):
        if not Path(f"/proc/{number}").exists() or "Z (" in Path(f"/proc/{number}/status").read_text():
            return True
        threading.Event().wait(0.05)
    return False


FORKS = """
import os, time
from muse.usage_log import ledger
from muse.usage_log.in_flight import Record
def begin(context):
    call_id = f"{os.getpid():016x}"
    return ledger.begin(Record(call_id, 1, 1.0, context, "openai", "m", None, None, None, 7, False, "", 0))
parent = begin("parent")
ready, say = os.pipe()
child = os.fork()
if child == 0:
    from muse.usage_log import in_flight
    in_flight.end(parent)
    begin("child")
    os.write(say, b"x")
    time.sleep(600)
os.read(ready, 1)
print(child, flush=True)
time.sleep(600)
"""


# --- where nothing can be written down


def test_a_full_disk_fails_no_call(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    desk.use(OPENAI)
    monkeypatch.setattr(os, "pwrite", full)
    assert [desk.ask(way).text for way in WAYS] != []
    assert len(desk.journal.lines()) == 4


def test_where_the_folder_cannot_be_made_calls_go_on(desk: Desk) -> None:
    desk.use(OPENAI)
    desk.journal.tokens.mkdir()
    (desk.journal.tokens / "inflight").write_text("a file")
    assert desk.ask("sync").text
    assert len(desk.journal.lines()) == 1


def test_a_file_system_without_locks_has_no_records(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    desk.use(OPENAI)
    monkeypatch.setattr("muse.usage_log.in_flight.fcntl.flock", none)
    assert desk.ask("sync").text
    assert journal_is_clean(desk.journal)
    assert len(list(ledger.read())) == 1


def test_where_the_log_is_full_what_was_left_is_kept_for_later(
    journal: JournalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    killed(READY + WAIT, "2")
    with monkeypatch.context() as broken:
        broken.setattr(ledger, "_put", full)
        assert list(ledger.read()) == []
    assert len(list(ledger.read())) == 2


# --- records


_TEXT = st.none() | st.text(max_size=2_000)


@given(_TEXT, st.text(max_size=2_000), _TEXT, _TEXT)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
def test_any_record_fits_its_slot_and_is_read_again(
    journal: JournalFolder, context: str | None, model: str, route: str | None, segment: str | None
) -> None:
    wanted = record(context=context, model=model, route=route, segment=segment)
    body = in_flight._fitted(wanted)
    assert len(body) <= SLOT_BYTES - 2
    found = in_flight._decode(body)
    assert (found.call_id, found.attempt, found.input_tokens) == (wanted.call_id, 1, 7)
    assert model.encode("utf-8", "replace").decode().startswith(found.model)


def test_slots_are_used_again_and_records_of_threads_do_not_mix(journal: JournalFolder) -> None:
    own = in_flight.slots(str(journal.path))
    assert own is not None

    def work() -> None:
        for _ in range(300):
            in_flight.end(in_flight.begin(own, record()))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not own.has_open()
    assert Path(own.path).stat().st_size <= 8 * SLOT_BYTES


def test_a_damaged_record_is_passed_over(journal: JournalFolder, caplog: pytest.LogCaptureFixture) -> None:
    killed(READY + WAIT, "3")
    (path,) = slot_files(journal)
    with path.open("r+b") as file:
        file.seek(SLOT_BYTES + 2)
        file.write(b"\xc1" * 20)
    assert len(list(ledger.read())) == 2
    assert "cannot be read" in caplog.text


# --- a durable batch that is killed again and again


KILLS, ITEMS, AT_ONCE = 12, 400, 8
BATCH = f"""
import asyncio, sys
from muse import batch as batches

async def main():
    batch = batches.Batch(max_concurrent={AT_ONCE}, ledger="killed")
    batch.feed(
        batch.create(contents=f"item {{number}}", context="app.tides", segment=f"item {{number}}")
        for number in range({ITEMS})
    )
    async for request in batch.drain_batch():
        assert request.error is None, request.error

asyncio.run(main())
"""


def test_every_request_of_a_batch_that_is_killed_again_and_again_has_a_line(desk: Desk) -> None:
    chance = random.Random(20261201)
    desk.use(OPENAI)
    for _ in range(KILLS):
        target = len(desk.server.requests) + chance.randint(1, 24)
        _run_until(desk, lambda server, target=target: len(server.requests) >= target)
    _run_until(desk, None)
    seen = Counter(_item(request.content) for request in desk.server.requests)
    lines = Counter(line["segment"] for line in ledger.read())
    assert seen.keys() == {f"item {number}" for number in range(ITEMS)}
    assert seen - lines == Counter()
    # What was written down and not sent any more: at most what was under way at a kill.
    assert sum((lines - seen).values()) <= KILLS * AT_ONCE
    assert len({(line["call_id"], line["attempt"]) for line in ledger.read()}) == sum(lines.values())


def _run_until(desk: Desk, reached: Callable[[Any], bool] | None) -> None:
    """One run of the batch, killed as soon as the server is at some point; None: to its end."""
    with start(BATCH, **UNMEASURED) as process:
        if reached is not None:
            assert desk.server.wait_until(reached)
            process.send_signal(signal.SIGKILL)
        _, err = process.communicate(timeout=180)
    assert not err
    assert process.returncode == (0 if reached is None else -signal.SIGKILL)


def _item(body: bytes) -> str:
    """The item that a request is about."""
    found = re.search(rb"item \d+", body)
    assert found is not None
    return found[0].decode()
