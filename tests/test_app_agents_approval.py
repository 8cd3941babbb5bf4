"""Approvals on the page of a run: a call is allowed or refused once, by whoever watches; real processes ask."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from apps.todos import todos
from muse import cortex_client
from muse.errors import ConfigError
from muse.journal.config_loader import ConflictError
from muse.journal.storage.atomic_files import write_atomic
from muse.runs import control, follow, run_files
from muse.runs.index import INDEX
from tests.agent_process import completion
from tests.cortex_process import drain, wait_until
from tests.desk import Desk
from tests.journal_folder import ROOT, JournalFolder
from tests.pages import client
from tests.provider_cases import CASES

CASE = CASES[-1]


@pytest.fixture
def site(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """The site, carrying out what is asked for."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with client(journal, follow_redirects=False) as found:
        yield found
    INDEX.close()


def _is_over(agent_id: str) -> bool:
    return cortex_client.get_agent_status(agent_id) == "completed"


def _begin(site: TestClient, desk: Desk, journal: JournalFolder, folder: Path, *texts: str) -> str:
    """A run under way that asks before it adds to-dos with these texts, one after the other."""
    desk.use(CASE)
    (folder / "careful.json").write_text(json.dumps({"title": "Careful", "tools": ["todo"], "approve": ["add_*"]}))
    (folder / "careful.txt").write_text("Ask first.")
    journal.write({"providers": CASE.providers(desk.server.url), "descriptors": {"agents": [str(folder)]}})
    desk.play(CASE, *(completion(("add_todo", {"text": text})) for text in texts), "text")
    answer = site.post("/app/agents/start", data={"persona": "careful", "prompt": "Add it"})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"].rpartition("/")[2]


@pytest.mark.parametrize("answer", ["yes", "no"])
def test_a_call_that_needs_approval_is_answered_from_the_page(
    site: TestClient, desk: Desk, journal: JournalFolder, answer: str, tmp_path: Path
) -> None:
    agent_id = _begin(site, desk, journal, tmp_path, "Ring Nuala")
    call_id = asyncio.run(_until_asked(agent_id))
    page = site.get(f"/app/agents/run/{agent_id}").text
    assert "Allow once" in page
    said = site.post(f"/app/agents/runs/{agent_id}/answer", data={"call_id": call_id, "approved": answer})
    assert said.status_code == 303
    wait_until(lambda: _is_over(agent_id))
    events = cortex_client.read_agent_events(agent_id)
    assert [event["approved"] for event in events if event["event"] == "answer"] == [answer == "yes"]
    assert [todo.text for todo in todos.read_all(journal.path)] == (["Ring Nuala"] if answer == "yes" else [])
    assert events[-1]["event"] == "finish"
    assert "Allow once" not in site.get(f"/app/agents/run/{agent_id}").text


async def _until_asked(agent_id: str) -> str:
    """Follow a run until it asks about a call; the call's id."""
    return str((await _approval(agent_id, 1))["call_id"])


async def _approval(agent_id: str, number: int) -> dict[str, Any]:
    """Follow a run until it asks for the `number`th time; that event."""
    asked: list[dict[str, Any]] = []
    async for piece in follow.follow(agent_id):
        asked += [line.event for line in piece.lines if line.event.get("event") == "approval"]
        if len(asked) >= number:
            return asked[number - 1]
    raise AssertionError("it never asked")


def test_an_answer_that_comes_twice_or_late_allows_no_other_call(
    site: TestClient, desk: Desk, journal: JournalFolder, tmp_path: Path
) -> None:
    agent_id = _begin(site, desk, journal, tmp_path, "One", "Two")
    address = f"/app/agents/runs/{agent_id}/answer"
    first = asyncio.run(_approval(agent_id, 1))
    said = {"call_id": first["call_id"], "approved": "yes", "asked": str(first["ts"])}
    assert f'name="asked" value="{first["ts"]}"' in site.get(f"/app/agents/run/{agent_id}").text
    assert site.post(address, data=said).status_code == 303
    second = asyncio.run(_approval(agent_id, 2))
    assert second["call_id"] != first["call_id"]  # the model's ids are made unique within a run
    assert site.post(address, data=said).status_code == 400
    word = run_files.folder() / f"{agent_id}_{time.time_ns()}.told"  # as one that was on its way already
    write_atomic(word, json.dumps({"approval": first["call_id"], "asked": first["ts"], "approved": True}))
    wait_until(lambda: not word.exists())
    said |= {"call_id": second["call_id"], "approved": "no", "asked": str(second["ts"])}
    assert site.post(address, data=said).status_code == 303
    wait_until(lambda: _is_over(agent_id))
    events = cortex_client.read_agent_events(agent_id)
    assert [event["approved"] for event in events if event["event"] == "answer"] == [True, False]
    assert [todo.text for todo in todos.read_all(journal.path)] == ["One"]


def test_an_answer_to_nothing_is_refused(journal: JournalFolder) -> None:
    recorder = run_files.EventWriter.begin()
    with pytest.raises(ConfigError, match="waits for an answer"):
        control.answer_approval(recorder.agent_id, "call-1", approved=True)
    recorder.end()
    with pytest.raises(ConflictError, match="not under way"):
        control.answer_approval(recorder.agent_id, "call-1", approved=True)


def test_a_run_that_nobody_attends_is_refused_at_once(desk: Desk, journal: JournalFolder) -> None:
    desk.use(CASE)
    desk.play(CASE, completion(("add_todo", {"text": "Ring Nuala"})), "text")
    agent_id = cortex_client.cortex_request("Add it", provider=CASE.name, config={"approve": ["add_*"]})
    drain()
    ended = next(event for event in cortex_client.read_agent_events(agent_id) if event["event"] == "tool_end")
    assert "was not approved" in ended["result"]["error"]
    assert todos.read_all(journal.path) == ()


def test_a_run_whose_program_takes_no_words_says_so(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_HEARD_WITHIN_S", 0.05)
    recorder = run_files.EventWriter.begin()
    with pytest.raises(ConflictError, match="takes no words"):
        control.cancel(recorder.agent_id)
    assert list(run_files.folder().glob("*.told")) == []
    recorder.end()
