"""The to-dos app: the same list as the agents' tools, changed by plain forms, safe beside others."""

from __future__ import annotations

import json
import threading
from datetime import date

import pytest
from starlette.testclient import TestClient

from apps.todos import routes, todos, tools
from apps.todos.todos import ChangedError, Changes, Todo, TodoError
from tests.journal_folder import JournalFolder, run
from tests.pages import client

TODAY = date(2026, 11, 6)
SCRIPT = "<script>alert('x')</script>"
LIST = """# To-dos, mine

Some words between.

* [ ] T-1 Ring Nuala (due 2026-11-06) #phone
- [x] T-2 Draft the notes
\t+ [X] T-3 Pay (due 2026-11-01)\r
"""


@pytest.fixture
def site(journal: JournalFolder) -> TestClient:
    return client(journal, follow_redirects=False)


def _put_list(journal: JournalFolder, text: str = LIST, day: str = "20261106") -> None:
    folder = journal.path / day
    folder.mkdir(exist_ok=True)
    (folder / "todos.md").write_bytes(text.encode())


def _lines(journal: JournalFolder, day: str = "20261106") -> list[str]:
    return (journal.path / day / "todos.md").read_bytes().decode().split("\n")


def _seen(todo_id: str, journal: JournalFolder) -> str:
    return todos.write_line(next(todo for todo in todos.read_all(journal.path) if todo.id == todo_id))


# The list


def test_a_changed_to_do_keeps_its_line_and_all_others(journal: JournalFolder) -> None:
    _put_list(journal)
    changed, is_new = todos.change(
        journal.path, "t-1", Changes(text="Write to Nuala", due="", tags=["mail"]), today=TODAY
    )
    assert (changed.text, changed.due, changed.tags, is_new) == ("Write to Nuala", "", ("mail",), True)
    before, after = LIST.split("\n"), _lines(journal)
    assert after[4] == "* [ ] T-1 Write to Nuala #mail"
    assert [line for number, line in enumerate(after) if number != 4] == [
        line for number, line in enumerate(before) if number != 4
    ]


def test_a_to_do_is_opened_again_and_its_other_marks_stay(journal: JournalFolder) -> None:
    _put_list(journal)
    todo, is_new = todos.change(journal.path, "T-3", Changes(done=False), today=TODAY)
    assert (todo.done, todo.due, is_new) == (False, "2026-11-01", True)
    assert _lines(journal)[6] == "\t+ [ ] T-3 Pay (due 2026-11-01)\r"
    assert todos.change(journal.path, "T-3", Changes(done=False), today=TODAY) == (todo, False)


def test_a_change_on_a_later_day_goes_on_that_day_s_list(journal: JournalFolder) -> None:
    _put_list(journal)
    todos.change(journal.path, "T-2", Changes(done=False), today=date(2026, 11, 9))
    assert _lines(journal) == LIST.split("\n")
    assert {todo.id for todo in todos.read_day(journal.path, "20261109")} == {"T-1", "T-2"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [(Changes(text=" "), "text: found"), (Changes(due="soon"), "due: found"), (Changes(tags=["a b"]), "tags: found")],
)
def test_a_bad_change_is_refused_and_the_list_stays(journal: JournalFolder, changes: Changes, words: str) -> None:
    _put_list(journal)
    with pytest.raises(TodoError, match=words):
        todos.change(journal.path, "T-1", changes, today=TODAY)
    assert _lines(journal) == LIST.split("\n")


def test_a_change_to_what_was_changed_meanwhile_is_refused(journal: JournalFolder) -> None:
    _put_list(journal)
    seen = todos.read_all(journal.path)[0]
    todos.complete(journal.path, "T-1", today=TODAY)
    with pytest.raises(ChangedError, match="it is now: "):
        todos.change(journal.path, "T-1", Changes(text="Mine"), seen=seen, today=TODAY)


def test_a_to_do_in_an_odd_form_can_still_be_edited(journal: JournalFolder) -> None:
    day = journal.path / "20261103"
    day.mkdir()
    (day / todos.FILE).write_text("# To-dos\n\n- [ ] T-1 Call #tea #tea \u2028\n", encoding="utf-8")
    shown = todos.read_all(journal.path)[0]
    seen = todos.parse_line(todos.write_line(shown), "")
    after, _ = todos.change(journal.path, "T-1", Changes(text="Ring"), seen=seen, today=date(2026, 11, 3))
    assert after.text == "Ring"


def test_pages_and_agents_change_the_list_at_once_and_nothing_is_lost(journal: JournalFolder, site: TestClient) -> None:
    code = "from apps.todos import tools\nfor n in range(20): tools.add_todo(f'By an agent {n}')"
    agent = threading.Thread(target=run, args=(code,), kwargs={"JOURNAL_PATH": str(journal.path)})
    agent.start()
    for number in range(20):
        assert site.post("/app/todos/add", data={"text": f"By hand {number}"}).status_code == 303
    agent.join()
    texts = {todo.text for todo in todos.read_all(journal.path)}
    assert texts == {f"{who} {number}" for who in ("By an agent", "By hand") for number in range(20)}


# The page


