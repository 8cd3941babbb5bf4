"""How well an agent answers questions about the example journal with tools, whoever serves it; it knows no tool.

    python -m benchmarks.local_tools                       the embedded model
    python -m benchmarks.local_tools --show                with every answer in full
    MUSE_PROVIDER=openai python -m benchmarks.local_tools  another provider, with its key set

Each question of fixtures/questions.json is one run of the agent loop over the journal's real tools, in memory, with a
copy of fixtures/journal. The planner of the embedded model was tuned on the questions that are not `held_out`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from benchmarks.report import Table, at_least
from muse import models
from muse.errors import MuseError
from muse.mcp import build_server
from muse.providers import get_provider_module
from muse.types.json_schema.validation import validate

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
CONTEXT = "agent.system.default"
_MOST_TURNS = 6
_GOALS = {"right tool": 24, "fact or source": 20}
_SHOWN_CHARS = 110


class Case(Struct, frozen=True):
    """A question: the tools that are right, words of the fact of which one must be shown, the files that hold it."""

    no: int
    question: str
    held_out: bool
    tools: tuple[str, ...]
    words: tuple[str, ...]
    sources: tuple[str, ...]


class Run(Struct, frozen=True):
    """What an agent did with a case; `bad_calls` are the calls that do not fit the schema of a tool on offer."""

    case: Case
    calls: tuple[tuple[str, Mapping[str, Any]], ...]
    bad_calls: int
    answer: str
    duration_s: float

    @property
    def chose_well(self) -> bool:
        """Whether a right tool was called."""
        return any(name in self.case.tools for name, _ in self.calls)

    @property
    def shows_fact(self) -> bool:
        """Whether words of the fact stand in the answer, on their own."""
        return any(
            re.search(rf"(?<!\w){re.escape(said)}(?!\w)", self.answer, re.IGNORECASE) for said in self.case.words
        )

    @property
    def shows_source(self) -> bool:
        """Whether the answer names a file that holds the fact."""
        return any(source in self.answer for source in self.case.sources)


def main() -> int:
    """Measure and print; 1 if the goals are missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.local_tools", description=__doc__.partition("\n")[0])
    parser.add_argument("--show", action="store_true", help="print every question with its calls and answer")
    options = parser.parse_args()
    os.environ.setdefault("MUSE_PROVIDER", "local")
    cases = msgspec.convert(json.loads((FIXTURES / "questions.json").read_text("utf-8"))["questions"], list[Case])
    with tempfile.TemporaryDirectory() as folder:
        journal = shutil.copytree(FIXTURES / "journal", Path(folder) / "journal")
        (journal / "config" / "journal.json").write_text("{}", encoding="utf-8")  # its routes are an example, too
        os.environ["JOURNAL_PATH"] = str(journal)
        runs = asyncio.run(_run_all(cases))
    print(_rates(runs).text())
    print(_wrong(runs).text())
    for run in runs if options.show else ():
        print(f"\n{run.case.no}. {run.case.question}\n   {_calls(run)}\n{run.answer}")
    missed = [name for name, goal in _GOALS.items() if sum(map(_RATES[name], runs)) < goal]
    return 1 if missed or any(run.bad_calls for run in runs) else 0


async def _run_all(cases: Sequence[Case]) -> list[Run]:
    provider, model = models.resolve_provider(CONTEXT)
    print(f"{provider}, {model}\n")
    server = build_server()
    schemas = {tool.name: tool.input_schema for tool in await server.list_tools()}
    return [await _run(case, provider, model, server, schemas) for case in cases]


async def _run(case: Case, provider: str, model: str, server: Any, schemas: Mapping[str, Any]) -> Run:
    events: list[dict[str, Any]] = []
    config = {"prompt": case.question, "model": model, "mcp_servers": {"journal": server}, "max_turns": _MOST_TURNS}
    started_s = time.perf_counter()
    try:
        answer = await get_provider_module(provider).run_agent({**config, "context": CONTEXT}, events.append)
    except MuseError as exc:
        answer = f"({type(exc).__name__}: {exc})"
    duration_s = time.perf_counter() - started_s
    calls = tuple((event["tool"], event["args"]) for event in events if event["event"] == "tool_start")
    bad = sum(not _fits(name, args, schemas) for name, args in calls)
    return Run(case, calls, bad, answer, duration_s)


def _fits(name: str, args: Mapping[str, Any], schemas: Mapping[str, Any]) -> bool:
    try:
        validate(args, schemas[name])
    except (ValueError, KeyError):
        return False
    return True


_RATES: Mapping[str, Callable[[Run], bool]] = {
    "every call valid": lambda run: not run.bad_calls,
    "right tool": lambda run: run.chose_well,
    "fact": lambda run: run.shows_fact,
    "source": lambda run: run.shows_source,
    "fact or source": lambda run: run.shows_fact or run.shows_source,
}


def _rates(runs: Sequence[Run]) -> Table:
    sets = {
        "tuned on": [run for run in runs if not run.case.held_out],
        "held out": [run for run in runs if run.case.held_out],
        "all": list(runs),
    }
    rows = [
        [name, *(f"{sum(map(rate, part))} of {len(part)}" for part in sets.values())] for name, rate in _RATES.items()
    ]
    for row in rows:
        found = sum(map(_RATES[row[0]], runs))
        goal = _GOALS.get(row[0], len(runs) if row[0] == "every call valid" else 0)
        row.append(at_least(found, goal) if goal else "")
    seconds = [sorted(run.duration_s for run in part)[len(part) // 2] for part in sets.values()]
    rows.append(["seconds, median", *(f"{value:.1f}" for value in seconds), ""])
    return Table("Questions on the example journal", ("", *sets, "goal"), rows)


def _wrong(runs: Sequence[Run]) -> Table:
    """What went wrong: a tool that is not right, or an answer that shows neither fact nor source."""
    rows = list(_wrong_rows(runs)) or [["", "nothing", "", ""]]
    return Table("What it gets wrong", ("no.", "question", "calls", "answer"), rows)


def _wrong_rows(runs: Sequence[Run]) -> Iterator[list[str]]:
    for run in runs:
        if not run.chose_well or not (run.shows_fact or run.shows_source):
            held = " (held out)" if run.case.held_out else ""
            first = run.answer.strip().partition("\n")[0][:_SHOWN_CHARS]
            yield [str(run.case.no), f"{run.case.question}{held}", _calls(run), first]


def _calls(run: Run) -> str:
    return "; ".join(f"{name} {json.dumps(args, ensure_ascii=False)}" for name, args in run.calls) or "none"


if __name__ == "__main__":
    sys.exit(main())
