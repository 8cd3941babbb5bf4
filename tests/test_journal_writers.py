"""How journal.json is changed: whole or not at all, by many writers, and by writers that are killed."""

from __future__ import annotations

import json
import os
import random
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from muse.errors import ConfigError
from muse.journal.config_loader import ConflictError, load, update
from muse.journal.storage.atomic_files import write_atomic
from tests.journal_folder import JournalFolder, run, start


def tier_now() -> int:
    return int(load().config.default.tier or 0)


def default(tier: int, **more: Any) -> dict[str, Any]:
    return {"providers": {"default": {"provider": "google", "tier": tier}}, **more}


def test_a_change_is_seen_by_the_writer_and_keeps_everything_else(journal: JournalFolder) -> None:
    journal.write(default(1, identity={"name": "Zoë", "pets": [{"name": "Ödön"}]}))

    def change(data: dict[str, Any]) -> None:
        data["providers"]["contexts"] = {"a": {"tier": 3}}

    snapshot = update(change)
    assert snapshot.config.contexts["a"].tier == 3
    assert snapshot.stamp == load().stamp
    assert json.loads(journal.config.read_text("utf-8"))["identity"]["pets"] == [{"name": "Ödön"}]
    assert "Zoë" in journal.config.read_text("utf-8")


def test_a_first_change_makes_the_file_with_mode_0600(journal: JournalFolder) -> None:
    update(lambda data: data.update(default(3)))
    assert tier_now() == 3
    assert stat.S_IMODE(journal.config.stat().st_mode) == 0o600


def test_a_changed_file_ends_with_mode_0600_and_leaves_no_other_file(journal: JournalFolder) -> None:
    journal.write(default(1))
    journal.config.chmod(0o644)
    update(lambda data: data.update(default(2)))
    assert stat.S_IMODE(journal.config.stat().st_mode) == 0o600
    assert sorted(path.name for path in journal.config.parent.iterdir()) == ["journal.json", "journal.json.lock"]


