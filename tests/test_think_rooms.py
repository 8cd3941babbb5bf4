"""The folders of think: who imports whom, held by reading the code."""

from __future__ import annotations

import re

from tests.journal_folder import ROOT

FLOORS = (
    ("records",),
    ("asking", "searching"),
    ("pages",),
    ("digests",),
    ("topics",),
    ("planning", "day_runs"),
    ("search", "insight", "planner", "tools", "utils", "pipeline", "daily"),
)
THINK = ROOT / "think"
_IMPORT = re.compile(r"^\s*(?:from|import) (think|observe|apps)\.(\w+)", re.MULTILINE)


def _imports() -> list[tuple[str, str, str]]:
    """`(folder or module of think, package, folder or module that it imports)`."""
    return [
        (path.relative_to(THINK).with_suffix("").parts[0], *found)
        for path in sorted(THINK.rglob("*.py"))
        for found in _IMPORT.findall(path.read_text(encoding="utf-8"))
    ]


def test_every_room_stands_on_a_floor() -> None:
    rooms = {path.relative_to(THINK).with_suffix("").parts[0] for path in THINK.rglob("*.py")} - {"__init__"}
    assert rooms == {room for floor in FLOORS for room in floor}


def test_folders_import_from_below_alone() -> None:
    floor_of = {room: number for number, floor in enumerate(FLOORS) for room in floor}
    top = len(FLOORS) - 1
    wrong = [
        (importer, target)
        for importer, package, target in _imports()
        if package == "think" and importer != target
        if floor_of[target] >= floor_of[importer] and floor_of[importer] < top
    ]
    assert wrong == []


def test_only_the_pipeline_and_who_reads_transcripts_know_observe_and_nobody_an_app() -> None:
    known = {(importer, target) for importer, package, target in _imports() if package == "observe"}
    assert {importer for importer, _ in known} == {"pipeline", "records"}
    assert {target for importer, target in known if importer == "records"} == {"listening"}
    assert [found for found in _imports() if found[1] == "apps"] == []
