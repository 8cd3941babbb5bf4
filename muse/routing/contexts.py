"""Every context there is: the static rows and those that descriptors add; it knows no route and no provider."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from muse.journal import descriptors
from muse.journal.config_loader import Snapshot
from muse.journal.descriptors import Descriptor
from muse.journal.lenient_parser import Problem
from muse.types.provider_spec import Tier

log = logging.getLogger(__name__)


class ContextInfo(Struct, frozen=True):
    """One known context or pattern of contexts; `source` is where it is declared."""

    pattern: str
    tier: Tier
    label: str
    group: str
    source: str


class Registry(Struct, frozen=True, eq=False):
    """All known contexts at one moment; `version` changes with them."""

    version: int
    contexts: Mapping[str, ContextInfo]
    problems: tuple[Problem, ...]
    defaults: Mapping[str, Mapping[str, Any]] = MappingProxyType({})

    def is_current(self) -> bool:
        """Whether `CONTEXT_DEFAULTS` is still as it was."""
        return self.defaults == CONTEXT_DEFAULTS


def _static(*rows: tuple[str, Tier, str, str]) -> Mapping[str, ContextInfo]:
    return MappingProxyType({row[0]: ContextInfo(*row, source="muse.routing.contexts") for row in rows})


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

# Entries that are put in here at run time count from the next call on.
CONTEXT_DEFAULTS: dict[str, Any] = {
    name: {"tier": info.tier, "label": info.label, "group": info.group} for name, info in STATIC.items()
}

_registries: dict[int, Registry] = {}


def registry(snapshot: Snapshot, *, at_once: bool = True) -> Registry:
    """The rows of `CONTEXT_DEFAULTS`, then categories, then agents; a later one wins the same name.

    `at_once=False` notices changed files within a second instead of at once: for hot paths.
    """
    base = os.path.dirname(snapshot.path)
    found = descriptors.find(snapshot.config.descriptors, base, at_once=at_once)
    known = _registries.get(found.version)
    if known is not None and known.is_current():
        return known
    problems = list(found.problems)
    contexts = {name: _default(name, row, problems) for name, row in CONTEXT_DEFAULTS.items()}
    for descriptor in sorted(found.descriptors, key=lambda descriptor: descriptor.kind == "agent"):
        info = _info(descriptor, problems)
        contexts[info.pattern] = info
    for problem in problems:
        log.warning("%s", problem)
    defaults = {name: dict(row) if isinstance(row, Mapping) else row for name, row in CONTEXT_DEFAULTS.items()}
    made = Registry(found.version, MappingProxyType(contexts), tuple(problems), defaults)
    if len(_registries) >= 16:
        _registries.clear()
    _registries[found.version] = made
    return made


def _default(name: str, row: object, problems: list[Problem]) -> ContextInfo:
    """Return a row of `CONTEXT_DEFAULTS`; what it leaves out is that of a context nobody described."""
    place = f"CONTEXT_DEFAULTS[{name!r}]"
    said: Mapping[str, Any] = row if isinstance(row, Mapping) else {}
    if said is not row:
        problems.append(Problem(place, type(row).__name__, "a dict with tier, label and group"))
    known = STATIC.get(name)
    tier = _tier(place, said, problems)
    if known is not None and (tier, said.get("label"), said.get("group")) == (known.tier, known.label, known.group):
        return known
    return ContextInfo(name, tier, str(said.get("label") or name), str(said.get("group") or "Other"), place)


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
    tier = _tier(descriptor.path, data, problems)
    return ContextInfo(context, tier, str(data.get("label") or label), str(data.get("group") or group), descriptor.path)


def _tier(place: str, row: Mapping[str, Any], problems: list[Problem]) -> Tier:
    raw = row.get("tier", Tier.FLASH)
    if isinstance(raw, int) and not isinstance(raw, bool) and raw in (1, 2, 3):
        return Tier(raw)
    problems.append(Problem(f"{place}: tier", repr(raw), "1, 2 or 3"))
    return Tier.FLASH