def test_a_link_to_the_file_stays_a_link(journal: JournalFolder, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles" / "muse.json"
    real.parent.mkdir()
    real.write_text(json.dumps(default(1)))
    journal.config.parent.mkdir()
    journal.config.symlink_to(real)
    update(lambda data: data.update(default(3)))
    assert journal.config.is_symlink()
    assert json.loads(real.read_text())["providers"]["default"]["tier"] == 3
    assert tier_now() == 3


def test_a_change_to_an_older_version_is_a_conflict_and_writes_nothing(journal: JournalFolder) -> None:
    journal.write(default(1))
    stale = load().stamp
    journal.write(default(2, identity={"name": "somebody else's edit"}))
    before = journal.config.read_bytes()
    with pytest.raises(ConflictError, match="changed on disk"):
        update(lambda data: data.update(default(3)), expected=stale)
    assert journal.config.read_bytes() == before
    update(lambda data: data.update(default(3)), expected=load().stamp)
    assert tier_now() == 3


def test_a_change_that_brings_a_problem_is_refused_with_its_path(journal: JournalFolder) -> None:
    journal.write(default(1))
    before = journal.config.read_bytes()
    with pytest.raises(ConfigError) as caught:
        update(lambda data: data["providers"].update(contexts={"a.*": {"tier": "pro"}}))
    assert caught.value.path == "providers.contexts['a.*'].tier"
    assert journal.config.read_bytes() == before


def test_a_change_to_a_provider_that_is_not_known_is_refused(journal: JournalFolder) -> None:
    with pytest.raises(ConfigError, match=r"providers\.default\.provider: found 'gogle'"):
        update(lambda data: data.update({"providers": {"default": {"provider": "gogle"}}}), known={"google"})
    assert not journal.config.exists()


def test_an_old_problem_does_not_stand_in_the_way_of_a_change_elsewhere(journal: JournalFolder) -> None:
    journal.write({"providers": {"contexts": {"a": {"tier": 9}}}})
    update(lambda data: data["providers"]["contexts"].update(b={"tier": 1}))
    assert load().config.contexts["b"].tier == 1


def test_a_bad_file_is_never_overwritten(journal: JournalFolder) -> None:
    journal.write("{torn")
    with pytest.raises(ConfigError):
        update(lambda data: data.update(default(1)))
    assert journal.config.read_text() == "{torn"


def test_an_error_in_the_change_writes_nothing(journal: JournalFolder) -> None:
    journal.write(default(1))

    def change(data: dict[str, Any]) -> None:
        data.clear()
        raise KeyError("no such thing")

    with pytest.raises(KeyError):
        update(change)
    assert tier_now() == 1


def test_a_file_with_a_lone_surrogate_can_still_be_changed(journal: JournalFolder) -> None:
    journal.write(b'{"identity": {"name": "\\ud800"}}')
    update(lambda data: data.update(default(3)))
    assert load().data["identity"] == {"name": "\ud800"}
    assert tier_now() == 3


def test_a_full_disk_keeps_the_old_file_and_leaves_no_remains(
    journal: JournalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.write(default(1))

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        update(lambda data: data.update(default(3)))
    assert tier_now() == 1
    assert not list(journal.config.parent.glob("*.tmp"))
    assert not list(journal.config.parent.glob(".*.tmp"))


def test_a_limit_on_file_size_keeps_the_old_file(journal: JournalFolder) -> None:
    journal.write(default(1))
    code = """
import resource
from muse.errors import ConfigError
from muse.journal.config_loader import update
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    update(lambda data: data.update(identity={"bio": "x" * 50_000}))
except ConfigError as exc:
    print(exc.__cause__.strerror)
"""
    assert run(code).strip() == "File too large"
    assert tier_now() == 1
    assert len(list(journal.config.parent.iterdir())) == 2


def test_a_text_that_cannot_be_encoded_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "\ud800")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.json"]


COUNT_UP = """
import sys
from muse.journal.config_loader import update
name, times = sys.argv[1], int(sys.argv[2])

def change(data):
    identity = data.setdefault("identity", {})
    identity[name] = identity.get(name, 0) + 1

for _ in range(times):
    update(change)
    print("done", flush=True)
"""


def test_two_processes_that_write_at_once_lose_no_change(journal: JournalFolder) -> None:
    children = [start(COUNT_UP, name, "60") for name in ("one", "two")]
    for child in children:
        _, err = child.communicate(timeout=60)
        assert child.returncode == 0, err
    assert load().data["identity"] == {"one": 60, "two": 60}


def test_writers_that_reach_the_file_by_different_names_lose_no_change(journal: JournalFolder, tmp_path: Path) -> None:
    journal.write({})
    other = tmp_path / "other" / "config"
    other.mkdir(parents=True)
    (other / "journal.json").symlink_to(journal.config)
    paths = {"one": str(journal.path), "two": str(other.parent)}
    children = [start(COUNT_UP, name, "60", JOURNAL_PATH=path) for name, path in paths.items()]
    for child in children:
        _, err = child.communicate(timeout=60)
        assert child.returncode == 0, err
    assert load().data["identity"] == {"one": 60, "two": 60}


def test_threads_that_write_at_once_lose_no_change(journal: JournalFolder) -> None:
    def count_up(name: str) -> None:
        for _ in range(20):
            update(lambda data: data.setdefault("identity", {}).update({name: data["identity"].get(name, 0) + 1}))

    threads = [threading.Thread(target=count_up, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert load().data["identity"] == {str(number): 20 for number in range(4)}


@pytest.mark.parametrize("seed", range(10))
def test_a_writer_killed_at_any_moment_leaves_a_whole_file_and_no_lock(journal: JournalFolder, seed: int) -> None:
    chance = random.Random(seed)
    acknowledged = 0
    for _ in range(3):
        with start(COUNT_UP, "count", "100000") as child:
            assert child.stdout is not None
            for _ in range(chance.randint(1, 20)):
                assert child.stdout.readline() == "done\n"
                acknowledged += 1
            _spin(chance.random() * 0.003)
            child.kill()
            acknowledged += len(child.stdout.read().splitlines())
        written = json.loads(journal.config.read_text("utf-8"))["identity"]["count"]
        assert acknowledged <= written <= acknowledged + 1
        acknowledged = written
    assert update(lambda data: data.update(default(3))).config.default.tier == 3
    assert len(list(journal.config.parent.iterdir())) == 2


def _spin(duration_s: float) -> None:
    """Let `duration_s` pass, so that the kill falls somewhere inside a write."""
    end_s = time.perf_counter() + duration_s
    while time.perf_counter() < end_s:
        pass
