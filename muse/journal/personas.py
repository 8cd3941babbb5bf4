"""Personas: who an agent is, from its JSON and text files; it knows no provider and runs nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from muse.journal import config_loader, descriptors, persona_fields
from muse.journal.descriptors import Descriptor
from muse.journal.lenient_parser import Problem
from muse.journal.prompts import identity_fields, render
from muse.journal.storage.path_containment import require_within
from muse.types.trust_claim import Claim

DEFAULT_PERSONA = "default"
_RULES = Path(__file__).parents[1] / "agents" / "_rules.txt"


def get_agents() -> dict[str, dict[str, Any]]:
    """Every persona by its key (`name`, or `app:name`).

    A row is its JSON fields with `title`, `source`, `app`, `persona` (the key) and `instruction` (its text with the
    journal's identity filled in; "" if it is missing or cannot be filled in, as `get_agent` says).
    """
    rows: dict[str, dict[str, Any]] = {}
    identity = config_loader.load().config.identity
    for descriptor in _found():
        key = _key(descriptor)
        instruction = ""
        with suppress(OSError, ValueError):  # ConfigError and UnicodeDecodeError are of the latter
            instruction = _instruction(descriptor, key, identity, None)
        rows[key] = {**_described(descriptor), "persona": key, "instruction": instruction}
    return rows


def get_agent(persona: str = DEFAULT_PERSONA, facet: str | None = None) -> dict[str, Any]:
    """One persona: its JSON fields with `instruction`, `extra_context` and `persona`, the journal's identity filled in.

    `facet` is a part of the journal's life (such as "work") that the run is about; the text may name it as `$facet`.

    Raises:
        FileNotFoundError: there is no such persona, or its text is missing; the persona is named.
        ConfigError: its text has a field that is not known; file and field are named.
    """
    descriptor = next((found for found in _found() if _key(found) == persona), None)
    if descriptor is None:
        known = ", ".join(sorted(_key(found) for found in _found()))
        raise FileNotFoundError(f"Agent persona not found: {persona!r}. Known personas: {known}")
    identity = config_loader.load().config.identity
    return {
        **_described(descriptor),
        "persona": persona,
        "instruction": _instruction(descriptor, persona, identity, facet),
        "extra_context": _extra_context(descriptor.data, identity, facet),
    }


def _instruction(descriptor: Descriptor, persona: str, identity: Mapping[str, Any], facet: str | None) -> str:
    """The text of a persona with what it names filled in.

    Raises:
        FileNotFoundError: there is none.
        ConfigError: it has a field that is not known, or is a link out of the project.
    """
    path = Path(descriptor.path).with_suffix(".txt")
    require_within(path, config_loader.load().config.descriptors.project)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise FileNotFoundError(f"Agent persona {persona!r} has no text: {path} is missing") from exc
    return render(text, text_fields(identity, facet), where=str(path)).strip()


def claims_of(persona: str) -> tuple[Claim, ...]:
    """Return the entries of a persona that need the user's consent; none where it is no project's."""
    descriptor = next((found for found in _found() if _key(found) == persona), None)
    return descriptor.claims if descriptor is not None else ()


def problems_of(persona: str = "") -> tuple[Problem, ...]:
    """Return what is wrong with the fields of a persona's file, or of all: unknown ones, and malformed values."""
    found = [descriptor for descriptor in _found() if persona in ("", _key(descriptor))]
    return tuple(
        problem for descriptor in found for problem in persona_fields.problems_of(descriptor.data, descriptor.path)
    )


def text_fields(identity: Mapping[str, Any], facet: str | None = None) -> dict[str, str]:
    """What a persona's text may name: the identity's fields, `$facet`, and `$rules`, which hold for all that use it.

    Raises:
        OSError: the text of the rules cannot be read.
    """
    rules = _RULES.read_text(encoding="utf-8").strip()
    return identity_fields(identity) | {"facet": facet or "", "rules": rules}


def tools_in_words(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """The tools that a persona's fields allow, as they are shown.

    They are "all", or names and packs (none of a malformed list), then its make targets.
    """
    allowed = ["all"] if fields.get("tools") is None else persona_fields.names_in(fields["tools"]) or []
    return (*allowed, *(f"make {target}" for target in listed(fields.get("make"))))


def listed(said: object) -> tuple[str, ...]:
    """A field of a persona that is a list, one name, or left out."""
    if said is None:
        return ()
    return tuple(str(one) for one in said) if isinstance(said, list) else (str(said),)


def _found() -> Iterator[Descriptor]:
    """The personas; a later one of the same key takes the place of the earlier."""
    snapshot = config_loader.load()
    found = descriptors.find(snapshot.config.descriptors, os.path.dirname(snapshot.path))
    by_key = {_key(descriptor): descriptor for descriptor in found.descriptors if descriptor.kind == "agent"}
    return iter(by_key.values())


def _key(descriptor: Descriptor) -> str:
    return descriptor.name if descriptor.owner == "system" else f"{descriptor.owner}:{descriptor.name}"


def _described(descriptor: Descriptor) -> dict[str, Any]:
    is_system = descriptor.owner == "system"
    return {
        **descriptor.data,
        "title": descriptor.data.get("title") or descriptor.name,
        "source": "system" if is_system else "app",
        "app": None if is_system else descriptor.owner,
    }


def _extra_context(data: Mapping[str, Any], identity: Mapping[str, Any], facet: str | None) -> str:
    """What the first message tells beside the prompt: whose journal it is, and the persona's own `extra_context`."""
    names = identity_fields(identity)
    lines = [f"This is the journal of {names['name']}."] if identity.get("name") else []
    if names["bio"]:
        lines.append(names["bio"])
    if names["timezone"]:
        lines.append(f"Time zone: {names['timezone']}.")
    if facet:
        lines.append(f"This is about the facet {facet!r}.")
    if data.get("extra_context"):
        lines.append(str(data["extra_context"]))
    return "\n".join(lines)
