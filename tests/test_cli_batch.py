"""Shows `muse batch` as a person uses it: rows in, results out, broken input, Ctrl-C, and going on."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muse import testing
from muse.batching.store.store import names, path_of
from muse.cli import main
from muse.errors import BudgetExceeded, ProviderDown
from tests.at_terminal import STYLE, Terminal
from tests.journal_folder import JournalFolder, environment
from tests.loopback.server import LoopbackServer

MUSE = "import sys\nfrom muse.cli import main\nsys.exit(main(sys.argv[1:]))"
CONTEXT = ("--context", "app.tides")


@pytest.fixture(name="echoing", autouse=True)
def _echoing(journal: JournalFolder) -> JournalFolder:
    journal.route(default={"provider": "echo"})
    return journal


@pytest.fixture(name="rows")
def _rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": 1, "text": "Tide"}\n{"id": 2, "text": "Moon", "tags": ["x"]}\n', encoding="utf-8")
    return path


def _json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_each_row_comes_back_with_its_answer(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["batch", "run", str(rows), *CONTEXT]) == 0
    out, err = capsys.readouterr()
    first, second = sorted(_json_lines(out), key=lambda row: row["row"])
    assert first.pop("duration_s") > 0
    assert first == {
        "row": 1,
        "id": 1,
        "text": "Tide",
        "response": "Tide",
        "error": None,
        "model": "echo-1",
        "provider": "echo",
        "input_tokens": 1,
        "output_tokens": 1,
        "cost_usd": 0.0,
    }
    assert second["tags"] == ["x"]
    assert err.splitlines()[0].split() == ["DONE", "FAILED", "DEFERRED", "TOKENS", "COST", "SECONDS"]
    assert err.splitlines()[1].split()[:5] == ["2", "0", "0", "4", "$0"]


def test_a_template_asks_and_its_name_is_in_the_error(
    rows: Path, tmp_path: Path, echoing: JournalFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    template = tmp_path / "ask.txt"
    template.write_text("What is\n{text}?\n", encoding="utf-8")
    assert main(["batch", "run", str(rows), *CONTEXT, "--template", str(template)]) == 0
    assert {row["response"] for row in _json_lines(capsys.readouterr().out)} == {"What is\nTide?", "What is\nMoon?"}

    asked = len(echoing.lines())
    template.write_text("What is\n{text} to {tags}?\n", encoding="utf-8")
    assert main(["batch", "run", str(rows), *CONTEXT, "--template", str(template)]) == 1
    err = capsys.readouterr().err
    assert (
        f"{template} line 2: found {{tags}}, a field that rows.jsonl line 1 does not have, expected one of id, text"
        in err
    )
    assert len(echoing.lines()) == asked, "nothing is sent"


def test_a_plain_second_run_asks_nothing(
    rows: Path, echoing: JournalFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert main(["batch", "run", str(rows), *CONTEXT]) == 0
    assert len(echoing.lines()) == 2
    assert len(_json_lines(capsys.readouterr().out)) == 4
    rows.write_text(rows.read_text(encoding="utf-8") + '{"text": "Sun"}\n', encoding="utf-8")
    assert main(["batch", "run", str(rows), *CONTEXT]) == 0
    assert len(names()) == 2, "another input is another batch"


def test_broken_lines_are_told_and_the_rest_runs(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows.write_text('{"text": "Tide"}\nnot json\n\n["x"]\n{"text": "Moon"}\n', encoding="utf-8")
    assert main(["batch", "run", str(rows), *CONTEXT]) == 1
    out, err = capsys.readouterr()
    assert sorted(row["row"] for row in _json_lines(out)) == [1, 5]
    assert err.startswith("muse: rows.jsonl line 2: found no JSON")
    assert "muse: rows.jsonl line 4: found a JSON list, expected a JSON object; it is left out" in err
    assert err.splitlines()[-2].split()[:4] == ["DONE", "FAILED", "DEFERRED", "BROKEN"]


def test_an_output_that_exists_is_refused_unless_it_is_to_be_gone_on_with_or_written_over(
    rows: Path, tmp_path: Path, echoing: JournalFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.jsonl"
    run = ["batch", "run", str(rows), *CONTEXT, "--output", str(output)]
    output.write_text("somebody's\n", encoding="utf-8")
    assert main(run) == 1
    assert main([*run, "--resume"]) == 1
    said = capsys.readouterr().err
    assert "which exists, expected a new file; --resume goes on with this one, --force writes over it" in said
    assert "of which the journal has no batch" in said
    assert output.read_text(encoding="utf-8") == "somebody's\n"
    assert echoing.lines() == []
    assert main([*run, "--force"]) == 0
    assert main([*run, "--resume"]) == 0
    assert len(_json_lines(output.read_text(encoding="utf-8"))) == 2
    assert len(echoing.lines()) == 2
    assert main(["batch", "run", str(rows), *CONTEXT, "--output", str(rows), "--force"]) == 1
    assert "which is the input" in capsys.readouterr().err


def test_an_answer_of_a_schema_is_an_object_in_the_output(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = tmp_path / "schema.json"
    form = {"type": "object", "properties": {"echo": {"type": "string"}}, "required": ["echo"]}
    schema.write_text(json.dumps(form), encoding="utf-8")
    assert main(["batch", "run", str(rows), *CONTEXT, "--schema", str(schema)]) == 0
    assert {"echo": "Tide"} in [row["response"] for row in _json_lines(capsys.readouterr().out)]
    output = tmp_path / "out.csv"
    assert main(["batch", "run", str(rows), *CONTEXT, "--schema", str(schema), "--output", str(output)]) == 0
    with output.open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [json.loads(row["response"])["echo"] for row in table] == ["Tide", "Moon"]
    assert table[1]["tags"] == '["x"]'


def test_failed_and_deferred_rows_are_told_and_can_be_asked_again(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.jsonl"
    run = ["batch", "run", str(rows), *CONTEXT, "--output", str(output), "--ledger", "tides", "--concurrency", "1"]
    with testing.script(ProviderDown("gone"), BudgetExceeded("$5 of $5 spent")):
        assert main(run) == 1
    assert "To go on: muse batch resume tides" in capsys.readouterr().err
    assert main(["batch", "show", "tides", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["failed"], shown["deferred"], shown["open"], shown["rows"]) == (1, 1, 0, 2)
    assert [error["class"] for error in shown["errors"]] == ["ProviderDown", "BudgetExceeded"]
    assert main(["batch", "resume", "tides"]) == 1
    assert "--retry-failed" in capsys.readouterr().err
    by_id = {row["id"]: row for row in _json_lines(output.read_text(encoding="utf-8"))}
    assert (by_id[2]["response"], "gone" in by_id[1]["error"]) == ("Moon", True)
    assert main(["batch", "resume", "tides", "--retry-failed"]) == 0
    assert all(row["error"] is None for row in _json_lines(output.read_text(encoding="utf-8")))


def test_list_show_and_export(rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["batch", "list"]) == 0
    assert "No batches in" in capsys.readouterr().out
    assert main(["batch", "run", str(rows), *CONTEXT, "--ledger", "tides"]) == 0
    path_of("odd").write_bytes(b"nothing of ours")
    capsys.readouterr()
    assert main(["batch", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[:7] == ["tides", "2", "0", "0", "0", "4", "$0"]
    assert "a ledger that cannot be used" in lines[3]
    assert main(["batch", "export", "tides", "--output", str(tmp_path / "out.csv")]) == 0
    assert main(["batch", "export", "tides", "--output", str(tmp_path / "out.csv")]) == 1
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        assert [row["response"] for row in csv.DictReader(file)] == ["Tide", "Moon"]
    capsys.readouterr()
    assert main(["batch", "export", "tides"]) == 0
    assert [row["tags"] for row in _json_lines(capsys.readouterr().out)[1:]] == [["x"]]
    assert main(["batch", "show", "none"]) == 1
    assert "ledger: found 'none', expected one of odd, tides" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told", "status"),
    [
        (["run", "none.jsonl", *CONTEXT], "INPUT: found", 1),
        (["run", "rows.txt", *CONTEXT], "expected a file that ends in .jsonl", 2),
        (["run", "rows.jsonl", *CONTEXT, "--output", "out.xls"], "--output: found", 2),
        (["run", "rows.jsonl", *CONTEXT, "--schema", "rows.jsonl"], "--schema: found", 2),
        (["run", "rows.jsonl", *CONTEXT, "--template", "none"], "--template: found 'none', which cannot be read", 2),
        (["run", "rows.jsonl", *CONTEXT, "--ledger", "a/b"], "ledger: found 'a/b'", 2),
        (["run", "rows.jsonl", *CONTEXT, "--deadline", "36h"], "--deadline: found one for live calls", 2),
        (["run", "rows.jsonl", "--context", ""], "--context: found ''", 2),
        (["run", "rows.jsonl", *CONTEXT, "--lane", "overnight"], "--lane: found 'overnight', while 'echo' answers", 1),
        (["run", "rows.jsonl", *CONTEXT, "--field", "title"], "rows.jsonl line 1: found no field 'title'", 1),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_sent(
    rows: Path, echoing: JournalFolder, capsys: pytest.CaptureFixture[str], words: list[str], told: str, status: int
) -> None:
    assert main(["batch", *words]) == status
    assert told in capsys.readouterr().err
    assert echoing.lines() == []
    assert names() == []


@pytest.mark.parametrize("wrong", ["0", "-1", "many", "1.5"])
def test_a_senseless_concurrency_is_wrong_usage(rows: Path, capsys: pytest.CaptureFixture[str], wrong: str) -> None:
    assert main(["batch", "run", str(rows), *CONTEXT, f"--concurrency={wrong}"]) == 2
    assert "expected a whole number from 1 on, or auto" in capsys.readouterr().err


def test_an_unknown_provider_is_told_before_anything_is_sent(
    rows: Path, echoing: JournalFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    echoing.route(default={"provider": "nobody"})
    assert main(["batch", "run", str(rows), *CONTEXT]) == 1
    assert "Unknown provider: 'nobody'" in capsys.readouterr().err
    assert names() == []


@pytest.fixture(name="slow")
def _slow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, echoing: JournalFolder) -> Iterator[dict[str, str]]:
    """Forty rows, and the variables by which they are answered a tenth of a second after each call."""
    lines = [json.dumps({"text": f"question {number}"}) for number in range(40)]
    (tmp_path / "many.jsonl").write_text("\n".join(lines), encoding="utf-8")
    echoing.route(default={"provider": "openai"})
    with LoopbackServer(latency_s=0.1) as server:
        yield {"OPENAI_API_KEY": "key-123456", "OPENAI_BASE_URL": f"{server.url}/v1"}


def _run(*words: str) -> tuple[str, ...]:
    return ("batch", "run", "many.jsonl", *CONTEXT, "--output", "out.jsonl", "--ledger", "many", *words)


def _answered() -> list[int]:
    return [row["row"] for row in _json_lines(Path("out.jsonl").read_text(encoding="utf-8"))]


def test_ctrl_c_once_finishes_what_is_under_way_and_says_how_to_go_on(slow: dict[str, str]) -> None:
    with Terminal(MUSE, *_run(), columns=120, **slow) as terminal:
        terminal.read_until("5 in flight")
        terminal.type("\x03")
        terminal.read_until("Ctrl-C again stops at once")
        assert terminal.end() == 130
        shown = STYLE.sub("", terminal.shown)
    assert "To go on: muse batch resume many" in shown
    assert "in flight" in shown
    first = _answered()
    assert 5 <= len(first) < 40
    assert len(set(first)) == len(first)
    with Terminal(MUSE, "batch", "resume", "many", columns=120, **slow) as terminal:
        assert terminal.end() == 0
        shown = STYLE.sub("", terminal.shown)
    assert sorted(_answered()) == list(range(1, 41))
    assert int(shown.rstrip().splitlines()[-1].split()[3]) == len(first), "those came from the ledger"


def test_ctrl_c_twice_stops_at_once_and_can_be_gone_on_with(slow: dict[str, str]) -> None:
    with Terminal(MUSE, *_run("--concurrency", "3"), columns=120, **slow) as terminal:
        terminal.read_until("3 in flight")
        terminal.type("\x03")
        terminal.read_until("again stops at once")
        terminal.type("\x03")
        assert terminal.end() == 130
    assert len(_answered()) < 40
    with Terminal(MUSE, *_run("--concurrency", "auto", "--resume"), columns=120, **slow) as terminal:
        assert terminal.end() == 0
    assert sorted(_answered()) == list(range(1, 41))


def test_sigterm_leaves_a_batch_that_can_be_gone_on_with(slow: dict[str, str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", MUSE, "batch", "run", "many.jsonl", *CONTEXT, "--ledger", "many"],
        env=environment(**slow),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    os.kill(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "To go on: muse batch resume many" in err
    assert "\x1b" not in err, "no bar where nobody looks"
    assert len(out.splitlines()) < 39
