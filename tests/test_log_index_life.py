"""Shows that the index of the token log survives what may happen to its file, and serves several processes at once."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator

import pytest

from muse.usage_index.index import FILE, LogIndex, close_indexes, log_index
from muse.usage_index.queries import sums
from tests.journal_folder import JournalFolder, start
from tests.log_days import ALL, DAY, append, calls, line, same_as_usage


@pytest.fixture(name="index")
def _index(journal: JournalFolder) -> Iterator[LogIndex]:
    index = LogIndex(journal.path)
    yield index
    index.close()


# --- what may happen to the index


def test_a_damaged_index_is_begun_anew(
    journal: JournalFolder, index: LogIndex, caplog: pytest.LogCaptureFixture
) -> None:
    append(journal, *[line()] * 20)
    index.refresh()
    index.close()
    path = journal.path / FILE
    for damage in (b"not a database at all", path.read_bytes()[:5000], b"\xff" * 40_000):
        path.write_bytes(damage)
        made = LogIndex(journal.path)
        same_as_usage(made)
        made.close()
    assert "begun anew" in caplog.text


@pytest.mark.parametrize("statement", ["DROP TABLE tallies", "DROP TABLE files"])
def test_damage_while_the_index_is_open_is_mended(journal: JournalFolder, index: LogIndex, statement: str) -> None:
    append(journal, *[line()] * 5)
    index.refresh()
    with sqlite3.connect(journal.path / FILE) as other:
        other.execute(statement)
    other.close()
    sums(index, ALL)
    same_as_usage(index)


def test_an_index_of_another_version_is_begun_anew(journal: JournalFolder, index: LogIndex) -> None:
    append(journal, line())
    index.close()
    with sqlite3.connect(journal.path / FILE) as old:
        old.executescript("DROP TABLE lines; PRAGMA user_version = 999")
    old.close()
    made = LogIndex(journal.path)
    same_as_usage(made)
    made.close()


def test_an_index_that_is_deleted_under_a_process_is_made_again(journal: JournalFolder, index: LogIndex) -> None:
    append(journal, line())
    index.refresh()
    shutil.rmtree(journal.path / "index")
    append(journal, line())
    same_as_usage(index)
    assert (journal.path / FILE).is_file()


def test_where_it_cannot_be_kept_the_index_is_in_memory(
    journal: JournalFolder, caplog: pytest.LogCaptureFixture
) -> None:
    append(journal, line())
    (journal.path / "index").write_text("a file where the folder should be", encoding="utf-8")
    made = LogIndex(journal.path)
    same_as_usage(made)
    made.close()
    assert "memory" in caplog.text


def test_looking_makes_no_journal_where_there_is_none(journal: JournalFolder) -> None:
    journal.path.rmdir()
    made = LogIndex(journal.path)
    assert calls(made) == 0
    assert not journal.path.exists()
    journal.path.mkdir()
    append(journal, line())
    same_as_usage(made)
    made.close()
    assert (journal.path / FILE).is_file()


def test_the_index_is_for_its_owner_only(journal: JournalFolder, index: LogIndex) -> None:
    append(journal, line())
    index.refresh()
    files = list((journal.path / "index").iterdir())
    assert len(files) == 3
    assert [path.name for path in files if path.stat().st_mode & 0o077] == []


def test_one_index_serves_a_journal_until_it_is_closed(journal: JournalFolder) -> None:
    append(journal, line())
    first = log_index()
    assert log_index(journal.path) is first
    close_indexes()
    second = log_index()
    assert second is not first
    assert calls(second) == 1
    close_indexes()


# --- several processes

_READ = """
import sys
from pathlib import Path
from muse.usage_index.index import LogIndex
from muse.usage_index.queries import UsageFilter, sums
index = LogIndex(Path(sys.argv[1]))
while not index.refresh().is_complete:
    pass
print(sums(index, UsageFilter((0, 99_999_999))).total.total.calls)
index.close()
"""


def test_processes_share_an_index_that_none_has_made_before(journal: JournalFolder) -> None:
    for day in ("20261101", "20261102", DAY):
        append(journal, *(line(context=f"c{number % 7}") for number in range(5_000)), day=day)
    children = [start(_READ, str(journal.path)) for _ in range(4)]
    said = [child.communicate(timeout=120) for child in children]
    assert said == [("15000\n", "")] * 4
    with sqlite3.connect(journal.path / FILE) as database:
        assert database.execute("SELECT count(*) FROM lines").fetchone() == (15_000,)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
    index = LogIndex(journal.path)
    same_as_usage(index)
    index.close()


_HALFWAY = """
import sys
from pathlib import Path
from muse.usage_index import writer, index
from muse.usage_index.index import LogIndex
index._BATCH_LINES = 100
keep, batches = writer._keep_sums, []
def slow(*arguments):
    made = keep(*arguments)
    batches.append(1)
    if len(batches) == 7:
        print("halfway", flush=True)
        sys.stdin.read()
    return made
writer._keep_sums = slow
LogIndex(Path(sys.argv[1])).refresh()
"""


def test_a_reader_that_is_killed_in_the_middle_leaves_nothing_half_done(journal: JournalFolder) -> None:
    append(journal, *(line(context=f"c{number % 7}") for number in range(1_000)))
    with start(_HALFWAY, str(journal.path)) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "halfway\n"
        child.kill()
    index = LogIndex(journal.path)
    assert sums(index, ALL).total.total.calls == 600
    same_as_usage(index)
    index.close()


_WRITE = """
import time
from muse.usage_log import ledger
until = time.monotonic() + 1.5
number = 0
while time.monotonic() < until:
    ledger.append({"context": f"c{number % 5}", "usage": {"input_tokens": 1, "output_tokens": 1}, "cost_usd": 0.1})
    number += 1
print(number)
"""


def test_the_index_keeps_up_with_lines_that_come_in(journal: JournalFolder, index: LogIndex) -> None:
    with start(_WRITE) as writer:
        seen = [0]
        while writer.poll() is None:
            seen.append(calls(index))
        assert writer.stdout is not None
        written = int(writer.stdout.read())
    assert seen == sorted(seen)
    assert calls(index) == written
    same_as_usage(index)


def test_the_index_needs_no_write_to_the_log(journal: JournalFolder, index: LogIndex) -> None:
    path = append(journal, line())
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    index.refresh()
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
