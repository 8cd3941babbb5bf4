"""Every command, with control, bidirectional and invisible characters in every field that others write."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unicodedata import category

import pytest

from muse import models
from muse.errors import ConfigError
from tests.at_terminal import STYLE, Terminal
from tests.journal_folder import ROOT, JournalFolder, environment

# Clears the screen, sets the title, C1, bidirectional and invisible characters, separators, a tag, half a pair.
EVIL = "x\x1b[2J\x1b]0;taken\x07\x9b2J\x08\x7f\u202e\u2066\u200b\u200e\ufeff\xad\u2028\u2029\r\U000e0041z"
HALF = "\ud83d"
RUN = "1762164000000"
DAY = "20261103"
MUSE = "import sys\nfrom muse.cli import main\nsys.exit(main())"
AGENTS = "import sys\nfrom muse.agents import main\nsys.exit(main())"
TOOLS = "import sys\nfrom muse.mcp import main\nsys.exit(main())"


HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def raw(text: str) -> list[str]:
    """The characters in an output that no command may let out."""
    return sorted({ascii(char) for char in text if category(char) in HIDDEN and char not in "\n\t"})


def _words(words: list[str]) -> str:
    """A command line as the name of a test."""
    return " ".join(words).replace(EVIL, "EVIL")


class _Refusing(BaseHTTPRequestHandler):
    """Refuses every request with a text of somebody else's."""

    def do_POST(self) -> None:
        body = json.dumps({"error": {"message": f"no {EVIL}{HALF}", "code": EVIL, "type": EVIL}}).encode()
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(400)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is http.server's
        """Say nothing."""


@pytest.fixture(name="refusing")
def _refusing() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Refusing)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def _configuration(journal: JournalFolder, default: dict[str, Any], **compatible: Any) -> None:
    """A journal.json that has such characters in every name and value that takes any."""
    rules = {EVIL: {"tier": 1}, f"app.{EVIL}": {"model": EVIL, "provider": EVIL}, f"*{EVIL}*": {EVIL: EVIL}}
    rules |= {"app.bad": {"tier": EVIL, "timeout_s": EVIL, "fallbacks": [{"provider": EVIL, "model": EVIL}], EVIL: 1}}
    providers = {
        "default": default,
        "contexts": rules,
        "models": {"echo": {"1": EVIL, EVIL: EVIL}, EVIL: {"1": EVIL}},
        "compatible": {**compatible, EVIL: {"base_url": EVIL, "env_key": EVIL}},
        "limits": [{"provider": EVIL, EVIL: EVIL}],
        "budgets": [{"context": f"{EVIL}", "usd": 5, "window": EVIL}],
        EVIL: EVIL,
    }
    journal.write(
        {
            "providers": providers,
            "identity": {"name": EVIL, "preferred": EVIL, "bio": EVIL},
            "env": {EVIL: EVIL, "A=B": EVIL},
            "mcp_servers": {EVIL: {"command": f"/nowhere/{EVIL}", "args": [EVIL]}, "far": {EVIL: EVIL}},
            "descriptors": {
                "agents": ["agents"],
                "categories": ["categories", EVIL],
                "insights": ["topics"],
                EVIL: [EVIL],
            },
            EVIL: {EVIL: EVIL},
        }
    )
    folder = journal.config.parent
    for place, data in {
        f"agents/{EVIL}.json": {
            "title": EVIL,
            "tools": [EVIL],
            "schedule": EVIL,
            "tier": EVIL,
            "handoff": EVIL,
            EVIL: EVIL,
        },
        "agents/plain.json": {"title": EVIL, "label": EVIL, "group": EVIL, "tools": ["journal"], "provider": EVIL},
        "agents/asked.json": {
            "title": EVIL,
            "tools": [],
            "prompt": EVIL,
            "inputs": [f"{EVIL}*"],
            "output": f"{EVIL}.md",
        },
        f"categories/{EVIL}.json": {"description": EVIL, "label": EVIL},
        "categories/broken.json": EVIL,
    }.items():
        path = folder / place
        path.parent.mkdir(exist_ok=True)
        path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
        if "agents" in place:
            path.with_suffix(".txt").write_text(f"Do $name {EVIL}.\n", encoding="utf-8")
    (folder / "topics").mkdir(exist_ok=True)
    (folder / "topics" / f"{EVIL}.md").write_text(f"---\ntitle: {EVIL!r}\n{EVIL}: 1\n---\n{EVIL}\n", encoding="utf-8")


