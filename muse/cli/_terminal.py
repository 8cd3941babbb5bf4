"""How rows, bars and JSON get onto the screen or into a pipe; it knows nothing of what they mean.

On a terminal a table is drawn by rich, in colour and as wide as the window. Into a pipe or file go plain aligned columns,
one line a row, without colour codes or lines drawn.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

Cell = str | tuple[str, str]
"""A text, or a text with a quieter one beneath it."""

_GAP = 2


class Column(Struct, frozen=True):
    """One column of a table: its heading, and whether it holds numbers (set flush right)."""

    name: str
    numbers: bool = False
    style: str = ""


def width() -> int:
    """The columns of the window (`COLUMNS` wins)."""
    return shutil.get_terminal_size().columns


def is_terminal() -> bool:
    """Whether somebody looks at the output, and no program reads it."""
    return sys.stdout.isatty()


def clean(text: str) -> str:
    """`text` with what is not printable spelled out, so that a name in a file cannot steer the terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def print_json(value: Any) -> None:
    """Print a value as JSON, for programs."""
    print(json.dumps(value, indent=2))


def say(text: str, style: str = "") -> None:
    """Print a line, on a terminal in `style` (rich's words for it)."""
    if not (style and is_terminal()):
        print(clean(text))
        return
    from rich.console import Console
    from rich.text import Text

    Console(highlight=False).print(Text(clean(text), style=style), soft_wrap=True)


def draw(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], *, total: Sequence[Cell] | None = None) -> None:
    """Print a table; `total` is a last row set off from the others."""
    if is_terminal():
        _draw_rich(columns, rows, total)
    else:
        _draw_plain(columns, [*rows, total] if total else rows)


def natural_width(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> int:
    """How wide a table is if nothing in it is folded."""
    return sum(_widths(columns, rows)) + _GAP * (len(columns) - 1)


def bar(share: float, cells: int) -> str:
    """A bar of `share` (0 to 1) of `cells` characters: eighths of blocks on a terminal that has them, else `#`."""
    eighths = round(max(0.0, min(1.0, share)) * cells * 8)
    if share > 0:
        eighths = max(eighths, 1)
    if not (is_terminal() and (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"):
        return "#" * -(-eighths // 8)
    return "█" * (eighths // 8) + ("", *"▏▎▍▌▋▊▉")[eighths % 8]


def _draw_rich(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], total: Sequence[Cell] | None) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    stacked = any(isinstance(cell, tuple) for row in rows for cell in row)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), header_style="bold", leading=int(stacked))
    for column in columns:
        table.add_column(
            column.name, justify="right" if column.numbers else "left", style=column.style, overflow="fold"
        )
    for row in rows:
        table.add_row(*_texts(row))
    if total is not None:
        table.add_section()
        table.add_row(*_texts(total), style="bold")
    Console(width=max(width(), 40)).print(table)


def _texts(row: Sequence[Cell]) -> list[Any]:
    from rich.text import Text

    return [
        Text(clean(cell)) if isinstance(cell, str) else Text.assemble(clean(cell[0]), "\n", (clean(cell[1]), "dim"))
        for cell in row
    ]


def _draw_plain(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
    widths = _widths(columns, rows)
    for row in ([column.name.upper() for column in columns], *rows):
        cells = (
            _flat(cell).rjust(size) if column.numbers else _flat(cell).ljust(size)
            for cell, column, size in zip(row, columns, widths, strict=True)
        )
        print((" " * _GAP).join(cells).rstrip())


def _widths(columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> list[int]:
    widths = [len(column.name) for column in columns]
    for row in rows:
        widths = [max(size, len(_flat(cell))) for size, cell in zip(widths, row, strict=True)]
    return widths


def _flat(cell: Cell) -> str:
    return clean(cell) if isinstance(cell, str) else clean(" ".join(part for part in cell if part))
