"""Shows what each subcommand prints: to people at a terminal, to pipes, and as JSON to programs."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from muse import models
from muse.cli import main
from muse.providers._local.weights import SMOLLM2, WeightsMissing, cache_folder, find_weights
from tests.journal_folder import ROOT, JournalFolder, environment

EXAMPLE = ROOT / "fixtures" / "journal"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
EXPLAIN = ["route", "observe.extract.selection", "--explain"]
ECHO = {"default": {"provider": "echo", "tier": 2}}


@pytest.fixture(name="example")
def _example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the example journal's settings and token log, in force."""
    for name in ("config", "tokens"):
        shutil.copytree(EXAMPLE / name, tmp_path / "journal" / name)
    monkeypatch.setenv("JOURNAL_PATH", str(tmp_path / "journal"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "journal"


def _json(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> Any:
    capsys.readouterr()
    assert main([*words, "--json"]) == status
    return json.loads(capsys.readouterr().out)


def _at_terminal(*words: str, columns: int) -> str:
    """What a command shows in a window of so many columns, colours included."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "muse", *words]
    with subprocess.Popen(
        command, env=environment(COLUMNS=str(columns), TERM="xterm-256color"), stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = bytearray()
        while piece := _read(ours):
            shown += piece
        assert process.wait(timeout=60) in {0, 1}
    os.close(ours)
    return shown.decode("utf-8").replace("\r\n", "\n")


def _read(handle: int) -> bytes:
    """The next piece from a terminal; nothing once its other side is closed."""
    try:
        return os.read(handle, 65536)
    except OSError:
        return b""


def test_a_route_is_one_line(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["route", "planner.generate"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("planner.generate -> google ")
    assert line.endswith("(tier 1, pro), by providers.contexts['planner.*']")


def test_explain_says_of_each_rule_what_it_gives_and_what_overrules_it(journal: JournalFolder) -> None:
    contexts = {"insight.*": {"provider": "openai", "tier": 3}, "insight.w*": {"tier": 1}, "insight.week": {"tier": 2}}
    journal.route(**ECHO, contexts=contexts)
    done = subprocess.run(
        [sys.executable, "-m", "muse", "route", "insight.week", "--explain"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    rules = {line.split("  ")[2]: line for line in done.stdout.splitlines() if re.match(r" +\d", line)}
    assert "gives tier" in rules["providers.contexts['insight.week']"]
    assert "tier overruled by rule 1" in rules["providers.contexts['insight.w*']"]
    assert "shadowed" in rules["providers.contexts['insight.*']"]
    assert "gives provider" in rules["providers.default"]


def test_explain_as_json_has_every_rule_and_who_won(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = _json(capsys, "route", "observe.enrich", "--explain")
    assert found["won"]["provider"] == "providers.contexts['observe.enrich']"
    assert found["won"]["tier"] == "providers.contexts['observe.*']"
    assert [rule["where"] for rule in found["rules"]][-1] == "providers.default"
    assert set(_json(capsys, "route", "observe.enrich")) == {
        "context",
        "provider",
        "model",
        "tier",
        "reason",
        "fallbacks",
    }


def test_a_provider_told_by_a_model_is_explained(journal: JournalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    journal.route(**ECHO, contexts={"insight.*": {"model": "gpt-6-luna"}})
    assert main(["route", "insight.x", "--explain"]) == 0
    assert "told by the name of the model" in capsys.readouterr().out


@pytest.mark.parametrize("context", ["", "no.such.context"])
def test_an_unknown_context_gets_the_default(
    journal: JournalFolder, capsys: pytest.CaptureFixture[str], context: str
) -> None:
    journal.route(**ECHO)
    assert _json(capsys, "route", context)["provider"] == "echo"


def test_routes_lists_known_contexts_and_those_of_journal_json(
    example: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {row["context"]: row for row in _json(capsys, "routes")}
    assert {"observe.describe.frame", "insight.*", "agent.system.daily_review", "insight.weekly"} <= set(rows)
    assert rows["insight.weekly"]["declared"] == "journal.json"
    assert rows["insight.weekly"]["from"]["tier"] == "providers.contexts['insight.weekly']"
    assert {row["context"] for row in _json(capsys, "routes", "agent.todos.*")} == {
        "agent.todos.breakdown",
        "agent.todos.triage",
    }


def test_routes_into_a_pipe_is_one_aligned_line_a_context(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["routes", "observe.*"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    column = head.index("MODEL FROM")
    assert all(line[column - 1] == " " and line[column] != " " for line in lines)
    assert all(line.isascii() for line in lines)


def test_a_context_without_a_route_is_said_and_is_status_1(
    journal: JournalFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    journal.route(**ECHO, contexts={"observe.enrich": {"provider": "nobody"}})
    rows = {row["context"]: row for row in _json(capsys, "routes", "observe.*", status=1)}
    assert "nobody" in rows["observe.enrich"]["problem"]
    assert rows["observe.summarize"]["provider"] == "echo"


@pytest.mark.parametrize("words", [["routes"], ["providers"], ["usage"], ["usage", "--by", "day,model"], EXPLAIN])
@pytest.mark.parametrize("columns", [80, 140])
def test_nothing_is_wider_than_the_window(example: Path, words: list[str], columns: int) -> None:
    shown = COLOUR.sub("", _at_terminal(*words, columns=columns))
    wide = [line for line in shown.splitlines() if len(line.rstrip()) > columns]
    assert shown
    assert not wide


def test_a_terminal_gets_colour_and_a_pipe_does_not(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "\x1b[" in _at_terminal("routes", columns=140)
    assert main(["usage"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_a_name_in_a_file_cannot_steer_the_terminal(journal: JournalFolder) -> None:
    journal.route(**ECHO, contexts={"evil.\x1b]0;title\x07\x1b[2J": {"tier": 1}})
    for words in (["routes"], ["check"]):
        shown = _at_terminal(*words, columns=140)
        assert "\x1b]0" not in shown
        assert "\x1b[2J" not in shown


def test_check_is_status_1_with_one_line_a_finding(journal: JournalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    journal.route(**ECHO, contexts={"insight.*": {"tier": 99}, "nowhere.at.all": {"tier": 1}})
    assert main(["check"]) == 1
    *findings, last = capsys.readouterr().out.splitlines()
    assert len(findings) == 2
    assert all(re.match(r"\S.*: found .+, expected .+", finding) for finding in findings)
    assert last.startswith("2 findings (")


def test_check_is_status_0_where_nothing_is_wrong(journal: JournalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    journal.route(**ECHO)
    assert main(["check"]) == 0
    assert capsys.readouterr().out.startswith("Nothing is wrong (")


def test_check_reports_a_torn_journal_json_as_a_finding(
    journal: JournalFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    journal.write("{")
    report = _json(capsys, "check", status=1)
    assert [finding["where"] for finding in report["findings"]] == ["journal/config/journal.json"]


def test_check_looks_at_the_folders_it_is_given(
    journal: JournalFolder, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    journal.route(**ECHO)
    (tmp_path / "mine.py").write_text('generate("hello", "mine.own")\n')
    assert [finding["where"] for finding in _json(capsys, "check", "mine.py", status=1)["findings"]] == ["mine.py:1"]
    assert main(["check", "no-such-folder"]) == 2


def test_providers_never_shows_a_key(
    journal: JournalFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-0123456789")
    rows = {row["name"]: row for row in _json(capsys, "providers")}
    assert (rows["openai"]["key"], rows["google"]["key"], rows["echo"]["key"]) == ("present", "missing", "not needed")
    assert main(["providers"]) == 0
    assert "sk-very" not in json.dumps(rows) + capsys.readouterr().out


def test_providers_shows_the_models_that_are_in_force(
    journal: JournalFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"base_url": "http://127.0.0.1:9/v1", "models": {"3": "small"}}
    journal.route(**ECHO, models={"openai": {"2": "gpt-mine"}}, compatible={"bench": row})
    monkeypatch.setenv("OLLAMA_MODEL", "llama")
    rows = {row["name"]: row for row in _json(capsys, "providers")}
    assert rows["openai"]["models"]["2"] == "gpt-mine"
    assert rows["bench"]["models"] == {"3": "small"}
    assert rows["ollama"]["models"] == {"1": "llama", "2": "llama", "3": "llama"}
    assert rows["bench"]["address"] == "http://127.0.0.1:9/v1"


def test_a_test_of_a_provider_ends_with_a_status_and_without_traceback(
    journal: JournalFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _json(capsys, "providers", "--test", "echo")["success"] is True
    failed = _json(capsys, "providers", "--test", "openai", status=1)
    assert failed["success"] is False
    assert main(["providers", "--test", "nobody"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1


def _lines(example: Path) -> list[Mapping[str, Any]]:
    """The token log's whole lines."""
    texts = [line for path in (example / "tokens").glob("*.jsonl") for line in path.read_text("utf-8").splitlines()]
    return [json.loads(text) for text in texts if text.endswith("}")]


def test_usage_adds_up_the_whole_log(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = _json(capsys, "usage", "--by", "model,day")
    total, lines = found["total"], _lines(example)
    assert total["calls"] == len(lines) == sum(row["calls"] for row in found["rows"])
    assert total["failed"] == sum(1 for line in lines if line.get("error"))
    assert total["input_tokens"] == sum(line["usage"]["input_tokens"] for line in lines)
    assert total["cost_usd"] == pytest.approx(sum(row["cost_usd"] for row in found["rows"]))


def test_usage_of_some_days_is_part_of_the_whole(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    by_day = {row["day"]: row["calls"] for row in _json(capsys, "usage", "--by", "day")["rows"]}
    assert _json(capsys, "usage", "--day", "20261103")["total"]["calls"] == by_day["20261103"]
    since = _json(capsys, "usage", "--since", "20261104")["total"]["calls"]
    assert since == by_day["20261104"] + by_day["20261105"]
    assert main(["usage", "--day", "20260101"]) == 0
    assert "No calls in the token log of 20260101" in capsys.readouterr().out


def test_usage_since_some_days_ago_counts_today(journal: JournalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    models.log_token_usage("gpt-6-luna", {"input_tokens": 7, "output_tokens": 2}, context="app.chat.title")
    journal.tokens.joinpath("20200101.jsonl").write_bytes(journal.log_bytes())
    assert _json(capsys, "usage", "--since", "1d")["total"]["total_tokens"] == 9
    assert _json(capsys, "usage")["total"]["total_tokens"] == 18


def test_usage_as_csv_has_the_numbers_of_the_json(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = _json(capsys, "usage", "--by", "provider")["rows"]
    assert main(["usage", "--by", "provider", "--csv"]) == 0
    read = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["provider"], int(row["calls"]), float(row["cost_usd"])) for row in read] == [
        (row["provider"], row["calls"], row["cost_usd"]) for row in rows
    ]


def test_usage_says_what_it_could_not_price_or_read(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (example / "tokens" / "20261105.jsonl").open("a") as log:
        log.write('{"torn": \n')
        line = {"model": "house-model", "usage": {"input_tokens": 5}, "cost_usd": None, "cost_note": "no price known"}
        log.write(json.dumps(line) + "\n")
    unpriced = sum(1 for line in _lines(example) if "cost_note" in line and not line.get("error"))
    assert _json(capsys, "usage")["total"]["unpriced"] == unpriced > 0
    assert main(["usage"]) == 0
    out = capsys.readouterr().out
    assert f"{unpriced} call has no known price" in out
    assert "1 line of the log cannot be read" in out


def test_the_longest_bar_is_the_largest_sum(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["usage", "--by", "model"]) == 0
    picture = capsys.readouterr().out.partition("\nCost\n")[2].partition("\n\n")[0].splitlines()
    lengths = [line.count("#") for line in picture]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > lengths[-1] >= 1


BLOCKS = ("providers", "provider:google", "provider:azure", "provider:local", "contexts", "errors", "commands")


@pytest.fixture(name="pages")
def _pages(tmp_path: Path) -> Path:
    """A folder with a README and a page that has every block, empty."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("# A readme\n")
    text = "".join(f"Before.\n\n<!-- muse:{name} -->\n<!-- /muse:{name} -->\n\n" for name in BLOCKS)
    (tmp_path / "docs" / "page.md").write_text(text)
    return tmp_path


def test_docs_are_out_of_step_until_they_are_written(pages: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = pages / "docs" / "page.md"
    before = page.read_text()
    assert main(["docs", "--check", str(pages)]) == 1
    assert "page.md" in capsys.readouterr().out
    assert page.read_text() == before
    assert main(["docs", str(pages)]) == 0
    assert main(["docs", "--check", str(pages)]) == 0
    text = page.read_text()
    assert text.count("Before.") == len(BLOCKS)
    for words in ("`gemini-", "`AZURE_BASE_URL`", "`observe.describe.frame`", "`RateLimitError`", "`muse usage`"):
        assert words in text


def test_docs_do_not_depend_on_machine_journal_or_folder(
    pages: Path, journal: JournalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["docs", str(pages)]) == 0
    written = (pages / "docs" / "page.md").read_text()
    row = {"base_url": "http://127.0.0.1:9/v1", "models": {"1": "other"}}
    journal.route(compatible={"google": row, "bench": row}, models={"google": {"1": "other"}})
    monkeypatch.setenv("GOOGLE_MODEL", "other")
    monkeypatch.chdir("/")
    assert main(["docs", "--check", str(pages)]) == 0
    journal.write("{")
    assert main(["docs", "--check", str(pages)]) == 0
    assert str(ROOT) not in written
    assert str(Path.home()) not in written


@pytest.mark.parametrize(
    "text",
    [
        "\n<!-- muse:nonsense -->\n<!-- /muse:nonsense -->\n",
        "\n<!-- muse:errors -->\n",
        "\n<!-- /muse:errors -->\n",
        "\n<!-- muse:provider:nobody -->\n<!-- /muse:provider:nobody -->\n",
    ],
)
def test_a_block_that_cannot_be_written_is_named_with_its_line(
    pages: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (pages / "README.md").write_text(text)
    assert main(["docs", str(pages)]) == 1
    assert "README.md:2: found" in capsys.readouterr().err


def test_local_status_says_where_the_weights_are(
    journal: JournalFolder, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "mine.gguf"
    model.write_bytes(b"GGUF" + bytes(96))
    monkeypatch.setenv("MUSE_LOCAL_MODEL", str(model))
    assert main(["local", "--json"]) in {0, 1}
    weights = json.loads(capsys.readouterr().out)["weights"]
    assert weights == {"name": "mine", "path": str(model), "from": "named", "size_bytes": 100, "licence": "unknown"}


def test_local_status_without_weights_says_how_to_get_them(
    journal: JournalFolder, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    journal.route(local={"model_path": str(tmp_path / "none.gguf")})
    assert main(["local", "status"]) == 1
    assert "muse local fetch" in capsys.readouterr().out


def test_fetch_says_size_and_licence_and_checks_what_is_there(
    journal: JournalFolder, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        found = find_weights(None)
    except WeightsMissing:
        pytest.skip("the weights are not on this machine")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cache_folder().mkdir(parents=True)
    (cache_folder() / SMOLLM2.file_name).symlink_to(found.path)
    assert main(["local", "fetch"]) == 0
    out = capsys.readouterr().out
    assert "98 MB, licence Apache-2.0" in out
    assert "its checksum is right" in out
