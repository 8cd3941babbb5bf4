"""One bad day from start to end: servers, callers, kills, and what is found afterwards; it judges nothing."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muse.usage_log import ledger
from tests.chaos.caller import WINDOW_S
from tests.journal_folder import ROOT, JournalFolder, environment

KEYS = {"OPENAI_API_KEY": "sk-chaos-openai-0123456789", "ANTHROPIC_API_KEY": "sk-chaos-anthropic-0123456789"}
CALLERS = 4
AT_ONCE = 16
IN_FLIGHT = 24
PATIENCE_S = 8
A_WINDOW = 200
Say = Callable[[int, int], None]


def _nothing(_done: int, _kills: int) -> None:
    """Nobody wants to know."""


@dataclass
class Day:
    """What a day left behind: `rows` are the callers' notes, `lines` the token log, `seen` the server's own count."""

    timeout_s: float
    kills: int
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)
    torn: int = 0
    seen: dict[str, Any] = field(default_factory=dict)
    files_with_keys: list[str] = field(default_factory=list)

    def answered(self) -> Counter[str]:
        """How many calls each provider answered in the end; failures stand under their error."""
        return Counter(str(row.get("provider") or row.get("error")) for row in self.rows)

    def logged(self, provider: str) -> int:
        """How many tries at a provider the token log has."""
        return sum(line["provider"] == provider for line in self.lines)

    def unsent(self, provider: str) -> int:
        """How many tries of the log may never have been sent: out of time, cancelled or killed just before."""
        late = {"DeadlineExceeded", "ProviderTimeout", "CancelledError", "ProcessKilled"}
        return sum(line["provider"] == provider and line.get("error", {}).get("class") in late for line in self.lines)

    def most_in_a_window(self) -> int:
        """How many requests arrived at most within a window of the limit."""
        arrived = sorted(at for times in self.seen["arrived"].values() for at in times)
        most, begin = 0, 0
        for end, at in enumerate(arrived):
            while arrived[begin] <= at - WINDOW_S:
                begin += 1
            most = max(most, end - begin + 1)
        return most


def live(folder: Path, *, calls: int, kills: int, timeout_s: float, seed: int, say: Say = _nothing) -> Day:
    """Make `calls` calls from four processes while a third of all answers go wrong, killing callers now and then."""
    journal = JournalFolder(folder / "journal")
    day = Day(timeout_s, 0)
    began_s = time.monotonic()
    with _server(0.3, seed, day) as url:
        _write_config(journal)
        _carry_out(journal, folder, url, day, calls, kills, seed, say)
        day.seconds = time.monotonic() - began_s
    for path in sorted(folder.glob("done-*.jsonl")):
        day.rows += [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
    ledger.write_abandoned(str(journal.path))  # what killed callers had under way
    for line in journal.log_bytes().splitlines():
        try:
            day.lines.append(json.loads(line))
        except ValueError:
            day.torn += 1
    secrets = [key.encode() for key in KEYS.values()]
    files = [path for path in folder.rglob("*") if path.is_file()]
    day.files_with_keys = [str(path) for path in files if any(key in path.read_bytes() for key in secrets)]
    return day


def _write_config(journal: JournalFolder) -> None:
    chain = {
        "provider": "openai",
        "fallbacks": ["anthropic", "local"],
        "retries": 2,
        "hedge_s": PATIENCE_S,
        "first_token_s": 2 * PATIENCE_S,
        "stall_s": PATIENCE_S,
    }
    limits = [{"requests_per_minute": A_WINDOW, "provider": "[!l]*"}, {"in_flight": IN_FLIGHT, "provider": "[!l]*"}]
    journal.route(default=chain, limits=limits, breaker={"failures": 25, "cool_down_s": 1})


@contextmanager
def _server(share: float, seed: int, day: Day) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.chaos.server", str(share), str(seed)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield json.loads(server.stdout.readline())["url"]
        finally:
            server.stdin.close()
            day.seen = json.loads(server.stdout.read())


def _carry_out(
    journal: JournalFolder, folder: Path, url: str, day: Day, calls: int, kills: int, seed: int, say: Say
) -> None:
    """Run the callers to their end; kill one at a time until `kills` have been."""
    luck = random.Random(seed)
    variables = {**KEYS, "JOURNAL_PATH": str(journal.path), "OPENAI_BASE_URL": f"{url}/v1", "ANTHROPIC_BASE_URL": url}
    share = calls // CALLERS

    def begin(place: int) -> subprocess.Popen[bytes]:
        jumps = "jumps" if place == 0 else "steady"
        words = [str(folder / f"done-{place}.jsonl"), place * share, share, AT_ONCE, day.timeout_s, jumps]
        command = [sys.executable, "-m", "tests.chaos.caller", *map(str, words)]
        return subprocess.Popen(command, cwd=ROOT, env=environment(**variables), stderr=subprocess.DEVNULL)

    running = {place: begin(place) for place in range(CALLERS)}
    killed_at = time.monotonic()
    while running:
        time.sleep(0.05)
        for place, child in list(running.items()):
            if child.poll() is not None:
                del running[place]
                assert child.returncode == 0, f"caller {place} ended with {child.returncode}"
        if running and day.kills < kills and time.monotonic() - killed_at > luck.uniform(0.1, 0.8):
            place = luck.choice(list(running))
            running[place].kill()
            running[place].wait()
            day.kills += 1
            killed_at = time.monotonic()
            running[place] = begin(place)
        say(sum(path.read_bytes().count(b"\n") for path in folder.glob("done-*.jsonl")), day.kills)
