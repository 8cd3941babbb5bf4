"""A misspelt or malformed field of a persona gives its agent no more tools: it is found, said, and refused."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from apps.agents.queries import list_personas
from muse import agents, cli, testing
from muse.agent_loop.run_config import RunConfig
from muse.diagnostics import check
from muse.errors import ConfigError
from muse.journal import persona_fields, personas
from tests.journal_folder import JournalFolder

ALLOWED = ["search_journal"]


def _put(journal: JournalFolder, **fields: Any) -> Path:
    folder = journal.path / "personas"
    folder.mkdir(exist_ok=True)
    path = folder / "writer.json"
    path.write_text(json.dumps(fields), encoding="utf-8")
    path.with_suffix(".txt").write_text("Answer.", encoding="utf-8")
    journal.write({"providers": {"default": {"provider": "echo"}}, "descriptors": {"agents": [str(folder)]}})
    return path


def _offered(**request: Any) -> list[str] | None:
    """The tools that the model of a run was offered; None if the run was refused."""
    events: list[dict[str, Any]] = []
    with testing.script("Done.") as script:
        asyncio.run(
            agents.run({"prompt": "Hi", "persona": "writer", **request}, events.append, hosted=agents.builtin_tools)
        )
        if not script.requests:
            script.steps.clear()
            return None
        return [tool.name for tool in script.requests[0].tools]


MISSPELT = (
    "tols",
    "tool",
    "Tools",
    "TOOLS",
    "tools_",
    "toolss",
    "allowed_tools",
    "approv",
    "provider",
    "model",
    "notes",
)


@pytest.mark.parametrize("name", MISSPELT)
def test_an_unknown_field_is_found_and_its_persona_does_not_run(journal: JournalFolder, name: str) -> None:
    path = _put(journal, title="Writer", **{name: ALLOWED})
    assert _offered() is None
    with pytest.raises(ConfigError) as caught:
        agents.resolve_run({"prompt": "Hi", "persona": "writer"})
    assert caught.value.path == f"{path}: {name}"
    found = [finding for finding in check.examine().findings if finding.where.endswith(f"writer.json: {name}")]
    assert [finding.kind for finding in found] == ["descriptor"]
    row = next(row for row in list_personas() if row.name == "writer")
    assert name in row.problem
    assert cli.main(["agent", "writer", "Hi"]) == 1
    assert "writer" in personas.get_agents(), "it is still listed"


def test_what_was_meant_is_said(journal: JournalFolder) -> None:
    path = _put(journal, tols=ALLOWED, provider="google", max_turn=3)
    assert {problem.path.rpartition(" ")[2]: problem.allowed for problem in personas.problems_of("writer")} == {
        "tols": "'tools'?",
        "provider": "none: who serves its runs stands in journal.json, under providers.contexts (muse agents has its"
        " context)",
        "max_turn": "'max_turns'?",
    }
    assert path.is_file()


@pytest.mark.parametrize(
    "value", [5, True, {"search_journal": True}, [5], ["search_journal", None], [[]], "", "  ", 1.5]
)
def test_a_malformed_list_of_tools_means_none(
    journal: JournalFolder, value: object, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    _put(journal, title="Writer", tools=value)
    assert _offered() == []
    assert "the run has no tools" in caplog.text
    assert any(finding.where.endswith("writer.json: tools") for finding in check.examine().findings)
    assert cli.main(["agents", "--json"]) == 0
    row = next(row for row in json.loads(capsys.readouterr().out) if row["persona"] == "writer")
    assert row["tools"] == "none"
    assert _offered(tools=ALLOWED) == ALLOWED, "the request's own list goes before it"


@pytest.mark.parametrize("value", [ALLOWED, "search_journal", "search_journal, list_days", None, []])
def test_a_good_list_is_what_is_offered(journal: JournalFolder, value: Any) -> None:
    _put(journal, title="Writer", tools=value)
    offered = _offered()
    assert offered is not None
    if value is None:
        assert {"search_journal", "add_todo"} <= set(offered)
    else:
        assert set(offered) == ({*value.split(", ")} if isinstance(value, str) else set(value))
    assert personas.problems_of("writer") == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [("approve", 5), ("approve", [7]), ("make", {}), ("max_turns", "many"), ("disable_mcp", "yes"), ("handoff", 3)],
)
def test_another_malformed_field_is_an_error(journal: JournalFolder, name: str, value: object) -> None:
    _put(journal, title="Writer", **{name: value})
    assert _offered() is None


@pytest.mark.parametrize("name", ["tols", "Tools", "aprove", "disable_mpc"])
def test_a_misspelt_bound_in_a_request_is_an_error(journal: JournalFolder, name: str) -> None:
    _put(journal, title="Writer")
    assert _offered(**{name: []}) is None
    assert _offered(tide="high") is not None, "other entries are anybody's own"


def test_an_authors_own_fields_and_all_known_ones_are_no_problem(journal: JournalFolder) -> None:
    own = {"$schema": "x", "_comment": 1, "x-color": "red"}
    _put(journal, title="Writer", tools=ALLOWED, max_turns=3, timeout_s=9.5, tier=2, handoff={"persona": "x"}, **own)
    assert personas.problems_of("writer") == ()
    assert _offered() == ALLOWED


def test_the_shipped_personas_have_no_problem() -> None:
    assert personas.problems_of() == ()


def test_every_entry_of_a_run_that_a_persona_may_say_is_a_known_field() -> None:
    of_requests = {
        *("prompt", "model", "mcp_server_url", "approver", "agent_id", "persona", "continue_from", "resume_from"),
        *("context", "sees", "instruction"),
    }
    assert set(RunConfig.__struct_fields__) - of_requests <= set(persona_fields.FIELDS)


def test_a_name_that_is_no_tool_is_found(journal: JournalFolder) -> None:
    _put(journal, title="Writer", tools=["serch_journal", "todo", "list_*"])
    found = [finding for finding in check.examine().findings if "'serch_journal'" in finding.found]
    assert [finding.expected for finding in found] == ["'search_journal'?"]
