"""The registry of contexts: the static rows, then categories, then agents, each with its defaults."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from muse.journal.config_loader import load
from muse.models import CONTEXT_DEFAULTS, get_context_registry
from muse.routing.contexts import STATIC, Registry, agent_context, category_context, registry
from muse.types.provider_spec import Tier
from tests.journal_folder import JournalFolder

FOLDERS = {"categories": ["screens"], "agents": ["people"], "apps": ["mini"]}


def look(journal: JournalFolder) -> Registry:
    """The registry with the journal's own folders."""
    journal.write({"descriptors": FOLDERS})
    return registry(load())


def put(journal: JournalFolder, place: str, content: Any) -> Path:
    path = journal.config.parent / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


CONTRACT = [
    "observe.describe.frame",
    "observe.describe.*",
    "observe.detect.segment",
    "observe.detect.json",
    "observe.enrich",
    "observe.extract.selection",
    "observe.summarize",
    "insight.*",
    "detect.created",
    "planner.generate",
    "app.chat.title",
    "agent.*",
]


def test_the_contexts_that_callers_rely_on_are_there() -> None:
    assert set(CONTRACT) <= set(CONTEXT_DEFAULTS)
    frame, title, insight = (
        CONTEXT_DEFAULTS[name] for name in ("observe.describe.frame", "app.chat.title", "insight.*")
    )
    assert (frame["tier"], frame["group"]) == (3, "Observe")
    assert (title["tier"], title["group"]) == (3, "Apps")
    assert (insight["tier"], insight["group"]) == (2, "Think")
    assert CONTEXT_DEFAULTS["detect.created"]["tier"] == 3
    assert all(set(row) == {"tier", "label", "group"} for row in CONTEXT_DEFAULTS.values())


def test_the_registry_holds_static_rows_categories_and_agents(journal: JournalFolder) -> None:
    known = get_context_registry()
    assert set(CONTRACT) <= set(known)
    assert sum(name.startswith("observe.describe.") for name in known) >= 11
    assert sum(name.startswith("agent.system.") for name in known) >= 5
    assert all(row["tier"] in (1, 2, 3) and row["label"] and row["group"] for row in known.values())


def test_a_category_has_a_titled_name_tier_two_and_its_group(journal: JournalFolder) -> None:
    put(journal, "screens/sea_chart.json", {"description": "A chart"})
    info = look(journal).contexts["observe.describe.sea_chart"]
    assert (info.tier, info.label, info.group) == (Tier.FLASH, "Sea Chart", "Screen Analysis")


def test_an_agent_has_its_title_else_its_file_name(journal: JournalFolder) -> None:
    put(journal, "people/cook.json", {"title": "The Cook"})
    put(journal, "people/mate.json", {})
    put(journal, "mini/tides/agents/pilot.json", {"title": "Pilot", "tier": 1, "group": "Boats"})
    contexts = look(journal).contexts
    cook, mate, pilot = (contexts[f"agent.{name}"] for name in ("system.cook", "system.mate", "tides.pilot"))
    assert (cook.tier, cook.label, cook.group) == (Tier.FLASH, "The Cook", "Agents")
    assert mate.label == "mate"
    assert (pilot.tier, pilot.label, pilot.group) == (Tier.PRO, "Pilot", "Boats")


def test_a_label_goes_before_a_title(journal: JournalFolder) -> None:
    put(journal, "people/cook.json", {"title": "The Cook", "label": "Galley"})
    assert look(journal).contexts["agent.system.cook"].label == "Galley"


def test_a_later_declaration_wins_the_same_context(journal: JournalFolder) -> None:
    put(journal, "screens/frame.json", {"tier": 1})
    put(journal, "people/default.json", {"title": "Mine"})
    contexts = look(journal).contexts
    assert contexts["observe.describe.frame"].tier == Tier.PRO
    assert STATIC["observe.describe.frame"].tier == Tier.LITE
    assert contexts["agent.system.default"].label == "Mine"


@pytest.mark.parametrize("tier", [0, 4, "1", True, None, 1.5, [1]], ids=repr)
def test_a_bad_tier_is_reported_and_becomes_two(
    journal: JournalFolder, caplog: pytest.LogCaptureFixture, tier: object
) -> None:
    path = put(journal, "screens/chart.json", {"tier": tier})
    with caplog.at_level(logging.WARNING):
        found = look(journal)
        registry(load())
    assert found.contexts["observe.describe.chart"].tier == Tier.FLASH
    assert [problem.path for problem in found.problems] == [f"{path}: tier"]
    assert len(caplog.records) == 1


def test_a_broken_descriptor_is_reported_once_and_skips_itself(
    journal: JournalFolder, caplog: pytest.LogCaptureFixture
) -> None:
    put(journal, "screens/bad.json", {}).write_text("{torn")
    put(journal, "screens/good.json", {})
    found = look(journal)
    registry(load())
    assert "observe.describe.good" in found.contexts
    assert "observe.describe.bad" not in found.contexts
    assert len(caplog.records) == 1


def test_a_changed_descriptor_is_a_new_registry(journal: JournalFolder) -> None:
    path = put(journal, "screens/chart.json", {})
    before = look(journal)
    assert registry(load()) is before
    path.write_text('{"tier": 1}')
    after = registry(load())
    assert after.version > before.version
    assert after.contexts["observe.describe.chart"].tier == Tier.PRO


def test_contexts_of_personas_and_categories_are_named_in_one_place() -> None:
    assert agent_context("", "cook") == agent_context("system", "cook") == "agent.system.cook"
    assert agent_context("tides", "pilot") == "agent.tides.pilot"
    assert category_context("chart") == "observe.describe.chart"
