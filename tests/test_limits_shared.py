"""Limits and breakers that several real processes share: never exceeded in any window, not held by the dead."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from muse.policies import rate_limiter
from muse.policies.shared_state import NAME, is_alive, process
from tests.journal_folder import JournalFolder, run, start

_MINUTE_S = 1.5
CALLER = """
import json, sys, time
from muse import models
from muse.policies import rate_limiter
rate_limiter._MINUTE_S = float(sys.argv[1])
rate_limiter._STOCK_S = 0.2
rate_limiter._FIRST_SLACK_S = rate_limiter._SLACK_S  # the provider here has no SDK to load
began = []
for number in range(int(sys.argv[2])):
    models.generate("When?", context="app.tides", max_output_tokens=int(sys.argv[3]))
    began.append(time.time())
print(json.dumps(began))
"""
HOLDER = """
import time
from muse import models
from muse.policies.execution import Call
from muse.policies.deadline import Deadline
call = models.prepare_call("When?", "app.tides", {})
held = Call("app.tides", call.chain.targets, call.chain.rules, Deadline.after(60))
for step in call.stack.steps:
    assert step.before(held, call.chain.targets[0]) == 0
print("held", flush=True)
time.sleep(600)
"""


def callers(count: int, calls: int, tokens: int = 100) -> list[float]:
    """When the calls of some processes went out, in seconds since the epoch."""
    children = [start(CALLER, str(_MINUTE_S), str(calls), str(tokens)) for _ in range(count)]
    began: list[float] = []
    for child in children:
        out, err = child.communicate(timeout=60)
        assert child.returncode == 0, err
        began += json.loads(out)
    return sorted(began)


def most_in_a_window(began: list[float]) -> int:
    return max(sum(1 for other in began if at <= other < at + _MINUTE_S) for at in began)


@pytest.mark.parametrize("most", [7, 60])
def test_four_processes_never_send_more_in_any_window_than_the_limit(journal: JournalFolder, most: int) -> None:
    journal.route(default={"provider": "echo"}, limits=[{"requests_per_minute": most}])
    began = callers(4, most // 2)
    assert len(began) == 4 * (most // 2)
    assert most_in_a_window(began) <= most
    assert began[-1] - began[0] >= _MINUTE_S


def test_tokens_are_counted_as_they_were_used_and_never_exceeded(journal: JournalFolder) -> None:
    journal.route(default={"provider": "echo"}, limits=[{"tokens_per_minute": 200}])
    began = callers(2, 40, tokens=20)
    assert len(began) == 80
    assert began[-1] - began[0] >= _MINUTE_S
    used = [line["usage"]["total_tokens"] for line in journal.lines()]
    assert most_in_a_window(began) * max(used) <= 200


@pytest.mark.parametrize(("most", "slack_s"), [(1, rate_limiter._FIRST_SLACK_S), (2, rate_limiter._SLACK_S)])
def test_the_first_request_may_arrive_late_as_its_process_may_have_an_sdk_to_load(
    journal: JournalFolder, most: int, slack_s: float
) -> None:
    journal.route(default={"provider": "echo", "on_limit": "raise"}, limits=[{"requests_per_minute": most}])
    code = f"""
from muse import models
from muse.errors import LimitReached
for _ in range({most}):
    models.generate("When?", context="x")
try:
    models.generate("When?", context="x")
except LimitReached as exc:
    print(exc.retry_after_s)
"""
    assert 59 + slack_s < float(run(code)) <= 60 + slack_s


def test_a_killed_process_holds_nothing(journal: JournalFolder) -> None:
    journal.route(default={"provider": "echo", "on_limit": "raise"}, limits=[{"in_flight": 1}])
    holder = start(HOLDER)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    code = "from muse import models; print(models.generate('When?', context='app.tides'))"
    with pytest.raises(AssertionError, match="LimitReached"):
        run(code)
    holder.kill()
    holder.communicate()
    assert run(code).strip() == "When?"


def test_waiters_are_served_in_the_order_of_their_coming(journal: JournalFolder) -> None:
    journal.route(default={"provider": "echo"}, limits=[{"requests_per_minute": 1}])
    code = CALLER.replace("began = []", "began = []; sys.stdin.readline()")
    children = [start(code, "0.8", "1", "10") for _ in range(4)]
    for place, child in enumerate(children):
        assert child.stdin is not None
        child.stdin.write("now\n")
        child.stdin.flush()
        while child.poll() is None and _came(journal) < place:
            time.sleep(0.01)  # nothing but the shared file tells that it has come
    began = [json.loads(child.communicate(timeout=60)[0])[0] for child in children]
    assert began == sorted(began)


def _came(journal: JournalFolder) -> int:
    """How many have stood in line so far."""
    try:
        with closing(sqlite3.connect(f"file:{journal.path / NAME}?mode=ro", uri=True)) as store:
            row = store.execute("SELECT seq FROM sqlite_sequence WHERE name = 'line'").fetchone()
    except sqlite3.OperationalError:  # no file yet, or one that has no tables yet
        return -1
    return row[0] if row else 0


def test_a_damaged_store_is_put_aside_and_begun_anew(journal: JournalFolder) -> None:
    journal.route(default={"provider": "echo"}, limits=[{"requests_per_minute": 2}])
    (journal.path / NAME).write_bytes(b"this is no database " * 400)
    run("from muse import models; models.generate('When?', context='x')")
    kept = sorted(path.name for path in journal.path.glob(f"{NAME}*unusable"))
    assert len(kept) == 1
    assert (journal.path / kept[0]).read_bytes().startswith(b"this is no database")


def test_a_journal_that_cannot_be_written_limits_its_own_process(tmp_path: Path) -> None:
    import os

    code = """
import logging, sys
from muse import models
from muse.errors import LimitReached
models.generate("1", context="x"); models.generate("2", context="x")
try:
    models.generate("3", context="x")
except LimitReached:
    print("refused")
"""
    folder = JournalFolder(tmp_path / "journal")
    folder.route(default={"provider": "echo", "on_limit": "raise"}, limits=[{"requests_per_minute": 2}])
    (folder.path / NAME).mkdir()  # a folder in its place: as root, permissions stop nobody
    assert os.path.isdir(folder.path / NAME)
    assert run(code, JOURNAL_PATH=str(folder.path)).strip() == "refused"


def test_one_probe_at_a_time_tries_a_model_that_was_left_alone(journal: JournalFolder) -> None:
    journal.route(default={"provider": "echo", "retries": 0}, breaker={"failures": 1, "cool_down_s": 0.3})
    failing = """
from muse import models, testing
from muse.errors import MuseError, ProviderDown
with testing.script(ProviderDown("down", retryable=True)):
    try:
        models.generate("x", context="x")
    except MuseError as exc:
        print(type(exc).__name__)
"""
    probing = """
import time
from muse import models
from muse.policies.circuit_breaker import _key
call = models.prepare_call("x", "x", {})
print(call.stack.steps[0]._may_probe(_key(call.chain.targets[0]), time.monotonic()))
"""
    assert run(failing).strip() == "ProviderDown"
    time.sleep(0.35)
    assert [run(probing).strip() for _ in range(2)] == ["True", "False"]


def test_a_process_is_told_from_a_later_one_of_its_number() -> None:
    assert is_alive(process())
    assert not is_alive(f"{process().partition('.')[0]}.1")
