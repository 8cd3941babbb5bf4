"""No file outside of the journal is read by way of a link in it; what muse makes in a journal is the user's alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.chat import conversations
from apps.todos import todos
from muse.errors import ContentsError, ToolError
from muse.journal import config_loader as journals
from muse.journal import paths
from muse.journal.storage.atomic_files import make_folder
from muse.journal.storage.path_containment import is_inside
from muse.runs import run_files
from muse.runs.history import parse_agent_events_to_turns
from muse.runs.index import RunIndex
from muse.usage_log import ledger
from observe.screens import frame_store
from observe.segments.segments import segments_of
from observe.summaries.sources import read_source
from tests.journal_folder import JournalFolder
from think import tools
from think.entries import sources, transcripts
from think.entries.entries import find_files, read_entries, read_events

DAY = "20261103"
SEGMENT = "140000_300"
SECRET = "zanzibar"

Lay = Callable[[str, str], Path]


@pytest.fixture(name="lay")
def _lay(journal: JournalFolder, tmp_path: Path) -> Lay:
    """Lay a file outside of the journal, and a link to it at a place in the journal."""
    outside = tmp_path / "outside"
    outside.mkdir()

    def lay(place: str, text: str) -> Path:
        real = outside / place.replace("/", "_")
        real.write_text(text, encoding="utf-8")
        link = journal.path / place
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(real)
        return link

    return lay


ENTRIES = {
    f"{DAY}/notes/0900_leak.md": f"# Leak\n\n{SECRET}\n",
    f"{DAY}/insights/leak.md": f"# Leak\n\n{SECRET}\n",
    f"{DAY}/events.jsonl": f'{{"start": "2026-11-03T09:00", "title": "{SECRET}"}}\n',
    f"{DAY}/{SEGMENT}/transcript.jsonl": f'{{"text": "{SECRET}"}}\n',
    f"{DAY}/{SEGMENT}/screen.jsonl": f'{{"description": "{SECRET}"}}\n',
    f"{DAY}/{SEGMENT}/summary.md": f"# Sum\n\n{SECRET}\n",
    f"{DAY}/{SEGMENT}/enrichment.json": f'{{"topics": ["{SECRET}"]}}\n',
}


@pytest.mark.parametrize("place", ENTRIES)
def test_tools_of_agents_find_and_read_nothing_by_way_of_a_link(journal: JournalFolder, lay: Lay, place: str) -> None:
    lay(place, ENTRIES[place])
    assert tools.search_journal(SECRET)["results"] == []
    assert tools.list_days()["days"] == []
    with pytest.raises(ToolError):
        tools.read_entry(f"{place}#1" if place.endswith("events.jsonl") else place)
    with pytest.raises(FileNotFoundError, match="leads out of the journal"):
        read_entries(journal.path, place)


@pytest.mark.parametrize("level", [DAY, f"{DAY}/notes"])
def test_a_folder_that_is_a_link_leads_nowhere(journal: JournalFolder, tmp_path: Path, level: str) -> None:
    real = tmp_path / "outside" / level
    note = tmp_path / "outside" / DAY / "notes" / "0900_leak.md"
    note.parent.mkdir(parents=True)
    note.write_text(SECRET)
    (journal.path / level).parent.mkdir(parents=True, exist_ok=True)
    (journal.path / level).symlink_to(real)
    assert list(find_files(journal.path)) == []
    assert transcripts.read_day(DAY) == ()
    with pytest.raises(FileNotFoundError):
        read_entries(journal.path, f"{DAY}/notes/0900_leak.md")


def test_a_link_within_the_journal_and_a_journal_that_is_a_link_are_read(
    journal: JournalFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = journal.path / DAY / "notes" / "0900_real.md"
    note.parent.mkdir(parents=True)
    note.write_text(f"# Real\n\n{SECRET}\n")
    (note.parent / "0901_again.md").symlink_to("0900_real.md")
    (tmp_path / "linked").symlink_to(journal.path)
    monkeypatch.setenv("JOURNAL_PATH", str(tmp_path / "linked"))
    assert [path for path, _ in find_files(paths.journal_path())] == [
        f"{DAY}/notes/0900_real.md",
        f"{DAY}/notes/0901_again.md",
    ]
    assert len(transcripts.read_day(DAY)) == 2


def test_insights_are_worked_out_of_no_link(lay: Lay) -> None:
    for place, text in ENTRIES.items():
        lay(place, text)
    assert transcripts.read_day(DAY) == ()
    assert read_events(paths.journal_path(), DAY) == ()
    assert sources.read_sources(DAY, ("transcripts", "notes", "events", "screens", "summaries", "insights")) == ()


def test_observe_reads_no_link(lay: Lay, journal: JournalFolder, tmp_path: Path) -> None:
    for name in ("transcript.jsonl", "screen.jsonl"):
        lay(f"{DAY}/{SEGMENT}/{name}", ENTRIES[f"{DAY}/{SEGMENT}/{name}"])
    [segment] = segments_of(DAY)
    with pytest.raises(ContentsError, match="leads out of the journal"):
        read_source(segment, with_screen=True)
    assert frame_store.load(segment).lines == ()
    (tmp_path / "segment").mkdir()
    (journal.path / DAY / "150000_300").symlink_to(tmp_path / "segment")
    assert [one.name for one in segments_of(DAY)] == [SEGMENT]


def test_todos_are_read_and_changed_through_no_link(journal: JournalFolder, lay: Lay) -> None:
    link = lay(f"{DAY}/{todos.FILE}", f"- [ ] T-1 {SECRET}\n")
    assert todos.read_day(journal.path, DAY) == ()
    assert todos.find_days(journal.path) == []
    assert SECRET in link.resolve().read_text()


def test_runs_and_conversations_are_read_through_no_link(lay: Lay) -> None:
    agent_id = "1762164000000"
    line = (
        f'{{"event": "start", "ts": 1, "prompt": "{SECRET}"}}\n{{"event": "finish", "ts": 2, "result": "{SECRET}"}}\n'
    )
    lay(f"agents/{agent_id}.jsonl", line)
    assert run_files.find(agent_id) is None
    assert run_files.newest_ids() == []
    assert RunIndex().page(limit=9).runs == ()
    assert parse_agent_events_to_turns(agent_id) == []
    lay(f"chats/{agent_id}.jsonl", f'{{"event": "title", "title": "{SECRET}"}}\n')
    with pytest.raises(FileNotFoundError):
        conversations.find(agent_id)
    assert conversations.recent(limit=9)[0] == ()


def test_a_line_of_the_usage_log_is_written_through_no_link(lay: Lay) -> None:
    link = lay("tokens/20261103.jsonl", "mine\n")
    with pytest.raises(OSError, match="symbolic links"):
        ledger._open(str(link))
    assert link.resolve().read_text() == "mine\n"


NAMES = st.sampled_from(["a", "b", "link", "out", "..", "."])


@given(st.lists(NAMES, min_size=1, max_size=5))
def test_is_inside_agrees_with_resolving(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    base = tmp_path_factory.getbasetemp() / "inside-law"
    home = base / "home"
    if not home.exists():
        (home / "a" / "b").mkdir(parents=True)
        (base / "outside" / "a").mkdir(parents=True)
        (home / "link").symlink_to("a")
        (home / "a" / "out").symlink_to(base / "outside")
        (home / "out").symlink_to(base / "outside" / "a")
    path = os.path.join(home, *parts)
    assert is_inside(path, home) == Path(os.path.realpath(path)).is_relative_to(home.resolve())


def test_folders_of_a_journal_are_the_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_PATH", str(tmp_path / "new" / "journal"))
    paths.day_path(DAY)
    journals.update(lambda data: data.update(identity={"name": "Maren"}))
    run_files.new_file("over")
    ledger.append({"model": "m"})
    made = [path for path in (tmp_path / "new").rglob("*") if path.is_dir()]
    assert {path.name for path in made} >= {"journal", DAY, "config", "agents", "tokens"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o700}


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o755)
    make_folder(tmp_path / "mine" / "below")
    assert stat.S_IMODE((tmp_path / "mine").stat().st_mode) == 0o755
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="exists"):
        make_folder(tmp_path / "file")
