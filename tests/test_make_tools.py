"""Chosen make targets as tools: what is offered, that each call is asked about, how it ends, what it leaves behind."""

from __future__ import annotations

import asyncio
import json
import os
import select
import shutil
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from muse import agents, testing
from muse.agent_loop import make_tools
from muse.agent_loop.module_loader import makefile_claim
from muse.agent_loop.toolset import ToolCallPreview
from muse.errors import ConfigError
from muse.journal.trust import consent
from muse.types.messages import ToolCall
from tests.at_terminal import Terminal
from tests.journal_folder import JournalFolder, start
from tests.test_cli_agent import PLAYED

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")

MAKEFILE = """
.PHONY: check report-day report-week flood stuck broken secret
check: ## count the boats
\t@echo "boats: $$(ls boats | wc -l)" && touch checked
report-day report-week: %: check
\t@echo "$@ of $(MAKELEVEL) with $(PROMPT)"
flood:
\t@yes 0123456789 | head -c 3000000
stuck:
\t@trap '' TERM; sleep 600 & echo $$! > pid; read line < begun; wait
broken:
\t@echo "the mast is down" >&2; exit 3
twice-%:
\t@echo $*
%.o: %.c
\t@echo $@
"""

# A process that plays scripted steps to the requests on its standard input.
PLAYED_LINES = """
import sys
from muse import agents, testing
with testing.script(*eval(sys.argv[1])):
    status = agents.main([])
sys.exit(status)
"""


