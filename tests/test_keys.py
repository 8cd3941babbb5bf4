"""Where a key is found, in which order, and that it stays out of every text."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from muse.errors import MissingKeyError
from muse.journal import secrets
from muse.journal.secrets import MASK, find_key, look_up, redact, require_key
from tests.journal_folder import JournalFolder

NAME = "WEIR_API_KEY"


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME, raising=False)


def test_the_argument_goes_before_the_environment_and_that_before_the_files(
    journal: JournalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (journal.path / ".env").write_text(f"{NAME}=from-the-journal\n")
    assert find_key(NAME) == "from-the-journal"
    Path(".env").write_text(f"{NAME}='from-the-folder'\n")
    assert find_key(NAME) == "from-the-folder"
    monkeypatch.setenv(NAME, "from-the-environment")
    assert find_key(NAME) == "from-the-environment"
    assert find_key(NAME, "from-the-argument") == "from-the-argument"


def test_the_nearest_env_file_upwards_counts(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = journal.path.parent / "a" / "b"
    inner.mkdir(parents=True)
    Path(".env").write_text(f"{NAME}=above\n")
    monkeypatch.chdir(inner)
    assert find_key(NAME) == "above"


def test_a_key_saved_a_moment_ago_counts(journal: JournalFolder) -> None:
    assert find_key(NAME) is None
    for turn in range(50):
        temporary = journal.path / "new"
        temporary.write_text(f"{NAME}=saved-{turn:02d}\n")
        temporary.replace(journal.path / ".env")
        assert find_key(NAME) == f"saved-{turn:02d}"


def test_a_file_that_did_not_change_is_parsed_once(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    (journal.path / ".env").write_text(f"{NAME}=kept\n")
    assert look_up(NAME) == "kept"
    monkeypatch.setattr(Path, "read_text", lambda path, **_: pytest.fail(f"read {path} again"))
    assert [look_up(NAME) for _ in range(10)] == ["kept"] * 10


@pytest.mark.parametrize("value", ["", " ", "\n", "\t \n"], ids=ascii)
def test_an_empty_key_is_none(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(NAME, value)
    assert find_key(NAME) is None
    with pytest.raises(MissingKeyError, match=f"{NAME} not found in environment"):
        require_key(NAME)


@pytest.mark.parametrize("value", ["key-123456\n", "  key-123456", "key-123456\r\n", "\tkey-123456 "], ids=ascii)
def test_blanks_and_newlines_around_a_key_are_cut_off(
    journal: JournalFolder, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv(NAME, value)
    assert find_key(NAME) == "key-123456"


@pytest.mark.parametrize("value", ["key-\n123456", "key 123456", "key-\x7f123456", "kéy-123456", "“key-123456”"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(
    journal: JournalFolder, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv(NAME, value)
    with pytest.raises(MissingKeyError) as caught:
        find_key(NAME)
    assert NAME in str(caught.value)
    assert "123456" not in str(caught.value) + repr(caught.value)


def test_a_provider_without_a_variable_needs_no_key(journal: JournalFolder) -> None:
    assert find_key("") is None


@pytest.mark.parametrize("text", [b"\xff\xfe\x00", b"no equals sign\n\x00", b"=\n=x\nA", b""], ids=repr)
def test_a_damaged_env_file_is_passed_over(journal: JournalFolder, text: bytes) -> None:
    (journal.path / ".env").write_bytes(text)
    assert look_up(NAME) is None


def test_a_used_key_is_masked_wherever_it_is_quoted(journal: JournalFolder) -> None:
    assert find_key(NAME, "sk-abcdef") == "sk-abcdef"
    assert redact("Incorrect API key: sk-abcdef.") == f"Incorrect API key: {MASK}."
    assert redact("nothing here") == "nothing here"


def test_a_key_that_begins_like_a_longer_one_leaves_nothing_of_it(journal: JournalFolder) -> None:
    for key in ("sk-abcdef", "sk-abcdef-and-more", "sk-abcdef-and"):
        find_key(NAME, key)
    assert redact("sk-abcdef-and-more sk-abcdef-and sk-abcdef") == f"{MASK} {MASK} {MASK}"


def test_keys_may_be_masked_while_others_come_into_use(journal: JournalFolder) -> None:
    stop = threading.Event()

    masked = set()

    def use() -> None:
        for number in range(20_000):
            find_key(NAME, f"key-{number:06d}")
        stop.set()

    user = threading.Thread(target=use)
    user.start()
    while not stop.is_set():
        secrets._used.clear()
        masked.add(redact("a text"))
    user.join()
    assert masked <= {"a text"}


def test_no_key_is_written_to_the_environment(journal: JournalFolder) -> None:
    (journal.path / ".env").write_text(f"{NAME}=from-the-journal\n")
    find_key(NAME)
    assert NAME not in os.environ
