"""Every context there is: the static rows and those that descriptors add; it knows no route and no provider."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct

from muse import descriptors
from muse.descriptors import Descriptor
from muse.journal import Snapshot
from muse.reading import Problem
from muse.spec import Tier

log = logging.getLogger(__name__)


class ContextInfo(Struct, frozen=True):
    """One known context or pattern of contexts; `source` is where it is declared."""

    pattern: str
    tier: Tier
    label: str
    group: str
    source: str


class Registry(Struct, frozen=True):
    """All known contexts at one moment; `version` changes with them."""

    version: int
    contexts: Mapping[str, ContextInfo]
    problems: tuple[Problem, ...]


def _static(*rows: tuple[str, Tier, str, str]) -> Mapping[str, ContextInfo]:
    return MappingProxyType({row[0]: ContextInfo(*row, source="muse.contexts") for row in rows})


# Contexts that no descriptor file declares.
STATIC = _static(
    ("observe.describe.frame", Tier.LITE, "Frame Category", "Observe"),
    ("observe.describe.*", Tier.FLASH, "Screen Extraction", "Observe"),
    ("observe.detect.segment", Tier.FLASH, "Transcript Segmentation", "Observe"),
    ("observe.detect.json", Tier.LITE, "Transcript to JSON", "Observe"),
    ("observe.enrich", Tier.LITE, "Transcript Enrichment", "Observe"),
    ("observe.extract.selection", Tier.LITE, "Frame Selection", "Observe"),
    ("observe.summarize", Tier.FLASH, "Segment Summary", "Observe"),
    ("insight.*", Tier.FLASH, "Insights", "Think"),
    ("detect.created", Tier.LITE, "Creation Date", "Think"),
    ("planner.generate", Tier.FLASH, "Agent Planner", "Think"),
    ("muse.test", Tier.LITE, "Provider Test", "Muse"),
    ("test.*", Tier.LITE, "Integration Tests", "Muse"),
    ("app.chat.title", Tier.LITE, "Chat Title", "Apps"),
    ("agent.*", Tier.FLASH, "Agents", "Agents"),
)

_registries: dict[int, Registry] = {}


def registry(snapshot: Snapshot, *, at_once: bool = True) -> Registry:
    """The static rows, then categories, then agents; a later one wins the same name.

    `at_once=False` notices changed files within a second instead of at once: for hot paths.
    """
    base = os.path.dirname(snapshot.path)
    found = descriptors.find(snapshot.config.descriptors, base, at_once=at_once)
    known = _registries.get(found.version)
    if known is not None:
        return known
    contexts = dict(STATIC)
    problems = list(found.problems)
    for descriptor in sorted(found.descriptors, key=lambda descriptor: descriptor.kind == "agent"):
        info = _info(descriptor, problems)
        contexts[info.pattern] = info
    for problem in problems:
        log.warning("%s", problem)
    made = Registry(found.version, MappingProxyType(contexts), tuple(problems))
    if len(_registries) >= 16:
        _registries.clear()
    _registries[found.version] = made
    return made


def agent_context(owner: str, name: str) -> str:
    """The context of a persona: `agent.system.<name>` or `agent.<app>.<name>`; the one place that knows this rule."""
    return f"agent.{owner or 'system'}.{name}"


def category_context(name: str) -> str:
    """The context of a screen category: `observe.describe.<name>`."""
    return f"observe.describe.{name}"


def _info(descriptor: Descriptor, problems: list[Problem]) -> ContextInfo:
    data = descriptor.data
    if descriptor.kind == "category":
        context, group = category_context(descriptor.name), "Screen Analysis"
        label = descriptor.name.replace("_", " ").title()
    else:
        context, group = agent_context(descriptor.owner, descriptor.name), "Agents"
        label = str(data.get("title") or descriptor.name)
    tier = _tier(descriptor, problems)
    return ContextInfo(context, tier, str(data.get("label") or label), str(data.get("group") or group), descriptor.path)


def _tier(descriptor: Descriptor, problems: list[Problem]) -> Tier:
    raw = descriptor.data.get("tier", Tier.FLASH)
    if isinstance(raw, int) and not isinstance(raw, bool) and raw in (1, 2, 3):
        return Tier(raw)
    problems.append(Problem(f"{descriptor.path}: tier", repr(raw), "1, 2 or 3"))
    return Tier.FLASH
