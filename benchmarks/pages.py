"""The pages of `muse serve` over a journal of a million lines of the token log and 10,000 runs; it reads none of them.

`python -m benchmarks.pages [--quick]` prints the table alone.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.journal_days import day_lines, write_log, write_runs
from benchmarks.report import Table, at_most
from benchmarks.world import ROOT, World

_LINES, _RUNS, _DAYS = 1_000_000, 10_000, 100
_QUICK_LINES, _QUICK_RUNS = 100_000, 1_000
_ASKS, _QUICK_ASKS = 60, 20
_GOAL_MS = 300
_LINES_A_SECOND = 50
_MOST_WAIT_S = 600.0
_NOTE = (
    "`muse serve` in a process of its own, asked over one kept connection, one page after the other, while 50 lines a"
    " second come into the log. The very first page is asked for before the log is read: it says how far that is."
    " What is found of days that are over is kept in memory: `first` is a page that nobody asked for before."
)


class _Server:
    """A running `muse serve`."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)

    def get(self, place: str) -> http.client.HTTPResponse:
        """A page's answer, read to its end."""
        self._connection.request("GET", place, headers={"Accept": "text/html", "Accept-Encoding": "gzip"})
        answer = self._connection.getresponse()
        answer.read()
        return answer

    def peak_mb(self) -> float:
        """The largest resident size so far (Linux; elsewhere not known)."""
        status = Path(f"/proc/{self.process.pid}/status")
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.exists() else None
        return int(found[1]) / 1024 if found else float("nan")


@contextmanager
def _serving(environment: Mapping[str, str]) -> Iterator[_Server]:
    command = [sys.executable, "-m", "muse", "serve", "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, env=dict(environment), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        if found is None:
            raise RuntimeError(f"muse serve: found {line!r}, expected its address")
        try:
            yield _Server(process, found[0])
        finally:
            process.terminate()


@contextmanager
def _coming_in(path: Path) -> Iterator[None]:
    """Lines come into a log, some a second, until the end."""
    is_over = threading.Event()

    def write() -> None:
        for line in day_lines(date(2020, 1, 1), 10**9):
            if is_over.wait(1 / _LINES_A_SECOND):
                return
            with path.open("ab") as file:
                file.write(line.encode())

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        is_over.set()
        writer.join()


def tables(world: World) -> Iterator[Table]:
    """One table, of the whole journal or a smaller one."""
    yield _measure(world.folder / "pages", world.environment(), quick=world.quick)


def _measure(root: Path, environment: Mapping[str, str], *, quick: bool) -> Table:
    lines, runs, asks = (_QUICK_LINES, _QUICK_RUNS, _QUICK_ASKS) if quick else (_LINES, _RUNS, _ASKS)
    today = date.today()
    (root / "config").mkdir(parents=True, exist_ok=True)
    settings = {"providers": {"default": {"provider": "echo", "tier": 2}}}
    (root / "config" / "journal.json").write_text(json.dumps(settings), encoding="utf-8")
    write_log(root, lines=lines, days=_DAYS, last=today)
    write_runs(root, runs=runs, last=today)
    run_id = max(path.stem for path in (root / "agents").glob("*.jsonl"))
    with _serving({**environment, "JOURNAL_PATH": str(root)}) as server:
        rows = [_first(server), *_reading(server)]
        with _coming_in(root / "tokens" / f"{today:%Y%m%d}.jsonl"):
            rows += [_row(server, name, place, asks) for name, place in _places(f"{today:%Y%m%d}", run_id).items()]
    title = f"Pages over {lines:,} lines of the token log and {runs:,} runs"
    return Table(title, ("", "first", "p50", "p95", "goal"), rows, _NOTE)


def _places(day: str, run_id: str) -> Mapping[str, str]:
    """The pages, by what the table calls them."""
    return {
        "start": "/",
        "tokens, 30 days": "/app/tokens/",
        "tokens, all days": "/app/tokens/?since=all&stack=context",
        "tokens, latency of all days": "/app/tokens/?since=all&show=latency",
        "tokens, a day": f"/app/tokens/{day}",
        "tokens, segments of all days": "/app/tokens/by/segment?since=all",
        "tokens, segments of one provider": "/app/tokens/by/segment?provider=google",
        "tokens, last lines": "/app/tokens/lines?since=all",
        "tokens, failed lines of one context": "/app/tokens/lines?since=all&only=failed&context=app.chat",
        "tokens, one line": f"/app/tokens/line/{day}/0",
        "tokens, a month by the API": f"/app/tokens/api/stats/{day[:6]}",
        "agents": "/app/agents/",
        "agents, one run": f"/app/agents/run/{run_id}",
        "chat": "/app/chat/",
        "settings": "/app/settings/",
    }


def _first(server: _Server) -> list[str]:
    """The first page of all, while the log is still being read."""
    spent_ms = _timed_ms(server, "/app/tokens/")
    return ["the very first page", f"{spent_ms:.0f} ms", "", "", ""]


def _reading(server: _Server) -> Iterator[list[str]]:
    """How long the log takes to read, and what the server holds then."""
    started_s = time.perf_counter()
    while "HX-Refresh" not in server.get("/app/tokens/progress").headers:
        if time.perf_counter() - started_s > _MOST_WAIT_S:
            raise RuntimeError(f"the log is not read after {_MOST_WAIT_S:.0f} s")
        time.sleep(0.2)
    yield ["read the whole log, once", f"{time.perf_counter() - started_s:.1f} s", "", "", ""]
    yield ["largest size of the server", f"{server.peak_mb():.0f} MB", "", "", ""]


def _row(server: _Server, name: str, place: str, asks: int) -> list[str]:
    started_s = time.perf_counter()
    status = server.get(place).status
    first_ms = (time.perf_counter() - started_s) * 1e3
    if status != 200:
        return [name, "", "", "", f"status {status}: missed"]
    spent_ms = sorted(_timed_ms(server, place) for _ in range(asks))
    p95_ms = spent_ms[int(0.95 * asks)]
    return [name, f"{first_ms:.0f} ms", f"{spent_ms[asks // 2]:.0f} ms", f"{p95_ms:.0f} ms", at_most(p95_ms, _GOAL_MS)]


def _timed_ms(server: _Server, place: str) -> float:
    started_s = time.perf_counter()
    server.get(place)
    return (time.perf_counter() - started_s) * 1e3


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(prefix="muse-pages-") as name:
        environment = {**os.environ, "XDG_CACHE_HOME": str(Path(name) / "cache")}
        print(_measure(Path(name) / "journal", environment, quick="--quick" in sys.argv[1:]).text())


if __name__ == "__main__":
    main()
