"""A progress bar for a command: on a terminal, and nothing into a pipe; it knows not what goes on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from muse.cli._terminal.terminal import is_terminal
from muse.terminal.text import escape_control


@contextmanager
def progress(
    *, shown: bool = True, figures: Literal["count", "share", ""] = "count"
) -> Iterator[Callable[[str, int, int], object]]:
    """A bar that is drawn while somebody looks and it is `shown`; what it gives is called at each step.

    It is told what is being done, how much of it, of how much (0 where that is not known).

    Beside it stand the `count` of what is done, or its `share` in per cent, or neither, and the time it has taken.
    """
    if not (shown and is_terminal() and sys.stderr.isatty()):
        yield _unseen
        return
    from rich.progress import MofNCompleteColumn, Progress, ProgressColumn, TaskProgressColumn, TimeElapsedColumn

    from muse.terminal.console import console, start_live, task_columns

    columns: list[ProgressColumn] = task_columns()
    columns += [MofNCompleteColumn()] if figures == "count" else [TaskProgressColumn()] if figures == "share" else []
    bar = Progress(*columns, TimeElapsedColumn(), console=console(stderr=True), transient=True)
    start_live(bar)
    try:
        task = bar.add_task("", total=None)
        yield lambda what, done, of: bar.update(
            task, description=escape_control(what), completed=done, total=of or None
        )
    finally:
        bar.stop()


def _unseen(_what: str, _done: int, _of: int) -> None:
    """Nobody looks."""


class Counter:
    """Tells a bar of steps that come one by one; how many there will be may be learnt on the way."""

    def __init__(self, what: str, step: Callable[[str, int, int], object], total: int = 0) -> None:
        self._what, self._step = what, step
        self._done, self._total = 0, total
        step(what, 0, total)

    def expect(self, total: int) -> None:
        """There will be so many steps in all."""
        self._total = total
        self._step(self._what, self._done, total)

    def advance(self) -> None:
        """One step more is over."""
        self._done += 1
        self._step(self._what, self._done, self._total)
