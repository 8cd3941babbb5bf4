"""Who serves an agent run: the route of its persona's context, unless the request itself names something else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from apps.settings.route_table import Plans
from muse import agents, cli, models
from muse.agent_loop.run_config import RunConfig
from muse.diagnostics import check, whatif
from muse.errors import ConfigError, UnknownProviderError
from muse.journal import personas
from muse.journal.config import parse_config
from muse.journal.config_loader import load as journal_now
from muse.runs import client
from tests.cortex_process import drain
from tests.desk import Desk
from tests.journal_folder import JournalFolder
from tests.provider_cases import WIRES, Case

PERSONAS = tuple(sorted(personas.get_agents()))
QUIET: Mapping[str, Any] = {"prompt": "Moin.", "disable_mcp": True}
OTHER = {"provider": "lobechat", "model": "not-this-one"}


def _context(persona: str) -> str:
    return RunConfig(prompt="-", model="-", persona=persona).ledger_context


def _entry(case: Case, says: str) -> dict[str, Any]:
    """An entry of journal.json that leads to a provider by naming a tier, a model or the provider alone."""
    return {
        "tier": {"provider": case.name, "tier": 1},
        "model": {"provider": case.name, "model": "my-finetune"},
        "provider": {"provider": case.name},
    }[says]


def _run(**request: Any) -> list[dict[str, Any]]:
    """The events of a run that finishes."""
    events: list[dict[str, Any]] = []
    assert asyncio.run(agents.run({**QUIET, **request}, events.append)), events
    return events


@pytest.mark.parametrize("case", WIRES, ids=str)
@pytest.mark.parametrize("says", ["tier", "model", "provider"])
@pytest.mark.parametrize("form", ["exact", "glob"])
@pytest.mark.parametrize("persona", PERSONAS)
def test_a_run_is_served_by_the_route_of_its_context(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, persona: str, form: str, says: str, case: Case
) -> None:
    context = _context(persona)
    pattern = context if form == "exact" else f"{context.rpartition('.')[0]}.*"
    models_of = {case.name: {"1": "a-large-one", "2": "a-medium-one", "3": "a-small-one"}}
    desk.reach(case)
    desk.journal.route(default=OTHER, contexts={pattern: _entry(case, says)}, models=models_of)
    routed = models.resolve_provider(context)
    assert routed[0] == case.name
    start = next(event for event in _run(persona=persona) if event["event"] == "start")
    line = desk.last_line()
    assert (start["provider"], start["model"]) == routed
    assert (line["provider"], line["model_asked"] if "model_asked" in line else line["model"]) == routed
    assert len(desk.server.requests) == 1
    sent = desk.server.requests[0]
    assert routed[1] in sent.target + sent.content.decode()
    tier = models.get_context_registry()[context]["tier"]
    expected = {"tier": "a-large-one", "model": "my-finetune"}
    assert routed[1] == expected.get(says, ("a-large-one", "a-medium-one", "a-small-one")[tier - 1])


@pytest.mark.parametrize("persona", PERSONAS)
def test_all_views_of_a_route_agree_with_the_run(
    journal: JournalFolder, capsys: pytest.CaptureFixture[str], persona: str
) -> None:
    context = _context(persona)
    section: dict[str, Any] = {"default": {"provider": "echo"}, "contexts": {"agent.*": {"model": "my-finetune"}}}
    journal.route(**section)
    routed = models.resolve_provider(context)
    assert routed == ("echo", "my-finetune")
    assert cli.main(["route", context, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["provider"], shown["model"]) == routed
    prepared = agents.resolve_run({**QUIET, "persona": persona})
    assert (prepared.provider, prepared.config["model"]) == routed
    rows = {route.context: (route.provider, route.model) for route in check.routed()}
    assert rows[context] == routed
    plan = Plans(journal_now()).plan(context)
    assert (plan.provider, plan.served) == ("echo", "echo my-finetune")
    assert cli.main(["agent", persona, "Moin.", "--dry-run"]) == 0
    assert "echo my-finetune" in capsys.readouterr().out
    start = next(event for event in _run(persona=persona) if event["event"] == "start")
    assert (start["provider"], start["model"]) == routed
    before, _ = parse_config({"providers": {"default": {"provider": "echo"}}})
    after, _ = parse_config({"providers": section})
    assert [(row.context, row.to_model) for row in whatif.compare(before, after, most_s=None).rows] == [
        (context, "my-finetune")
    ]


def test_a_run_from_the_queue_is_served_by_the_same_route(
    journal: JournalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.route(default={"provider": "echo"}, contexts={"agent.*": {"model": "my-finetune"}})
    for persona in ("default", "daily_review", "chat:chat"):
        agent_id = client.cortex_request("Moin.", persona, config={"disable_mcp": True})
        drain()
        start = next(event for event in client.read_agent_events(agent_id) if event["event"] == "start")
        assert (start["provider"], start["model"]) == ("echo", "my-finetune")


def test_a_run_that_is_handed_on_follows_the_route_of_its_own_context(
    journal: JournalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.route(
        default={"provider": "echo"},
        contexts={"agent.system.default": {"model": "first"}, "agent.system.librarian": {"model": "second"}},
    )
    handoff = {"persona": "librarian", "disable_mcp": True}
    agent_id = client.cortex_request("Moin.", "default", config={"disable_mcp": True, "handoff": handoff})
    drain()
    following = client.handoff_child(agent_id)
    assert following is not None
    starts = [
        next(event for event in client.read_agent_events(one) if event["event"] == "start")
        for one in (agent_id, following)
    ]
    assert [start["model"] for start in starts] == ["first", "second"]


def test_what_a_request_names_wins_over_the_route(journal: JournalFolder) -> None:
    journal.route(
        default={"provider": "lobechat", "model": "not-this-one"},
        contexts={"agent.*": {"provider": "ollama", "model": "my-finetune"}},
        models={"echo": {"1": "large", "2": "medium", "3": "small"}},
    )
    resolve = models.resolve
    context = "agent.system.librarian"  # of tier 3

    def served(**said: Any) -> tuple[str, str]:
        found = resolve(context, **said)
        return found.provider, found.model

    assert served() == ("ollama", "my-finetune")
    assert served(provider="ollama") == ("ollama", "my-finetune"), "it has no model of its own"
    assert served(provider="echo") == ("echo", "small")
    assert served(provider="echo", tier=1) == served(provider="echo", tier="1") == ("echo", "large")
    assert served(model="gpt-5-mini") == ("openai", "gpt-5-mini")
    assert served(model="unheard-of") == ("ollama", "unheard-of")
    assert served(provider="echo", model="gpt-5-mini") == ("echo", "gpt-5-mini")
    for tier in (0, 4, True, "flash", [1]):
        with pytest.raises(ConfigError, match="expected 1, 2 or 3"):
            served(tier=tier)
    with pytest.raises(UnknownProviderError, match="Valid providers"):
        served(provider="nobody")
    with pytest.raises(ConfigError, match="no model for tier 1"):
        served(provider="ollama", tier=1)


@pytest.mark.parametrize("field", ["provider", "model", "context"])
def test_a_persona_does_not_route_itself(journal: JournalFolder, field: str) -> None:
    folder = journal.path / "personas"
    folder.mkdir()
    said = {"provider": "google", "model": "gpt-5-mini", "context": "a.b"}[field]
    (folder / "writer.json").write_text(json.dumps({"title": "Writer", "tools": [], field: said}), encoding="utf-8")
    (folder / "writer.txt").write_text("Answer.", encoding="utf-8")
    journal.write(
        {
            "providers": {
                "default": {"provider": "echo"},
                "contexts": {"agent.*": {"model": "my-finetune"}, "a.b": {"model": "not-this-one"}},
            },
            "descriptors": {"agents": [str(folder)]},
        }
    )
    events: list[dict[str, Any]] = []
    asyncio.run(agents.run({**QUIET, "persona": "writer"}, events.append))
    served = [(event["provider"], event["model"]) for event in events if event["event"] == "start"]
    assert served in ([], [("echo", "my-finetune")])
