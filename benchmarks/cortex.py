"""Cortex: what a queued run costs in seconds and memory, what waiting costs, what a long row of runs leaves behind.

`python -m benchmarks.cortex [--soak]` prints the tables alone; `--soak` carries out 500 runs instead of 100.
"""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from benchmarks.report import Table
from benchmarks.world import Json, World
from muse.cortex.supervisor import Cortex
from muse.runs import client, run_files
from tests.cortex_process import threads, wait_until

_RUNS, _QUICK_RUNS, _SOAK_RUNS = 100, 20, 500
_IDLE_S = 10.0
_AT_ONCE = (1, 2, 4)
_KIB = 1 if sys.platform != "darwin" else 1 / 1024
_STARTS = {"python, empty": "pass", "import muse.agents": "import muse.agents"}
_NOTE = (
    "Each run is a fresh interpreter with the echo provider and without tools; memory is the largest resident size of"
    " any of them. Left behind: descriptors, threads and processes after the last run, less those before the first."
)


def measure(*, what: str, runs_count: int = 0, at_once: int = 1, tools: bool = False) -> Json:
    """One measurement in this process."""
    os.environ["MUSE_PROVIDER"] = "echo"
    match what:
        case "queue":
            return _queue(runs_count, at_once)
        case "idle":
            return asyncio.run(_idle())
        case "answer":
            return asyncio.run(_answer(runs_count, tools=tools))
        case _:
            raise ValueError(f"what: found {what!r}, expected 'queue', 'idle' or 'answer'")


def _ask(number: int, *, tools: bool = False) -> str:
    return client.cortex_request(f"Tide {number}.", config={"disable_mcp": not tools})


def _queue(runs_count: int, at_once: int) -> Json:
    """Carry out runs that wait in a queue."""
    _ask(0)
    asyncio.run(Cortex().drain())
    before, spent = _holdings(), _children_s()
    ids = [_ask(number) for number in range(runs_count)]
    started_s = time.perf_counter()
    asyncio.run(Cortex(max_concurrent=at_once).drain())
    whole_s = time.perf_counter() - started_s
    states = [client.get_agent_end_state(agent_id) for agent_id in ids]
    return {
        "whole_s": whole_s,
        "cpu_s": (_children_s() - spent) / runs_count,
        "run_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * _KIB / 1024,
        "own_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB / 1024,
        "finished": states.count("finish"),
        "left": [after - earlier for after, earlier in zip(_holdings(), before, strict=True)],
    }


def _holdings() -> tuple[int, int, int]:
    """Descriptors, threads and child processes of this process (Linux; elsewhere threads alone)."""
    proc = Path("/proc/self")
    if not proc.exists():
        return 0, threads(), 0
    children = [child for task in proc.glob("task/*/children") for child in task.read_text().split()]
    return len(os.listdir(proc / "fd")), threads(), len(children)


def _children_s() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


async def _idle() -> Json:
    """Wait for requests that do not come."""
    cortex = Cortex()
    serving = asyncio.create_task(cortex.serve())
    await asyncio.sleep(1.0)
    before = resource.getrusage(resource.RUSAGE_SELF)
    await asyncio.sleep(_IDLE_S)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cortex.stop()
    await serving
    return {
        "cpu_ms": (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3,
        "switches": after.ru_nvcsw + after.ru_nivcsw - before.ru_nvcsw - before.ru_nivcsw,
    }


async def _answer(count: int, *, tools: bool) -> Json:
    """From a request to the end of its run, with a cortex that is up and has nothing else to do."""
    cortex = Cortex()
    serving = asyncio.create_task(cortex.serve())
    await asyncio.sleep(0.5)
    waits_ms: list[float] = []
    for number in range(count):
        agent_id = _ask(number, tools=tools)
        await asyncio.to_thread(wait_until, run_files.path_of(agent_id, "over").exists)
        events = client.read_agent_events(agent_id)
        waits_ms.append(events[-1]["ts"] - events[0]["ts"])
    cortex.stop()
    await serving
    return {"waits_ms": waits_ms}


def tables(world: World) -> Iterator[Table]:
    """A queue at several widths, then what waiting and starting cost."""
    count = _QUICK_RUNS if world.quick else _RUNS
    yield _queue_table(world, count, _AT_ONCE)
    yield _waiting_table(world)


def _queue_table(world: World, count: int, widths: Sequence[int]) -> Table:
    rows = []
    for at_once in widths:
        seen = world.measure("cortex", what="queue", runs_count=count, at_once=at_once)
        rows.append([
            f"{count} queued, {at_once} at once",
            f"{seen['whole_s']:.1f}",
            f"{seen['whole_s'] / count:.3f}",
            f"{seen['cpu_s']:.3f}",
            f"{seen['run_mib']:.0f}",
            f"{seen['own_mib']:.0f}",
            f"{seen['finished']}",
            "/".join(map(str, seen["left"])),
        ])  # fmt: skip
    columns = ("runs", "s", "s a run", "CPU s a run", "MiB a run", "MiB cortex", "finished", "left behind")
    return Table("Cortex: queued runs", columns, rows, _NOTE)


def _waiting_table(world: World) -> Table:
    idle = world.measure("cortex", what="idle")
    count = 5 if world.quick else 15
    bare, armed = (world.measure("cortex", what="answer", runs_count=count, tools=tools) for tools in (False, True))
    rows = [[f"{name}, start to end, median", f"{_start_ms(world, code):.0f} ms"] for name, code in _STARTS.items()]
    rows += [
        ["request to answer, median", f"{median(bare['waits_ms']):.0f} ms"],
        ["the same with the journal's tools", f"{median(armed['waits_ms']):.0f} ms"],
        [f"idle for {_IDLE_S:.0f} s: CPU", f"{idle['cpu_ms']:.1f} ms"],
        [f"idle for {_IDLE_S:.0f} s: times woken", f"{idle['switches']}"],
    ]
    return Table("Cortex: starting and waiting", ("", "value"), rows)


def _start_ms(world: World, code: str) -> float:
    spent: list[float] = []
    for _ in range(world.blocks(12)):
        started_s = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], env=world.environment(), check=True)
        spent.append((time.perf_counter() - started_s) * 1e3)
    return median(spent)


def main() -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory(prefix="muse-cortex-") as name:
        made = World(Path(name), "http://127.0.0.1:9", quick=False)
        if "--soak" in sys.argv[1:]:
            print(_queue_table(made, _SOAK_RUNS, (3,)).text())
            return
        for table in tables(made):
            print(table.text())


if __name__ == "__main__":
    main()
