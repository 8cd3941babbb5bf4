"""Reading and writing rows of Parquet files with pyarrow. Entry points: `read`, `sink`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from muse.batching.io.cells import StringifiedValue, cell, storable
from muse.batching.io.column_types import Kind
from muse.types.errors import ConfigError

_ROWS_AT_ONCE = 1_000


def _arrow() -> tuple[Any, Any]:
    """Return `(pyarrow, pyarrow.parquet)`.

    Raises:
        ConfigError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as exc:
        found = f"no module {exc.name!r} on this Python"
        raise ConfigError("Parquet", found, "the package that reads it: pip install 'muse-router[parquet]'") from exc
    return pyarrow, pyarrow.parquet


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file.

    Raises:
        ConfigError: It is not a Parquet file, two columns have the same name, or pyarrow is missing.
        OSError: It cannot be opened.
    """
    pa, pq = _arrow()
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if len(set(names)) < len(names):
                raise ConfigError(str(path), f"{names!r} as columns", "a name for each column, none of them twice")
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                columns = [_values(pa, column) for column in batch.columns]
                yield from (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))
    except pa.ArrowException as exc:
        raise ConfigError(str(path), f"what is no Parquet ({exc})", "a Parquet file") from exc


def names(path: Path) -> list[str]:
    """Return the column names of a file; an empty list if it is not a Parquet file.

    Raises:
        ConfigError: pyarrow is missing.
        OSError: It cannot be opened.
    """
    pa, pq = _arrow()
    try:
        return list(pq.read_schema(path).names)
    except pa.ArrowInvalid:
        return []


def _values(pa: Any, column: Any) -> list[Any]:
    """Return a column's values; those that Python cannot hold (nanoseconds, years past 9999) as text."""
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError):
        return [_value(pa, scalar) for scalar in column]


def _value(pa: Any, scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):
        return StringifiedValue(cell(_spelled(pa, scalar)))


def _spelled(pa: Any, scalar: Any) -> Any:
    """Return a value with text in the places that Python cannot hold."""
    if isinstance(scalar, (pa.ListScalar, pa.LargeListScalar, pa.FixedSizeListScalar)):
        return [_spelled(pa, inner) for inner in scalar.values]
    if isinstance(scalar, pa.StructScalar):
        return {name: _spelled(pa, inner) for name, inner in scalar.items()}
    if isinstance(scalar, (pa.StringScalar, pa.LargeStringScalar)):
        held = scalar.as_buffer()
        return None if held is None else held.to_pybytes().decode("utf-8", errors="replace")
    return scalar.cast(pa.string()).as_py()


def sink(
    path: Path, kinds: Mapping[str, Kind], *, source: Path | None, spelled_from: Path | None = None
) -> ParquetSink:
    """Return a writer for a new file with columns of these kinds.

    Args:
        path: The file.
        kinds: The kind of each column; "any" takes the type that the column has in `source`, or text.
        source: The file that the rows come from; it counts only if it is Parquet.
        spelled_from: A Parquet file whose dates, times and decimals the rows hold as text. Such a text column gets its
            original type back.

    Raises:
        ConfigError: pyarrow is missing.
        OSError: The file cannot be created.
    """
    pa, pq = _arrow()
    named = {storable(name): kind for name, kind in kinds.items()}
    fields = {name: pa.field(name, _type(pa, kind)) for name, kind in named.items()}
    for field in _schema(pa, pq, source):
        if kinds.get(field.name) == "any":
            fields[field.name] = field
    cast = {}
    for field in _schema(pa, pq, spelled_from):
        if named.get(field.name) == "string" and _is_spelled(pa, field.type):
            fields[field.name] = cast[field.name] = field
    return ParquetSink(path, pa.schema(fields.values()), named, frozenset(cast))


def _schema(pa: Any, pq: Any, source: Path | None) -> Any:
    """Return the columns of a file; an empty schema if it is not Parquet."""
    if source is None or source.suffix.lower() != ".parquet":
        return pa.schema([])
    return pq.read_schema(source)


def _is_spelled(pa: Any, kind: Any) -> bool:
    types = pa.types
    tests = (types.is_timestamp, types.is_date, types.is_time, types.is_decimal)
    return any(test(kind) for test in tests)


def _type(pa: Any, kind: Kind) -> Any:
    """Return the Arrow type of a kind."""
    match kind:
        case ("list", inner):
            return pa.list_(_type(pa, inner))
        case ("struct", *members):
            return pa.struct([pa.field(storable(name), _type(pa, inner)) for name, inner in members])
        case _:
            return pa.type_for_alias("string" if kind == "any" else kind)


def _fit(value: Any, kind: Kind) -> Any:
    """Return a value as its column holds it: text if its kind is text, None for a missing member."""
    if value is None:
        return None
    match kind:
        case "string":
            text = cell(value)
            return None if text is None else storable(text)
        case ("list", inner):
            return [_fit(item, inner) for item in value]
        case ("struct", *members):
            return {storable(name): _fit(value.get(name), inner) for name, inner in members}
        case _:
            return value


class ParquetSink:
    """A Parquet writer in groups of a thousand rows; the file appears under its name, complete, when it is closed."""

    def __init__(self, path: Path, schema: Any, kinds: Mapping[str, Kind], cast: frozenset[str]) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.part")
        self._schema = schema
        self._pa, pq = _arrow()
        texts = {field.name for field in schema if field.type == self._pa.string()}
        self._kinds = {name: kind for name, kind in kinds.items() if isinstance(kind, tuple) or name in texts}
        self._kinds |= dict.fromkeys((*texts, *cast), "string")
        self._cast = cast
        self._writer = pq.ParquetWriter(self._part, schema)
        self._rows: list[dict[str, Any]] = []
        self._is_whole = True

    def write(self, row: Mapping[str, Any]) -> None:
        """Write a row; in text columns, other values are converted to text.

        Raises:
            ConfigError: A column cannot hold a value.
            OSError: The disk is full or fails.
        """
        known = {storable(name): value for name, value in row.items()}
        for name, kind in self._kinds.items():
            known[name] = _fit(known.get(name), kind)
        self._rows.append(known)
        if len(self._rows) >= _ROWS_AT_ONCE:
            self._flush()

    def close(self) -> None:
        """Write the remaining rows and rename the file to its final name, unless a row could not be written.

        Raises:
            ConfigError: A column cannot hold a value.
            OSError: The disk is full or fails.
        """
        try:
            self._flush()
            self._writer.close()
        except OSError:
            self._is_whole = False
            raise
        finally:
            if self._is_whole:
                self._part.replace(self._path)
            else:
                self._part.unlink(missing_ok=True)

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        if not rows:
            return
        try:
            columns = [self._column(field, [row.get(field.name) for row in rows]) for field in self._schema]
            self._writer.write_table(self._pa.Table.from_arrays(columns, schema=self._schema))
        except (self._pa.ArrowException, TypeError, ValueError, OverflowError, OSError) as exc:
            self._is_whole = False
            if isinstance(exc, OSError):
                raise
            allowed = "values of one type in a column: a .jsonl or .csv file takes any"
            raise ConfigError("--output", f"rows that {str(self._path)!r} cannot hold ({exc})", allowed) from exc

    def _column(self, field: Any, values: list[Any]) -> Any:
        if field.name in self._cast:
            return self._pa.array(values, self._pa.string()).cast(field.type)
        return self._pa.array(values, field.type, from_pandas=False)
