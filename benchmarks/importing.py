"""What `import muse.models` costs and loads, beside a bare interpreter and the raw SDKs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from statistics import median

from benchmarks.report import Table, at_most
from benchmarks.world import ROOT, Json, World

_GOAL_MS = 40.0
_SCRIPTS = {
    "muse.models": "import muse.models",
    "openai": "import openai",
    "anthropic": "import anthropic",
    "google.genai": "from google import genai",
}
# The import alone, in a process that has loaded what `time` and `json` need.
_TIMED = """
import json, sys, time
wall, cpu = time.perf_counter(), time.process_time()
{script}
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
print(json.dumps({{"wall": wall * 1e3, "cpu": cpu * 1e3, "modules": sorted(sys.modules)}}))
"""
_VENDORS = ("openai", "anthropic", "google.genai", "xllamacpp", "mcp", "httpx2", "httpx", "aiohttp", "pydantic", "PIL")
_NOTE = "Milliseconds of the import itself, by the clock and of CPU; medians over processes that took turns."


def tables(world: World) -> Iterator[Table]:
    """One row for each import."""
    taken: dict[str, list[Json]] = {name: [] for name in _SCRIPTS}
    for _ in range(world.blocks(16)):
        for name, script in _SCRIPTS.items():
            taken[name].append(_import(world, script))
    rows = []
    for name, times in taken.items():
        wall, cpu = (median(time[kind] for time in times) for kind in ("wall", "cpu"))
        loaded = [vendor for vendor in _VENDORS if vendor in times[-1]["modules"]]
        goal = f"{at_most(cpu, _GOAL_MS)}, none: {'missed' if loaded else 'met'}" if name == "muse.models" else ""
        rows.append([f"`{_SCRIPTS[name]}`", f"{cpu:.0f}", f"{wall:.0f}", goal, ", ".join(loaded) or "none"])
    yield Table("Import", ("import", "CPU ms", "clock ms", "goal", "SDKs and large libraries loaded"), rows, _NOTE)


def _import(world: World, script: str) -> Json:
    command = [sys.executable, "-c", _TIMED.format(script=script)]
    done = subprocess.run(command, cwd=ROOT, env=world.environment(), stdout=subprocess.PIPE, check=True)
    seen: Json = json.loads(done.stdout)
    return seen
