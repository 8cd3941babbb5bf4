"""The prompts of this room, out of their text files; it knows no feature and asks nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from muse.journal import config_loader
from muse.journal.prompts import identity_fields, load_prompt

_FOLDER = Path(__file__).parents[1] / "prompts"


def prompt_of(name: str, fields: Mapping[str, str]) -> str:
    """The text of `observe/prompts/<name>.txt`, with the journal's identity and `fields` filled in."""
    return load_prompt(name, _FOLDER, identity_fields(config_loader.load().config.identity) | dict(fields)).text
