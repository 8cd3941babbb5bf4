"""What ran for a day, what it cost, what failed, kept as it goes, so that a killed run can go on; it runs nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from muse import models
from muse.journal import paths
from muse.journal.storage.atomic_files import make_folder, write_atomic
from muse.usage_log import ledger, totals
from muse.usage_log.totals import Line, UsageTotal

log = logging.getLogger(__name__)

Stage = Literal["observe", "think", "agents"]
State = Literal["done", "unchanged", "nothing", "not done", "failed"]


class StepDone(Struct, frozen=True):
    """One step: `about` says what came of it, `again` what to type to have it run again; cost by the token log."""

    stage: Stage
    name: str
    day: str
    state: State
    about: str = ""
    problems: tuple[str, ...] = ()
    again: str = ""
    calls: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0
    duration_s: float | None = None


class DayState(Struct, omit_defaults=True):
    """A day's run: `began` and `started` (of each step) are seconds since the epoch; `ended` is "" until it is over."""

    day: str
    began: float
    started: dict[str, float] = msgspec.field(default_factory=dict)
    steps: dict[str, StepDone] = msgspec.field(default_factory=dict)
    ended: str = ""

    @property
    def is_resumed(self) -> bool:
        """Whether an earlier run of it was broken off."""
        return bool(self.started) and not self.ended


class DayRun:
    """The run of one day: each step is noted before it begins and when it is over."""

    def __init__(self, day: str) -> None:
        self._path = paths.journal_path() / "stamps" / "days" / f"{day}.json"
        known = self._load()
        self.state = known if known is not None and known.is_resumed else DayState(day, time.time())
        self.resumed = known is not None and known.is_resumed

    def begin(self, key: str) -> None:
        """Note that a step begins; of one that was broken off the first beginning counts."""
        self.state.started.setdefault(key, time.time())
        self._save()

    def end(self, key: str, step: StepDone, contexts: Sequence[str], *, since: str = "") -> StepDone:
        """Note what came of a step, and by the token log what the calls of its contexts (and those below them) cost.

        They count from the beginning of the step `since`, this one if left out. One that only found again what the run
        that was broken off had made keeps what that said of it.
        """
        before = self.state.steps.get(key)
        if self.resumed and before is not None and before.state == "done" and step.state == "unchanged":
            step = before
        step = _with_costs(step, contexts, self.state.started[since or key])
        self.state.steps[key] = step
        self._save()
        return step

    def close(self) -> None:
        """The run is over."""
        self.state.ended = datetime.now().isoformat(sep=" ", timespec="seconds")
        self._save()

    def _load(self) -> DayState | None:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=DayState)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as exc:
            log.warning("%s: %s; what an earlier run did is found again step by step", self._path, exc)
            return None

    def _save(self) -> None:
        make_folder(self._path.parent)
        write_atomic(self._path, msgspec.json.encode(self.state).decode() + "\n")


def sum_of(steps: Sequence[StepDone]) -> tuple[int, int, float, int]:
    """`(calls, tokens, dollars, calls without a known price)` of some steps."""
    return (
        sum(step.calls for step in steps),
        sum(step.tokens for step in steps),
        sum(step.cost_usd for step in steps),
        sum(step.unpriced for step in steps),
    )


def report_path(day: str, ending: str) -> Path:
    """Where the page of a day's run stands (`.md`), and its data (`.json`)."""
    return paths.journal_path() / day / f"daily_report{ending}"


def _with_costs(step: StepDone, contexts: Sequence[str], since_s: float) -> StepDone:
    total = _total(contexts, since_s)
    return msgspec.structs.replace(
        step,
        calls=total.calls,
        tokens=total.usage.total_tokens,
        cost_usd=total.cost_usd,
        unpriced=total.unpriced,
        duration_s=round(time.time() - since_s if step.duration_s is None else step.duration_s, 3),
    )


def _total(contexts: Sequence[str], since_s: float) -> UsageTotal:
    """What the calls of some contexts came to, from a moment on, by the token log."""
    first = datetime.fromtimestamp(since_s)
    days = [f"{first + timedelta(days=one):%Y%m%d}" for one in range((datetime.now() - first).days + 2)]
    lines: list[tuple[str, Line]] = [
        (day, line) for day in days for line in ledger.read((day, day)) if _is_of(line, contexts, since_s)
    ]
    return totals.summarize(lines, ("context",), price=models.calc_token_cost, owner=models.get_model_provider).total


def _is_of(line: Line, contexts: Sequence[str], since_s: float) -> bool:
    at, context = line.get("timestamp"), str(line.get("context") or "")
    is_later = isinstance(at, int | float) and at >= since_s
    return is_later and any(context == one or context.startswith(f"{one}.") for one in contexts)
