"""A journal folder for a test, and real Python processes beside it; it knows no test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


class JournalFolder:
    """A journal at `path`; `write` puts its journal.json there, `lines` reads its token log."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config" / "journal.json"
        self.tokens = path / "tokens"

    def write(self, content: Mapping[str, Any] | str | bytes) -> None:
        """Write journal.json: a mapping as JSON, text as UTF-8, bytes as they are."""
        text = json.dumps(content) if isinstance(content, Mapping) else content
        self.config.parent.mkdir(parents=True, exist_ok=True)
        self.config.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))

    def route(self, **sections: Any) -> None:
        """Write a journal.json that has only `providers`, with these sections."""
        self.write({"providers": sections})

    def log_bytes(self) -> bytes:
        """All token logs, one after the other."""
        return b"".join(path.read_bytes() for path in sorted(self.tokens.glob("*.jsonl")))

    def lines(self) -> list[dict[str, Any]]:
        """The token log's lines; one that is no JSON fails the test."""
        return [json.loads(line) for line in self.log_bytes().splitlines()]


UNMEASURED: Mapping[str, str] = {"COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""}
"""For a child that forks beside its threads: one of them may hold a lock of coverage's, and the fork waits for it."""


def environment(**changes: str) -> dict[str, str]:
    """The environment of a child that imports the code under test."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", **changes}


def start(code: str, *arguments: str, **changes: str) -> subprocess.Popen[str]:
    """Start a Python process that runs `code`; its input and outputs are pipes of text."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=environment(**changes),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(code: str, *arguments: str, timeout_s: float = 180, **changes: str) -> str:
    """Run `code` in a Python process to its end; what it printed. A failure shows the child's own words."""
    with start(code, *arguments, **changes) as child:
        try:
            out, err = child.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            child.kill()
            raise
    assert child.returncode == 0, f"exit status {child.returncode}\n{out}\n{err}"
    return out
