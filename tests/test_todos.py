"""Shows that to-dos are read as they stand, that changes keep what others wrote, and that no writer loses another's."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.todos import todos, tools
from apps.todos.todos import Todo, TodoError, parse_line, write_line
from apps.todos.tools import add_todo, complete_todo, list_todos
from muse.errors import ToolError
from tests.journal_folder import ROOT, JournalFolder, environment

EXAMPLE = ROOT / "fixtures" / "journal"
TODAY = date(2026, 11, 9)
HEADING = "# To-dos, Monday 9 November 2026"


@pytest.fixture(name="root")
def _root(journal: JournalFolder) -> Path:
    """A copy of the example journal, which `JOURNAL_PATH` names."""
    shutil.copytree(EXAMPLE, journal.path, dirs_exist_ok=True)
    return journal.path


def _write(root: Path, day: str, content: bytes) -> Path:
    path = root / day / todos.FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# --- the form


def test_every_line_of_the_example_is_written_as_it_was_read() -> None:
    lines = [
        line for path in EXAMPLE.glob("*/todos.md") for line in path.read_text("utf-8").splitlines() if line[:2] == "- "
    ]
    assert len(lines) > 30
    for line in lines:
        todo = parse_line(line, "20261103")
        assert todo is not None
        assert todo.due
        assert todo.tags
        assert write_line(todo) == line


@pytest.mark.parametrize(
    ("line", "text", "due", "tags"),
    [
        ("- [ ] T-1 Buy bread", "Buy bread", "", ()),
        ("* [X] T-1 Buy bread #home #a/b\r", "Buy bread", "", ("home", "a/b")),
        ("  - [x] T-1 Ring (at 12) (due 2026-01-02)", "Ring (at 12)", "2026-01-02", ()),
        ("- [ ] T-1 Fix #12 today", "Fix #12 today", "", ()),
        ("- [ ] T-1 Say (due soon)", "Say (due soon)", "", ()),
    ],
)
def test_a_line_has_text_date_and_tags(line: str, text: str, due: str, tags: tuple[str, ...]) -> None:
    todo = parse_line(line, "20260101")
    assert todo is not None
    assert (todo.text, todo.due, todo.tags) == (text, due, tags)


@pytest.mark.parametrize("line", ["", "# T-1", "- T-1 no box", "- [ ] no id", "- [?] T-1 other box", "- [ ] T-x what"])
def test_other_lines_are_no_to_dos(line: str) -> None:
    assert parse_line(line, "20260101") is None


@given(st.text(max_size=40), st.lists(st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True), max_size=3, unique=True))
def test_what_is_added_reads_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, text: str, tags: list[str]
) -> None:
    root = tmp_path_factory.mktemp("todos")
    try:
        added = todos.add(root, text, due="2026-11-10", tags=tags, today=TODAY)
    except TodoError:
        assert not any(char.isalnum() for char in text) or "#" in text
        return
    assert todos.read_all(root) == (added,)
    assert todos.read_day(root, "20261109") == (added,)


# --- what stands


def test_the_latest_day_that_names_a_to_do_says_how_it_stands(root: Path) -> None:
    states = {todo.id: (todo.done, todo.day) for todo in todos.read_all(root)}
    assert states["T-105"] == (True, "20261106")
    assert states["T-123"] == (False, "20261106")
    assert states["T-108"][0]
    assert states["T-118"] == (False, "20261105")  # not carried over, still open


def test_open_to_dos_are_listed_the_most_urgent_first(root: Path) -> None:
    found = list_todos()
    assert [todo["due"] for todo in found["todos"]] == sorted(todo["due"] or "" for todo in found["todos"])
    assert found["total"] == len(found["todos"]) == 9
    assert list_todos("done")["total"] + 9 == list_todos("all", limit=100)["total"]


def test_a_list_is_read_page_by_page(root: Path) -> None:
    whole = list_todos("all", limit=100)["todos"]
    rows = []
    offset: int | None = 0
    while offset is not None:
        page = list_todos("all", limit=4, offset=offset)
        rows += page["todos"]
        offset = page["next_offset"]
    assert rows == whole


def test_the_list_of_a_day_is_as_it_stood_then(root: Path) -> None:
    names = [todo["id"] for todo in list_todos("all", day="2026-11-03")["todos"]]
    assert names == ["T-104", "T-107", "T-108", "T-109", "T-110", "T-105"]
    assert {todo["id"] for todo in list_todos("open", day="20261103")["todos"]} == {"T-109", "T-110", "T-105"}


# --- changes


def test_a_new_days_list_begins_with_what_was_open(root: Path) -> None:
    before = {path: path.read_bytes() for path in root.glob("*/todos.md")}
    still_open = [todo for todo in todos.read_all(root) if not todo.done]
    added = todos.add(root, "Ring Piet", due="20261112", tags=["#support"], today=TODAY)
    assert added == Todo("T-124", "Ring Piet", done=False, day="20261109", due="2026-11-12", tags=("support",))
    lines = (root / "20261109" / "todos.md").read_text("utf-8").split("\n")
    assert lines[:2] == [HEADING, ""]
    assert lines[2:] == [*map(write_line, still_open), "- [ ] T-124 Ring Piet (due 2026-11-12) #support", ""]
    assert {path: path.read_bytes() for path in before} == before


def test_completing_ticks_the_box_and_twice_changes_nothing(root: Path) -> None:
    todo, changed = todos.complete(root, "t-123", today=TODAY)
    assert changed
    assert (todo.id, todo.done, todo.day) == ("T-123", True, "20261109")
    page = (root / "20261109" / "todos.md").read_bytes()
    assert b"- [x] T-123 Go or no-go" in page
    assert todos.complete(root, "T-123", today=TODAY) == (todo, False)
    assert (root / "20261109" / "todos.md").read_bytes() == page


def test_a_to_do_of_an_earlier_list_is_added_as_done_to_a_list_without_it(root: Path) -> None:
    _write(root, "20261109", b"- [ ] T-200 Mine\n")
    assert todos.complete(root, "T-118", today=TODAY)[1]
    assert [todo.id for todo in todos.read_day(root, "20261109") if todo.done] == ["T-118"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_lines_that_are_no_to_dos_are_kept_to_the_byte(root: Path, end: str, last: bool) -> None:
    lines = [
        "\ufeff# Mine",
        "",
        "* [ ] T-300   Odd  blanks \t",
        "  a note below",
        "- [ ] without id",
        "",
        "> quoted\u2028 x",
    ]
    content = end.join(lines) + (end if last else "")
    path = _write(root, "20261109", content.encode())
    todos.complete(root, "T-300", today=TODAY)
    assert path.read_bytes().decode() == content.replace("* [ ] T-300", "* [x] T-300")
    todos.add(root, "New", today=TODAY)
    kept = [line for line in path.read_bytes().decode().split(end) if "T-301" not in line]
    assert kept == content.replace("* [ ] T-300", "* [x] T-300").split(end)
    assert f"* [x] T-300   Odd  blanks \t{end}- [ ] T-301 New{end}" in path.read_bytes().decode()


@pytest.mark.parametrize("content", [b"", b"\n", b"# Plan", b"# Plan\n", b"text\n\n\n"])
def test_a_list_without_to_dos_gets_its_first_at_its_end(journal: JournalFolder, content: bytes) -> None:
    path = _write(journal.path, "20261109", content)
    todos.add(journal.path, "First", today=TODAY)
    written = path.read_bytes()
    assert written.startswith(content)
    assert written.rstrip(b"\n").endswith(b"- [ ] T-1 First")
    assert [todo.id for todo in todos.read_day(journal.path, "20261109")] == ["T-1"]


def test_a_list_of_a_later_day_is_the_one_that_is_changed(root: Path) -> None:
    assert todos.add(root, "Now", today=date(2026, 11, 4)).day == "20261106"


def test_a_list_that_is_no_utf_8_is_left_alone(root: Path) -> None:
    path = _write(root, "20261109", b"- [ ] T-300 caf\xe9\n")
    with pytest.raises(TodoError, match=r"20261109/todos\.md cannot be read"):
        todos.add(root, "New", today=TODAY)
    assert path.read_bytes() == b"- [ ] T-300 caf\xe9\n"
    assert todos.read_day(root, "20261109")[0].text == "caf\ufffd"


def test_a_failed_write_changes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(root, "20261109", b"- [ ] T-300 Mine\n")

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("muse.journal.storage.atomic_files.write_atomic", full)
    with pytest.raises(TodoError, match="No space left on device"):
        todos.complete(root, "T-300", today=TODAY)
    assert path.read_bytes() == b"- [ ] T-300 Mine\n"


_ADD = """
import sys
from datetime import date
from pathlib import Path
from apps.todos import todos
name, root = sys.argv[1], Path(sys.argv[2])
for number in range(12):
    added = todos.add(root, f"{name} {number}", today=date(2026, 11, 9))
    if number % 3 == 0:
        todos.complete(root, added.id, today=date(2026, 11, 9))
