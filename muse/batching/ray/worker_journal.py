"""A temporary journal for one worker in another process. Entry point: `WorkerJournal`.

It holds the configuration sent by the driver, the worker's own usage log until the driver has its lines, and lines for
what other workers spent, so that budgets hold here too. Keys are in the process's environment only, never in the
folder.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from muse.batching.ray.worker_config import SecretEnv, SpendSnapshot, WorkerConfig
from muse.journal.storage import atomic_files
from muse.runs.run_files import lock

_PREFIX = "muse-outpost-"
_LOCK = "in-use"
_MARK = b'"told":true'

_Key = tuple[str, str, str, str]


class _Sum(Struct):
    """The driver's sum as far as this worker knows it: its own lines sent there, and what the driver reported."""

    tokens: int = 0
    usd: float = 0.0
    unpriced: int = 0


class WorkerJournal:
    """The journal that this process uses from now on."""

    def __init__(self, worker_config: WorkerConfig, given: SecretEnv) -> None:
        worker_config.require_same_version()
        _sweep()
        self._worker_config: WorkerConfig | None = None
        self._known: dict[_Key, _Sum] = {}
        self._read: dict[Path, int] = {}
        given.apply()
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._remove = weakref.finalize(
            self, shutil.rmtree, self.folder, ignore_errors=True
        )  # runs at exit at the latest
        os.environ["JOURNAL_PATH"] = str(self.folder)
        (self.folder / "config").mkdir()
        (self.folder / "tokens").mkdir()
        fresh = self.folder / f".{_LOCK}"
        self._lock = os.open(fresh, os.O_RDWR | os.O_CREAT, 0o600)
        lock(self._lock)
        fresh.rename(self.folder / _LOCK)  # renamed once locked, so that no other process finds it unlocked
        self.settle(worker_config)

    def settle(self, worker_config: WorkerConfig) -> None:
        """Apply a new configuration from now on."""
        before, self._worker_config = self._worker_config, worker_config
        if before is None or before.providers != worker_config.providers:
            text = json.dumps({"providers": worker_config.providers}, ensure_ascii=False)
            atomic_files.write_atomic(self.folder / "config" / "journal.json", text)
        if before is None or before.spent != worker_config.spent:
            for told in worker_config.spent:
                self._tell(told)

    def lines(self) -> list[bytes]:
        """Return the lines that were written to the usage log here since the last call."""
        return list(self._new_lines())

    def close(self) -> None:
        """Remove the folder."""
        self._remove()

    def _new_lines(self) -> Iterator[bytes]:
        for path in sorted((self.folder / "tokens").glob("*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                text = file.read()
            whole = text.rfind(b"\n") + 1
            self._read[path] = self._read.get(path, 0) + whole
            for line in text[:whole].splitlines():
                if _MARK not in line:  # JSON escapes quotes within a text, so no text matches it
                    self._count(path.stem, msgspec.json.decode(line))
                    yield line

    def _count(self, day: str, entry: Mapping[str, Any]) -> None:
        """Count one of this worker's own lines, which the driver will know too."""
        model = entry.get("model_asked") or entry.get("model") or ""
        known = self._sum((day, entry.get("context") or "", entry.get("provider") or "", model))
        tokens, usd = entry.get("usage", {}).get("total_tokens") or 0, entry.get("cost_usd")
        known.tokens += tokens
        known.usd += usd or 0.0
        known.unpriced += usd is None and bool(tokens)

    def _tell(self, told: SpendSnapshot) -> None:
        """Write to the log what others spent beyond what is known here."""
        known = self._sum((told.day, told.context, told.provider, told.model))
        unpriced = max(told.unpriced - known.unpriced, 0)
        tokens, usd = max(told.tokens - known.tokens, 0), max(told.usd - known.usd, 0.0)
        known.tokens, known.usd, known.unpriced = known.tokens + tokens, known.usd + usd, known.unpriced + unpriced
        lines = [self._line(told, 1, None)] * unpriced
        if tokens > unpriced or usd > 0:
            lines.append(self._line(told, max(tokens - unpriced, 0), usd))
        if lines:
            with (self.folder / "tokens" / f"{told.day}.jsonl").open("ab") as file:
                file.write(b"".join(lines))

    def _line(self, told: SpendSnapshot, tokens: int, usd: float | None) -> bytes:
        entry: dict[str, Any] = {
            "context": told.context,
            "provider": told.provider,
            "model": told.model,
            "model_asked": told.model,
            "usage": {"total_tokens": tokens},
            "cost_usd": usd,
            "told": True,
        }
        return msgspec.json.encode(entry) + b"\n"

    def _sum(self, key: _Key) -> _Sum:
        return self._known.setdefault(key, _Sum())


def _sweep() -> None:
    """Remove folders of workers that were killed: their lock is free."""
    for name in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        try:
            handle = os.open(name, os.O_RDWR)
        except OSError:  # another user's, or just removed
            continue
        try:
            if lock(handle):
                shutil.rmtree(name.parent, ignore_errors=True)
        finally:
            os.close(handle)
