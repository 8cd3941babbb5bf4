"""Shows what `muse agent` prints, asks and returns, at a terminal and in pipes, and what `muse agents` lists."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from muse import testing
from muse.cli import main
from muse.errors import DeadlineExceeded, MuseError, ProviderTimeout
from muse.runs import run_files
from muse.testing import Say
from tests.at_terminal import STYLE, Terminal
from tests.journal_folder import JournalFolder, run, start
from tests.raw_server import calls_in, one, stdio, tool

ECHO = {"default": {"provider": "echo", "tier": 2}}

# A process that plays `steps` (a Python expression over Say and calls) and runs `muse` with its arguments.
PLAYED = """
import sys
from muse.runs import run_files
from muse import testing
from muse.cli import main
from muse.testing import Say, calls
with testing.script(*eval(sys.argv[1])):
    status = main(sys.argv[2:])
sys.exit(status)
"""
# A process whose model never answers.
ASLEEP = """
import asyncio, sys
from muse.cli import main
from muse.providers.echo import EchoProvider

async def never(*_):
    sys.stderr.write("asked\\n")
    sys.stderr.flush()
    await asyncio.Event().wait()

EchoProvider.asend = never
EchoProvider.astream = never
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(name="agents")
def _agents(journal: JournalFolder) -> Path:
    """The journal's own personas: `keeper` must ask before it adds a to-do."""
    folder = journal.path / "config" / "agents"
    journal.write({"providers": ECHO, "descriptors": {"agents": ["agents"]}})
    folder.mkdir(parents=True)
    _persona(folder, "keeper", tools=["todo"], approve=["add_*"])
    return folder


def _persona(folder: Path, name: str, **fields: Any) -> None:
    (folder / f"{name}.json").write_text(json.dumps({"title": name.title(), **fields}), encoding="utf-8")
    (folder / f"{name}.txt").write_text("Keep the harbour's books.\n", encoding="utf-8")


def _events(journal: JournalFolder) -> list[dict[str, Any]]:
    """The events of the newest run, from its start on."""
    newest = max((journal.path / "agents").glob("*.jsonl"))
    events = [json.loads(line) for line in newest.read_text(encoding="utf-8").splitlines()]
    return [event for event in events if event["event"] != "request"]


@pytest.fixture(name="routed")
def _routed(journal: JournalFolder) -> JournalFolder:
    journal.route(**ECHO)
    return journal


# Into pipes


