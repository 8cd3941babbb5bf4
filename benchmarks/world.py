"""Where measurements happen: a loopback server, a journal, a clean environment, child processes; it measures nothing.

Every measurement runs in a child process that inherits none of the caller's variables: keys and addresses point to the
server, caches and journal are folders of this run, byte code is written and warm.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]

ROOT = Path(__file__).resolve().parents[1]
PROVIDERS = ("openai", "anthropic", "google")
_SERVER = "tests.loopback.server"
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "TMPDIR", "TZ")


@dataclass(frozen=True)
class World:
    """A running server, the folder of this run, and how thoroughly to measure."""

    folder: Path
    url: str
    quick: bool

    def blocks(self, count: int) -> int:
        """How many blocks to run where a full run has `count`."""
        return max(3, count // 4) if self.quick else count

    def environment(self, **changes: str) -> dict[str, str]:
        """The variables of a child process."""
        kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        return {
            **kept,
            "HOME": str(self.folder),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "JOURNAL_PATH": str(self.folder / "journal"),
            **addresses(self.url),
            **changes,
        }

    def measure(self, module: str, *, url: str | None = None, **arguments: Any) -> Json:
        """What `benchmarks.<module>.measure(**arguments)` returns in a process of its own."""
        command = [sys.executable, "-m", "benchmarks.child", module, json.dumps(arguments)]
        environment = self.environment(**addresses(url or self.url))
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
        measured: Json = json.loads(done.stdout)
        return measured

    def journal(self, name: str, config: Mapping[str, Any]) -> Path:
        """A journal folder of this run with `config` as its journal.json."""
        path = self.folder / name
        (path / "config").mkdir(parents=True, exist_ok=True)
        (path / "config" / "journal.json").write_text(json.dumps(config), encoding="utf-8")
        return path


def addresses(url: str) -> dict[str, str]:
    """Keys and addresses that lead all three SDKs, and muse, to the server at `url`."""
    return {
        "OPENAI_API_KEY": "benchmark-openai",
        "OPENAI_BASE_URL": f"{url}/v1",
        "ANTHROPIC_API_KEY": "benchmark-anthropic",
        "ANTHROPIC_BASE_URL": url,
        "GOOGLE_API_KEY": "benchmark-google",
        "GOOGLE_GEMINI_BASE_URL": url,
    }


@contextmanager
def serving(*arguments: str, module: str = _SERVER) -> Iterator[str]:
    """A loopback server in a process of its own; yields its address."""
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        url = str(json.loads(server.stdout.readline())["url"])
        try:
            yield url
        finally:
            server.stdin.close()
            server.stdout.read()


@contextmanager
def world(*, quick: bool = False) -> Iterator[World]:
    """A server and a folder for one run, with byte code, prices and journal made beforehand."""
    with tempfile.TemporaryDirectory(prefix="muse-bench-") as name, serving() as url:
        made = World(Path(name), url, quick)
        contexts = {f"bench.{provider}": {"provider": provider} for provider in PROVIDERS}
        made.journal("journal", {"providers": {"contexts": contexts}})
        made.measure("callers", providers=PROVIDERS)
        yield made


def run_script(script: str, environment: Mapping[str, str], arguments: Sequence[str] = ()) -> tuple[float, float]:
    """Run a Python script in a process of its own.

    Returns:
        Seconds on the clock, and seconds of CPU of that process, from start to end.
    """
    started_s = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, env=dict(environment), stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(child.pid, 0)
    wall_s = time.perf_counter() - started_s
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, script)
    return wall_s, used.ru_utime + used.ru_stime
