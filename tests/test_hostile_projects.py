"""Ways around consent: what a project's files try in order to start a command or run code before `muse trust`."""

from __future__ import annotations

import json
import os
import py_compile
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from muse.agent_loop.module_loader import code_claim, makefile_claim
from muse.diagnostics import project_claims
from muse.errors import ConfigError
from muse.journal import config_loader, descriptors, paths
from muse.journal.config import Descriptors
from muse.journal.personas import get_agent, get_agents
from muse.journal.storage.atomic_files import home_folder
from muse.journal.trust import consent
from muse.journal.trust.project_config import server_claim
from muse.runs import run_files
from muse.runs.client import cortex_request
from muse.types.json_schema import patterns
from muse.usage_log import prices
from tests.test_trust import MUSE, Project, _cloned, _inside
from think.insights.definition import find_topics

__all__ = ["_cloned", "_inside"]

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


def _own_persona(cloned: Project, **fields: Any) -> dict[str, str]:
    """Write a persona of the user's own; the variables that make it count."""
    own = cloned.folder.parent / "own"
    (own / "config" / "personas").mkdir(parents=True)
    said = {"providers": {"default": {"provider": "echo"}}, "descriptors": {"agents": ["personas"]}}
    (own / "config" / "journal.json").write_text(json.dumps(said))
    (own / "config" / "personas" / "wright.json").write_text(json.dumps({"title": "Wright", **fields}))
    (own / "config" / "personas" / "wright.txt").write_text("Build.\n")
    return {"JOURNAL_PATH": str(own)}


def _queued(cloned: Project, **entries: Any) -> str:
    """Put a request into the journal that comes with the project."""
    agent_id = str(time.time_ns() // 1_000_000)
    request = {"event": "request", "ts": 1, "prompt": "hi", "persona": "default", **entries}
    cloned.write(f"journal/agents/{agent_id}_pending.jsonl", json.dumps(request) + "\n")
    return agent_id


def _end_of(cloned: Project, agent_id: str) -> dict[str, Any]:
    lines = (cloned.folder / "journal" / "agents" / f"{agent_id}.jsonl").read_text().splitlines()
    end: dict[str, Any] = json.loads(lines[-1])
    return end


@needs_make
def test_a_persona_of_the_users_own_has_a_makefile_read_only_after_trust(cloned: Project) -> None:
    own = _own_persona(cloned, make=["all"])
    makefile = cloned.write("Makefile", f"X := $(shell {cloned.mark('read')})\nall:\n\t@echo done\n")
    run = f"import os\nos.environ['JOURNAL_PATH'] = {own['JOURNAL_PATH']!r}\n{MUSE}"
    words = ("agent", "wright", "Build.")
    refused = cloned.python(run, *words)
    assert refused.returncode == 1
    assert f"muse trust {cloned.folder}" in refused.stderr
    assert list(cloned.marks.iterdir()) == []
    assert cloned.muse("trust").returncode == 0
    assert cloned.python(run, *words).returncode == 0
    (cloned.marks / "read").unlink()
    makefile.write_text(makefile.read_text() + "more:\n")
    assert cloned.python(run, *words).returncode == 1
    assert list(cloned.marks.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("include rules.mk", "rules.mk"),
        ("-include build/rules.d", "build/rules.d"),
        ("sinclude a.mk \\\n  rules.txt", "rules.txt"),
        ("include build/*.inc", "build/one.inc"),
        ("NAME := rules\ninclude $(NAME).mk", "rules.mk"),
        ("include $(shell find . -name '*.mk')", "deep/down/rules.mk"),
    ],
)
def test_what_a_makefile_includes_is_part_of_its_consent(line: str, part: str, tmp_path: Path) -> None:
    included = tmp_path / part
    included.parent.mkdir(parents=True, exist_ok=True)
    included.write_text("include further.mk\n")
    (tmp_path / "further.mk").write_text("A := 1\n")
    makefile = tmp_path / "Makefile"
    makefile.write_text(f"{line}\nall:\n")
    before = makefile_claim(makefile)
    assert makefile_claim(makefile) == before
    included.write_text("include further.mk\nX := $(shell id)\n")
    second = makefile_claim(makefile)
    assert second.digest != before.digest
    (tmp_path / "further.mk").write_text("A := $(shell id)\n")
    assert makefile_claim(makefile).digest != second.digest