"""


def test_processes_that_write_at_once_lose_nothing(root: Path) -> None:
    children = [
        subprocess.Popen([sys.executable, "-c", _ADD, name, str(root)], env=environment(), stderr=subprocess.PIPE)
        for name in ("one", "two", "three")
    ]
    assert [child.communicate(timeout=60)[1] for child in children] == [b""] * 3
    added = [todo for todo in todos.read_day(root, "20261109") if todo.number > 123]
    assert sorted(todo.text for todo in added) == sorted(f"{n} {i}" for n in ("one", "two", "three") for i in range(12))
    assert len({todo.id for todo in added}) == 36
    assert sum(todo.done for todo in added) == 12


# --- the tools


def test_the_tools_give_rows_and_name_their_pack(root: Path) -> None:
    added = add_todo("Water the fern", due="2026-12-01", tags=["home"])
    assert added == {
        **added,
        "id": "T-124",
        "text": "Water the fern",
        "due": "2026-12-01",
        "tags": ["home"],
        "done": False,
    }
    completed = complete_todo("T-124")
    assert completed == {"todo": {**added, "done": True}, "changed": True}
    assert not complete_todo("T-124")["changed"]
    assert tools.PACK == "todo"
    assert {tool.name: tool.read_only for tool in tools.TOOLS} == {
        "list_todos": True,
        "add_todo": False,
        "complete_todo": False,
    }


def test_wrong_arguments_are_told_what_would_be_right(root: Path) -> None:
    for call, said in (
        (lambda: add_todo(" \n"), "text: found .* expected what is to be done"),
        (lambda: add_todo("x" * 501), "found 501 characters, expected 500 at most"),
        (lambda: add_todo("x", due="tomorrow"), "due: found 'tomorrow', expected a date as YYYY-MM-DD"),
        (lambda: add_todo("x", due="2026-02-30"), "due: found '2026-02-30'"),
        (lambda: add_todo("x", tags=["two words"]), "tags: found 'two words'"),
        (lambda: complete_todo("T-999"), "todo_id: found 'T-999', .* open are T-106, .*T-123"),
        (lambda: list_todos(day="20261107"), "lists are there for 20261106, 20261105"),
        (lambda: list_todos(limit=101), "expected 1 to 100"),
    ):
        with pytest.raises(ToolError, match=said):
            call()


def test_a_text_cannot_smuggle_in_a_second_line(root: Path) -> None:
    add_todo("Ring\n- [x] T-123 Go\r\n\u2028# Title")
    assert not next(todo for todo in todos.read_all(root) if todo.id == "T-123").done
    assert list_todos("all", limit=100)["todos"][-1]["id"] == "T-124"