@pytest.fixture(name="yard")
def _yard(journal: JournalFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a Makefile; the working folder is one below it."""
    yard = tmp_path / "yard"
    (yard / "boats" / "small").mkdir(parents=True)
    (yard / "Makefile").write_text(MAKEFILE, encoding="utf-8")
    monkeypatch.chdir(yard / "boats")
    consent.record([makefile_claim(yard / "Makefile")])
    journal.write({"providers": {"default": {"provider": "echo"}}, "descriptors": {"agents": ["agents"]}})
    folder = journal.path / "config" / "agents"
    folder.mkdir(parents=True)
    persona = {"title": "Wright", "tools": [], "make": ["check", "report-*", "flood", "stuck", "broken"]}
    (folder / "wright.json").write_text(json.dumps(persona), encoding="utf-8")
    (folder / "wright.txt").write_text("Build boats.\n", encoding="utf-8")
    return yard


class Asked:
    """Somebody who answers every question in the same way and remembers it."""

    def __init__(self, *, yes: bool = True) -> None:
        self.calls: list[ToolCall] = []
        self._yes = yes

    async def __call__(self, call: ToolCall) -> bool:
        self.calls.append(call)
        return self._yes


async def _call(tool: str, asked: Asked | None, **entries: Any) -> Any:
    """What the event of one call says it gave."""
    events: list[dict[str, Any]] = []
    with testing.script(testing.calls((tool, {})), "Done."):
        request = {"persona": "wright", "prompt": "Build.", **entries}
        assert await agents.run_recorded(request, events.append, approver=asked)
    [ended] = [event for event in events if event["event"] == "tool_end"]
    return ended["result"]


async def test_the_targets_that_match_are_found_above_the_working_folder(yard: Path) -> None:
    makefile = await make_tools.open_makefile(["check", "report-*"])
    assert makefile.path == yard / "Makefile"
    assert [(target.name, target.tool, target.says) for target in makefile.targets] == [
        ("check", "make_check", "count the boats"),
        ("report-day", "make_report-day", ""),
        ("report-week", "make_report-week", ""),
    ]
    everything = await make_tools.open_makefile(["*"])
    assert [target.name for target in everything.targets] == [
        "broken",
        "check",
        "flood",
        "report-day",
        "report-week",
        "secret",
        "stuck",
    ]
    assert not (yard / "checked").exists(), "to list is not to run"


@pytest.mark.parametrize("patterns", ["check", [3], ["paint-*"]], ids=str)
async def test_what_names_no_target_is_told_with_those_there_are(yard: Path, patterns: object) -> None:
    with pytest.raises(ConfigError, match=r"make: found .*(a target of .*check|a list of names)"):
        await make_tools.open_makefile(patterns)


async def test_without_a_makefile_the_run_says_so(yard: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found no Makefile"):
        await make_tools.open_makefile(["check"], tmp_path / "journal")


async def test_a_model_is_offered_the_chosen_targets_alone(yard: Path) -> None:
    with testing.script("Done.") as script:
        await agents.run_recorded({"persona": "wright", "prompt": "Build."}, lambda _: None, approver=None)
    [request] = script.requests
    offered = {tool.name: tool for tool in request.tools}
    assert sorted(offered) == [
        f"make_{name}" for name in ("broken", "check", "flood", "report-day", "report-week", "stuck")
    ]
    assert "count the boats" in offered["make_check"].description
    assert not offered["make_check"].read_only
    assert offered["make_check"].schema["properties"] == {}


async def test_each_call_is_asked_about_with_what_make_would_run(yard: Path) -> None:
    asked = Asked()
    result = await _call("make_check", asked)
    [call] = asked.calls
    assert isinstance(call, ToolCallPreview)
    assert 'echo "boats: $(ls boats | wc -l)" && touch checked' in call.preview
    assert result.startswith("boats: 1\n[exit status 0 after ")
    assert (yard / "checked").exists()


@pytest.mark.parametrize("asked", [Asked(yes=False), None], ids=["a no", "nobody"])
async def test_without_a_yes_nothing_runs(yard: Path, asked: Asked | None) -> None:
    result = await _call("make_check", asked)
    assert result["error"].startswith("refused: make_check ")
    assert not (yard / "checked").exists()


async def test_a_target_that_fails_says_its_status_and_its_words(yard: Path) -> None:
    result = await _call("make_broken", Asked())
    assert "the mast is down" in result["error"]
    assert "[exit status 2 after " in result["error"]


async def test_a_make_above_leaves_no_trace(yard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAKEFLAGS", "n -- PROMPT=above")
    monkeypatch.setenv("MAKELEVEL", "3")
    result = await _call("make_report-day", Asked())
    assert "report-day of 0 with\n" in result


async def test_long_output_is_capped(yard: Path) -> None:
    result = await _call("make_flood", Asked())
    assert len(result) < 15_000
    status, output = await make_tools._make(yard / "Makefile", ("flood",), 60.0)
    assert status == 0
    assert len(output) < 250_000
    assert "bytes left out" in output


async def test_time_that_runs_out_kills_the_whole_group(yard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_tools, "TIMEOUT_S", 0.5)
    monkeypatch.setattr(make_tools, "_GRACE_S", 0.1)
    os.mkfifo(yard / "begun")
    result = await _call("make_stuck", Asked())
    assert "took longer than 0.5 s and was ended" in result["error"]
    assert not _is_alive(int((yard / "pid").read_text()))


async def test_a_call_that_outlasts_the_runs_limit_for_tools_leaves_nothing_behind(
    yard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_tools, "_GRACE_S", 0.1)
    os.mkfifo(yard / "begun")
    result = await _call("make_stuck", Asked(), tool_timeout_s=0.5)
    assert "0.5 s" in result["error"]
    assert not _is_alive(int((yard / "pid").read_text()))


async def test_a_cancelled_run_kills_the_whole_group(yard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_tools, "_GRACE_S", 0.1)
    os.mkfifo(yard / "begun")
    events: list[dict[str, Any]] = []
    with testing.script(testing.calls(("make_stuck", {}))):
        request = {"persona": "wright", "prompt": "Build."}
        task = asyncio.create_task(agents.run_recorded(request, events.append, approver=Asked()))
        await asyncio.to_thread(_open_for_writing, yard / "begun")  # returns once the recipe reads there
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert events[-1]["reason"] == "cancelled"
    assert not _is_alive(int((yard / "pid").read_text()))


def _open_for_writing(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY))


def _is_alive(pid: int) -> bool:
    """Whether a process that was killed is still there after five seconds: a kill takes its moment."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        ended, _, _ = select.select([handle], [], [], 5.0)
    finally:
        os.close(handle)
    return not ended


def test_a_person_sees_what_make_would_run_before_a_yes(yard: Path) -> None:
    with Terminal(PLAYED, "[testing.calls(('make_check', {})), 'Done.']", "agent", "wright", "Go.") as terminal:
        shown = terminal.read_until("allow make_check()? [y/N] ")
        assert "touch checked" in shown
        assert not (yard / "checked").exists()
        terminal.type("y\n")
        assert terminal.end() == 0
    assert (yard / "checked").exists()


def test_the_approval_event_has_the_preview(yard: Path) -> None:
    with start(PLAYED_LINES, "[testing.calls(('make_check', {})), 'Done.']") as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps({"persona": "wright", "prompt": "Go."}) + "\n")
        child.stdin.flush()
        events = [json.loads(child.stdout.readline())]
        while events[-1]["event"] != "approval":
            events.append(json.loads(child.stdout.readline()))
        assert "touch checked" in events[-1]["preview"]
        answer = {"approval": events[-1]["call_id"], "agent_id": events[-1]["agent_id"], "approved": True}
        out, err = child.communicate(json.dumps(answer) + "\n", timeout=60)
    assert child.returncode == 0, err
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["tool_end", "finish"]
    assert (yard / "checked").exists()


@pytest.mark.parametrize("named", [[], ["ACME_API_KEY"]])
async def test_make_gets_no_variable_but_the_usual_and_those_that_are_named(
    named: list[str], yard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACME_API_KEY", "SESAME-0123456789")
    monkeypatch.setenv("ACME_PLACE", "the harbour")
    monkeypatch.setenv("LC_TIME", "C")
    (yard / "Makefile").write_text("tell:\n\t@env\n")
    consent.record([makefile_claim(yard / "Makefile")])
    makefile = await make_tools.open_makefile(["tell"], yard, env=named)
    async with Client(make_tools.build_server(makefile)) as client:
        told = (await client.call_tool("make_tell", {})).content[0].text
    names = {line.partition("=")[0] for line in told.splitlines() if "=" in line}
    assert {"PATH", "HOME", "LC_TIME"} <= names
    assert ("ACME_API_KEY" in names) is bool(named)
    assert "ACME_PLACE" not in names
    assert "SESAME" not in told
    preview = await make_tools.preview_of(makefile.path, "tell", makefile.env)
    assert preview == "env"


async def test_variables_that_are_no_names_are_refused(yard: Path) -> None:
    with pytest.raises(ConfigError, match="make_env"):
        await make_tools.open_makefile(["check"], yard, env={"A": "b"})