def test_the_result_alone_is_on_standard_output(routed: JournalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with testing.script(testing.calls(("list_todos", {})), "Nothing is open."):
        assert main(["agent", "default", "What is open?"]) == 0
    out, err = capsys.readouterr()
    assert out == "Nothing is open.\n"
    assert re.fullmatch(r"✓ list_todos\(\) \d+\.\d s\n", err)


def test_a_tool_that_fails_is_one_line_with_its_reason(
    routed: JournalFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with testing.script(testing.calls(("read_entry", {"entry": "20261103/tide.md"})), "There is none."):
        assert main(["agent", "default", "Read the tides."]) == 0
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("✗ read_entry(entry='20261103/tide.md') ")
    assert "20261103/tide.md" in line.partition(" s: ")[2]


def test_a_dash_reads_the_prompt_from_standard_input(routed: JournalFolder) -> None:
    with start(PLAYED, "['Six.']", "agent", "default", "-") as child:
        out, _ = child.communicate("When does\nthe tide turn?\n", timeout=60)
    assert (out, child.returncode) == ("Six.\n", 0)
    assert _events(routed)[0]["prompt"] == "When does\nthe tide turn?"


def test_without_a_prompt_standard_input_is_read_and_an_empty_one_is_refused(routed: JournalFolder) -> None:
    with start(PLAYED, "[]", "agent", "default") as child:
        out, err = child.communicate("", timeout=60)
    assert (out, child.returncode) == ("", 1)
    assert "PROMPT: found nothing" in err


def test_json_is_one_event_a_line(routed: JournalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with testing.script(testing.calls(("list_todos", {})), "Nothing."):
        assert main(["agent", "default", "What is open?", "--json"]) == 0
    out, err = capsys.readouterr()
    names = [json.loads(line)["event"] for line in out.splitlines()]
    assert names == ["start", "tool_start", "tool_end", "finish"]
    assert err == ""


def test_what_is_said_for_a_run_reaches_it(routed: JournalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with testing.script("Six.") as script:
        assert main(["agent", "default", "When?", "--provider", "echo", "--model", "echo-2", "--no-tools"]) == 0
    [request] = script.requests
    assert (request.model, request.tools) == ("echo-2", ())
    with testing.script("Six."):
        assert main(["agent", "default", "When?", "--tier", "3"]) == 0
    assert _events(routed)[0]["model"] == "echo-1"


def test_a_result_is_saved(routed: JournalFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with testing.script("Six."):
        assert main(["agent", "default", "When?", "--save", str(tmp_path / "answer.md")]) == 0
    assert (tmp_path / "answer.md").read_text(encoding="utf-8") == "Six.\n"
    assert main(["agent", "default", "When?", "--save", str(tmp_path / "no" / "answer.md")]) == 1
    assert "--save" in capsys.readouterr().err


def test_a_run_is_taken_up(routed: JournalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with testing.script("Six."):
        assert main(["agent", "default", "When does the tide turn?"]) == 0
    agent_id = _events(routed)[0]["agent_id"]
    with testing.script("At noon.") as script:
        assert main(["agent", "default", "And the other?", "--continue", agent_id]) == 0
    [request] = script.requests
    assert [turn.parts[0] for turn in request.turns if hasattr(turn, "parts")] == [
        "When does the tide turn?",
        "And the other?",
    ]
    assert main(["agent", "default", "And?", "--continue", "1111111111111"]) == 1
    assert "1111111111111" in capsys.readouterr().err


def test_an_unknown_persona_is_told_with_the_likely_one(
    routed: JournalFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["agent", "defalt", "When?"]) == 1
    assert "'default'?" in capsys.readouterr().err
    assert not (routed.path / "agents").exists()


# Exit statuses


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (MuseError("no water"), 1),
        (ProviderTimeout("no answer"), 2),
        (DeadlineExceeded("too late"), 2),
        (Say("", finish="length"), 1),
    ],
    ids=["failure", "slow provider", "deadline", "nothing said"],
)
def test_the_status_tells_how_a_run_ended(
    routed: JournalFolder, capsys: pytest.CaptureFixture[str], end: Any, status: int
) -> None:
    with testing.script(end):
        assert main(["agent", "default", "When?"]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("muse: ")


def test_an_answer_at_a_limit_is_status_2(routed: JournalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with testing.script(testing.calls(("list_todos", {})), "So far nothing."):
        assert main(["agent", "default", "What is open?", "--max-turns", "1"]) == 2
    out, err = capsys.readouterr()
    assert out == "So far nothing.\n"
    assert err.splitlines()[-1] == "muse: ended at its limit"


def test_a_run_out_of_time_is_status_2(routed: JournalFolder) -> None:
    with start(ASLEEP, "agent", "default", "When?", "--timeout", "0.2") as child:
        _, err = child.communicate(timeout=60)
    assert child.returncode == 2, err
    assert _events(routed)[-1]["reason"] == "timeout"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_is_status_130_and_says_so_in_its_log(routed: JournalFolder, number: signal.Signals) -> None:
    with start(ASLEEP, "agent", "default", "When?") as child:
        assert child.stderr is not None
        assert child.stderr.readline() == "asked\n"
        os.kill(child.pid, number)
        out, err = child.communicate(timeout=60)
    assert (child.returncode, out, err) == (130, "", "muse: interrupted\n")
    assert [event["event"] for event in _events(routed)] == ["start", "error"]
    assert _events(routed)[-1]["reason"] == "cancelled"


# At a terminal


def test_a_terminal_shows_thinking_tools_and_the_text_in_order(routed: JournalFolder) -> None:
    steps = "[Say('', calls(('list_todos', {})).calls, thinking='Look [at] the\\nlist.'), 'Nothing is open.']"
    with Terminal(PLAYED, steps, "agent", "default", "What is open?") as terminal:
        assert terminal.end() == 0
    shown = STYLE.sub("", terminal.shown)
    wanted = ["default · echo echo-1", "Look [at] the\nlist.", "✓ list_todos() ", "Nothing is open.\n", "tokens · "]
    places = [shown.index(one) for one in wanted]
    assert places == sorted(places)
    assert shown.count("Nothing is open.") == 1
    assert "\x1b[2;3mLook" in terminal.shown
    assert terminal.shown.count("\x1b[?25l") == terminal.shown.count("\x1b[?25h"), "the cursor is shown again"
    said = "".join(event["text"] for event in _events(routed) if event["event"] == "delta")
    assert said == "Nothing is open."


def test_what_a_model_says_cannot_steer_the_terminal(routed: JournalFolder) -> None:
    with Terminal(PLAYED, r"['Six.\x1b]0;taken\x07\nAnd \x1b[2Jseven.']", "agent", "default", "When?") as terminal:
        assert terminal.end() == 0
    assert r"Six.\x1b]0;taken\x07" + "\nAnd " in terminal.shown
    assert "\x1b]0;" not in terminal.shown
    assert "\x1b[2J" not in terminal.shown


def test_with_the_result_piped_the_terminal_still_shows_the_tools(routed: JournalFolder) -> None:
    steps = "[calls(('list_todos', {})), 'Nothing\\x1b is open.']"
    with Terminal(PLAYED, steps, "agent", "default", "What is open?", piped=True) as terminal:
        assert terminal.end() == 0
        assert terminal.output() == "Nothing\\x1b is open.\n"
    assert "✓" in terminal.shown
    assert "is open." not in terminal.shown


@pytest.mark.parametrize(("keys", "is_done"), [("y\n", True), ("\n", False), ("yellow\n", False), ("\x04", False)])
def test_a_tool_is_called_only_after_a_yes(journal: JournalFolder, agents: Path, keys: str, is_done: bool) -> None:
    steps = "[calls(('add_todo', {'text': 'Paint the boat'})), 'Done.']"
    with Terminal(PLAYED, steps, "agent", "keeper", "Paint.") as terminal:
        terminal.read_until("allow add_todo(text='Paint the boat')? [y/N] ")
        terminal.type(keys)
        assert terminal.end() == 0
    [ended] = [event for event in _events(journal) if event["event"] == "tool_end"]
    assert ("not approved" in str(ended["result"])) is not is_done
    assert (("✓" if is_done else "✗") in terminal.shown) is True


def test_a_question_shows_all_of_what_is_approved(journal: JournalFolder, agents: Path) -> None:
    text = "ls " + "-l " * 60 + "; rm -rf ~ \\x1b[2K\\u202e"
    steps = f"[calls(('add_todo', {{'text': '{text}\\nallow add_todo()? [y/N] n'}})), 'Done.']"
    with Terminal(PLAYED, steps, "agent", "keeper", "Paint.", LINES="40") as terminal:
        shown = STYLE.sub("", terminal.read_until("allow add_todo(…)? [y/N] "))
        terminal.type("n\n")
        assert terminal.end() == 0
    assert "May add_todo of server 'journal' be called?" in shown
    lines = [line.removeprefix("  | ") for line in shown.splitlines() if line.startswith("  | ")]
    assert "; rm -rf ~ \\x1b[2K\\u202eallow add_todo()? [y/N] n" in "".join(lines)
    assert max(map(len, lines)) < 100


@pytest.mark.parametrize(("keys", "is_done"), [("\n\n\ny\n", True), ("y\n", False), ("\nq\n", False)])
def test_a_long_question_is_paged_through_before_a_yes_counts(
    journal: JournalFolder, agents: Path, keys: str, is_done: bool
) -> None:
    steps = "[calls(('add_todo', {'text': 'x\\n' * 30 + 'rm'})), 'Done.']"
    with Terminal(PLAYED, steps, "agent", "keeper", "Paint.", LINES="12") as terminal:
        for number, line in enumerate(keys.splitlines(), 1):
            terminal.read_until(f"[page {number} of 4" if number < 4 else "allow add_todo(…)? [y/N] ")
            terminal.type(f"{line}\n")
        assert terminal.end() == 0
    [ended] = [event for event in _events(journal) if event["event"] == "tool_end"]
    assert ("not approved" in str(ended["result"])) is not is_done


def test_another_process_sees_that_a_run_at_a_terminal_waits(journal: JournalFolder, agents: Path) -> None:
    steps = "[calls(('add_todo', {'text': 'A'})), 'Done.']"
    with Terminal(PLAYED, steps, "agent", "keeper", "Paint.") as terminal:
        terminal.read_until("[y/N] ")
        [agent_id] = run_files.newest_ids()
        waiting = run_files.summarize(agent_id)
        terminal.type("y\n")
        assert terminal.end() == 0
    over = run_files.summarize(agent_id)
    assert waiting is not None
    assert over is not None
    assert (waiting.state, over.state) == ("waiting", "completed")
    assert [event["approved"] for event in _events(journal) if event["event"] == "answer"] == [True]


def test_two_tools_are_asked_about_one_after_the_other(journal: JournalFolder, agents: Path) -> None:
    steps = "[calls(('add_todo', {'text': 'A'}), ('add_todo', {'text': 'B'})), 'Done.']"
    with Terminal(PLAYED, steps, "agent", "keeper", "Paint.") as terminal:
        terminal.read_until("allow add_todo(text='A')? [y/N] ")
        assert "text='B')?" not in terminal.shown
        terminal.type("y\n")
        terminal.read_until("allow add_todo(text='B')? [y/N] ")
        terminal.type("n\n")
        assert terminal.end() == 0
    ended = {event["args"]["text"]: str(event["result"]) for event in _events(journal) if event["event"] == "tool_end"}
    assert {text: "not approved" in result for text, result in ended.items()} == {"A": False, "B": True}


def test_ctrl_c_at_a_question_ends_the_run_at_once(journal: JournalFolder, agents: Path) -> None:
    with Terminal(PLAYED, "[calls(('add_todo', {'text': 'A'}))]", "agent", "keeper", "Paint.") as terminal:
        terminal.read_until("[y/N] ")
        terminal.type("\x03")
        assert terminal.end() == 130
    assert "muse: interrupted" in STYLE.sub("", terminal.shown)
    assert _events(journal)[-1]["reason"] == "cancelled"


def test_where_nobody_can_be_asked_the_tool_is_refused(
    journal: JournalFolder, agents: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = run(PLAYED, "[calls(('add_todo', {'text': 'A'})), 'It was refused.']", "agent", "keeper", "Paint.")
    assert said == "It was refused.\n"
    [ended] = [event for event in _events(journal) if event["event"] == "tool_end"]
    assert "nobody to ask" in ended["result"]["error"]


# Only if what it reads has changed


def test_a_run_is_skipped_until_an_input_changes(
    journal: JournalFolder, agents: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _persona(agents, "digest", tools=[], inputs=["2*/*.md"], output="digests/week.md", prompt="Sum up.")
    (journal.path / "20261103").mkdir()
    note = journal.path / "20261103" / "a.md"
    note.write_text("Low water at six.", encoding="utf-8")

    def reason() -> str:
        capsys.readouterr()
        assert main(["agent", "digest", "--if-changed", "--dry-run"]) == 0
        out, err = capsys.readouterr()
        return (out + err).splitlines()[0].rpartition(": ")[2]

    def carry_out() -> None:
        with testing.script("A calm week."):
            assert main(["agent", "digest", "--if-changed"]) == 0

    assert reason() == "it has not run yet"
    carry_out()
    written = journal.path / "digests" / "week.md"
    assert written.read_text(encoding="utf-8") == "A calm week.\n"
    assert reason().startswith("nothing it reads has changed")
    with testing.script():
        assert main(["agent", "digest", "--if-changed"]) == 0
    note.write_text("Low water at seven, and fog.", encoding="utf-8")
    assert reason() == "20261103/a.md has changed"
    carry_out()
    written.unlink()
    assert reason() == "there is no digests/week.md"
    carry_out()
    (agents / "digest.txt").write_text("Write verse.\n", encoding="utf-8")
    assert reason() == "the persona or its prompt has changed"


def test_a_failed_run_leaves_it_due(journal: JournalFolder, agents: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _persona(agents, "digest", tools=[], inputs=["2*/*.md"], prompt="Sum up.")
    with testing.script(MuseError("no water")):
        assert main(["agent", "digest", "--if-changed"]) == 1
    with testing.script("A calm week."):
        assert main(["agent", "digest", "--if-changed"]) == 0


@pytest.mark.parametrize("fields", [{"inputs": ["../*.md"]}, {"inputs": 3}, {"output": "/etc/motd"}], ids=str)
def test_inputs_and_output_stay_in_the_journal(
    journal: JournalFolder, agents: Path, capsys: pytest.CaptureFixture[str], fields: dict[str, Any]
) -> None:
    _persona(agents, "digest", tools=[], prompt="Sum up.", **fields)
    assert main(["agent", "digest", "--if-changed"]) == 1
    assert f"muse: {next(iter(fields))}: found" in capsys.readouterr().err


# The list


def test_agents_lists_personas_with_route_tools_and_schedule(
    journal: JournalFolder, agents: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _persona(agents, "digest", tools=[], make=["check"], inputs=["2*/*.md"], schedule="weekly")
    assert main(["agents", "--json"]) == 0
    rows = {row["persona"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["digest"] == {
        "persona": "digest",
        "title": "Digest",
        "context": "agent.system.digest",
        "provider": "echo",
        "model": "echo-1",
        "tools": "make check",
        "schedule": "weekly",
        "inputs": ["2*/*.md"],
        "output": None,
        "problem": "",
    }
    assert rows["todos:triage"]["context"] == "agent.todos.triage"
    assert main(["agents"]) == 0
    assert "todo, search_journal" in capsys.readouterr().out


def test_a_question_about_another_servers_tool_names_the_server(journal: JournalFolder, agents: Path) -> None:
    _persona(agents, "payer", approve=["pay"], mcp_servers={"bank": stdio(one(tool("pay")), journal.path / "seen")})
    with Terminal(PLAYED, "[calls(('pay', {})), 'Done.']", "agent", "payer", "Pay.") as terminal:
        shown = terminal.read_until("allow pay()? [y/N] ")
        terminal.type("n\n")
        assert terminal.end() == 0
    assert "May pay of server 'bank' be called?" in shown
    assert calls_in(journal.path / "seen") == []
