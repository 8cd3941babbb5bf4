"""A made-up journal of many days: lines of the token log and runs of agents, always the same; it measures nothing."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

_PERSONAS = ("default", "librarian", "meeting_prep", "todo_keeper", "daily_review")
_CONTEXTS = (
    *(f"observe.describe.{name}" for name in ("frame", "browsing", "calendar", "code", "design", "document", "email")),
    *("observe.enrich", "observe.detect.segment", "observe.detect.json", "observe.extract.selection"),
    *("observe.summarize", "insight.daily", "insight.daily.title", "insight.weekly", "insight.mood"),
    *("detect.created", "planner.generate", "app.chat", "app.chat.title"),
    *(f"agent.system.{name}" for name in _PERSONAS),
)
# provider, model, and dollars a token in and out (about those of the price list; a line states its cost).
_MODELS = (
    ("google", "gemini-3.8-flash", 3e-7, 2.5e-6),
    ("google", "gemini-3.5-flash-lite", 1e-7, 4e-7),
    ("openai", "gpt-6.1-sol", 2.5e-7, 2e-6),
    ("anthropic", "claude-sonnet-5-5", 3e-6, 1.5e-5),
    ("local", "smollm2-135m-instruct.q4_1", 0.0, 0.0),
)
_SEGMENTS = 40
_FAILED, _OLDER = 0.02, 0.05


def write_log(root: Path, *, lines: int, days: int, last: date) -> None:
    """Write the token log of some days, the last of them `last`, with `lines` lines in all."""
    (root / "tokens").mkdir(parents=True, exist_ok=True)
    for number in range(days):
        day = last - timedelta(days=number)
        count = lines // days + (number < lines % days)
        with (root / "tokens" / f"{day:%Y%m%d}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(day_lines(day, count))


def day_lines(day: date, count: int) -> Iterator[str]:
    """Lines of one day, spread over its working hours."""
    chance = random.Random(day.toordinal())
    begin_s = datetime(day.year, day.month, day.day, 8).timestamp()
    for number in range(count):
        entry = _entry(chance, begin_s + number * 36_000 / count)
        yield json.dumps(entry, separators=(",", ":")) + "\n"


def _entry(chance: random.Random, timestamp: float) -> dict[str, Any]:
    context = _CONTEXTS[min(int(chance.expovariate(0.15)), len(_CONTEXTS) - 1)]
    provider, model, paid_in, paid_out = chance.choice(_MODELS)
    counted_in, counted_out = chance.randint(200, 8_000), chance.randint(20, 900)
    usage = {"input_tokens": counted_in, "output_tokens": counted_out, "total_tokens": counted_in + counted_out}
    entry: dict[str, Any] = {"timestamp": round(timestamp, 3), "model": model, "context": context, "usage": usage}
    if context.startswith("observe."):
        entry["segment"] = f"{8 + chance.randrange(_SEGMENTS) // 4:02d}{15 * chance.randrange(4):02d}00_900"
    if chance.random() < _OLDER:
        return entry
    cost_usd = counted_in * paid_in + counted_out * paid_out
    route = f"providers.contexts['{context.split('.')[0]}.*']"
    entry |= {"provider": provider, "model_asked": model, "route": route, "finish": "stop", "cost_usd": cost_usd}
    entry["duration_s"] = round(chance.lognormvariate(0.8, 0.7), 6)
    if chance.random() < _FAILED:
        empty = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
        error = {"class": "RateLimitError", "status": 429, "code": "rate_limit_exceeded"}
        entry |= {"usage": empty, "finish": None, "cost_usd": 0.0, "error": error}
    return entry


def write_runs(root: Path, *, runs: int, last: date) -> None:
    """Write the logs of some finished agent runs, five minutes apart, the last of them on `last`."""
    folder = root / "agents"
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(runs)
    end_ms = int(datetime(last.year, last.month, last.day, 12).timestamp() * 1000)
    for number in range(runs):
        run_id = end_ms - number * 300_000
        (folder / f"{run_id}.jsonl").write_text("".join(_run_lines(run_id, chance)), encoding="utf-8")


def _run_lines(run_id: int, chance: random.Random) -> Iterator[str]:
    persona = chance.choice(_PERSONAS)
    provider, model, *_ = chance.choice(_MODELS)
    prompt = "What did I decide about the release on Tuesday?"
    usage = {"input_tokens": chance.randint(500, 9_000), "output_tokens": chance.randint(50, 900), "requests": 2}
    usage["total_tokens"] = usage["input_tokens"] + usage["output_tokens"]
    call = {"tool": "search_journal", "args": {"query": "release"}, "call_id": "call_1"}
    events: tuple[dict[str, Any], ...] = (
        {"event": "request", "prompt": prompt, "persona": persona, "provider": provider},
        {"event": "start", "prompt": prompt, "persona": persona, "model": model, "provider": provider},
        {"event": "tool_start", **call},
        {"event": "tool_end", **call, "result": "Tuesday: the release moves to the 12th."},
        {"event": "finish", "result": "To ship on the 12th.", "usage": usage},
    )
    for number, event in enumerate(events):
        yield json.dumps({**event, "ts": run_id + number * 900, "agent_id": str(run_id)}) + "\n"