def _lines(path: Path, *rows: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def _records(journal: JournalFolder) -> None:
    """Runs, lines of the usage log, and a day of the journal with such characters in every field."""
    start = {"event": "start", "ts": int(RUN), "prompt": EVIL, "persona": EVIL, "model": EVIL, "provider": EVIL}
    call = {"tool": EVIL, "args": {EVIL: EVIL}, "call_id": EVIL, "ts": int(RUN) + 1}
    events = [
        {"event": "request", "ts": int(RUN), "prompt": EVIL, "persona": EVIL, EVIL: EVIL},
        start,
        {"event": "thinking", "ts": int(RUN), "summary": f"{EVIL}{HALF}"},
        {"event": "tool_start", **call},
        {"event": "approval", **call, "preview": EVIL},
        {"event": "tool_end", **call, "result": {EVIL: EVIL, "error": EVIL}},
        {"event": "info", "ts": int(RUN), "message": EVIL},
        {"event": EVIL, "ts": int(RUN)},
    ]
    folder = journal.path / "agents"
    _lines(folder / f"{RUN}.jsonl", *events, {"event": "finish", "ts": int(RUN) + 9, "result": EVIL, "reason": EVIL})
    _lines(
        folder / "1762164000001.jsonl", *events, {"event": "error", "ts": int(RUN) + 9, "error": EVIL, "reason": EVIL}
    )
    _lines(folder / "1762164000002.jsonl", *events[:2], {"event": "finish", "ts": int(RUN) + 9, "result": EVIL})
    usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    said = dict.fromkeys(("context", "provider", "model", "segment", "error", "run", "reason", "persona"), EVIL)
    _lines(journal.tokens / f"{DAY}.jsonl", {"timestamp": 1762164000.0, "usage": usage, **said}, {EVIL: EVIL})
    shutil.copytree(ROOT / "fixtures" / "journal" / DAY, journal.path / DAY)
    _lines(journal.path / DAY / "140000_2040" / "transcript.jsonl", {"start_s": 1, "speaker": EVIL, "text": EVIL})
    (journal.path / DAY / "notes" / f"0900_{EVIL}.md").write_text(f"# {EVIL}\n\n{EVIL}\n", encoding="utf-8")
    (journal.path / "rows.jsonl").write_text(json.dumps({"text": EVIL, EVIL: EVIL}) + "\n", encoding="utf-8")
    (journal.path / f"{EVIL}.txt").write_text(f"{EVIL} spoke: {EVIL}\n", encoding="utf-8")


@pytest.fixture(name="hostile")
def _hostile(journal: JournalFolder) -> JournalFolder:
    """Such a journal; echo answers everything with what it was asked."""
    _configuration(journal, {"provider": "echo", "tier": 2})
    _records(journal)
    return journal


def _run(code: str, words: list[str], given: str = "", **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        env=environment(PYTHONUTF8="1", **changes),
        input=given,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=100,
        check=False,
    )


READING: list[list[str]] = [
    ["route", EVIL, "--explain"],
    ["route", f"app.{EVIL}"],
    ["routes"],
    ["routes", EVIL],
    ["check"],
    ["check", f"/nowhere/{EVIL}"],
    ["providers"],
    ["providers", "--test", EVIL],
    ["usage"],
    ["usage", "--since", DAY, "--by", "model"],
    ["usage", "--since", DAY, "--by", "context,provider,segment", "--csv"],
    ["usage", "--since", EVIL],
    ["whatif", "--since", DAY, "--set", f"{EVIL}=tier:3"],
    ["whatif", "--since", DAY, "--set", "*=tier:3"],
    ["agents"],
    ["agent", EVIL, "hi"],
    ["agent", "default", EVIL, "--dry-run"],
    ["agent", "plain", EVIL, "--dry-run"],
    ["agent", "asked", "--if-changed", "--dry-run"],
    ["agent", "default", EVIL, "--continue", EVIL],
    ["agent", "default", EVIL, "--save", f"/nowhere/{EVIL}"],
    ["runs"],
    ["run", RUN],
    ["run", "1762164000001"],
    ["run", EVIL],
    ["run", "--resume", RUN],
    ["batch", "list"],
    ["batch", "show", EVIL],
    ["batch", "run", f"{EVIL}.jsonl", "--context", "app.rows"],
    ["local"],
    ["trust", "--show"],
    ["docs", f"/nowhere/{EVIL}"],
    [EVIL],
    [f"--{EVIL}"],
    ["route", f"--{EVIL}", "x"],
]


@pytest.mark.parametrize("words", READING, ids=_words)
def test_what_is_printed_cannot_steer_a_terminal(hostile: JournalFolder, words: list[str]) -> None:
    for further in ([], ["--json"]) if words[0] in ("routes", "usage", "agents", "runs") and len(words) == 1 else ([],):
        ended = _run(MUSE, [*words, *further])
        assert raw(ended.stdout + ended.stderr) == []
        assert "Traceback" not in ended.stderr


def test_a_page_of_a_run_has_all_its_fields_escaped(hostile: JournalFolder) -> None:
    page = _run(MUSE, ["run", "1762164000002"]).stdout
    assert page.count(r"x\x1b[2J\x1b]0;taken\x07\u009b2J") >= 5
    assert all(line.startswith((" ", "Run ", "completed", "finish", "Go on")) for line in page.splitlines() if line)


ASKING: list[list[str]] = [
    ["agent", "default", EVIL, "--no-tools"],
    ["agent", "default", EVIL],
    ["agent", "default", EVIL, "--json"],
    ["plan", EVIL],
    ["insight", DAY],
    ["insight", "--all", DAY],
    ["summarize", DAY],
    ["enrich", DAY],
    ["describe", DAY],
    ["daily", "--day", DAY],
    ["detect", "created", "TEXT"],
    ["summarize", "TEXT"],
    ["batch", "run", "ROWS", "--context", "app.rows", "--field", "text"],
    ["check", "--live"],
    ["providers", "--test", "helper"],
]


@pytest.mark.parametrize("words", ASKING, ids=_words)
@pytest.mark.parametrize("is_refused", [False, True], ids=["answered", "refused"])
def test_answers_and_errors_of_providers_cannot_steer_a_terminal(
    hostile: JournalFolder, refusing: str, words: list[str], is_refused: bool
) -> None:
    if is_refused:
        row = {"base_url": refusing, "models": dict.fromkeys("123", "m"), "label": EVIL}
        _configuration(hostile, {"provider": "helper", "tier": 2, "retries": 0}, helper=row)
    files = {"TEXT": str(hostile.path / f"{EVIL}.txt"), "ROWS": str(hostile.path / "rows.jsonl")}
    ended = _run(MUSE, [files.get(word, word) for word in words])
    assert raw(ended.stdout + ended.stderr) == []
    assert "Traceback" not in ended.stderr


def test_requests_and_lists_of_the_other_programs_cannot_steer_a_terminal(hostile: JournalFolder) -> None:
    asked = "".join(json.dumps({"prompt": EVIL, "persona": name}) + "\n" for name in ("default", EVIL)) + EVIL
    ended = _run(AGENTS, ["-v"], asked)
    assert raw(ended.stdout + ended.stderr) == []
    assert [json.loads(line)["event"] for line in ended.stdout.splitlines()]
    ended = _run(TOOLS, ["--list"])
    assert raw(ended.stdout + ended.stderr) == []
    assert raw(_run(TOOLS, ["--http", "--host", EVIL]).stderr) == []


@pytest.mark.parametrize(
    "words",
    [
        ["run", RUN],
        ["routes"],
        ["usage", "--since", DAY],
        ["agent", "default", EVIL, "--no-tools"],
        ["agents"],
        ["runs"],
    ],
    ids=_words,
)
def test_at_a_terminal_only_colours_are_raw(hostile: JournalFolder, words: list[str]) -> None:
    with Terminal(MUSE, *words, PYTHONUTF8="1") as terminal:
        terminal.end()
    assert "taken" in terminal.shown
    assert raw(STYLE.sub("", terminal.shown)) == []
    assert "\x1b[2J" not in terminal.shown


def test_a_model_name_that_is_none_is_an_error_in_words() -> None:
    with pytest.raises(ConfigError, match=r"model: found .*, expected the name of a model"):
        models.generate("Hello", "app.tides", provider="echo", model=EVIL)
