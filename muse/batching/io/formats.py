"""Reading and writing rows of JSONL, CSV and Parquet files, one at a time.

Entry points: `read`, `sink`, `form_of`, `holds_results`.

A row of JSONL is an object on a line, numbered by line; a row of CSV or Parquet is numbered from 1, without the
headings. An invalid row is reported by its number, and reading continues.
"""

from __future__ import annotations

import codecs
import csv
import json
import math
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, Protocol

from msgspec import Struct

from muse.batching.io import parquet
from muse.batching.io.cells import cell, json_text
from muse.batching.io.column_types import Kind
from muse.types.errors import ConfigError
from muse.types.formatting import format_number

Form = Literal["jsonl", "csv", "parquet"]
_FORMS: Mapping[str, Form] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
_LONGEST_FIELD = 2**31 - 1


class Row(Struct, frozen=True):
    """A row: its number and its fields."""

    number: int
    fields: dict[str, Any]


class InvalidRow(Struct, frozen=True):
    """A row that cannot be read, and why."""

    number: int
    why: str


class Sink(Protocol):
    """A file that rows are written to, each whole or not at all.

    Raises:
        ConfigError: The disk is full or fails, or a column cannot hold a value.
    """

    def write(self, row: Mapping[str, Any]) -> None:
        """Write a row."""

    def close(self) -> None:
        """Finish and close the file."""


def form_of(path: Path, what: str) -> Form:
    """Return the format of a file, by its suffix.

    Raises:
        ConfigError: The suffix is unknown.
    """
    form = _FORMS.get(path.suffix.lower())
    if form is None:
        raise ConfigError(what, f"{str(path)!r}", f"a file that ends in {', '.join(_FORMS)}")
    return form


def read(path: Path, what: str = "INPUT") -> Iterator[Row | InvalidRow]:
    """Yield the rows of a file, valid and invalid ones, in order.

    Raises:
        ConfigError: The file as a whole cannot be read.
    """
    form = form_of(path, what)
    try:
        if form == "parquet":
            yield from (Row(number, fields) for number, fields in enumerate(parquet.read(path), 1))
            return
        _refuse_utf16(path, what)
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


def _refuse_utf16(path: Path, what: str) -> None:
    with path.open("rb") as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise ConfigError(what, f"{str(path)!r}, which is UTF-16", "text in UTF-8: save it as that")


def unit_of(path: Path) -> str:
    """Return what row numbers of that file count: "line" or "row"."""
    return "line" if form_of(path, "INPUT") == "jsonl" else "row"


def _lines(file: IO[bytes]) -> Iterator[Row | InvalidRow]:
    for number, line in enumerate(file, 1):
        bare = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
        if bare:
            yield _object(number, bare)


def _object(number: int, line: bytes) -> Row | InvalidRow:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as exc:
        return InvalidRow(number, f"found a byte that is no UTF-8 at {exc.start}, expected a JSON object")
    except (ValueError, RecursionError) as exc:
        return InvalidRow(number, f"found no JSON ({exc}), expected a JSON object")
    if not isinstance(value, dict):
        return InvalidRow(number, f"found a JSON {type(value).__name__}, expected a JSON object")
    return Row(number, value)


def _records(file: IO[str], path: Path) -> Iterator[Row | InvalidRow]:
    csv.field_size_limit(_LONGEST_FIELD)  # prompts may exceed the csv module's default of 131,072 characters
    records = csv.reader(file, strict=True)
    try:
        names = next(records, [])
    except csv.Error as exc:
        raise ConfigError(f"{path} line 1", f"headings that cannot be read ({exc})", "the names of the fields") from exc
    if not all(map(_is_utf8, names)):
        found = f"headings with bytes that are no UTF-8 ({', '.join(map(ascii, names))})"
        raise ConfigError(f"{path} line 1", found, "text in UTF-8: save it as that")
    if not names or len(set(names)) < len(names) or not all(map(str.strip, names)):
        raise ConfigError(f"{path} line 1", f"{names!r} as headings", "a name for each field, none of them twice")
    number = 0
    while True:
        number += 1
        try:
            record = next(records, None)
        except csv.Error as exc:
            yield InvalidRow(number, f"found what is no CSV ({exc})")
            continue
        if record is None:
            return
        if record:
            yield _record(number, names, record)


