"""Prompt files as templates with the journal's identity filled in; it looks for none by itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from msgspec import Struct

from muse.types.errors import ConfigError


class Prompt(Struct, frozen=True):
    """A prompt file's text with its fields filled in, and where it came from."""

    text: str
    path: Path


def load_prompt(
    name: str, base_dir: str | os.PathLike[str] | None = None, context: Mapping[str, Any] | None = None
) -> Prompt:
    """The prompt `<name>.txt` of `base_dir` (the working folder if None), its `$fields` filled from `context`.

    Raises:
        FileNotFoundError: there is no such file; the text names it.
        ConfigError: the text has a field that `context` lacks; file and field are named.
    """
    path = Path(base_dir or ".") / (name if name.endswith((".txt", ".md")) else f"{name}.txt")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise FileNotFoundError(f"Prompt file not found: {path}") from exc
    return Prompt(render(text, context or {}, where=str(path)).strip(), path)


def render(text: str, fields: Mapping[str, Any], *, where: str) -> str:
    """`text` with `$name` and `${name}` replaced; `$$` is a dollar sign, and a `$` before a digit or blank stays.

    Raises:
        ConfigError: a field that `fields` lacks.
    """
    template = Template(text)
    missing = sorted(set(template.get_identifiers()) - set(fields))
    if missing:
        raise ConfigError(
            where, f"the field ${missing[0]}", f"one of {', '.join(f'${name}' for name in sorted(fields))}"
        )
    return template.safe_substitute(fields)


def identity_fields(identity: Mapping[str, Any]) -> dict[str, str]:
    """The template fields of journal.json's `identity`: name, preferred, bio, pronouns (four forms), timezone.

    Empty fields fall back to ones that read naturally: `preferred` to `name`, `name` to "the owner", pronouns to
    "they".
    """
    name = str(identity.get("name") or "").strip()
    preferred = str(identity.get("preferred") or "").strip() or name or "the owner"
    pronouns = identity.get("pronouns")
    forms = pronouns if isinstance(pronouns, Mapping) else _PRONOUNS.get(str(pronouns or "they").split("/")[0], _THEY)
    fields = {
        "name": name or "the owner",
        "preferred": preferred,
        "bio": str(identity.get("bio") or ""),
        "timezone": str(identity.get("timezone") or ""),
    }
    for form, fallback in _THEY.items():
        fields[f"pronouns_{form}"] = str(forms.get(form) or fallback)
    fields["pronouns"] = "/".join((fields["pronouns_subject"], fields["pronouns_object"]))
    return fields


_THEY = {"subject": "they", "object": "them", "possessive": "their", "reflexive": "themselves"}
_PRONOUNS = {
    "they": _THEY,
    "she": {"subject": "she", "object": "her", "possessive": "her", "reflexive": "herself"},
    "he": {"subject": "he", "object": "him", "possessive": "his", "reflexive": "himself"},
}