def test_makefiles_that_include_each_other_are_read_once(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("include a.mk\n")
    (tmp_path / "a.mk").write_text("include Makefile a.mk\n")
    assert makefile_claim(tmp_path / "Makefile").digest


@pytest.mark.parametrize("entry", ["mcp_servers", "handoff"])
def test_a_request_that_came_with_the_project_starts_no_server_before_trust(cloned: Project, entry: str) -> None:
    servers = {"x": {"command": "sh", "args": ["-c", cloned.mark("queued")]}}
    cloned.journal()
    wanted = servers if entry == "mcp_servers" else {"persona": "librarian", "mcp_servers": servers}
    first = _queued(cloned, **{entry: wanted})
    shown = cloned.muse("trust", "--show", "--json")
    assert [row["trusted"] for row in json.loads(shown.stdout)] == [False]
    assert cloned.muse("cortex", "--once").returncode in (0, 1)
    assert list(cloned.marks.iterdir()) == []
    ends = [_end_of(cloned, path.stem) for path in (cloned.folder / "journal" / "agents").glob("[0-9]*.jsonl")]
    assert any(f"muse trust {cloned.folder}" in end.get("error", "") for end in ends), ends
    second = _queued(cloned, **{entry: wanted})
    assert second != first
    assert cloned.muse("trust").returncode == 0
    cloned.muse("cortex", "--once")
    assert [path.name for path in cloned.marks.iterdir()] == ["queued"]


def test_a_request_that_names_nothing_to_consent_to_runs_without_trust(cloned: Project) -> None:
    cloned.journal()
    agent_id = _queued(cloned)
    assert cloned.muse("cortex", "--once").returncode == 0
    assert _end_of(cloned, agent_id)["event"] == "finish"


def test_who_asks_for_a_run_by_the_library_consents_to_what_it_names(inside: Project) -> None:
    inside.journal()
    servers = {"x": {"command": "true"}}
    cortex_request("hi", config={"mcp_servers": servers})
    assert project_claims.claims()
    assert consent.withheld(project_claims.claims()) == ()


def test_servers_that_a_persona_hands_on_need_trust(inside: Project) -> None:
    servers = {"x": {"command": "sh", "args": ["-c", "true"]}}
    inside.journal(descriptors={"agents": ["personas"]})
    further = {"persona": "default", "handoff": {"persona": "default", "make": ["all"]}}
    inside.write("personas/one.json", {"title": "One", "handoff": {**further, "mcp_servers": servers}})
    inside.write("personas/one.txt", "Say.\n")
    assert [claim.does.split(":")[0] for claim in consent.withheld(project_claims.claims())][:2] == [
        "starts the command",
        "lets an agent run make targets ['all']; make runs the Makefile's own commands",
    ]


def test_a_folder_of_personas_that_leads_through_muse_itself_is_the_projects(tmp_path: Path) -> None:
    (tmp_path / "personas").mkdir()
    (tmp_path / "personas" / "default.json").write_text(json.dumps({"title": "Mine", "make": ["all"]}))
    house = descriptors._HOUSE
    way = os.path.join(house, os.path.relpath(tmp_path / "personas", house))
    found = descriptors.find(Descriptors(agents=(way,), project=str(tmp_path)), str(tmp_path))
    assert len(found.claims) == 2
    assert "Mine" not in [found.data.get("title") for found in found.descriptors]


@pytest.mark.parametrize("home", ["~", "", ".", "here"])
def test_without_a_home_folder_nothing_of_the_working_folder_is_the_users_own(
    home: str, inside: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "here")
    monkeypatch.setenv("HOME", home)
    assert home_folder() == os.sep
    for path in (consent.record_path(), paths.journal_path(), prices._price_cache_path()):
        assert path.is_absolute()
        assert not path.is_relative_to(inside.folder)


def test_patterns_are_matched_without_modules_of_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"
    for name in ("json", "re", "sys", "muse"):
        (tmp_path / f"{name}.py").write_text(f"open({str(mark)!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    schema = {"type": "string", "pattern": "^b+$"}
    assert patterns.find_mismatch_isolated("bbb", schema, 60) is None
    assert not mark.exists()


def _linked(app: Path) -> Path:
    helper = app.parent / "lib" / "helper.py"
    helper.parent.mkdir()
    (app / "lib").symlink_to("../lib")
    return helper


def _compiled(app: Path) -> Path:
    helper = app / "__pycache__" / "helper.cpython-311.pyc"
    source = app / "helper.py"
    source.write_text("A = 1\n")
    py_compile.compile(str(source), cfile=str(helper), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    return helper


@pytest.mark.parametrize("place", [_linked, _compiled])
def test_code_that_an_app_reaches_by_a_link_or_a_cache_is_part_of_its_consent(
    place: Callable[[Path], Path], tmp_path: Path
) -> None:
    app = tmp_path / "apps" / "one"
    app.mkdir(parents=True)
    (app / "tools.py").write_text("PACK, TOOLS = 'one', ()\n")
    (app / "round").symlink_to(".")
    helper = place(app)
    if not helper.exists():
        helper.write_text("A = 1\n")
    before = code_claim(app, str(tmp_path)).digest
    assert code_claim(app, str(tmp_path)).digest == before
    helper.write_bytes(helper.read_bytes() + b"B = 2\n")
    assert code_claim(app, str(tmp_path)).digest != before


def test_caches_of_compiled_code_that_python_writes_change_no_consent(tmp_path: Path) -> None:
    app = tmp_path / "one"
    app.mkdir()
    (app / "tools.py").write_text("A = 1\n")
    before = code_claim(app, str(tmp_path))
    py_compile.compile(str(app / "tools.py"))
    assert list((app / "__pycache__").iterdir())
    assert code_claim(app, str(tmp_path)) == before


@pytest.mark.usefixtures("journal")
def test_requests_of_a_journal_of_the_users_own_need_no_consent() -> None:
    run_files.new_file("pending", json.dumps({"event": "request", "prompt": "x", "make": ["all"]}) + "\n")
    assert project_claims.claims() == ()


@pytest.mark.parametrize(
    ("words", "script"),
    [
        (["sh", "-c", "./serve.sh | tee log"], "serve.sh"),
        (["python3", "-m", "serve"], "serve.py"),
        (["python3", "-m", "tools.serve"], "tools/serve/__main__.py"),
        (["node", "--require=./serve.js"], "serve.js"),
        (["sh", "link.sh"], "link.sh"),
        (["sh", "serve.sh"], "below/serve.sh"),
    ],
)
def test_a_script_that_a_command_names_in_any_form_is_part_of_its_consent(
    words: list[str], script: str, inside: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = inside.write(script, "first")
    if script == "link.sh":
        outside = inside.folder.parent / "outside.sh"
        path.rename(outside)
        path.symlink_to(outside)
    if script.startswith("below/"):
        monkeypatch.chdir(inside.folder / "below")
    server = {"command": words[0], "args": words[1:]}
    before = server_claim("x", server, str(inside.folder))
    assert server_claim("x", server, str(inside.folder)) == before
    path.write_text("second")
    assert server_claim("x", server, str(inside.folder)) != before


@pytest.mark.parametrize("content", ["{", "[]", '{"folders": "x"}', '{"folders": {"/x": 5}}', "\0"])
def test_a_damaged_record_trusts_nothing_and_stops_nothing_else(content: str, cloned: Project) -> None:
    cloned.journal(mcp_servers={"x": {"command": "sh", "args": ["-c", cloned.mark("x")]}})
    record = cloned.config_home / "muse" / "trust.json"
    assert cloned.muse("trust").returncode == 0
    record.write_text(content)
    routed = cloned.muse("route", "app.tides", "--json")
    assert json.loads(routed.stdout)["provider"] == "echo"
    assert "no project is trusted" in routed.stderr
    cloned.refused("agent", "default", "hi")
    assert list(cloned.marks.iterdir()) == []
    ended = cloned.muse("trust")
    assert ended.returncode == 1
    assert "delete it" in ended.stderr
    assert record.read_text() == content


def test_a_file_of_requests_that_is_not_there_is_wrong_usage(cloned: Project) -> None:
    ended = cloned.python("from muse.agents import main\nmain(['no\\x1bfile'])")
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert "which cannot be read" in ended.stderr


@pytest.fixture(name="secret")
def _secret(inside: Project) -> Path:
    """A file beside the project that is none of its own."""
    path = inside.folder.parent / "secret.txt"
    path.write_text("SESAME-OPEN\n")
    return path


def test_a_persona_whose_text_is_a_link_out_of_the_project_is_refused(inside: Project, secret: Path) -> None:
    inside.journal(descriptors={"agents": ["personas"]})
    inside.write("personas/one.json", {"title": "One"})
    (inside.folder / "personas" / "one.txt").symlink_to(secret)
    assert get_agents()["one"]["instruction"] == ""
    with pytest.raises(ConfigError, match=r"one\.txt: found a link that leads out of the project"):
        get_agent("one")
    secret.rename(inside.folder / "own.txt")
    (inside.folder / "personas" / "one.txt").unlink()
    (inside.folder / "personas" / "one.txt").symlink_to("../own.txt")
    assert get_agent("one")["instruction"] == "SESAME-OPEN"


@pytest.mark.parametrize("target", ["secret.json", "/dev/zero"])
def test_descriptors_that_are_links_out_of_the_project_are_not_read(target: str, inside: Project) -> None:
    inside.journal(descriptors={"agents": ["personas"], "categories": ["personas"]})
    inside.write("personas/good.json", {"title": "Good"})
    (inside.folder.parent / "secret.json").write_text('{"title": "SESAME"}')
    (inside.folder / "personas" / "bad.json").symlink_to(inside.folder.parent / target)
    assert "good" in get_agents()
    assert "bad" not in get_agents()
    config = config_loader.load().config
    problems = descriptors.find(config.descriptors, str(inside.folder)).problems
    assert {problem.found for problem in problems} == {"a link that leads out of the project"}


def test_a_topic_or_its_schema_that_is_a_link_out_of_the_project_is_refused(inside: Project, secret: Path) -> None:
    inside.journal(descriptors={"insights": ["topics"]})
    inside.write(
        "topics/named.md",
        "---\ntitle: T\nschedule: daily\nsources: [notes]\nschema: given.json\n---\nLook.\n",
    )
    (inside.folder.parent / "given.json").write_text('{"type": "object", "properties": {"sesame": {"type": "string"}}}')
    (inside.folder / "topics" / "given.json").symlink_to(inside.folder.parent / "given.json")
    (inside.folder / "topics" / "linked.md").symlink_to(secret)
    problems = {Path(one.path).name.partition(":")[0]: one.found for one in find_topics().problems}
    assert problems["linked.md"] == "a link that leads out of the project"
    assert "a link that leads out of the project" in problems["named.md"]
