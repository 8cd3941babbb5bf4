"""Shows that `muse batch` writes over nothing of another's, pays for nothing twice, and always ends with its table."""

from __future__ import annotations

import asyncio
import fcntl
import json
import math
import os
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muse.batch import Batch
from muse.batching.store.store import names, path_of
from muse.cli import main
from tests.at_terminal import STYLE, Terminal
from tests.batch_calls import drained
from tests.journal_folder import JournalFolder, environment
from tests.loopback.server import LoopbackServer

MUSE = "import sys\nfrom muse.cli import main\nsys.exit(main(sys.argv[1:]))"
CONTEXT = ("--context", "app.tides")
ROWS = '{"text": "Tide"}\n{"text": "Moon"}\n'


@pytest.fixture(name="echoing", autouse=True)
def _echoing(journal: JournalFolder) -> JournalFolder:
    journal.route(default={"provider": "echo"})
    return journal


@pytest.fixture(name="rows")
def _rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text(ROWS, encoding="utf-8")
    return path


def _json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_resume_does_not_write_over_its_input_under_another_name(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.jsonl"
    assert main(["batch", "run", str(rows), *CONTEXT, "--output", str(output), "--ledger", "tides"]) == 0
    output.unlink()
    output.hardlink_to(rows)
    assert main(["batch", "resume", "tides"]) == 1
    assert "which is the input" in capsys.readouterr().err
    output.unlink()
    output.symlink_to(rows)
    assert main(["batch", "resume", "tides"]) == 1
    assert rows.read_text(encoding="utf-8") == ROWS


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_resume_writes_over_its_own_output_and_over_nothing_else(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    output = tmp_path / f"out.{ending}"
    run = ["batch", "run", str(rows), *CONTEXT, "--output", str(output), "--ledger", "tides"]
    assert main(run) == 0
    assert main(["batch", "resume", "tides"]) == 0
    results = output.read_bytes()
    output.write_bytes(results[:100] if ending != "parquet" else b"")
    assert main(["batch", "resume", "tides"]) == 0, "an output that was cut off, or is empty, is its own"
    output.write_text("somebody's\n", encoding="utf-8")
    for words in (["batch", "resume", "tides"], [*run, "--resume"]):
        assert main(words) == 1
        assert "which holds no results of a batch" in capsys.readouterr().err
    assert output.read_text(encoding="utf-8") == "somebody's\n"
    assert main([*run, "--force"]) == 0
    assert len(output.read_bytes()) > len(results) - 20


def test_export_does_not_write_over_the_input(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["batch", "run", str(rows), *CONTEXT, "--ledger", "tides"]) == 0
    assert main(["batch", "export", "tides", "--output", str(rows), "--force"]) == 1
    assert "which is the input" in capsys.readouterr().err
    assert rows.read_text(encoding="utf-8") == ROWS


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"properties": []},
        {"type": "object", "properties": {"a": {"pattern": "["}}},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}},
        {"$ref": "https://example.org/schema.json"},
        {"$ref": "#"},
    ],
)
def test_a_schema_that_is_none_is_told_before_anything_is_sent(
    rows: Path, tmp_path: Path, echoing: JournalFolder, capsys: pytest.CaptureFixture[str], schema: dict[str, Any]
) -> None:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(schema), encoding="utf-8")
    assert main(["batch", "run", str(rows), *CONTEXT, "--schema", str(path)]) == 2
    assert "--schema: found" in capsys.readouterr().err
    assert echoing.lines() == []
    assert names() == []


