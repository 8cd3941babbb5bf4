"""Runs the Makefile's targets for agents with the tests' own interpreter: what they print, and what they never read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from muse.providers._local.weights import WeightsMissing, find_weights
from tests.journal_folder import ROOT, JournalFolder, environment

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
QUESTION = "What did I decide about the release on Tuesday?"
AWKWARD = 'it\'s "5 $" $(shell touch pwned) `touch pwned` $$HOME \\ #1\nand a second line'


@pytest.fixture(name="checkout")
def _checkout(tmp_path: Path) -> Path:
    """A folder with the Makefile and a virtual environment whose `muse` is the one under test."""
    folder = tmp_path / "check out"
    (folder / "venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    muse = folder / "venv" / "bin" / "muse"
    muse.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m muse "$@"\n', encoding="utf-8")
    muse.chmod(0o755)
    (folder / "venv" / ".ready").touch()
    return folder


def _make(folder: Path, *words: str, status: int = 0, **changes: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["make", "--no-print-directory", "VENV=venv", *words],
        cwd=folder,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == status, f"{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(name="echoing")
def _echoing(journal: JournalFolder) -> JournalFolder:
    journal.route(default={"provider": "echo", "tier": 2})
    return journal


def test_a_prompt_reaches_the_agent_as_it_was_typed(checkout: Path, echoing: JournalFolder) -> None:
    said = _make(checkout, "agent", f"PROMPT={AWKWARD}").stdout
    assert said == f"{AWKWARD}\n"
    assert not list(checkout.rglob("pwned"))


def test_name_and_prompt_of_the_environment_are_somebody_elses(checkout: Path, echoing: JournalFolder) -> None:
    said = _make(checkout, "agent", "PROMPT=When?", NAME="laptop", PROMPT="$P$G")
    assert said.stdout == "When?\n"


def test_a_name_is_never_read_by_the_shell(checkout: Path, echoing: JournalFolder) -> None:
    failed = _make(checkout, "agent", "NAME=x; touch pwned", "PROMPT=When?", status=2)
    assert "'x; touch pwned'" in failed.stderr
    failed = _make(checkout, "agent-$(touch pwned)", status=2)
    assert "'$(touch pwned)'" in failed.stderr
    assert not list(checkout.rglob("pwned"))


def test_without_a_prompt_the_agent_says_how(checkout: Path, echoing: JournalFolder) -> None:
    assert "PROMPT: found nothing" in _make(checkout, "agent", status=2).stderr


def test_agents_lists_them(checkout: Path, echoing: JournalFolder) -> None:
    assert "agent.todos.triage" in _make(checkout, "agents").stdout


def test_agent_daily_carries_out_what_is_due(checkout: Path, echoing: JournalFolder) -> None:
    assert "agent-daily" not in _make(checkout, "-n", "agent-daily").stderr
    assert '"venv/bin/muse" daily' in _make(checkout, "-n", "agent-daily").stdout


def test_an_agent_with_inputs_runs_once_until_they_change(checkout: Path, echoing: JournalFolder) -> None:
    personas = echoing.path / "config" / "agents"
    personas.mkdir()
    fields = {"title": "Digest", "tools": [], "inputs": ["2*/*.md"], "output": "week.md", "prompt": "Sum up."}
    (personas / "digest.json").write_text(json.dumps(fields), encoding="utf-8")
    (personas / "digest.txt").write_text("Be brief.\n", encoding="utf-8")
    echoing.write({"providers": {"default": {"provider": "echo"}}, "descriptors": {"agents": ["agents"]}})
    (echoing.path / "20261103").mkdir()
    note = echoing.path / "20261103" / "a.md"
    note.write_text("Low water at six.", encoding="utf-8")

    planned = _make(checkout, "-n", "agent-digest").stdout
    assert "digest would run on echo echo-1: it has not run yet" in planned
    assert not (echoing.path / "agents").exists()
    assert _make(checkout, "agent-digest").stdout == "Sum up.\n"
    assert (echoing.path / "week.md").read_text(encoding="utf-8") == "Sum up.\n"
    again = _make(checkout, "agent-digest")
    assert (again.stdout, "nothing it reads has changed" in again.stderr) == ("", True)
    note.write_text("Low water at seven o'clock.", encoding="utf-8")
    assert "20261103/a.md has changed" in _make(checkout, "-n", "agent-digest").stdout


def test_an_apps_agent_is_named_with_a_dot(checkout: Path, echoing: JournalFolder) -> None:
    said = _make(checkout, "-n", "agent-todos.triage", "PROMPT=Which first?").stdout
    assert "todos:triage would run on echo echo-1" in said


def test_every_target_is_in_the_help(checkout: Path) -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    shown = set(re.findall(r"^  make (\S+)", _make(checkout, "help").stdout, re.MULTILINE))
    phony = set(" ".join(re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)).split())
    assert phony - {"FORCE", "context", "journal"} <= shown
    assert "agent-NAME" in shown


@pytest.fixture(name="fresh")
def _fresh(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a little of the example journal: of what was said and noted, one conversation."""
    try:
        find_weights(None)
    except WeightsMissing:
        pytest.skip("the embedded model's weights are not on this machine")
    monkeypatch.delenv("JOURNAL_PATH")
    shutil.copy(ROOT / "journal.json", checkout)
    skipped = shutil.ignore_patterns("transcript.jsonl", "[0-9][0-9][0-9][0-9]_*.md")
    shutil.copytree(ROOT / "fixtures" / "journal", checkout / "fixtures" / "journal", ignore=skipped)
    said = "fixtures/journal/20261103/090500_720/transcript.jsonl"
    shutil.copy(ROOT / said, checkout / said)
    return checkout


def test_make_run_ends_with_an_agents_answer_and_its_source(fresh: Path) -> None:
    done = _make(fresh, "run")
    insight, heading, answer = done.stdout.partition(f"\nAgent: {QUESTION}\n\n")
    assert "insight.daily" in insight
    assert heading
    assert "12 November" in answer
    assert "Source: 20261103/" in answer
    assert "✓ search_journal(query='release'" in done.stderr


def test_make_agent_answers_from_the_example_journal(fresh: Path) -> None:
    done = _make(fresh, "agent", "NAME=default", f"PROMPT={QUESTION}")
    assert "12 November" in done.stdout
    assert "✓ search_journal(" in done.stderr


def test_batch_asks_for_every_row_of_a_file(checkout: Path, echoing: JournalFolder, tmp_path: Path) -> None:
    rows = checkout / "my $(touch pwned) rows.jsonl"
    rows.write_text('{"text": "Tide"}\n', encoding="utf-8")
    (checkout / "ask.txt").write_text("Say {text}.", encoding="utf-8")
    words = ["batch", f"INPUT={rows.name}", "TEMPLATE=ask.txt", "OUTPUT=out.jsonl", "CONTEXT=app.tides"]
    for _ in range(2):
        _make(checkout, *words)
        assert json.loads((checkout / "out.jsonl").read_text(encoding="utf-8"))["response"] == "Say Tide."
    assert [line["context"] for line in echoing.lines()] == ["app.tides"]
    assert not list(checkout.rglob("pwned"))
    assert "INPUT: not given" in _make(checkout, "batch", status=2, INPUT=rows.name).stderr
