"""What is done with a run's result: it is saved, and handed on to the next run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from muse.runs import client, run_files
from muse.runs.client import get_agent_end_state, read_agent_events
from tests.cortex_process import ask, drain, last, names
from tests.journal_folder import ROOT, JournalFolder


@pytest.fixture(autouse=True)
def _echo(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSE_PROVIDER", "echo")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def _personas(journal: JournalFolder, **personas: dict[str, Any]) -> None:
    folder = journal.path / "personas"
    folder.mkdir()
    for name, fields in personas.items():
        (folder / f"{name}.json").write_text(json.dumps(fields), encoding="utf-8")
        (folder / f"{name}.txt").write_text("Answer.", encoding="utf-8")
    journal.write({"descriptors": {"agents": [str(folder)]}})


def test_a_result_is_saved_in_the_folder_of_its_day(journal: JournalFolder) -> None:
    agent_id = client.cortex_request(
        "Quiet day.", "default", config={"disable_mcp": True, "day": "20261103"}, save="insights/review.md"
    )
    drain()
    assert (journal.path / "20261103" / "insights" / "review.md").read_text() == "Quiet day.\n"
    assert names(agent_id) == ["request", "start", "info", "finish"]


def test_a_result_that_cannot_be_saved_is_said_and_the_run_finishes(journal: JournalFolder) -> None:
    (journal.path / "20261103").mkdir()
    (journal.path / "20261103" / "insights").write_text("a file in the way")
    agent_id = ask(day="20261103", save="insights/review.md")
    drain()
    assert names(agent_id) == ["request", "start", "info", "finish"]
    assert "not saved" in read_agent_events(agent_id)[2]["message"]


def test_a_run_is_handed_on_with_provider_and_model_and_its_result() -> None:
    handoff = {"persona": "librarian", "prompt": "Check: $result", "disable_mcp": True}
    agent_id = ask("Low water at six.", provider="echo", model="echo-1", handoff=handoff, day="20261103")
    drain()
    following = client.handoff_child(agent_id)
    assert following is not None
    request = read_agent_events(following)[0]
    assert (request["provider"], request["model"], request["day"]) == ("echo", "echo-1", "20261103")
    assert last(following)["result"] == "Check: Low water at six."
    assert client.get_agent_thread(following) == [agent_id, following]


def test_a_persona_names_who_goes_on(journal: JournalFolder) -> None:
    _personas(journal, writer={"handoff": "editor"}, editor={})
    agent_id = ask(persona="writer", tools=[])
    (waiting, active) = (run_files.ids_in("pending"), run_files.ids_in("active"))
    assert (waiting, active) == ([agent_id], [])
    drain()
    following = client.handoff_child(agent_id)
    assert following is not None
    assert read_agent_events(following)[0]["persona"] == "editor"


def test_a_circle_of_handoffs_is_refused(journal: JournalFolder) -> None:
    quiet = {"tools": []}
    _personas(journal, writer={"handoff": "editor", **quiet}, editor={"handoff": {"persona": "writer"}, **quiet})
    first = ask(persona="writer")
    drain()
    chain = client.get_agent_thread(first)
    assert [get_agent_end_state(agent_id) for agent_id in chain] == ["finish", "finish", "error"]
    assert "writer -> editor -> writer" in last(chain[2])["error"]


def test_nothing_is_handed_on_after_an_error() -> None:
    agent_id = ask(persona="nobody", handoff="default")
    drain()
    assert run_files.newest_ids() == [agent_id]


def test_a_persona_without_text_or_with_bad_json_is_one_error(journal: JournalFolder) -> None:
    _personas(journal, mute={}, broken={})
    (journal.path / "personas" / "mute.txt").unlink()
    (journal.path / "personas" / "broken.json").write_text('{"title": ', encoding="utf-8")
    for persona, words in (("mute", "has no text"), ("broken", "not found")):
        agent_id = ask(persona=persona)
        drain()
        assert names(agent_id) == ["request", "error"]
        assert persona in last(agent_id)["error"]
        assert words in last(agent_id)["error"]
