"""Rows out of and into JSONL, CSV and Parquet files, one at a time; it knows no request.

A row of JSONL is an object on a line, numbered by line; a row of CSV or Parquet is numbered from 1, headings not
counted. What is no row is told by its number, and the others are read all the same.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, Protocol

from msgspec import Struct

from muse.batching import parquet
from muse.errors import ConfigError

Form = Literal["jsonl", "csv", "parquet"]
_FORMS: Mapping[str, Form] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
_LONGEST_FIELD = 2**31 - 1


class Row(Struct, frozen=True):
    """One row: its number and its fields."""

    number: int
    fields: dict[str, Any]


class Broken(Struct, frozen=True):
    """What stands in a row's place and is none, and why."""

    number: int
    why: str


class Sink(Protocol):
    """A file that rows are written to, each whole or not at all."""

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row."""

    def close(self) -> None:
        """Write the end."""


def form_of(path: Path, what: str) -> Form:
    """The form of a file, by its ending.

    Raises:
        ConfigError: it is none of the known ones.
    """
    form = _FORMS.get(path.suffix.lower())
    if form is None:
        raise ConfigError(what, f"{str(path)!r}", f"a file that ends in {', '.join(_FORMS)}")
    return form


def read(path: Path, what: str = "INPUT") -> Iterator[Row | Broken]:
    """The rows of a file, in order, and what is none.

    Raises:
        ConfigError: the file as a whole cannot be read.
    """
    form = form_of(path, what)
    try:
        if form == "parquet":
            yield from (Row(number, fields) for number, fields in enumerate(parquet.read(path), 1))
            return
        if form == "csv":
            with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
                yield from _records(text, path)
            return
        with path.open("rb") as file:
            yield from _lines(file)
    except OSError as exc:
        raise ConfigError(
            what, f"{str(path)!r}, which cannot be read ({exc.strerror or exc})", "a file of rows"
        ) from exc


def unit_of(path: Path) -> str:
    """What a number of a row counts in that file."""
    return "line" if form_of(path, "INPUT") == "jsonl" else "row"


def _lines(file: IO[bytes]) -> Iterator[Row | Broken]:
    for number, line in enumerate(file, 1):
        bare = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
        if bare:
            yield _object(number, bare)


def _object(number: int, line: bytes) -> Row | Broken:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as exc:
        return Broken(number, f"found a byte that is no UTF-8 at {exc.start}, expected a JSON object")
    except (ValueError, RecursionError) as exc:
        return Broken(number, f"found no JSON ({exc}), expected a JSON object")
    if not isinstance(value, dict):
        return Broken(number, f"found a JSON {type(value).__name__}, expected a JSON object")
    return Row(number, value)


def _records(file: IO[str], path: Path) -> Iterator[Row | Broken]:
    csv.field_size_limit(_LONGEST_FIELD)  # prompts are longer than the module's 131,072 characters
    records = csv.reader(file, strict=True)
    try:
        names = next(records, [])
    except csv.Error as exc:
        raise ConfigError(f"{path} line 1", f"headings that cannot be read ({exc})", "the names of the fields") from exc
    if not names or len(set(names)) < len(names) or not all(map(str.strip, names)):
        raise ConfigError(f"{path} line 1", f"{names!r} as headings", "a name for each field, none of them twice")
    number = 0
    while True:
        number += 1
        try:
            record = next(records, None)
        except csv.Error as exc:
            yield Broken(number, f"found what is no CSV ({exc})")
            continue
        if record is None:
            return
        if record:
            yield _record(number, names, record)


def _record(number: int, names: Sequence[str], record: Sequence[str]) -> Row | Broken:
    if len(record) != len(names):
        return Broken(number, f"found {len(record)} fields, expected {len(names)} as in the first line")
    if not "".join(record).isprintable() and any("\udc80" <= char <= "\udcff" for text in record for char in text):
        return Broken(number, "found bytes that are no UTF-8, expected text")
    return Row(number, dict(zip(names, record, strict=True)))


def sink(path: Path | None, kinds: Mapping[str, str], *, source: Path | None = None) -> Sink:
    """A new file for rows of these fields (`source` is where they come from); JSONL to standard output if None.

    `kinds` says of each field what Parquet is to hold: "int64", "float64", "bool", "string", or "any", which is what
    the source has, or text.

    Raises:
        ConfigError: it cannot be made.
    """
    if path is None:
        return _Lines(sys.stdout)
    form = form_of(path, "--output")
    try:
        match form:
            case "parquet":
                return parquet.sink(path, kinds, source=source)
            case "csv":
                return _Records(path.open("w", encoding="utf-8", errors="replace", newline=""), list(kinds))
            case "jsonl":
                return _Lines(path.open("w", encoding="utf-8", errors="replace", newline="\n"))
    except OSError as exc:
        allowed = "a file that can be written, in a folder that is there"
        raise ConfigError("--output", f"{str(path)!r} ({exc.strerror or exc})", allowed) from exc


class _Lines:
    """JSONL: one write for each line."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, row: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
        self._file.flush()

    def close(self) -> None:
        if self._file is not sys.stdout:
            self._file.close()


class _Records:
    """CSV: values that are no text as JSON."""

    def __init__(self, file: IO[str], names: Sequence[str]) -> None:
        self._file = file
        self._writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
        self._writer.writeheader()

    def write(self, row: Mapping[str, Any]) -> None:
        self._writer.writerow({name: _cell(value) for name, value in row.items()})
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