def test_a_to_do_added_on_the_page_is_seen_by_the_agents_tool(site: TestClient) -> None:
    answer = site.post("/app/todos/add", data={"text": "Ring Nuala", "due": "2026-11-10", "tags": "phone, release"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/app/todos/#T-1")
    row = tools.list_todos()["todos"][0]
    assert (row["text"], row["due"], row["tags"]) == ("Ring Nuala", "2026-11-10", ["phone", "release"])
    assert "Ring Nuala" in site.get("/app/todos/").text


def test_a_to_do_is_completed_opened_and_edited_by_forms(site: TestClient, journal: JournalFolder) -> None:
    _put_list(journal)
    answer = site.post("/app/todos/todo/T-1/settle", data={"done": "yes", "back": "/app/todos/?state=all"})
    assert answer.headers["location"] == "/app/todos/?state=all#T-1"
    assert "T-1" not in [row["id"] for row in tools.list_todos()["todos"]]
    site.post("/app/todos/todo/T-1/settle", data={"done": "no"})
    fields = {"text": "Ring again", "due": "", "tags": "", "seen": _seen("T-1", journal)}
    assert site.post("/app/todos/todo/T-1/edit", data=fields).status_code == 303
    conflict = site.post("/app/todos/todo/T-1/edit", data={**fields, "text": "Too late"})
    assert conflict.status_code == 409
    assert "Ring again" in conflict.text
    assert [row["text"] for row in tools.list_todos()["todos"]] == ["Ring again"]


def test_a_to_do_that_was_reworded_is_not_ticked_by_who_saw_the_old_words(
    site: TestClient, journal: JournalFolder
) -> None:
    _put_list(journal)
    seen = _seen("T-1", journal)
    site.post("/app/todos/todo/T-1/settle", data={"done": "yes", "seen": seen})
    assert site.post("/app/todos/todo/T-1/settle", data={"done": "yes", "seen": seen}).status_code == 303
    site.post("/app/todos/todo/T-1/edit", data={"text": "Ring the harbour", "seen": _seen("T-1", journal)})
    assert site.post("/app/todos/todo/T-1/settle", data={"done": "no", "seen": seen}).status_code == 409


def test_the_page_filters_by_state_tag_words_and_day(site: TestClient, journal: JournalFolder) -> None:
    _put_list(journal)
    _put_list(journal, "- [ ] T-9 Old\n", "20261101")
    shown = {
        "": {"T-1", "T-9"},
        "?state=done": {"T-2", "T-3"},
        "?state=all": {"T-1", "T-2", "T-3", "T-9"},
        "?tag=phone": {"T-1"},
        "?words=NUALA": {"T-1"},
        "?day=20261101": {"T-9"},
        "?day=20261102": set(),
    }
    for query, ids in shown.items():
        page = site.get(f"/app/todos/{query}").text
        assert {todo_id for todo_id in ("T-1", "T-2", "T-3", "T-9") if f'id="{todo_id}"' in page} == ids, query
    assert site.get("/app/todos/?day=yesterday").status_code == 400
    assert site.get("/app/todos/?state=maybe").status_code == 400


def test_to_dos_stand_by_when_they_are_due() -> None:
    dues = {"T-1": "", "T-2": "2026-11-05", "T-3": "2026-11-06", "T-4": "2026-11-13", "T-5": "2026-11-14"}
    listed = [Todo(todo_id, "x", done=False, day="20261106", due=due) for todo_id, due in dues.items()]
    listed.append(Todo("T-6", "x", done=True, day="20261106", due="2026-11-05"))
    found = {one.title: [todo.id for todo in one.todos] for one in routes.group(listed, TODAY)}
    assert found == {
        "Overdue": ["T-2"],
        "Today": ["T-3"],
        "Next seven days": ["T-4"],
        "Later": ["T-5"],
        "Without a date": ["T-1"],
        "Done": ["T-6"],
    }


@pytest.mark.parametrize("fields", [{"text": " "}, {"text": "x", "due": "soon"}, {"text": "x", "tags": "a?b"}])
def test_a_bad_form_says_why_and_adds_nothing(site: TestClient, fields: dict[str, str]) -> None:
    answer = site.post("/app/todos/add", data=fields)
    assert answer.status_code == 400
    assert "expected" in answer.text
    assert tools.list_todos()["total"] == 0


def test_an_unknown_to_do_is_refused_and_a_way_back_leads_nowhere_else(
    site: TestClient, journal: JournalFolder
) -> None:
    assert site.post("/app/todos/todo/T-77/settle", data={"done": "yes"}).status_code == 400
    for back in ("https://example.org/", "//example.org", "/app/todos\\@example.org"):
        answer = site.post("/app/todos/add", data={"text": "x", "back": back})
        assert answer.headers["location"].startswith("/app/todos/#T-")


def test_hostile_text_is_shown_as_text(site: TestClient) -> None:
    said = {"text": f'{SCRIPT}\n" onfocus=alert(1)'}
    added = site.post("/app/todos/add", data=said, headers={"Accept": "application/json"})
    assert SCRIPT in json.loads(added.text)["text"]
    page = site.get("/app/todos/").text
    assert SCRIPT not in page
    assert '" onfocus' not in page