def test_whatever_a_row_and_its_answer_hold_goes_into_parquet(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    rows, output = tmp_path / "rows.jsonl", tmp_path / "out.parquet"
    lines = [
        r'{"text": "Tide", "said": "half \ud800 pair", "mixed": 1.5, "wide": 1, "\udfff": 1, "deep": {"a": NaN}}',
        '{"text": "Moon", "mixed": 1152921504606846977, "wide": 1152921504606846977}',
    ]
    rows.write_text("\n".join(lines), encoding="utf-8")
    assert main(["batch", "run", str(rows), *CONTEXT, "--output", str(output), "--concurrency", "1"]) == 0
    first, second = sorted(pq.read_table(output).to_pylist(), key=lambda row: row["row"])
    assert first["said"] == "half ? pair"
    assert (first["mixed"], second["mixed"]) == ("1.5", "1152921504606846977")
    assert (first["wide"], second["wide"]) == (1, 1152921504606846977)
    assert first["?"] == 1
    assert math.isnan(first["deep"]["a"])


async def _fail_as_a_program() -> None:
    async with Batch(ledger="tides") as batch:
        batch.add(batch.create(contents="x", context="app.tides", max_output_tokens=-1, note="mine"))
        assert [request.state for request in await drained(batch)] == ["failed"]


def test_show_tells_of_a_programs_items_beside_those_of_a_file(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["batch", "run", str(rows), *CONTEXT, "--ledger", "tides"]) == 0
    asyncio.run(_fail_as_a_program())
    assert main(["batch", "show", "tides"]) == 0
    assert "max_output_tokens" in capsys.readouterr().out
    assert main(["batch", "export", "tides"]) == 0


@pytest.mark.parametrize("wrong", ["9" * 400 + "d", "9" * 5_000 + "d", "0h", "36", "h", "-1h", "1.5h"])
def test_a_senseless_deadline_is_wrong_usage(rows: Path, capsys: pytest.CaptureFixture[str], wrong: str) -> None:
    assert main(["batch", "run", str(rows), *CONTEXT, "--lane", "auto", f"--deadline={wrong}"]) == 2
    assert "such as 90m, 36h or 2d" in capsys.readouterr().err


def test_a_disk_that_takes_no_more_is_told_with_the_table_and_how_to_go_on(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.jsonl"
    output.symlink_to("/dev/full")
    run = ["batch", "run", str(rows), *CONTEXT, "--output", str(output), "--ledger", "tides"]
    assert main([*run, "--force"]) == 1
    err = capsys.readouterr().err
    assert f"--output: found {str(output)!r}, which cannot be written (No space left on device)" in err
    assert "To go on: muse batch resume tides" in err
    assert err.split()[:2] == ["DONE", "FAILED"]
    output.unlink()
    assert main(["batch", "resume", "tides"]) == 0
    assert len(_json_lines(output)) == 2


def test_a_ledger_that_is_named_stays_that_of_its_input(
    rows: Path, tmp_path: Path, echoing: JournalFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text('{"text": "Sun"}\n', encoding="utf-8")
    assert main(["batch", "run", str(rows), *CONTEXT, "--ledger", "tides"]) == 0
    assert main(["batch", "run", str(other), *CONTEXT, "--ledger", "tides"]) == 1
    assert f"--ledger: found 'tides', which is that of {rows}" in capsys.readouterr().err
    assert len(echoing.lines()) == 2
    rows.write_text(ROWS + '{"text": "Sun"}\n', encoding="utf-8")
    assert main(["batch", "run", str(rows), *CONTEXT, "--ledger", "tides"]) == 0, "the file has grown"
    assert "was begun with another" not in capsys.readouterr().err
    rows.rename(tmp_path / "moved.jsonl")
    assert main(["batch", "run", "moved.jsonl", "--context", "app.moon", "--ledger", "tides"]) == 0
    assert "batch 'tides' was begun with another input, context; from now on this one" in capsys.readouterr().err


@pytest.fixture(name="slow")
def _slow(tmp_path: Path, echoing: JournalFolder) -> Iterator[dict[str, str]]:
    """Forty rows, and the variables by which they are answered a tenth of a second after each call."""
    lines = [json.dumps({"text": f"question {number}"}) for number in range(40)]
    (tmp_path / "many.jsonl").write_text("\n".join(lines), encoding="utf-8")
    echoing.route(default={"provider": "openai"})
    with LoopbackServer(latency_s=0.1) as server:
        yield {"OPENAI_API_KEY": "key-123456", "OPENAI_BASE_URL": f"{server.url}/v1"}


def test_ctrl_c_many_times_still_ends_with_the_table(slow: dict[str, str]) -> None:
    words = ("batch", "run", "many.jsonl", *CONTEXT, "--output", "out.jsonl", "--ledger", "many")
    with Terminal(MUSE, *words, columns=120, **slow) as terminal:
        terminal.read_until("5 in flight")
        terminal.type("\x03" * 3)
        terminal.read_until("done")
        terminal.type("\x03" * 3)
        assert terminal.end() == 130
        shown = STYLE.sub("", terminal.shown)
    assert "To go on: muse batch resume many" in shown
    assert "Traceback" not in shown


def test_ctrl_c_ends_a_batch_whose_reader_has_stalled(tmp_path: Path) -> None:
    (tmp_path / "long.jsonl").write_text(json.dumps({"text": "x" * 300_000}), encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-c", MUSE, "batch", "run", "long.jsonl", *CONTEXT, "--ledger", "long"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    _until_full(process.stdout.fileno())
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == b"muse: finishing; Ctrl-C again stops at once\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    with process.stdout, process.stderr:
        assert b"To go on: muse batch resume long" in process.stderr.read()


def _until_full(pipe: int) -> None:
    """Look at a pipe until it takes no more."""
    size = fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)
    until_s = time.monotonic() + 60
    while struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0] < size:
        assert time.monotonic() < until_s, "nothing is written"
        os.sched_yield()


def test_ctrl_c_after_the_last_call_does_not_cost_the_table(
    rows: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    close = Batch.close

    def interrupted(batch: Batch) -> None:
        signal.raise_signal(signal.SIGINT)
        close(batch)

    monkeypatch.setattr(Batch, "close", interrupted)
    assert main(["batch", "run", str(rows), *CONTEXT, "--ledger", "tides"]) == 130
    assert "To go on: muse batch resume tides" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# Without the right of root to write and read everywhere (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH).
BARRED = """
import ctypes, os, sys
for right in (1, 2):
    ctypes.CDLL(None).prctl(24, right, 0, 0, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="takes root's rights away as Linux does")
def test_a_journal_that_cannot_be_written_can_be_looked_at(rows: Path, echoing: JournalFolder) -> None:
    assert main(["batch", "run", str(rows), *CONTEXT, "--ledger", "tides"]) == 0
    folder = path_of("tides").parent
    folder.chmod(0o500)
    said: dict[str, tuple[int, str]] = {}
    try:
        for word in ("list", "show", "export", "resume"):
            words = ["batch", word, *(["tides"] if word != "list" else [])]
            ended = subprocess.run(
                [sys.executable, "-c", BARRED, "-c", MUSE, *words],
                env=environment(JOURNAL_PATH=str(echoing.path)),
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            said[word] = (ended.returncode, ended.stdout + ended.stderr)
    finally:
        folder.chmod(0o700)
    assert [said[word][0] for word in ("list", "show", "export")] == [0, 0, 0], said
    assert said["list"][1].splitlines()[1].split()[:2] == ["tides", "2"]
    assert len(said["export"][1].splitlines()) == 2
    assert said["resume"][0] == 1
    assert "expected a folder that can be written" in said["resume"][1]
