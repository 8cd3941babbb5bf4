"""How late calls end under load: `python -m benchmarks.lateness` prints the distribution for one machine.

Four processes make calls to a server a third of whose answers go wrong, under limits and a breaker, so that they share
a SQLite file. For each call it is noted by how much it ended after its deadline, and for each event loop how late it
wakes up: what blocks the loop is taken from every call that runs on it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROCESSES = 4
_TICK_S = 0.01
_SHARES = (0.5, 0.9, 0.99, 0.999, 1.0)


async def _caller(count: int, at_once: int, timeout_s: float) -> None:
    """Make the calls of one process; print how late they were, and how late its loop was."""
    from muse import models
    from muse.errors import MuseError

    with contextlib.suppress(MuseError):  # what a first call loads is not what is measured here
        await models.areply("When does the tide turn?", "app.tides", timeout_s=60)
    late_s: list[float] = []
    lags_s: list[float] = []
    failed: Counter[str] = Counter()
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            began_s = time.monotonic()
            try:
                await models.areply(f"When does tide {number} turn?", "app.tides", timeout_s=timeout_s)
            except MuseError as exc:
                failed[type(exc).__name__] += 1
            late_s.append(max(0.0, time.monotonic() - began_s - timeout_s))

    async def tick() -> None:
        while True:
            due_s = time.monotonic() + _TICK_S
            await asyncio.sleep(_TICK_S)
            lags_s.append(time.monotonic() - due_s)

    ticking = asyncio.create_task(tick())
    await asyncio.gather(*(work() for _ in range(at_once)))
    ticking.cancel()
    print(json.dumps({"late_s": late_s, "lags_s": lags_s, "failed": failed}))


def _quantiles(values: list[float]) -> str:
    values = sorted(values)
    cells = (values[min(len(values) - 1, int(share * len(values)))] for share in _SHARES)
    return "  ".join(f"{1000 * value:9.1f}" for value in cells)


def _run(folder: Path, url: str, words: list[str]) -> list[dict[str, Any]]:
    config = folder / "config"
    config.mkdir()
    limits = [{"in_flight": 100, "provider": "*"}, {"requests_per_minute": 100_000, "provider": "*"}]
    chain = {"provider": "openai", "fallbacks": ["anthropic"], "retries": 2}
    providers = {"default": chain, "limits": limits, "breaker": {"failures": 50, "cool_down_s": 1}}
    (config / "journal.json").write_text(json.dumps({"providers": providers}))
    variables = {
        "JOURNAL_PATH": str(folder),
        "OPENAI_BASE_URL": f"{url}/v1",
        "ANTHROPIC_BASE_URL": url,
        "OPENAI_API_KEY": "sk-lateness-openai-0123456789",
        "ANTHROPIC_API_KEY": "sk-lateness-anthropic-0123456789",
    }
    command = [sys.executable, str(Path(__file__).resolve()), "--caller", *words]
    children = [
        subprocess.Popen(command, env=os.environ | variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for _ in range(PROCESSES)
    ]
    return [json.loads(child.communicate()[0]) for child in children]


def main() -> int:
    """Run the callers and print the distributions in milliseconds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lateness", description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000, help="of each of the four processes (1000)")
    parser.add_argument("--at-once", type=int, default=50, help="in each process (50)")
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds of each call (5)")
    parser.add_argument("--caller", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.caller:
        asyncio.run(_caller(options.calls, options.at_once, options.timeout))
        return 0
    words = ["--calls", str(options.calls), "--at-once", str(options.at_once), "--timeout", str(options.timeout)]
    server_command = [sys.executable, "-m", "tests.chaos.server", "0.3", "1"]
    with (
        tempfile.TemporaryDirectory(prefix="muse-lateness-") as folder,
        subprocess.Popen(
            server_command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as server,
    ):
        assert server.stdin is not None
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        began_s = time.monotonic()
        found = _run(Path(folder), url, words)
        took_s = time.monotonic() - began_s
        server.stdin.close()
        server.stdout.read()
    late = [value for one in found for value in one["late_s"]]
    failed = sum((Counter(one["failed"]) for one in found), Counter[str]())
    lags = [value for one in found for value in one["lags_s"]]
    head = "  ".join(f"{f'p{100 * share:g}' if share < 1 else 'max':>9}" for share in _SHARES)
    after = sum(value > 0.05 * options.timeout for value in late)
    print(f"{'milliseconds':24}{head}")
    print(f"{'calls, after deadline':24}{_quantiles(late)}")
    print(f"{'event loops, late by':24}{_quantiles(lags)}")
    print(
        f"{len(late):,} calls in {took_s:.0f} s, {after} ended more than 5 % after their deadline;"
        f" failed: {', '.join(f'{name} {count}' for name, count in failed.most_common()) or 'none'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
