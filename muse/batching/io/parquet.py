"""Rows out of and into Parquet files, by pyarrow; it knows no request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from muse.batching.io.cells import StringifiedValue, cell, storable
from muse.batching.io.column_types import Kind
from muse.types.errors import ConfigError

_ROWS_AT_ONCE = 1_000


def _arrow() -> tuple[Any, Any]:
    """`(pyarrow, pyarrow.parquet)`.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as exc:
        found = f"no module {exc.name!r} on this Python"
        raise ConfigError("Parquet", found, "the package that reads it: pip install 'muse-router[parquet]'") from exc
    return pyarrow, pyarrow.parquet


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file.

    Raises:
        ConfigError: it is no Parquet file, two of its columns have one name, or there is no pyarrow.
        OSError: it cannot be opened.
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
    """The columns of a file; none if it is no Parquet file.

    Raises:
        ConfigError: there is no pyarrow.
        OSError: it cannot be opened.
    """
    pa, pq = _arrow()
    try:
        return list(pq.read_schema(path).names)
    except pa.ArrowInvalid:
        return []


def _values(pa: Any, column: Any) -> list[Any]:
    """A column's values; those that Python cannot hold (nanoseconds, years past 9999) are spelled out."""
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
    """A value with texts in the places that Python cannot hold."""
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
    """A new file with columns of these kinds; those that are in `source`, where that is Parquet, are as they are there.

    `spelled_from` is a Parquet file whose dates, times and decimals are spelled out in the rows: such a column of text
    gets its type back.

    Raises:
        ConfigError: there is no pyarrow.
        OSError: the file cannot be made.
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
    """The columns of a file; none if it is not Parquet."""
    if source is None or source.suffix.lower() != ".parquet":
        return pa.schema([])
    return pq.read_schema(source)


def _is_spelled(pa: Any, kind: Any) -> bool:
    types = pa.types
    tests = (types.is_timestamp, types.is_date, types.is_time, types.is_decimal)
    return any(test(kind) for test in tests)


def _type(pa: Any, kind: Kind) -> Any:
    """The Arrow type of a kind."""
    match kind:
        case ("list", inner):
            return pa.list_(_type(pa, inner))
        case ("struct", *members):
            return pa.struct([pa.field(storable(name), _type(pa, inner)) for name, inner in members])
        case _:
            return pa.type_for_alias("string" if kind == "any" else kind)


def _fit(value: Any, kind: Kind) -> Any:
    """A value as its column holds it: text where its kind is text, None for a member that is missing."""
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
    """Rows in groups of a thousand; the file is there as a whole when it is closed."""

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
        """Add a row; where text is expected, other values are written as text.

        Raises:
            ConfigError: a column cannot hold a value.
            OSError: the disk takes no more.
        """
        known = {storable(name): value for name, value in row.items()}
        for name, kind in self._kinds.items():
            known[name] = _fit(known.get(name), kind)
        self._rows.append(known)
        if len(self._rows) >= _ROWS_AT_ONCE:
            self._flush()

    def close(self) -> None:
        """Write what is left, and the end; then the file takes its name, unless something could not be written.

        Raises:
            ConfigError: a column cannot hold a value.
            OSError: the disk takes no more.
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
