"""What calls have cost since a day began, from the token log itself; it asks no provider and sets no limit.

The log is the one source: what any process on the journal spent is in it, also after a kill. A process reads on where
it stopped, at most every fifth of a second, so the sums are that old; calls under way are not in them.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, timedelta
from itertools import count
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from muse.journal import paths
from muse.journal.policy_config import PriceFn
from muse.usage_log import ledger

LOOK_AGAIN_S = 0.2
_PIECE_BYTES = 8 * 1024 * 1024


class SpendKey(Struct, frozen=True):
    """What sums are kept by."""

    day: str
    context: str
    provider: str
    model: str


class Spend(Struct):
    """Calls, tokens and dollars; `unpriced` counts calls that used tokens at a price nobody knows."""

    calls: int = 0
    tokens: int = 0
    usd: float = 0.0
    unpriced: int = 0


class _Line(Struct):
    """What of a line of the log is added up, as muse writes it."""

    context: str | None
    provider: str
    model_asked: str
    cost_usd: float | None
    usage: dict[str, Any]


_decode = msgspec.json.Decoder(_Line).decode
_generations = count(1)
_N = TypeVar("_N")


class SpendTracker:
    """The sums of one journal from a day on."""

    def __init__(self, folder: str, since: str, assess: PriceFn) -> None:
        self.folder = folder
        self._assess = assess
        self.since = since
        self.sums: dict[SpendKey, Spend] = {}
        self.generation = next(_generations)
        self._read: dict[str, int] = {}
        self._look_at_s = 0.0
        self._lock = threading.Lock()

    def look(self) -> None:
        """Read what was added to the log; nothing if that was done a moment ago."""
        if time.monotonic() < self._look_at_s:
            return
        with self._lock:
            if time.monotonic() < self._look_at_s:
                return
            ledger.write_abandoned(self.folder)
            for day in _days(self.since, time.strftime("%Y%m%d")):
                self._read_on(day)
            self._look_at_s = time.monotonic() + LOOK_AGAIN_S

    def total(self, counts: Callable[[SpendKey], bool]) -> Spend:
        """The sum of what `counts`."""
        with self._lock:
            return total_spend(spent for key, spent in self.sums.items() if counts(key))

    def by(self, name: Callable[[SpendKey], _N | None]) -> dict[_N, Spend]:
        """The sums of what has a name, by it."""
        groups: dict[_N, list[Spend]] = {}
        with self._lock:
            for key, spent in self.sums.items():
                group = name(key)
                if group is not None:
                    groups.setdefault(group, []).append(spent)
            return {group: total_spend(sums) for group, sums in groups.items()}

    def _read_on(self, day: str) -> None:
        """Add the whole lines behind the last one that was read; a file that shrank is another one."""
        path = os.path.join(self.folder, "tokens", f"{day}.jsonl")
        with contextlib.suppress(OSError), open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size < self._read.get(day, 0):
                self._forget(day)
            piece_bytes = _PIECE_BYTES
            while size > (begin := self._read.get(day, 0)):
                file.seek(begin)
                piece = file.read(piece_bytes)
                whole = piece.rfind(b"\n") + 1
                if whole:
                    self._add(day, piece[:whole])
                    self._read[day] = begin + whole
                elif len(piece) < piece_bytes:
                    return
                piece_bytes = _PIECE_BYTES if whole else piece_bytes * 2

    def _forget(self, day: str) -> None:
        self._read.pop(day, None)
        for key in [key for key in self.sums if key.day == day]:
            del self.sums[key]
        self.generation = next(_generations)

    def _add(self, day: str, lines: bytes) -> None:
        self.generation = next(_generations)
        for text in lines.split(b"\n"):
            try:
                line = _decode(text)
                tokens, usd = line.usage.get("total_tokens"), line.cost_usd
                key = SpendKey(day, line.context or "", line.provider, line.model_asked)
            except msgspec.ValidationError:
                found = self._lenient(day, text)
                if found is None:
                    continue
                key, tokens, usd = found
            except (msgspec.MsgspecError, RecursionError):  # torn, or no line
                continue
            sums = self.sums.get(key)
            if sums is None:
                sums = self.sums[key] = Spend()
            sums.calls += 1
            sums.tokens += tokens if type(tokens) is int else 0
            sums.usd += max(usd or 0.0, 0.0)
            sums.unpriced += usd is None and bool(tokens)

    def _lenient(self, day: str, text: bytes) -> tuple[SpendKey, object, float | None] | None:
        """A line of somebody else's making, or of another version: its key, tokens and dollars; None if it is none."""
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(line, dict):
            return None
        usage = line.get("usage")
        provider, usd = self._assess(line)
        model = line.get("model_asked") or line.get("model")
        given = line.get("cost_usd")
        if isinstance(given, (int, float)) and not isinstance(given, bool) and math.isfinite(given):
            usd = float(given)
        tokens = usage.get("total_tokens") if isinstance(usage, dict) else None
        has_used = given is not None or bool(usage)
        return SpendKey(day, str(line.get("context") or ""), provider, str(model or "")), tokens or has_used, usd


def total_spend(sums: Iterable[Spend]) -> Spend:
    """The sum of some sums."""
    total = Spend()
    for spent in sums:
        total.calls += spent.calls
        total.tokens += spent.tokens
        total.usd += spent.usd
        total.unpriced += spent.unpriced
    return total


def window_start(window: str, today: date | None = None) -> str:
    """The first day (YYYYMMDD, local) of the day, week (from Monday) or month that is under way."""
    day = today or date.today()
    if window == "week":
        day -= timedelta(days=day.weekday())
    elif window == "month":
        day = day.replace(day=1)
    return f"{day:%Y%m%d}"


def next_window(window: str) -> datetime:
    """When the day, week or month that is under way ends."""
    today = datetime.now().replace(hour=0, minute=0, second=0, microsecond=0)
    if window == "month":
        return (today.replace(day=1) + timedelta(days=32)).replace(day=1)
    return today + timedelta(days=7 - today.weekday() if window == "week" else 1)


def _days(first: str, last: str) -> Iterator[str]:
    day, end = (date(int(text[:4]), int(text[4:6]), int(text[6:])) for text in (first, last))
    while day <= end:
        yield f"{day:%Y%m%d}"
        day += timedelta(days=1)


_spendings: dict[str, SpendTracker] = {}


def spend_since(since: str, assess: PriceFn) -> SpendTracker:
    """The sums of the journal in force, from `since` or an earlier day on, read up to now."""
    folder = paths.journal_name()
    known = _spendings.get(folder)
    if known is None or since < known.since:
        known = _spendings[folder] = SpendTracker(folder, since, assess)
    known.look()
    return known
