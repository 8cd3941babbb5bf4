"""The progress bar of a batch on standard error. Entry point: `drawn`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from muse.batching.stats import BatchStats
from muse.types.formatting import format_usd

_CELLS = 24
_TIMES_A_SECOND = 8


class ProgressBar:
    """A progress bar that a thread of its own redraws from the batch's current counts."""

    def __init__(self, tally: BatchStats) -> None:
        from muse.terminal.console import console  # imports rich, which is slow; only a bar needs it

        self._tally = tally
        self._console = console(stderr=True)
        self._live: Any = None

    def start(self) -> None:
        """Start drawing."""
        from rich.live import Live

        from muse.terminal.console import start_live

        if self._live is None:
            self._live = Live(self, console=self._console, refresh_per_second=_TIMES_A_SECOND, transient=True)
            start_live(self._live)

    def stop(self) -> None:
        """Stop drawing and remove the bar."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __rich_console__(self, console: Any, options: Any) -> Iterable[Any]:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        tally = self._tally
        line = Table.grid(padding=(0, 1))
        whole = ProgressBar(total=max(tally.expected, 1), completed=tally.ended, width=_CELLS)
        line.add_row(whole, Text(words(tally), overflow="ellipsis", no_wrap=True))
        yield line


def drawn(tally: BatchStats) -> ProgressBar | None:
    """Return a progress bar if standard error is a terminal, else None."""
    return ProgressBar(tally) if sys.stderr.isatty() else None


def words(tally: BatchStats) -> str:
    """Return the progress as text: done, failed, in flight, tokens, cost so far, time left."""
    parts = [f"{tally.ended:,}/{tally.expected:,}", f"{tally.done:,} done", f"{tally.failed:,} failed"]
    parts += [f"{tally.deferred:,} deferred"] if tally.deferred else []
    cost = format_usd(tally.cost_usd, more=tally.unpriced > 0)
    parts += [f"{tally.in_flight:,} in flight", f"{_short(tally.tokens)} tokens", cost]
    left_s = tally.left_s
    parts.append(f"ETA {_clock(left_s)}" if left_s is not None else "ETA –")
    return " · ".join(parts)


def _short(count: int) -> str:
    if count < 10_000:
        return f"{count:,}"
    return f"{count / 1_000:.0f}k" if count < 1_000_000 else f"{count / 1e6:.2f}M"


def _clock(seconds: float) -> str:
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"
