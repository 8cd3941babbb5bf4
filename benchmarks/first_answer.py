"""From the start of a process to its first answer: muse, the raw SDK, and a bare interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from benchmarks.report import Table, at_most, ratio
from benchmarks.world import PROVIDERS, World, run_script
from muse.models import PROVIDER_DEFAULTS

_GOAL = 1.05
_OURS = "import sys\nfrom muse import models\nmodels.generate('When does the tide turn?', context=sys.argv[1])"
RAW = {
    "openai": """
import sys, openai
openai.OpenAI().responses.create(model=sys.argv[2], input="When does the tide turn?").output_text
""",
    "anthropic": """
import sys, anthropic
messages = [{"role": "user", "content": "When does the tide turn?"}]
anthropic.Anthropic().messages.create(model=sys.argv[2], messages=messages, max_tokens=16384).content[0].text
""",
    "google": """
import sys
from google import genai
client = genai.Client()
client.models.generate_content(model=sys.argv[2], contents="When does the tide turn?").text
""",
}
_NOTE = "A whole process, from its start to its end; medians over processes that took turns."


def tables(world: World) -> Iterator[Table]:
    """One row for each provider."""
    columns = ("provider", "muse / raw, CPU", "muse / raw, clock", "goal", "muse ms", "raw ms")
    yield Table("First answer of a process", columns, [_row(world, name) for name in PROVIDERS], _NOTE)


def _row(world: World, provider: str) -> list[str]:
    arguments = (f"bench.{provider}", PROVIDER_DEFAULTS[provider][2])
    walls: dict[str, list[float]] = {"ours": [], "raw": []}
    cpus: dict[str, list[float]] = {"ours": [], "raw": []}
    for _ in range(world.blocks(12)):
        for name, script in (("ours", _OURS), ("raw", RAW[provider])):
            wall_s, cpu_s = run_script(script, world.environment(), arguments)
            walls[name].append(wall_s)
            cpus[name].append(cpu_s)
    by_cpu, by_wall = (ratio(taken["ours"], taken["raw"]) for taken in (cpus, walls))
    figures = [f"{median(walls[name]) * 1e3:.0f}" for name in ("ours", "raw")]
    return [provider, f"{by_cpu:.2f}", f"{by_wall:.2f}", at_most(by_cpu, _GOAL), *figures]
