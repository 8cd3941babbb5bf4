"""Shows what `muse runs` and `muse run` tell of agent runs, and how one that was cut off is taken up again."""

from __future__ import annotations

import json
import os
import shlex
import signal
from typing import Any

import pytest

from muse import testing
from muse.cli import main
from muse.errors import MuseError
from muse.runs import run_files
from muse.testing import Say
from muse.types.events import now_ms
from tests.at_terminal import STYLE, Terminal
from tests.journal_folder import JournalFolder, start

# A process whose second model call never answers: it is killed there.
CUT_OFF = """
import asyncio, sys
from muse import testing
from muse.cli import main
from muse.providers.echo import EchoProvider

send = EchoProvider.asend

async def once(self, client, payload, deadline):
    if len(payload["request"].turns) > 2:
        sys.stderr.write("asked again\\n")
        sys.stderr.flush()
        await asyncio.Event().wait()
    return await send(self, client, payload, deadline)

EchoProvider.asend = once
with testing.script(testing.calls(("add_todo", {"text": "Paint the boat"})), "Never said."):
    main(["agent", "default", "Add: paint the boat."])
"""


@pytest.fixture(name="kept")
def _kept(journal: JournalFolder) -> JournalFolder:
    journal.route(default={"provider": "echo", "tier": 2})
    return journal


def _ask(prompt: str, *steps: Any, status: int = 0) -> str:
    """Run the default agent: the run's id."""
    with testing.script(*steps):
        assert main(["agent", "default", prompt]) == status
    return run_files.newest_ids()[0]


