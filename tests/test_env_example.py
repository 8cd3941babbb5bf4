"""`.env.example` names every variable that muse reads, under the right heading, and holds no value that would count."""

from __future__ import annotations

import io
import re
from pathlib import Path

from dotenv import dotenv_values

from muse import providers
from muse.journal import secrets
from muse.providers.local import MODEL_ENV
from muse.routing.router import PROVIDER_ENV
from tests.journal_folder import ROOT, JournalFolder

TEXT = (ROOT / ".env.example").read_text(encoding="utf-8")
FROM_FILES, ENVIRONMENT_ONLY = TEXT.split("# What follows is read from the environment alone")


def _names(text: str) -> set[str]:
    return set(re.findall(r"^(?:# )?([A-Z][A-Z0-9_]+)=", text, re.MULTILINE))


def test_every_key_and_address_is_named() -> None:
    specs = providers.specs().values()
    wanted = {name for spec in specs for name in (spec.env_key, spec.base_url_env) if name}
    assert _names(FROM_FILES) == wanted | {MODEL_ENV}


def test_every_other_variable_is_named() -> None:
    models = {spec.model_env for spec in providers.specs().values()}
    assert _names(ENVIRONMENT_ONLY) == models | {"JOURNAL_PATH", PROVIDER_ENV, "SEGMENT_KEY"}


def test_the_addresses_shown_are_those_in_force() -> None:
    for spec in providers.specs().values():
        if spec.base_url_env:
            assert f"\n# {spec.base_url_env}={spec.base_url or ''}\n" in TEXT


def test_a_copy_of_it_changes_nothing(journal: JournalFolder, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(TEXT, encoding="utf-8")
    assert not [value for value in dotenv_values(stream=io.StringIO(TEXT)).values() if value]
    assert not [name for name in _names(TEXT) - {"JOURNAL_PATH"} if secrets.look_up(name)]
    (tmp_path / ".env").write_text(TEXT.replace("OPENAI_API_KEY=", "OPENAI_API_KEY=sk-filled-in"), encoding="utf-8")
    assert secrets.require_key("OPENAI_API_KEY") == "sk-filled-in"
