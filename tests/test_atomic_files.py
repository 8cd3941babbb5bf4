"""Files are written whole or not at all, under temporary names that nobody can foresee, and through no link."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from muse.journal.storage import atomic_files
from muse.journal.storage.atomic_files import file_lock, write_atomic
from tests.journal_folder import ROOT


def _temporary_names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every name that is moved into its place from now on."""
    seen: list[str] = []
    replace = os.replace

    def noted(source: Any, target: Any) -> None:
        seen.append(Path(source).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", noted)
    return seen


def test_the_temporary_name_is_another_one_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = _temporary_names(monkeypatch)
    for _ in range(50):
        write_atomic(tmp_path / "file", "text")
    assert len(set(names)) == 50
    assert all(re.fullmatch(r"\.file\.[0-9a-f]{16}\.tmp", name) for name in names)


def test_a_link_laid_at_the_temporary_name_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    foreseen = [bytes(8), bytes(8), b"\x01" * 8]
    monkeypatch.setattr(os, "urandom", lambda _: foreseen.pop(0))
    (tmp_path / f".file.{bytes(8).hex()}.tmp").symlink_to(victim)
    write_atomic(tmp_path / "file", "text")
    assert foreseen == []
    assert victim.read_text() == "mine"
    assert (tmp_path / "file").read_text() == "text"


def test_a_link_in_the_files_place_is_replaced_and_its_target_stays(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "file").symlink_to(victim)
    write_atomic(tmp_path / "file", "text")
    assert victim.read_text() == "mine"
    assert not (tmp_path / "file").is_symlink()
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "lock").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"), file_lock(tmp_path / "lock"):
        pytest.fail("the lock was taken")


_KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from muse.journal.storage.atomic_files import write_atomic
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
write_atomic(Path(sys.argv[1]), "half")
"""


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="files without a name are Linux's")
def test_a_killed_writer_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("whole", encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", _KILLED_WRITER, str(path)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == ["file"]
    assert path.read_text(encoding="utf-8") == "whole"


def test_a_file_system_without_unnamed_files_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic_files, "_UNNAMED", 0)
    atomic_files.write_atomic(tmp_path / "file", "whole")
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
