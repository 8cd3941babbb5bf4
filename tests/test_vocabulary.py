"""The words of docs/VOCABULARY.md: retired ones stay out of identifiers, and there are at most twelve house words."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

from tests.journal_folder import ROOT

PAGE = (ROOT / "docs" / "VOCABULARY.md").read_text(encoding="utf-8")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def _first_cells(heading: str) -> list[str]:
    """The first cells of the table below a heading."""
    section = PAGE.split(f"## {heading}")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    return [row.split("|")[1].strip() for row in rows[1:] if not row.startswith("|--")]


def _identifiers(path: Path) -> set[str]:
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
    return {token.string for token in tokens if token.type == tokenize.NAME}


def test_there_are_at_most_twelve_house_words() -> None:
    assert 0 < len(_first_cells("House words")) <= 12


def test_no_identifier_has_a_retired_word() -> None:
    retired = {word for cell in _first_cells("Retired words") for word in cell.split(", ")}
    assert len(retired) > 10
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted((ROOT / "muse").rglob("*.py"))
        for name in sorted(_identifiers(path))
        if retired & {word.lower() for word in _WORD.findall(name)}
    ]
    assert found == []


def test_no_module_is_named_with_a_retired_word() -> None:
    retired = {word for cell in _first_cells("Retired words") for word in cell.split(", ")}
    names = [path for path in (ROOT / "muse").rglob("*.py") if retired & set(path.stem.strip("_").split("_"))]
    assert names == []
