"""The token log under many writers: threads, processes, forks, and processes that are killed while they write."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from muse.models import log_token_usage
from muse.usage_log import ledger
from tests.journal_folder import UNMEASURED, JournalFolder, run, start

UNIFIED = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
WRITER = """
import sys
from muse.usage_log import ledger
name, times = sys.argv[1], int(sys.argv[2])
for number in range(times):
    ledger.append({"name": name, "number": number, "pad": "é" * (number * 37 % 3000)})
    print(number, flush=True)
"""


def test_lines_of_four_processes_do_not_mix_and_none_is_lost(journal: JournalFolder) -> None:
    children = [start(WRITER.replace("    print(number, flush=True)\n", ""), str(name), "2000") for name in range(4)]
    for child in children:
        _, err = child.communicate(timeout=60)
        assert child.returncode == 0, err
    seen: dict[str, list[int]] = {}
    for line in journal.lines():
        seen.setdefault(line["name"], []).append(line["number"])
    assert seen == {str(name): list(range(2000)) for name in range(4)}


def test_lines_of_threads_do_not_mix(journal: JournalFolder) -> None:
    def write(name: int) -> None:
        for number in range(200):
            ledger.append({"name": name, "number": number, "pad": "x" * (number * 37 % 5000)})

    threads = [threading.Thread(target=write, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(journal.lines()) == 1600


@pytest.mark.parametrize("seed", range(10))
def test_writers_killed_at_any_moment_lose_no_acknowledged_line_and_tear_no_other(
    journal: JournalFolder, seed: int
) -> None:
    chance = random.Random(seed)
    promised: set[tuple[str, int]] = set()
    for turn in range(3):
        children = [start(WRITER, f"{turn}-{name}", "1000000") for name in range(2)]
        for child in children:
            promised |= _killed(child, f"{turn}-{children.index(child)}", chance.randint(1, 200))
    kept = {(line["name"], line["number"]) for line in ledger.read()}
    assert promised <= kept
    assert ledger.count_bad_lines() <= 6
    log_token_usage("after", UNIFIED, context="x")
    assert list(ledger.read())[-1]["model"] == "after"


def _killed(child: subprocess.Popen[str], name: str, after: int) -> set[tuple[str, int]]:
    """Let `child` acknowledge `after` lines and kill it; every line that it had acknowledged by then."""
    with child:
        assert child.stdout is not None
        acknowledged = [child.stdout.readline() for _ in range(after)]
        child.kill()
        acknowledged += child.stdout.readlines()
    assert child.returncode == -signal.SIGKILL
    return {(name, int(number)) for number in acknowledged if number.endswith("\n")}


CONFIG_AND_LOG = """
import sys
from muse.journal import config_loader
from muse.usage_log import ledger
for number in range(100):
    config_loader.update(lambda data: data.setdefault("identity", {}).update({sys.argv[1]: number}))
    ledger.append({"name": sys.argv[1], "number": number})
"""


def test_two_processes_write_log_and_config_at_once(journal: JournalFolder) -> None:
    children = [start(CONFIG_AND_LOG, name) for name in ("one", "two")]
    for child in children:
        _, err = child.communicate(timeout=60)
        assert child.returncode == 0, err
    assert json.loads(journal.config.read_text())["identity"] == {"one": 99, "two": 99}
    assert len(journal.lines()) == 200


FORKS = """
import os, threading, warnings
from muse.usage_log import ledger
warnings.simplefilter("ignore")  # fork beside threads is what this is about
stop = threading.Event()

def write():
    while not stop.is_set():
        ledger.append({"who": "thread", "pad": "x" * 3000})

threads = [threading.Thread(target=write) for _ in range(3)]
for thread in threads:
    thread.start()
inherited = len(os.listdir("/proc/self/fd"))
for number in range(60):
    child = os.fork()
    if child == 0:
        ledger.append({"who": "child", "number": number})
        ledger.append({"who": "child again", "number": number, "more": len(os.listdir("/proc/self/fd")) - inherited})
        os._exit(0)
    os.waitpid(child, 0)
stop.set()
for thread in threads:
    thread.join()
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
def test_a_child_forked_while_threads_write_has_a_log_of_its_own(journal: JournalFolder) -> None:
    run(FORKS, timeout_s=60, **UNMEASURED)
    lines = journal.lines()
    for who in ("child", "child again"):
        assert [line["number"] for line in lines if line["who"] == who] == list(range(60))
    assert {line["more"] for line in lines if line["who"] == "child again"} <= {-1, 0, 1}
