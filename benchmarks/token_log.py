"""Lines a second into the token log, from one process and from four at once, and whether every line is whole."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from statistics import median

from benchmarks.report import Table, at_least
from benchmarks.routing import log_entry
from benchmarks.world import Json, World
from muse.usage_log import ledger

_GOAL_LINES_S = 50_000
_PROCESSES = 4
_NOTE = (
    "Lines of about 400 bytes, each one `write` to a file opened for appending. One process: the median of its rounds."
    " Four processes share two cores with nothing to wait for; their lines are added up."
)


def measure(writer: int, rounds: int, lines: int) -> Json:
    """Lines a second by round; each line says who wrote it."""
    entry = {**log_entry(), "writer": writer}
    rates = []
    for _ in range(rounds):
        started_s = time.perf_counter()
        for number in range(lines):
            entry["number"] = number
            ledger.append(entry)
        rates.append(lines / (time.perf_counter() - started_s))
    return {"rates": rates}


def tables(world: World) -> Iterator[Table]:
    """One process, then four."""
    rows = [_row(world, count) for count in (1, _PROCESSES)]
    yield Table("The token log", ("processes", "lines a second", "goal", "lines", "not whole"), rows, _NOTE)


def _row(world: World, processes: int) -> list[str]:
    rounds, lines = world.blocks(12), 20_000
    before = sum(1 for _ in _lines(world))
    with ThreadPoolExecutor(processes) as pool:
        results = pool.map(
            lambda writer: world.measure("token_log", writer=writer, rounds=rounds, lines=lines), range(processes)
        )
        total = sum(median(result["rates"]) for result in results)
    written = whole = 0
    for line in islice(_lines(world), before, None):
        written += 1
        whole += _is_whole(line)
    bad = max(processes * rounds * lines, written) - whole
    goal = at_least(total, _GOAL_LINES_S) if processes == 1 else f"none torn: {'met' if bad == 0 else 'missed'}"
    return [str(processes), f"{total:,.0f}", goal, f"{written:,}", f"{bad:,}"]


def _lines(world: World) -> Iterator[bytes]:
    for path in sorted((world.folder / "journal" / "tokens").glob("*.jsonl")):
        with path.open("rb") as file:
            yield from file


def _is_whole(line: bytes) -> bool:
    try:
        return "number" in json.loads(line)
    except ValueError:
        return False