def _rows(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    capsys.readouterr()
    assert main(["runs", "--json"]) == 0
    return {row["agent_id"]: row for row in json.loads(capsys.readouterr().out)}


def _cut_off() -> str:
    """The id of a run that was killed while it waited for its second answer."""
    with start(CUT_OFF) as child:
        assert child.stderr is not None
        while (line := child.stderr.readline()) != "asked again\n":
            assert line, "the run ended before it was cut off"
        os.kill(child.pid, signal.SIGKILL)
        child.communicate(timeout=60)
    return run_files.newest_ids()[0]


def test_runs_lists_state_persona_provider_and_sums(kept: JournalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    done = _ask("What is open?", testing.calls(("list_todos", {})), "Nothing.")
    failed = _ask("And now?", MuseError("no water"), status=1)
    rows = _rows(capsys)
    assert list(rows) == [failed, done]
    assert (rows[done]["state"], rows[failed]["state"]) == ("completed", "failed")
    shown = {name: rows[done][name] for name in ("persona", "provider", "turns", "tool_calls", "prompt")}
    assert shown == {"persona": "default", "provider": "echo", "turns": 2, "tool_calls": 1, "prompt": "What is open?"}
    assert rows[done]["tokens"] == sum(line["usage"]["total_tokens"] for line in kept.lines()[:2])
    assert rows[done]["duration_s"] >= 0
    assert main(["runs", "-n", "1"]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == [
        "RUN",
        "STATE",
        "PERSONA",
        "PROVIDER",
        "PROMPT",
        "TURNS",
        "TOOLS",
        "TOKENS",
        "COST",
        "SECONDS",
    ]
    assert line.startswith(f"{failed}  failed")


@pytest.mark.parametrize("columns", [60, 100, 160])
@pytest.mark.parametrize("words", [["runs"], ["agents"]], ids=str)
def test_in_any_window_ids_and_names_stay_whole(kept: JournalFolder, words: list[str], columns: int) -> None:
    agent_id = _ask("What is open, and what of it is more urgent than the painting of the boat?", "Nothing.")
    with Terminal(
        "import sys\nfrom muse.cli import main\nsys.exit(main(sys.argv[1:]))", *words, columns=columns
    ) as terminal:
        assert terminal.end() == 0
    shown = STYLE.sub("", terminal.shown)
    assert all(
        name in shown for name in ([agent_id] if words == ["runs"] else ["agent.system.weekly_digest", "echo-1"])
    )
    assert max(len(line.rstrip()) for line in shown.splitlines() if "muse agent" not in line) <= columns


def test_without_runs_the_first_one_is_proposed(kept: JournalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs"]) == 0
    assert "muse agent default" in capsys.readouterr().out
    assert main(["run"]) == 1
    assert "muse runs lists them" in capsys.readouterr().err


def test_a_page_has_prompt_tools_answer_and_sums_in_order(
    kept: JournalFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    called = testing.calls(("list_todos", {}))
    agent_id = _ask("What is open?", Say("", called.calls, thinking="Look at the list."), "Nothing\x1b[2J.")
    capsys.readouterr()
    assert main(["run"]) == 0
    page = capsys.readouterr().out
    wanted = [f"Run {agent_id}, ", "default on echo echo-1", "What is open?", "Look at the list.", "list_todos()"]
    wanted += [
        '"todos": []',
        "answer",
        r"Nothing\x1b[2J.",
        "completed, 2 turns, 1 tool call, ",
        f"--continue {agent_id}",
    ]
    places = [page.index(one) for one in wanted]
    assert places == sorted(places)
    assert main(["run", agent_id, "--json"]) == 0
    assert [event["event"] for event in json.loads(capsys.readouterr().out)][-1] == "finish"


def test_the_chain_of_handoffs_is_shown(kept: JournalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    first = _ask("Gather.", "Three boats.")
    request = {"event": "request", "ts": now_ms(), "prompt": "Three boats.", "persona": "default"}
    second, path = run_files.new_file("over", json.dumps({**request, "handoff_from": first}) + "\n")
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"event": "finish", "ts": now_ms(), "result": "3"}) + "\n")
    assert _rows(capsys)[second]["handoff_from"] == first
    assert main(["runs"]) == 0
    assert f"{second} ← {first}" in capsys.readouterr().out
    assert main(["run", first]) == 0
    assert f"Chain: [{first}] -> {second}" in capsys.readouterr().out


def test_a_run_that_was_killed_is_taken_up_in_its_own_log_and_no_tool_runs_twice(
    kept: JournalFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    agent_id = _cut_off()
    assert _rows(capsys)[agent_id]["state"] == "failed"
    assert _rows(capsys)[agent_id]["reason"] == "cut off"
    assert main(["run", agent_id]) == 0
    assert f"muse run --resume {agent_id}" in capsys.readouterr().out
    with testing.script("It is on the list.") as script:
        assert main(["run", "--resume", agent_id]) == 0
    assert capsys.readouterr().out == "It is on the list.\n"
    [request] = script.requests
    assert "Paint the boat" in str(request.turns[-1])
    assert _rows(capsys)[agent_id]["state"] == "completed"
    [found] = (kept.path / "agents").glob("*.jsonl")
    events = [json.loads(line)["event"] for line in found.read_text(encoding="utf-8").splitlines()]
    assert events.count("tool_start") == 1
    assert events[-1] == "finish"


def test_a_run_that_ended_in_an_error_is_taken_up_in_a_new_log(
    kept: JournalFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = _ask("What is open?", testing.calls(("list_todos", {})), MuseError("no water"), status=1)
    with testing.script("Nothing."):
        assert main(["run", "--resume", failed]) == 0
    assert capsys.readouterr().out == "Nothing.\n"
    assert len(run_files.newest_ids()) == 2


def test_what_is_finished_unknown_or_under_way_is_not_resumed(
    kept: JournalFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    done = _ask("What is open?", "Nothing.")
    recorder = run_files.EventWriter.begin()
    recorder.write({"event": "start", "ts": now_ms(), "prompt": "x", "persona": "default"})
    for agent_id, reason in (
        (done, "is finished"),
        ("1111111111111", "was begun"),
        (recorder.agent_id, "is under way"),
    ):
        capsys.readouterr()
        assert main(["run", "--resume", agent_id]) == 1
        assert reason in capsys.readouterr().err
    recorder.end()


def _suggested(agent_id: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The words of the command that `muse run` suggests for a run."""
    capsys.readouterr()
    assert main(["run", agent_id]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    return shlex.split(line[line.index("muse ") :])[1:]


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled", "cut off"])
def test_the_command_that_is_suggested_for_a_run_works(
    end: str, kept: JournalFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    called = testing.calls(("list_todos", {}))
    if end == "cut off":
        agent_id = _cut_off()
    elif end == "cancelled":
        agent_id = _ask("What's open?", called, KeyboardInterrupt(), status=130)
    else:
        last, status = ("Nothing.", 0) if end == "completed" else (MuseError("no water"), 1)
        agent_id = _ask("What's open?", called, last, status=status)
    assert _rows(capsys)[agent_id]["state"] == ("failed" if end == "cut off" else end)
    words = _suggested(agent_id, capsys)
    with testing.script("Said.") as script:
        assert main(words) == 0
    assert capsys.readouterr().out == "Said.\n"
    assert len(script.requests[0].turns) > 1
    assert next(iter(_rows(capsys).values()))["state"] == "completed"


@pytest.mark.parametrize(
    "words",
    [
        ["agent", "default", "--continue", "{}", "And then?"],
        ["agent", "--continue", "{}", "default", "And then?"],
        ["agent", "default", "And then?", "--continue", "{}"],
        ["agent", "default", "--max-turns", "3", "And then?", "--continue", "{}"],
    ],
    ids=" ".join,
)
def test_options_may_stand_anywhere(words: list[str], kept: JournalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    agent_id = _ask("What is open?", "Nothing.")
    with testing.script("Still nothing.") as script:
        assert main([word.replace("{}", agent_id) for word in words]) == 0
    assert [str(turn) for turn in script.requests[0].turns][-1].count("And then?") == 1
    assert "What is open?" in str(script.requests[0].turns)


def test_what_is_suggested_names_who_answered(kept: JournalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    kept.route(default={"provider": "google"})
    with testing.script("Nothing."):
        assert main(["agent", "default", "What is open?", "--provider", "echo", "--tier", "3"]) == 0
    words = _suggested(run_files.newest_ids()[0], capsys)
    assert words[2:6] == ["--provider", "echo", "--tier", "3"]
    with testing.script("Still nothing."):
        assert main(words) == 0


def test_tokens_and_cost_of_a_run_that_failed_are_those_of_its_lines(
    kept: JournalFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = _ask("What is open?", testing.calls(("list_todos", {})), MuseError("no water"), status=1)
    row = _rows(capsys)[failed]
    lines = [line for line in kept.lines() if line["agent_id"] == failed]
    assert row["tokens"] == sum(line["usage"]["total_tokens"] for line in lines) > 0
    assert (row["turns"], row["cost_usd"]) == (1, 0.0)


def test_a_run_that_never_began_cost_nothing(kept: JournalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    kept.route(default={"provider": "ollama"})  # it has a model at no tier
    assert main(["agent", "default", "What is open?"]) == 1
    [row] = _rows(capsys).values()
    assert (row["state"], row["provider"], row["cost_usd"]) == ("failed", "", 0)