def _record(number: int, names: Sequence[str], record: Sequence[str]) -> Row | InvalidRow:
    if len(record) != len(names):
        return InvalidRow(number, f"found {len(record)} fields, expected {len(names)} as in the first line")
    if not all(map(_is_utf8, record)):
        return InvalidRow(number, "found bytes that are no UTF-8, expected text")
    return Row(number, dict(zip(names, record, strict=True)))


def _is_utf8(text: str) -> bool:
    return text.isprintable() or not any("\udc80" <= char <= "\udcff" for char in text)


def holds_results(path: Path, names: Collection[str]) -> bool:
    """Return True if a file is missing, empty, or begins like one with columns of these names (`row` first in JSONL).

    A first line of JSONL that was cut off by a kill or a full disk is recognized by its beginning.

    Raises:
        ConfigError: The suffix is unknown, or the file cannot be read.
    """
    form = form_of(path, "--output")
    try:
        if not path.is_file() or not path.stat().st_size:
            return True
        if form == "parquet":
            return set(names) <= set(parquet.names(path))
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            csv.field_size_limit(_LONGEST_FIELD)
            if form == "csv":
                return set(names) <= set(next(csv.reader(file), []))
            first = file.readline()
        if not first.endswith("\n"):
            return first.startswith('{"row": ')
        found = json.loads(first)
    except OSError as exc:
        raise ConfigError("--output", f"{str(path)!r} ({exc.strerror or exc})", "a file that can be read") from exc
    except (ValueError, RecursionError, csv.Error):
        return False
    return isinstance(found, dict) and set(names) <= set(found)


def sink(
    path: Path | None, kinds: Mapping[str, Kind], *, source: Path | None = None, spelled_from: Path | None = None
) -> Sink:
    """Return a writer for a new file with these columns.

    Args:
        path: The file; None writes JSONL to standard output.
        kinds: The type of each column in Parquet (`muse.batching.io.column_types`). "any" is the type it has in
            `source`, or text.
        source: The file that the rows come from.
        spelled_from: A Parquet file whose dates, times and decimals the rows hold as text.

    Raises:
        ConfigError: The file cannot be created.
    """
    if path is None:
        return _NamedWriter(_Lines(sys.stdout), "standard output")
    with _open_writer(repr(str(path))):
        match form_of(path, "--output"):
            case "parquet":
                return _NamedWriter(
                    parquet.sink(path, kinds, source=source, spelled_from=spelled_from), repr(str(path))
                )
            case "csv":
                file = path.open("w", encoding="utf-8", errors="replace", newline="")
                return _NamedWriter(_Records(file, list(kinds)), repr(str(path)))
            case "jsonl":
                return _NamedWriter(
                    _Lines(path.open("w", encoding="utf-8", errors="replace", newline="\n")), repr(str(path))
                )


@contextmanager
def _open_writer(what: str) -> Iterator[None]:
    """Convert file system errors to a ConfigError with a remedy; a broken pipe passes through."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        allowed = "a file that can be written, in a folder that is there, on a disk with room"
        raise ConfigError("--output", f"{what}, which cannot be written ({exc.strerror or exc})", allowed) from exc


class _NamedWriter:
    """A sink whose errors name its file."""

    def __init__(self, sink: Sink, what: str) -> None:
        self._sink = sink
        self._what = what

    def write(self, row: Mapping[str, Any]) -> None:
        with _open_writer(self._what):
            self._sink.write(row)

    def close(self) -> None:
        with _open_writer(self._what):
            self._sink.close()


class _Lines:
    """A JSONL sink that flushes after each line."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, row: Mapping[str, Any]) -> None:
        self._file.write(json_text(row) + "\n")
        self._file.flush()

    def close(self) -> None:
        if self._file is not sys.stdout:
            self._file.close()


class _Records:
    """A CSV sink; values that are not text are written as JSON."""

    def __init__(self, file: IO[str], names: Sequence[str]) -> None:
        self._file = file
        self._writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
        self._writer.writeheader()

    def write(self, row: Mapping[str, Any]) -> None:
        self._writer.writerow({name: _csv_cell(value) for name, value in row.items()})
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _csv_cell(value: Any) -> str:
    """Return a value as CSV text: numbers without exponents, an empty cell for null."""
    is_number = isinstance(value, float) and math.isfinite(value)
    return format_number(value) if is_number else cell(value) or ""
