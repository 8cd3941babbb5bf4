"""Shows that the search index follows the journal's files, is shared by all, and survives what may happen to it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journal_entries import write_entry
from tests.journal_folder import environment
from think.entries.entries import find_files
from think.search import index as index_module
from think.search.index import FILE, SearchIndex
from think.search.query import Query, search


@pytest.fixture(name="index")
def _index(tmp_path: Path) -> Iterator[SearchIndex]:
    """The index of an empty journal."""
    index = SearchIndex(tmp_path)
    yield index
    index.close()


# --- how it follows the files


def test_new_changed_and_deleted_files_are_seen_and_no_others_read(index: SearchIndex) -> None:
    first = write_entry(index.root, "20260105/notes/0900_a.md", "apple")
    write_entry(index.root, "20260105/notes/0910_b.md", "banana")
    _age(index.root)
    assert index.refresh() == 2
    assert index.refresh() == 0
    first.write_text("cherry", encoding="utf-8")
    _age(index.root)
    assert index.refresh() == 1
    assert (search(Query("apple"), index).total, search(Query("cherry"), index).total) == (0, 1)
    first.unlink()
    assert index.refresh() == 1
    assert search(Query("cherry"), index).total == 0
    assert search(Query("banana"), index).total == 1


def _age(root: Path) -> None:
    """Let the files look as if they were written a while ago, each at a time of its own."""
    for number, (path, _) in enumerate(find_files(root)):
        size = (root / path).stat().st_size
        os.utime(root / path, ns=(10**18, 10**18 + number * 10**9 + hash((root / path).read_bytes()) % 10**8 + size))


def test_an_edit_of_equal_size_within_one_step_of_the_clock_is_seen(index: SearchIndex) -> None:
    path = write_entry(index.root, "20260105/notes/0900_a.md", "apple")
    stamp = path.stat().st_mtime_ns
    index.refresh()
    path.write_text("grape", encoding="utf-8")
    os.utime(path, ns=(stamp, stamp))
    index.refresh()
    assert search(Query("grape"), index).total == 1


def test_queries_look_at_the_files_once_in_a_while_and_refresh_at_once(
    index: SearchIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Path] = []

    def counted(root: Path) -> Iterator[object]:
        looks.append(root)
        return iter(find_files(root))

    monkeypatch.setattr(index_module, "find_files", counted)
    for _ in range(5):
        search(Query("apple"), index)
    assert len(looks) == 1
    index.refresh()
    assert len(looks) == 2
    monkeypatch.setattr(index_module, "LOOK_AGAIN_S", 0.0)
    search(Query("apple"), index)
    assert len(looks) > 2


def test_a_folder_that_is_no_day_and_a_file_that_is_no_entry_are_passed_over(index: SearchIndex) -> None:
    for path in (
        "20261399/notes/0900_a.md",
        "agents/notes/0900_a.md",
        "20260105/todos.md",
        "20260105/999999_60/transcript.jsonl",
    ):
        write_entry(index.root, path, '{"text": "apple"}')
    assert index.refresh() == 0


# --- what may happen to the index


def test_a_damaged_index_is_made_anew(index: SearchIndex, caplog: pytest.LogCaptureFixture) -> None:
    write_entry(index.root, "20260105/notes/0900_a.md", "apple")
    index.refresh()
    index.close()
    path = index.root / FILE
    for damage in (b"not a database at all", path.read_bytes()[:5000], b"\xff" * 40_000):
        path.write_bytes(damage)
        made = SearchIndex(index.root)
        assert search(Query("apple"), made).total == 1
        made.close()
    assert "made anew" in caplog.text


def test_damage_while_the_index_is_open_is_mended(index: SearchIndex) -> None:
    write_entry(index.root, "20260105/notes/0900_a.md", "apple")
    index.refresh()
    with sqlite3.connect(index.root / FILE) as other:
        other.execute("DROP TABLE passages")
    other.close()
    assert search(Query("apple"), index).total == 1


def test_an_index_of_another_version_is_made_anew(index: SearchIndex) -> None:
    write_entry(index.root, "20260105/notes/0900_a.md", "apple")
    index.close()
    with sqlite3.connect(index.root / FILE) as old:
        old.executescript("DROP TABLE entries; CREATE TABLE entries (else_); PRAGMA user_version = 999")
    old.close()
    made = SearchIndex(index.root)
    assert search(Query("apple"), made).total == 1
    made.close()


def test_a_journal_that_cannot_be_written_is_searched_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_entry(tmp_path, "20260105/notes/0900_a.md", "apple")
    (tmp_path / "index").write_text("a file where the folder should be", encoding="utf-8")
    made = SearchIndex(tmp_path)
    assert search(Query("apple"), made).total == 1
    assert "in memory" in caplog.text
    made.close()


def test_the_index_can_be_read_by_its_owner_only(index: SearchIndex) -> None:
    index.refresh()
    assert (index.root / FILE).stat().st_mode & 0o077 == 0


def test_threads_share_an_index_while_files_change(index: SearchIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "LOOK_AGAIN_S", 0.0)
    found: list[int] = []

    def work(number: int) -> None:
        for turn in range(5):
            write_entry(index.root, f"20260105/notes/09{number}{turn}_n.md", f"apple {number} {turn}")
            found.append(search(Query("apple"), index).total)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 30
    assert search(Query("apple"), index).total == 30


_ASK = """
import sys
from pathlib import Path
from think.search.index import SearchIndex
from think.search.query import Query, search
index = SearchIndex(Path(sys.argv[1]))
print(search(Query("apple"), index).total, flush=True)
index.close()
"""


def test_processes_share_an_index_that_none_has_made_before(tmp_path: Path) -> None:
    for minute in range(60):
        write_entry(tmp_path, f"20260105/notes/09{minute:02d}_n.md", "# Note\n\napple pie")
    command = [sys.executable, "-c", _ASK, str(tmp_path)]
    children = [
        subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    said = [child.communicate(timeout=60) for child in children]
    assert said == [("60\n", "")] * 4
    with sqlite3.connect(tmp_path / FILE) as database:
        assert database.execute("SELECT count(*) FROM entries").fetchone() == (60,)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


_STOP_HALFWAY = """
import sys
from pathlib import Path
from think.search.index import SearchIndex
index = SearchIndex(Path(sys.argv[1]))
add, added = index._add, []
def slow(path, stamp):
    add(path, stamp)
    added.append(path)
    if len(added) == 30:
        print("halfway", flush=True)
        sys.stdin.read()
index._add = slow
index.refresh()
"""


def test_an_index_whose_writer_was_killed_is_sound(tmp_path: Path) -> None:
    for minute in range(60):
        write_entry(tmp_path, f"20260105/notes/09{minute:02d}_n.md", "apple")
    command = [sys.executable, "-c", _STOP_HALFWAY, str(tmp_path)]
    with subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"halfway\n"
        child.kill()
    index = SearchIndex(tmp_path)
    assert search(Query("apple"), index).total == 60
    index.close()
