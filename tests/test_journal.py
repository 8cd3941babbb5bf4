"""Where the journal is, and journal.json as it stands now, through every accident that a file can have."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import pytest

from muse.errors import ConfigError
from muse.journal import config_loader as journals
from muse.journal.config_loader import load
from muse.journal.paths import config_path, day_path, is_day, journal_path
from tests.journal_folder import JournalFolder


def tier_now() -> int:
    return int(load().config.default.tier or 0)


def default(tier: int, **more: Any) -> dict[str, Any]:
    return {"providers": {"default": {"provider": "google", "tier": tier}}, **more}


def test_the_journal_is_where_the_variable_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOURNAL_PATH", "mine")
    assert journal_path() == tmp_path / "mine"
    assert config_path() == str(tmp_path / "mine" / "config" / "journal.json")


def test_without_the_variable_the_nearest_journal_json_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "house" / "room"
    inner.mkdir(parents=True)
    (tmp_path / "house" / "journal.json").write_text(json.dumps(default(1)))
    monkeypatch.delenv("JOURNAL_PATH")
    monkeypatch.chdir(inner)
    assert config_path() == str(tmp_path / "house" / "journal.json")
    assert journal_path() == tmp_path / "house" / "journal"
    assert tier_now() == 1


def test_without_either_the_journal_is_in_the_users_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JOURNAL_PATH")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    assert journal_path() == tmp_path / "data" / "muse" / "journal"


def test_a_missing_file_is_an_empty_one(journal: JournalFolder) -> None:
    assert load().config.default.provider == "google"
    assert load().problems == ()


def test_every_edit_is_seen_at_the_next_call(journal: JournalFolder) -> None:
    for turn in range(300):
        journal.write(default(turn % 3 + 1))
        assert tier_now() == turn % 3 + 1


def test_an_edit_of_the_same_size_within_one_tick_of_the_clock_is_seen(journal: JournalFolder) -> None:
    journal.write(default(1))
    assert tier_now() == 1
    before = journal.config.stat()
    journal.write(default(3))
    os.utime(journal.config, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert tier_now() == 3


def test_an_unchanged_file_is_parsed_once(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.write(default(1))
    an_hour_ago = time.time() - 3600
    os.utime(journal.config, (an_hour_ago, an_hour_ago))
    first = load()
    reads: list[str] = []
    monkeypatch.setattr(journals, "_read_text", reads.append)
    assert all(load() is first for _ in range(100))
    assert reads == []


def test_a_touched_file_is_not_parsed_again(journal: JournalFolder) -> None:
    journal.write(default(1))
    first = load()
    os.utime(journal.config)
    assert load().config is first.config


def test_the_variable_may_change_between_two_calls(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.write(default(1))
    other = JournalFolder(journal.path.with_name("other"))
    other.write(default(3))
    assert tier_now() == 1
    monkeypatch.setenv("JOURNAL_PATH", str(other.path))
    assert tier_now() == 3


def test_a_relative_journal_is_another_one_in_another_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in (("a", default(1)), ("b", "{torn")):
        JournalFolder(tmp_path / name / "j").write(content)
    monkeypatch.setenv("JOURNAL_PATH", "j")
    monkeypatch.chdir(tmp_path / "a")
    assert tier_now() == 1
    monkeypatch.chdir(tmp_path / "b")
    with pytest.raises(ConfigError):
        load()


BAD = {
    "empty": b"",
    "torn": b'{"providers": {"defa',
    "not UTF-8": b'{"identity": {"name": "\xff\xfe"}}',
    "nested deep": b'{"identity": ' * 3000 + b"1" + b"}" * 3000,
    "no object": b"[1, 2]",
    "a number without end": b'{"identity": {"n": ' + b"9" * 5000 + b"}}",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_a_file_that_was_never_good_raises_each_time(journal: JournalFolder, text: bytes) -> None:
    journal.write(text)
    for _ in range(2):
        with pytest.raises(ConfigError) as caught:
            load()
        assert str(journal.config) in str(caught.value)


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_the_last_good_version_stays_with_one_warning(
    journal: JournalFolder, caplog: pytest.LogCaptureFixture, text: bytes
) -> None:
    journal.write(default(1))
    assert tier_now() == 1
    journal.write(text)
    with caplog.at_level(logging.WARNING):
        assert [tier_now() for _ in range(20)] == [1] * 20
        os.utime(journal.config)
        assert tier_now() == 1
    assert len(caplog.records) == 1
    journal.write(default(3))
    assert tier_now() == 3


def test_a_file_that_cannot_be_read_any_more_is_a_bad_one_too(
    journal: JournalFolder, caplog: pytest.LogCaptureFixture
) -> None:
    journal.write(default(1))
    assert tier_now() == 1
    journal.config.unlink()
    journal.config.mkdir()
    assert [tier_now() for _ in range(5)] == [1] * 5
    assert len(caplog.records) == 1
    assert "last good version" in caplog.text


def test_a_journal_path_that_is_a_file_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JOURNAL_PATH", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="unreadable path"):
        load()


def test_each_bad_entry_is_said_once_with_its_path(journal: JournalFolder, caplog: pytest.LogCaptureFixture) -> None:
    journal.write({"providers": {"contexts": {"a": {"tier": 9}}}})
    for _ in range(5):
        load()
    assert [record.getMessage() for record in caplog.records] == [
        "journal.json: providers.contexts['a'].tier: found 9, expected 1, 2 or 3"
    ]


def test_a_file_of_a_hundred_thousand_patterns_is_read(journal: JournalFolder) -> None:
    journal.route(contexts={f"c{number}.*": {"tier": 1} for number in range(100_000)})
    snapshot = load()
    assert len(snapshot.config.contexts) == 100_000
    assert snapshot.problems == ()


def test_a_day_is_a_real_date() -> None:
    assert is_day("20261103")
    for name in ("", "2026110", "20261301", "20260230", "2026-1-3", "2026110\N{FULLWIDTH DIGIT THREE}", "202611031"):
        assert not is_day(name)


def test_a_day_folder_is_made_when_it_is_asked_for(journal: JournalFolder) -> None:
    assert day_path("20261103") == journal.path / "20261103"
    assert (journal.path / "20261103").is_dir()
    assert day_path().name == time.strftime("%Y%m%d")


@pytest.mark.parametrize("day", ["", "../etc", "2026-11-03", "20261399"], ids=ascii)
def test_a_day_of_another_form_is_refused(journal: JournalFolder, day: str) -> None:
    with pytest.raises(ValueError, match="YYYYMMDD"):
        day_path(day)
    assert list(journal.path.iterdir()) == []
