"""How rows, bars and JSON get onto the screen or into a pipe; it knows nothing of what they mean.

On a terminal a table is drawn by rich, in colour and as wide as the window. Into a pipe or file go plain aligned
columns, one line a row, without colour codes or lines drawn.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from textwrap import fill
from typing import Any

from msgspec import Struct

from muse.terminal import text as terminal_text
from muse.terminal.text import escape_control, escape_message, unescaped
from muse.types.formatting import expand_exponents

_GAP = 2
_EIGHTHS: tuple[str, ...] = ("", *"▏▎▍▌▋▊▉")
_DEEP = " " * 6
_CODES: Mapping[str, str] = {"bold": "\x1b[1m", "dim": "\x1b[2m"}
_PLAIN = "\x1b[0m"
_FIXED_BLANK = "\xa0"  # a blank at which textwrap does not fold


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
    return terminal_text.is_terminal(sys.stdout)


def print_error(text: str) -> None:
    """Print a message to standard error, control characters escaped and further lines indented."""
    print(escape_message(text), file=sys.stderr)


def write_styled(pieces: Iterable[tuple[str, str]]) -> None:
    """Print lines of `(text, style)` pieces without rich: a style is a key of `_CODES`, or empty."""
    codes = _CODES if _in_colour() else {}
    drawn = []
    for piece, style in pieces:
        text = escape_control(piece, keep_newlines=True)
        drawn.append(f"{codes[style]}{text}{_PLAIN}" if style in codes else text)
    print("".join(drawn), file=unescaped(sys.stdout))


def _in_colour() -> bool:
    return is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def near(path: str) -> str:
    """A path as one types it: relative where it lies below the working folder."""
    here = os.path.relpath(path)
    return path if here.startswith(os.pardir) else here


def print_json(value: Any) -> None:
    """Print a value as JSON, for programs; numbers are in digits, without exponents."""
    print(expand_exponents(json.dumps(value, indent=2)))


def say(text: str, style: str = "", *, lead: str = "") -> None:
    """Print a line, on a terminal in `style` (rich's words for it); `lead` comes first and in bold."""
    _print(escape_control(text), style, escape_control(lead))


def _print(text: str, style: str, lead: str = "") -> None:
    if not ((style or lead) and is_terminal()):
        print(lead + text)
        return
    from rich.text import Text

    from muse.terminal.console import console

    console().print(Text.assemble((lead, "bold"), (text, style)), soft_wrap=True)


def draw(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, total: Sequence[str] | None = None) -> None:
    """Print a table; `total` is a last row set off from the others."""
    if is_terminal():
        _draw_rich(columns, rows, total)
    else:
        _draw_plain(columns, [*rows, total] if total else rows)


def fits(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> bool:
    """Whether a table can be drawn with nothing in it folded; into a pipe it always can."""
    return not is_terminal() or sum(_widths(columns, rows)) + _GAP * len(columns) <= width()


def wrap(label: str, items: Iterable[str], joint: str, style: str = "") -> None:
    """Print items behind a label, on a terminal folded between items at the window's edge."""
    text = joint.join(escape_control(item).replace(" ", _FIXED_BLANK) for item in items)
    if is_terminal():
        text = fill(
            text,
            max(width(), 40),
            initial_indent=label,
            subsequent_indent=" " * len(label),
            break_on_hyphens=False,
            break_long_words=False,
        )
        label = ""
    _print((label + text).replace(_FIXED_BLANK, " "), style)


def align(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns; in a window too narrow for that the first two stand in line, the others beneath them."""
    cells = [[escape_control(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    narrow = is_terminal() and sum(widths) + _GAP * len(widths) > width()
    for row in cells:
        line = [cell.ljust(size) for cell, size in zip(row, widths, strict=True)]
        if not narrow:
            print(" " * _GAP + (" " * _GAP).join(line).rstrip())
            continue
        print(" " * _GAP + (" " * _GAP).join(line[:2]).rstrip())
        for cell in row[2:]:
            _print(fill(cell, max(width(), 40), initial_indent=_DEEP, subsequent_indent=_DEEP), "dim")


def bar(share: float, cells: int) -> str:
    """A bar of `share` (0 to 1) of `cells` characters: eighths of blocks on a terminal that has them, else `#`."""
    eighths = round(max(0.0, min(1.0, share)) * cells * 8)
    if share > 0:
        eighths = max(eighths, 1)
    if not (is_terminal() and (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"):
        return "#" * -(-eighths // 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8]


def _draw_rich(columns: Sequence[Column], rows: Sequence[Sequence[str]], total: Sequence[str] | None) -> None:
    from rich import box
    from rich.table import Table

    from muse.terminal.console import console

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(
            column.name, justify="right" if column.numbers else "left", style=column.style, overflow="fold"
        )
    for row in rows:
        table.add_row(*_texts(row))
    if total is not None:
        table.add_section()
        table.add_row(*_texts(total), style="bold")
    console(width=max(width(), 40)).print(table)


def _texts(row: Sequence[str]) -> list[Any]:
    from rich.text import Text

    return [Text(escape_control(cell)) for cell in row]


def _draw_plain(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    widths = _widths(columns, rows)
    for row in ([column.name.upper() for column in columns], *rows):
        cells = (
            escape_control(cell).rjust(size) if column.numbers else escape_control(cell).ljust(size)
            for cell, column, size in zip(row, columns, widths, strict=True)
        )
        print((" " * _GAP).join(cells).rstrip())


def _widths(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> list[int]:
    widths = [len(column.name) for column in columns]
    for row in rows:
        widths = [max(size, len(escape_control(cell))) for size, cell in zip(widths, row, strict=True)]
    return widths
