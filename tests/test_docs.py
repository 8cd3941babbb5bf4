"""The pages: their generated tables are in step with the code, and their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from muse.cli import main
from muse.cli._docs.module_map import PACKAGES, rooms

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
_LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


def test_the_generated_tables_are_in_step_with_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["docs", "--check"]) == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_between_pages_leads_to_a_file(page: Path) -> None:
    links = _LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_provider_has_a_page() -> None:
    from muse.providers import PROVIDER_METADATA

    pages = {path.stem for path in ROOT.glob("docs/providers/*.md")}
    assert set(PROVIDER_METADATA) <= pages


def test_the_map_of_the_house_has_each_file_and_folder_with_its_sentence(tmp_path: Path) -> None:
    room = tmp_path / "muse"
    (room / "batching").mkdir(parents=True)
    (room / "data").mkdir()  # no package: nothing of it is code
    (room / "batching" / "__init__.py").write_text('"""The parts of a batch.\n\nMore."""\n', encoding="utf-8")
    (room / "batch.py").write_text("import nothing_that_is_there\n", encoding="utf-8")
    assert list(rooms(tmp_path, "muse")) == [("muse/batch.py", ""), ("muse/batching/", "The parts of a batch")]
    assert all(about for package in PACKAGES for _, about in rooms(ROOT, package))
