"""The agents app: runs asked for on a page are carried out, followed, ended, continued; real processes carry them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from apps.agents import queries
from muse import cortex_client
from muse.journal.personas import get_agents
from muse.journal.storage.atomic_files import write_atomic
from muse.runs import control, follow, run_files
from muse.runs.client import request_of
from muse.runs.follow import NumberedEvent
from muse.runs.index import INDEX
from tests.cortex_process import Hanging, ask, cortex, drain, kill, processes_of, wait_until
from tests.journal_folder import ROOT, JournalFolder
from tests.pages import client

SCRIPT = "<script>alert('x')</script>"


@pytest.fixture(autouse=True)
def _echo(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MUSE_PROVIDER", "echo")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield
    INDEX.close()


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    server = Hanging()
    yield server
    server.close()


@pytest.fixture
def site(journal: JournalFolder) -> Iterator[TestClient]:
    """The site, carrying out what is asked for."""
    with client(journal, follow_redirects=False) as found:
        yield found


def _is_over(agent_id: str) -> bool:
    return cortex_client.get_agent_status(agent_id) == "completed"


def _start(site: TestClient, prompt: str, **fields: str) -> str:
    answer = site.post("/app/agents/start", data={"persona": "chat:title", **fields, "prompt": prompt})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"].rpartition("/")[2]


def _put_over(number: int, *events: Mapping[str, Any], **request: Any) -> str:
    """The log of a run that is over."""
    agent_id = str(1_700_000_000_000 + number)
    run_files.folder().mkdir(parents=True, exist_ok=True)
    first = {"event": "request", "ts": int(agent_id), "prompt": f"Question {number}", "persona": "default", **request}
    lines = [first, *({"ts": int(agent_id) + 1000, "agent_id": agent_id, **event} for event in events)]
    write_atomic(run_files.path_of(agent_id, "over"), "".join(json.dumps(line) + "\n" for line in lines))
    return agent_id


def _events_of(text: str) -> list[tuple[str, dict[str, Any], str]]:
    """Server-sent events as `(name, data, id)`."""
    found = []
    for part in text.replace("\r\n", "\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in part.splitlines() if ": " in line and not line.startswith(":"))
        if "data" in fields:
            found.append((fields.get("event", ""), json.loads(fields["data"]), fields.get("id", "")))
    return found


# Starting, following, reading


def test_a_run_started_on_the_page_is_carried_out_by_the_site(site: TestClient) -> None:
    agent_id = _start(site, "Low water?")
    wait_until(lambda: _is_over(agent_id))
    page = site.get(f"/app/agents/run/{agent_id}").text
    assert "Low water?" in page
    assert "completed" in page
    assert "run-answer" in page


def test_the_events_of_a_run_come_until_its_end_and_go_on_after_the_line_last_seen(site: TestClient) -> None:
    agent_id = _start(site, "Low water?")
    found = _events_of(site.get(f"/app/agents/api/runs/{agent_id}/events").text)
    assert [name for name, _, _ in found][-2:] == ["block", "end"]
    assert found[-1][1] == {"state": "completed", "reason": ""}
    assert "Low water?" in found[-2][1]["html"]
    number = next(number for _, _, number in found if number)
    rest = _events_of(site.get(f"/app/agents/api/runs/{agent_id}/events", headers={"Last-Event-ID": found[-2][2]}).text)
    assert [name for name, _, _ in rest] == ["end"]
    assert int(number) <= int(found[-2][2]) == len(cortex_client.read_agent_events(agent_id))


def test_a_run_that_does_not_exist_is_a_404_everywhere(site: TestClient) -> None:
    for path in ("run/1700000000000", "api/runs/1700000000000/events", "run/1700000000000/ledger", "run/x"):
        assert site.get(f"/app/agents/{path}").status_code == 404, path


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"persona": "nobody", "prompt": "x"}, "persona: found"),
        ({"persona": "default", "prompt": "  "}, "prompt: found"),
        ({"persona": "default", "prompt": "x", "provider": "nobody"}, "provider: found"),
        ({"persona": "default", "prompt": "x", "tier": "9"}, "tier: found"),
    ],
)
def test_a_bad_start_says_what_is_wrong_and_asks_for_nothing(
    site: TestClient, fields: dict[str, str], words: str
) -> None:
    answer = site.post("/app/agents/start", data=fields)
    assert answer.status_code == 400
    assert words in answer.text
    assert run_files.newest_ids() == []


def test_a_persona_with_a_schedule_and_no_words_does_its_scheduled_work_for_today(site: TestClient) -> None:
    assert get_agents()["todo_keeper"].get("prompt") is None
    agent_id = _start(site, "", persona="todo_keeper")
    wait_until(lambda: _is_over(agent_id))
    assert f"Do your work for {time.strftime('%A, %Y-%m-%d')}" in site.get(f"/app/agents/run/{agent_id}").text


def test_a_run_is_continued_with_a_new_prompt_and_the_pages_lead_to_each_other(site: TestClient) -> None:
    first = _start(site, "Low water?")
    wait_until(lambda: _is_over(first))
    answer = site.post(f"/app/agents/run/{first}/continue", data={"prompt": "And tomorrow?"})
    second = answer.headers["location"].rpartition("/")[2]
    wait_until(lambda: _is_over(second))
    assert f'href="/app/agents/run/{first}"' in site.get(f"/app/agents/run/{second}").text
    assert f'href="/app/agents/run/{second}"' in site.get(f"/app/agents/run/{first}").text
    assert run_files.summarize(second).persona == "chat:title"  # type: ignore[union-attr]


def test_the_lines_of_the_token_log_of_a_run_are_its_own(site: TestClient, journal: JournalFolder) -> None:
    first, second = _start(site, "One"), _start(site, "Two")
    wait_until(lambda: _is_over(first) and _is_over(second))
    assert sorted(line["agent_id"] for line in journal.lines()) == sorted([first, second])
    page = site.get(f"/app/agents/run/{first}/ledger").text
    assert page.count("agent.chat.title") == 1


def test_a_persona_with_a_prompt_of_its_own_needs_none(site: TestClient) -> None:
    agent_id = _start(site, "", persona="weekly_digest")
    assert time.strftime("%Y%m%d") in str(request_of(agent_id)["prompt"])
    control.cancel(agent_id)


def test_the_list_of_live_runs_is_sent_again_only_when_it_has_changed(site: TestClient, hanging: Hanging) -> None:
    before = _seen_in(site.get("/app/agents/").text)
    assert site.get(f"/app/agents/live?seen={before}").status_code == 204
    hanging.ask()
    hanging.wait_for_run()
    answer = site.get(f"/app/agents/live?seen={before}")
    assert answer.status_code == 200
    assert _seen_in(answer.text) != before


def _seen_in(page: str) -> str:
    return page.partition("/app/agents/live?seen=")[2].partition('"')[0]


# Ending and answering


def test_a_run_under_way_is_cancelled_from_the_page(site: TestClient, hanging: Hanging) -> None:
    agent_id = hanging.ask()
    hanging.wait_for_run()
    assert "running" in site.get("/app/agents/live").text
    assert site.post(f"/app/agents/runs/{agent_id}/cancel").status_code == 303
    wait_until(lambda: _is_over(agent_id))
    assert cortex_client.read_agent_events(agent_id)[-1]["reason"] == "cancelled"
    assert list(run_files.folder().glob("*.told")) == []


def test_a_run_cancelled_before_its_process_listens_says_so(site: TestClient, hanging: Hanging) -> None:
    agent_id = hanging.ask()
    wait_until(lambda: run_files.path_of(agent_id, "active").is_file())
    assert site.post(f"/app/agents/runs/{agent_id}/cancel").status_code == 303
    wait_until(lambda: _is_over(agent_id))
    assert cortex_client.read_agent_events(agent_id)[-1]["reason"] == "cancelled"


def test_a_run_in_another_cortex_is_cancelled_too(journal: JournalFolder, hanging: Hanging) -> None:
    with cortex():
        agent_id = hanging.ask()
        hanging.wait_for_run()
        control.cancel(agent_id)
        wait_until(lambda: _is_over(agent_id))
    assert cortex_client.read_agent_events(agent_id)[-1]["reason"] == "cancelled"


def test_a_run_that_waits_is_cancelled_without_any_cortex(journal: JournalFolder) -> None:
    agent_id = ask("Never")
    control.cancel(agent_id)
    assert cortex_client.get_agent_end_state(agent_id) == "error"
    drain()
    assert [event["event"] for event in cortex_client.read_agent_events(agent_id)] == ["request", "error"]


def test_a_broken_run_is_resumed_once_as_a_new_one_and_a_finished_one_is_not(site: TestClient) -> None:
    start = {"event": "start", "prompt": "Question 1", "persona": "chat:title"}
    broken = _put_over(1, start, {"event": "error", "error": "boom"}, persona="chat:title")
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: site.post(f"/app/agents/run/{broken}/resume"), range(4)))
    (resumed,) = {answer.headers["location"].rpartition("/")[2] for answer in answers}
    wait_until(lambda: _is_over(resumed))
    events = cortex_client.read_agent_events(resumed)
    assert (events[1]["resume_from"], events[-1]["event"]) == (broken, "finish")
    assert f'href="/app/agents/run/{resumed}"' in site.get(f"/app/agents/run/{broken}").text
    assert site.post(f"/app/agents/run/{resumed}/resume").status_code == 409


def test_a_killed_run_says_so_on_its_page(site: TestClient, hanging: Hanging) -> None:
    agent_id = hanging.ask()
    hanging.wait_for_run()
    for pid in (pid for pid in processes_of(run_files.folder().parent) if _is_run(pid)):
        kill(pid)
    wait_until(lambda: _is_over(agent_id))
    found = _events_of(site.get(f"/app/agents/api/runs/{agent_id}/events").text)
    assert found[-1][1] == {"state": "failed", "reason": ""}
    assert "exit status -9" in site.get(f"/app/agents/run/{agent_id}").text


def _is_run(pid: int) -> bool:
    return b"muse.agents" in Path(f"/proc/{pid}/cmdline").read_bytes()


async def test_a_run_whose_process_is_gone_ends_its_stream_with_that(
    journal: JournalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "_LOOK_AFTER_S", 0.0)
    recorder = run_files.EventWriter.begin()
    recorder.write({"event": "start", "prompt": "x"})
    recorder.release()
    pieces = [piece async for piece in follow.follow(recorder.agent_id)]
    assert [line.event["event"] for piece in pieces for line in piece.lines] == ["start"]
    assert pieces[-1].reason == "cut off"


async def test_half_a_line_is_not_read_before_it_is_whole(journal: JournalFolder) -> None:
    recorder = run_files.EventWriter.begin()
    path = run_files.path_of(recorder.agent_id, "active")
    recorder.write({"event": "start", "prompt": "x"})
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"event": "fin')
    first = follow.read_from(recorder.agent_id)
    assert (first.number, first.state) == (1, "running")
    path.write_bytes(whole + b'{"event": "finish", "result": "y"}\n')
    recorder.end()
    assert follow.read_from(recorder.agent_id, first).lines == (NumberedEvent(2, {"event": "finish", "result": "y"}),)


def test_runs_go_on_after_their_folder_was_deleted(site: TestClient) -> None:
    agent_id = _start(site, "First")
    wait_until(lambda: _is_over(agent_id))
    shutil.rmtree(run_files.folder())
    assert "No runs yet" in site.get("/app/agents/").text
    agent_id = _start(site, "Second")
    wait_until(lambda: _is_over(agent_id))
    assert cortex_client.get_agent_end_state(agent_id) == "finish"


# Lists


def test_runs_are_paged_newest_first_and_filtered(site: TestClient) -> None:
    for number in range(60):
        end = {"event": "finish", "result": "y"} if number % 3 else {"event": "error", "error": "n"}
        _put_over(number, end, persona="default" if number % 2 else "librarian")
    first, last = site.get("/app/agents/").text, site.get("/app/agents/?page=3").text
    assert "Question 59" in first
    assert "Question 34" not in first
    assert "Question 0<" in last
    assert "page 3 of 3, 60 runs" in last
    filtered = site.get("/app/agents/?persona=librarian&state=failed").text
    assert "page 1 of 1, 10 runs" in filtered
    assert site.get("/app/agents/?state=nonsense").status_code == 400
    assert "page 3 of 3" in site.get("/app/agents/?page=99").text


def test_a_deleted_run_leaves_the_list_and_a_damaged_index_is_made_anew(journal: JournalFolder) -> None:
    kept, gone = _put_over(1, {"event": "finish"}), _put_over(2, {"event": "finish"})
    assert queries.page_of_runs().total == 2
    run_files.path_of(gone, "over").unlink()
    assert [run.agent_id for run in queries.page_of_runs().runs] == [kept]
    INDEX.close()
    (journal.path / "index" / "runs.sqlite").write_bytes(b"no database" * 100)
    assert [run.agent_id for run in queries.page_of_runs().runs] == [kept]


def test_runs_are_listed_where_no_index_can_be_kept(journal: JournalFolder) -> None:
    _put_over(1, {"event": "finish", "result": "y"})
    (journal.path / "index").write_text("a file in place of the folder")
    assert [run.prompt for run in INDEX.page(limit=5).runs] == ["Question 1"]


def test_a_run_that_is_over_is_read_once_however_often_and_by_whom_it_is_listed(
    journal: JournalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    summarize = run_files.summarize
    monkeypatch.setattr(run_files, "summarize", lambda agent_id: read.append(agent_id) or summarize(agent_id))
    for number in range(300):
        _put_over(number, {"event": "finish", "result": "y"})
    for page in (1, 5, 12, 1):
        queries.page_of_runs(number=page, persona="default", state="completed")
    assert len(read) == len(set(read)) == 300
    INDEX.close()  # as another process would find it
    _put_over(300, {"event": "finish", "result": "y"})
    assert queries.page_of_runs(number=1, persona="default", state="completed").total == 301
    assert len(read) == 301


def test_personas_show_route_tools_and_schedule_and_a_broken_one_its_problem(
    site: TestClient, journal: JournalFolder, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "odd.json").write_text(json.dumps({"title": SCRIPT, "schedule": "daily", "tools": ["todo"]}))
    journal.write({"descriptors": {"agents": [str(folder)]}})
    page = site.get("/app/agents/").text
    assert SCRIPT not in page
    assert "&lt;script&gt;" in page
    assert "has no text" in page
    assert "weekly" in page


# Text of others


def test_what_models_and_tools_say_is_shown_as_text(site: TestClient) -> None:
    hostile = f"{SCRIPT}[x](javascript:alert(1))<img src=x onerror=alert(1)>"
    agent_id = _put_over(
        7,
        {"event": "start", "prompt": hostile, "provider": hostile, "model": hostile},
        {"event": "thinking", "summary": hostile},
        {"event": "tool_start", "tool": hostile, "args": {hostile: hostile}, "call_id": hostile},
        {"event": "approval", "tool": hostile, "args": {}, "call_id": hostile, "preview": hostile},
        {"event": "tool_end", "tool": hostile, "call_id": hostile, "result": hostile},
        {"event": "fallback", "provider": hostile, "model": hostile, "error": hostile},
        {"event": "info", "message": hostile},
        {"event": "finish", "result": hostile},
        prompt=hostile,
        persona=hostile,
    )
    pages = [site.get(path).text for path in (f"/app/agents/run/{agent_id}", "/app/agents/")]
    streamed = _events_of(site.get(f"/app/agents/api/runs/{agent_id}/events").text)
    for html in (*pages, *(data.get("html", "") for _, data, _ in streamed)):
        assert "<script>alert" not in html
        assert "<img src=x" not in html
        assert 'href="javascript' not in html


DEEP = b"[" * 900 + b"]" * 900
HOSTILE_LINES = {
    "too deep to read": b"[" * 100_000,
    "too deep to write": b'{"event": "tool_end", "call_id": "a", "result": ' + DEEP + b"}",
    "too deep as text": b'{"event": "tool_end", "call_id": "a", "result": "' + DEEP + b'"}',
    "half a surrogate": b'{"event": "start", "prompt": "Question 1 \\ud800", "persona": "\\udfff"}',
    "no time": b'{"event": "thinking", "summary": "x", "ts": 1' + b"0" * 40 + b"}",
    "no counts": b'{"event": "finish", "result": "x", "usage": {"requests": "many", "total_tokens": 1e999}}',
    "no usage": b'{"event": "finish", "result": {"a": 1}, "usage": ["x"]}',
    "other kinds": b'{"event": ["finish"], "images": 5, "args": 7, "handoff_from": {"a": 1}}',
    "ten megabytes": b'{"event": "tool_end", "call_id": "a", "result": "' + b"x" * 10_000_000 + b'"}',
    "torn": b'{"event": "finish", "resu',
}


@pytest.mark.parametrize("name", HOSTILE_LINES)
def test_a_hostile_line_in_one_run_leaves_its_page_and_all_lists_readable(site: TestClient, name: str) -> None:
    agent_id, path = run_files.new_file("active")
    first = b'{"event": "request", "prompt": "Question 1"}\n{"event": "tool_start", "tool": "look", "call_id": "a"}\n'
    path.write_bytes(first + HOSTILE_LINES[name] + b"\n")
    path.rename(run_files.path_of(agent_id, "over"))
    assert "Question 1" in site.get("/app/agents/").text
    for address in (f"run/{agent_id}", f"run/{agent_id}/ledger", f"api/runs/{agent_id}/events"):
        answer = site.get(f"/app/agents/{address}")
        assert answer.status_code == 200
        assert len(answer.content) < 200_000
    assert "look" in site.get(f"/app/agents/run/{agent_id}").text
