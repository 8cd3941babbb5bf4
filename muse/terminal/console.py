"""Consoles of rich whose text is escaped at the one place where all of it passes, and live displays beside them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, Protocol

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from muse.terminal.text import escape_control, escape_stream, unescaped


class EscapingConsole(Console):
    """A console that styles text and escapes the control characters in it; only rich's own codes leave it."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render with the text of every segment escaped."""
        for segment in super().render(renderable, options):
            if segment.control is None:
                text = escape_control(segment.text, keep_newlines=True)
                yield segment if text == segment.text else Segment(text, segment.style)
            else:
                yield segment


class _Startable(Protocol):
    def start(self) -> object: ...


def console(*, stderr: bool = False, width: int | None = None) -> EscapingConsole:
    """Make a console on standard output, or on standard error."""
    stream = unescaped(sys.stderr if stderr else sys.stdout)
    return EscapingConsole(file=stream, stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def start_live(display: _Startable) -> None:
    """Start a live display of rich, which reads colour codes in what others print meanwhile: they reach it escaped."""
    display.start()
    sys.stdout, sys.stderr = escape_stream(sys.stdout), escape_stream(sys.stderr)


def task_columns() -> list[Any]:
    """Return the columns of a progress bar that say what is done and how far it is."""
    from rich.progress import BarColumn, TextColumn

    return [TextColumn("{task.description}", markup=False), BarColumn()]
