"""Rows out of and into Parquet files, by pyarrow; it knows no request."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from muse.errors import ConfigError

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
        ConfigError: it is no Parquet file, or there is no pyarrow.
        OSError: it cannot be opened.
    """
    pa, pq = _arrow()
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                yield from batch.to_pylist()
    except pa.ArrowInvalid as exc:
        raise ConfigError(str(path), f"what is no Parquet ({exc})", "a Parquet file") from exc


def sink(path: Path, kinds: Mapping[str, str], *, source: Path | None) -> ParquetSink:
    """A new file with columns of these kinds; those that are in `source`, where that is Parquet, are as they are there.

    Raises:
        ConfigError: there is no pyarrow.
        OSError: the file cannot be made.
    """
    pa, pq = _arrow()
    known = pq.read_schema(source) if source is not None and source.suffix.lower() == ".parquet" else pa.schema([])
    fields = {
        name: pa.field(name, pa.type_for_alias("string" if kind == "any" else kind)) for name, kind in kinds.items()
    }
    fields |= {field.name: field for field in known if kinds.get(field.name) == "any"}
    return ParquetSink(path, pa.schema(fields.values()))


class ParquetSink:
    """Rows in groups of a thousand; the file is there as a whole when it is closed."""

    def __init__(self, path: Path, schema: Any) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.part")
        self._schema = schema
        self._pa, pq = _arrow()
        self._texts = [field.name for field in schema if field.type == self._pa.string()]
        self._writer = pq.ParquetWriter(self._part, schema)
        self._rows: list[dict[str, Any]] = []

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row; where text is expected, other values are written as JSON."""
        known = dict(row)
        for name in self._texts:
            value = known.get(name)
            if value is not None and not isinstance(value, str):
                known[name] = json.dumps(value, ensure_ascii=False, default=str)
        self._rows.append(known)
        if len(self._rows) >= _ROWS_AT_ONCE:
            self._flush()

    def close(self) -> None:
        """Write what is left, and the end; then the file takes its name."""
        self._flush()
        self._writer.close()
        self._part.replace(self._path)

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []
