"""Descriptor files: found where they stand, read anew when they change, and one broken file costs itself only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from muse.journal import descriptors
from muse.journal.config import Descriptors
from muse.journal.descriptors import DiscoveryResult, find

HOUSE = Path(descriptors.__file__).resolve().parents[2]
MINE = Descriptors(categories=("screens",), agents=("people",), apps=("mini",))


def own(found: DiscoveryResult, base: Path) -> list[tuple[str, str, str]]:
    """`(kind, owner, name)` of what stands below `base`."""
    return [(one.kind, one.owner, one.name) for one in found.descriptors if one.path.startswith(str(base))]


def put(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_what_comes_with_muse_is_found(tmp_path: Path) -> None:
    found = find(Descriptors(), str(tmp_path))
    assert found.problems == ()
    agents = {one.name for one in found.descriptors if one.owner == "system"}
    assert agents == {path.stem for path in (HOUSE / "muse" / "agents").glob("*.json")}
    categories = {one.name for one in found.descriptors if one.kind == "category"}
    assert len(categories) >= 9
    assert len(agents) >= 5
    assert len({one.owner for one in found.descriptors if one.kind == "agent"} - {"system"}) >= 2


def test_folders_of_ones_own_are_found_relative_to_the_base(tmp_path: Path) -> None:
    put(tmp_path / "screens" / "chart.json", {})
    put(tmp_path / "people" / "cook.json", {})
    put(tmp_path / "mini" / "tides" / "agents" / "pilot.json", {})
    assert own(find(MINE, str(tmp_path)), tmp_path) == [
        ("category", "", "chart"),
        ("agent", "system", "cook"),
        ("agent", "tides", "pilot"),
    ]


@pytest.mark.parametrize("app", ["_private", ".hidden", "__pycache__"])
def test_app_folders_that_begin_with_a_mark_are_passed_over(tmp_path: Path, app: str) -> None:
    put(tmp_path / "mini" / app / "agents" / "pilot.json", {})
    assert own(find(MINE, str(tmp_path)), tmp_path) == []


def test_missing_folders_and_files_in_their_place_are_nothing(tmp_path: Path) -> None:
    put(tmp_path / "people", "a file")
    put(tmp_path / "mini" / "README.md", "a file")
    found = find(MINE, str(tmp_path))
    assert own(found, tmp_path) == []
    assert found.problems == ()


def test_unchanged_files_are_read_once(tmp_path: Path) -> None:
    put(tmp_path / "screens" / "chart.json", {})
    first = find(MINE, str(tmp_path))
    assert find(MINE, str(tmp_path)) is first


def test_a_new_a_changed_and_a_removed_file_are_seen_at_once(tmp_path: Path) -> None:
    before = find(MINE, str(tmp_path))
    path = put(tmp_path / "screens" / "chart.json", {})
    added = find(MINE, str(tmp_path))
    put(path, {"tier": 1, "label": "A chart"})
    changed = find(MINE, str(tmp_path))
    path.unlink()
    removed = find(MINE, str(tmp_path))
    assert before.version < added.version < changed.version < removed.version
    assert own(added, tmp_path) == own(changed, tmp_path) == [("category", "", "chart")]
    assert "A chart" in {one.data.get("label") for one in changed.descriptors}
    assert own(removed, tmp_path) == []


def test_a_hot_path_looks_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("muse.journal.descriptors.time.monotonic", lambda: now[0])
    first = find(MINE, str(tmp_path), at_once=False)
    put(tmp_path / "screens" / "chart.json", {})
    now[0] += 0.9
    assert find(MINE, str(tmp_path), at_once=False) is first
    now[0] += 0.2
    assert own(find(MINE, str(tmp_path), at_once=False), tmp_path) == [("category", "", "chart")]


BROKEN = {
    "torn": b'{"tier": ',
    "empty": b"",
    "a list": b"[]",
    "not UTF-8": b'{"label": "\xff"}',
    "nested deep": b"[" * 100_000,
    "a number without end": b'{"tier": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_reported_by_its_path_and_costs_itself_only(tmp_path: Path, text: bytes) -> None:
    put(tmp_path / "screens" / "good.json", {})
    bad = put(tmp_path / "screens" / "bad.json", {})
    bad.write_bytes(text)
    found = find(MINE, str(tmp_path))
    assert own(found, tmp_path) == [("category", "", "good")]
    assert [problem.path for problem in found.problems] == [str(bad)]
    assert found.problems[0].allowed == "a JSON object"


def test_a_link_to_nowhere_and_a_folder_of_the_name_are_reported(tmp_path: Path) -> None:
    put(tmp_path / "screens" / "good.json", {})
    (tmp_path / "screens" / "gone.json").symlink_to(tmp_path / "nowhere")
    (tmp_path / "screens" / "folder.json").mkdir()
    found = find(MINE, str(tmp_path))
    assert own(found, tmp_path) == [("category", "", "good")]
    assert sorted(Path(problem.path).name for problem in found.problems) == ["folder.json", "gone.json"]
