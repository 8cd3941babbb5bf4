"""The token log: what a line holds, how it is read back, and that a full or read-only disk harms no call."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muse.models import log_token_usage
from muse.usage_log import ledger
from tests.journal_folder import JournalFolder, run

UNIFIED = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}


# --- the contract of log_token_usage ---------------------------------------------------------------------------------


def test_a_line_has_what_readers_rely_on(journal: JournalFolder) -> None:
    before = time.time()
    log_token_usage("gpt-4o", UNIFIED, context="insight.daily", segment="090500_660")
    (line,) = journal.lines()
    assert before <= line.pop("timestamp") <= time.time()
    assert len(line.pop("call_id")) == 16
    assert line == {
        "attempt": 1,
        "model": "gpt-4o",
        "context": "insight.daily",
        "usage": UNIFIED,
        "segment": "090500_660",
    }


def test_the_file_bears_the_local_date_and_mode_0600(journal: JournalFolder) -> None:
    log_token_usage("m", UNIFIED, context="x")
    (path,) = journal.tokens.iterdir()
    assert path.name == time.strftime("%Y%m%d") + ".jsonl"
    assert path.stat().st_mode & 0o777 == 0o600


FORMS: dict[str, tuple[Any, dict[str, int]]] = {
    "unified": (UNIFIED, UNIFIED),
    "without a total": ({"input_tokens": 10, "output_tokens": 5}, UNIFIED),
    "zero and None left out": ({**UNIFIED, "cached_tokens": 0, "reasoning_tokens": None}, UNIFIED),
    "reasoning kept": ({**UNIFIED, "reasoning_tokens": 4}, {**UNIFIED, "reasoning_tokens": 4}),
    "nested OpenAI details": (
        {"input": 10, "output": 5, "details": {"input": {"cached_tokens": 3}, "output": {"reasoning_tokens": 2}}},
        {**UNIFIED, "cached_tokens": 3, "reasoning_tokens": 2},
    ),
    "OpenAI objects": (
        SimpleNamespace(
            input_tokens=10, output_tokens=5, input_tokens_details=SimpleNamespace(cached_tokens=3), total_tokens=15
        ),
        {**UNIFIED, "cached_tokens": 3},
    ),
    "Gemini field names": (
        {"prompt_token_count": 10, "candidates_token_count": 4, "thoughts_token_count": 1},
        {**UNIFIED, "reasoning_tokens": 1},
    ),
    "a Gemini response": (
        SimpleNamespace(usage_metadata=SimpleNamespace(prompt_token_count=10, candidates_token_count=5)),
        UNIFIED,
    ),
    "integer entries": ({"pages": 3, "note": "x"}, {"pages": 3}),
    "nothing": (None, {}),
}


@pytest.mark.parametrize(("usage", "expected"), FORMS.values(), ids=FORMS.keys())
def test_every_form_of_usage_is_logged_in_one_form(
    journal: JournalFolder, usage: Any, expected: dict[str, int]
) -> None:
    log_token_usage("m", usage, context="x")
    assert journal.lines()[0]["usage"] == expected


def test_without_a_context_the_caller_is_named(journal: JournalFolder) -> None:
    log_token_usage("m", UNIFIED)
    module, _, place = journal.lines()[0]["context"].rpartition(".")
    assert module.endswith("test_ledger")
    assert place.startswith("test_without_a_context_the_caller_is_named:")


@pytest.mark.parametrize(
    ("module", "named"),
    [
        ("think.insight", "insight"),
        ("observe.a.b", "a.b"),
        ("muse.x", "x"),
        ("apps.chat", "chat"),
        ("other.x", "other.x"),
    ],
)
def test_the_callers_house_is_cut_off(journal: JournalFolder, module: str, named: str) -> None:
    scope: dict[str, Any] = {"__name__": module, "log": log_token_usage, "usage": UNIFIED}
    exec("def work():\n    log('m', usage)\nwork()", scope)
    assert journal.lines()[0]["context"] == f"{named}.work:2"


def test_the_segment_is_the_argument_else_the_variable(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    log_token_usage("m", UNIFIED, context="x")
    monkeypatch.setenv("SEGMENT_KEY", "from-variable")
    log_token_usage("m", UNIFIED, context="x")
    log_token_usage("m", UNIFIED, context="x", segment="given")
    assert [line.get("segment") for line in journal.lines()] == [None, "from-variable", "given"]


ODD: dict[str, Any] = {
    "a context with newlines": {"context": "a\nb\r\u2028c"},
    "an unencodable context": {"context": "a\ud800"},
    "a model that is no text": {"model": object()},
    "keys that are no text": {"usage": {("a", 1): 5}},
    "a usage that is no usage": {"usage": [1, 2]},
    "a flag": {"usage": {"input_tokens": True}},
    "a huge count": {"usage": {"input_tokens": 10**400}},
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_logging_never_raises_and_never_harms_the_next_line(journal: JournalFolder, odd: dict[str, Any]) -> None:
    log_token_usage(**{"model": "m", "usage": UNIFIED, "context": "x", **odd})
    log_token_usage("last", UNIFIED, context="x")
    assert journal.lines()[-1]["model"] == "last"
    assert journal.log_bytes().endswith(b"\n")


def test_a_line_that_contains_itself_is_left_out_with_a_warning(
    journal: JournalFolder, caplog: pytest.LogCaptureFixture
) -> None:
    entry: dict[str, Any] = {"context": "x"}
    entry["usage"] = entry
    ledger.append(entry)
    assert "is no JSON" in caplog.text
    assert not journal.tokens.exists()


@given(
    st.dictionaries(
        st.text(alphabet="ab\n\r\0\x1f\x85\u2028\ud800é"),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    )
)
def test_any_entry_is_one_line_that_parses(entry: dict[str, Any]) -> None:
    line = ledger._line_of(entry)
    assert line.count(b"\n") == 1
    assert set(json.loads(line)) == {key.encode("utf-8", "replace").decode() for key in entry}


# --- reading -------------------------------------------------------------------------------------------------------


def test_lines_are_read_back_oldest_first_and_by_day(journal: JournalFolder) -> None:
    journal.tokens.mkdir()
    for day in ("20261104", "20261103", "20261105"):
        (journal.tokens / f"{day}.jsonl").write_text(json.dumps({"day": day}) + "\n")
    (journal.tokens / "notes.jsonl").write_text('{"day": "none"}\n')
    assert [line["day"] for line in ledger.read()] == ["20261103", "20261104", "20261105"]
    assert [line["day"] for line in ledger.read(("20261104", "20261104"))] == ["20261104"]


def test_bad_lines_are_passed_over_and_counted(journal: JournalFolder) -> None:
    journal.tokens.mkdir()
    lines = [b'{"a": 1}', b"", b"[1]", b'{"torn', b"\xff\xfe", b"7", b'{"b": "\xe2\x80\xa8"}', b'{"c": 1}']
    (journal.tokens / "20261103.jsonl").write_bytes(b"\n".join(lines))
    assert [next(iter(line)) for line in ledger.read()] == ["a", "b", "c"]
    assert ledger.count_bad_lines() == 4


def test_a_journal_without_a_log_has_no_lines(journal: JournalFolder) -> None:
    assert list(ledger.read()) == []
    assert ledger.count_bad_lines() == 0


# --- accidents -----------------------------------------------------------------------------------------------------


def test_a_line_after_a_torn_one_begins_on_its_own(journal: JournalFolder) -> None:
    log_token_usage("first", UNIFIED, context="x")
    (path,) = journal.tokens.iterdir()
    with path.open("ab") as file:
        file.write(b'{"torn": ')
    log_token_usage("second", UNIFIED, context="x")
    assert [line["model"] for line in ledger.read()] == ["first", "second"]
    assert ledger.count_bad_lines() == 1


@pytest.mark.parametrize("how", ["removed", "renamed", "folder removed"])
def test_a_log_that_was_taken_away_is_begun_anew(journal: JournalFolder, how: str) -> None:
    log_token_usage("first", UNIFIED, context="x")
    (path,) = journal.tokens.iterdir()
    if how == "renamed":
        path.rename(path.with_suffix(".old"))
        path.with_suffix(".old").unlink()
    else:
        path.unlink()
    if how == "folder removed":
        journal.tokens.rmdir()
    log_token_usage("second", UNIFIED, context="x")
    assert [line["model"] for line in journal.lines()] == ["second"]


def test_the_journal_may_change_between_two_lines(
    journal: JournalFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_token_usage("here", UNIFIED, context="x")
    other = JournalFolder(tmp_path / "other")
    monkeypatch.setenv("JOURNAL_PATH", str(other.path))
    log_token_usage("there", UNIFIED, context="x")
    assert [line["model"] for line in journal.lines()] == ["here"]
    assert [line["model"] for line in other.lines()] == ["there"]


def test_files_of_many_journals_do_not_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        monkeypatch.setenv("JOURNAL_PATH", str(tmp_path / str(number)))
        log_token_usage("m", UNIFIED, context="x")
    assert len(ledger._handles) <= 4


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EROFS, errno.EIO], ids=errno.errorcode.get)
def test_a_log_that_cannot_be_written_is_said_once_and_recovers(
    journal: JournalFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, reason: int
) -> None:
    def fail(number: int, data: bytes) -> int:
        raise OSError(reason, os.strerror(reason))

    with monkeypatch.context() as broken:
        broken.setattr(os, "write", fail)
        for _ in range(5):
            log_token_usage("lost", UNIFIED, context="x")
    assert len(caplog.records) == 1
    assert os.strerror(reason) in caplog.text
    log_token_usage("kept", UNIFIED, context="x")
    assert [line["model"] for line in journal.lines()] == ["kept"]


def test_a_line_written_in_part_is_said_once_and_harms_no_other(
    journal: JournalFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write = os.write
    with monkeypatch.context() as short:
        short.setattr(os, "write", lambda number, data: write(number, data[: len(data) // 2]))
        for number in range(3):
            log_token_usage("lost" * (number + 1), UNIFIED, context="x")
    log_token_usage("kept", UNIFIED, context="x")
    assert len(caplog.records) == 1
    assert [line["model"] for line in ledger.read()] == ["kept"]


def test_a_journal_that_is_no_folder_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JOURNAL_PATH", str(tmp_path / "file"))
    for _ in range(5):
        log_token_usage("m", UNIFIED, context="x")
    assert len(caplog.records) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write read-only folders")
def test_a_read_only_journal_is_said_once(journal: JournalFolder, caplog: pytest.LogCaptureFixture) -> None:
    journal.path.chmod(0o500)
    for _ in range(5):
        log_token_usage("m", UNIFIED, context="x")
    journal.path.chmod(0o700)
    assert len(caplog.records) == 1
    assert "Permission denied" in caplog.text


FULL_DISK = """
import logging, resource, sys
from muse.models import log_token_usage
logging.basicConfig(format="%(message)s", stream=sys.stdout)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for number in range(50):
    log_token_usage("m", {"input_tokens": number}, context="x")
print("went on")
"""


def test_a_full_disk_keeps_the_whole_lines_and_the_process_goes_on(journal: JournalFolder) -> None:
    said = run(FULL_DISK).splitlines()
    assert said[-1] == "went on"
    assert len(said) <= 3
    assert all("token log cannot be written" in line for line in said[:-1])
    counts = [line["usage"]["input_tokens"] for line in ledger.read()]
    assert counts == list(range(len(counts)))
    assert ledger.count_bad_lines() <= 1
    log_token_usage("after", UNIFIED, context="x")
    assert list(ledger.read())[-1]["model"] == "after"
