"""A check of a whole input file before anything is sent. Entry points: `scan`, `digest`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

from muse.batching.io.cells import StringifiedValue, stringify
from muse.batching.io.column_types import SPELLED, Kind, column_of, note_kinds
from muse.batching.io.formats import InvalidRow, Row, form_of, read, unit_of
from muse.batching.io.template import Template
from muse.types.errors import ConfigError

FIELDS = ("contents", "prompt", "text")


class Scan(Struct, frozen=True):
    """The content of a file: the number of usable and broken rows, and the type of each field."""

    rows: int
    broken: int
    kinds: dict[str, Kind]


class PromptSource(Struct, frozen=True):
    """How a row becomes a request's contents: through a template, or as the value of a field."""

    template: Template | None = None
    field: str | None = None

    def ask(self, row: Row, where: str) -> Any:
        """Return the contents for a row.

        Raises:
            ConfigError: The row lacks a field.
        """
        if self.template is not None:
            self.template.require(row.fields, where)
            return self.template.fill(row.fields)
        names = (self.field,) if self.field is not None else FIELDS
        for name in names:
            if name in row.fields:
                value = row.fields[name]
                return stringify(value) if isinstance(value, (bytes, StringifiedValue)) else value
        found = f"no field {' or '.join(map(repr, names))} (there are {', '.join(row.fields) or 'none'})"
        raise ConfigError(where, found, "one with what is to be asked: name it with --field, or write a --template")


def scan(path: Path, question: PromptSource, tell: Callable[[str], None]) -> Scan:
    """Read all rows; call `tell` with a message for each broken one.

    Raises:
        ConfigError: The file cannot be read, holds no usable row, or a row lacks a field.
    """
    unit = unit_of(path)
    rows = broken = 0
    kinds: dict[str, Kind] = {}
    for row in read(path):
        where = f"{path.name} {unit} {row.number}"
        if isinstance(row, InvalidRow):
            broken += 1
            tell(f"{where}: {row.why}; it is left out")
            continue
        question.ask(row, where)
        rows += 1
        note_kinds(kinds, row.fields)
    if not rows:
        found = f"{str(path)!r}, in which no row can be used" if broken else f"{str(path)!r}, which holds no row"
        raise ConfigError("INPUT", found, "a file with rows")
    if form_of(path, "INPUT") == "parquet":
        kinds = {name: "string" if kind == SPELLED else "any" for name, kind in kinds.items()}
    return Scan(rows, broken, {name: column_of(kind) for name, kind in kinds.items()})


def digest(path: Path, *further: str) -> str:
    """Return a short hash of a file and of further texts.

    Raises:
        ConfigError: The file cannot be read.
    """
    summed = hashlib.blake2b(digest_size=5)
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                summed.update(piece)
    except OSError as exc:
        raise ConfigError("INPUT", f"{str(path)!r}, which cannot be read ({exc.strerror or exc})", "a file") from exc
    for text in further:
        summed.update(b"\0" + text.encode("utf-8", errors="surrogateescape"))
    return summed.hexdigest()
