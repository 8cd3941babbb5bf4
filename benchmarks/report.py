"""Tables with goals as text: Markdown that also reads well in a terminal; it knows no measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

_NUMERIC = frozenset("0123456789.,+-×% ")


@dataclass(frozen=True)
class Table:
    """One table of the report; the first column names the rows, the note below says how to read it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def text(self) -> str:
        """The table as Markdown, its columns aligned."""
        rows = [list(self.columns), *(list(row) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        right = [_is_numeric(column[1:]) for column in zip(*rows, strict=True)]
        rule = "|".join("-" * (width + 1) + (":" if side else "-") for width, side in zip(widths, right, strict=True))
        lines = [_line(rows[0], widths, right), f"|{rule}|", *(_line(row, widths, right) for row in rows[1:])]
        return "\n".join([f"### {self.title}", "", *lines, *(["", self.note] if self.note else []), ""])


def _line(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    cells = (
        cell.rjust(width) if side else cell.ljust(width) for cell, width, side in zip(row, widths, right, strict=True)
    )
    return "| " + " | ".join(cells) + " |"


def _is_numeric(cells: Sequence[str]) -> bool:
    return all(set(cell) <= _NUMERIC for cell in cells)


def at_most(value: float, goal: float) -> str:
    """The goal `value` should not exceed, and whether it does."""
    return f"≤ {goal:g}: {'met' if value <= goal else 'missed'}"


def at_least(value: float, goal: float) -> str:
    """The goal `value` should reach, and whether it does."""
    return f"≥ {goal:,.0f}: {'met' if value >= goal else 'missed'}"


def ratio(ours: Sequence[float], other: Sequence[float]) -> float:
    """The median over blocks of ours to the other's; block n of one stood beside block n of the other."""
    return median(mine / theirs for mine, theirs in zip(ours, other, strict=True))
