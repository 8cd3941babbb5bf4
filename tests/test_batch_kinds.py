"""Columns hold what their rows hold: numbers, lists, objects and nulls keep their types, mixed values are text."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muse.batching.io.cells import json_text
from muse.batching.io.column_types import Kind, column_of, joint, kind_of, note_kinds
from muse.batching.io.formats import sink
from muse.cli import main
from tests.journal_folder import JournalFolder

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

ROWS: list[dict[str, Any]] = [
    {
        "text": "Tide",
        "n": 1,
        "x": 1,
        "ok": True,
        "tags": ["a"],
        "at": {"lat": 1, "names": ["b"]},
        "mixed": 1,
        "none": None,
    },
    {
        "text": "Moon",
        "n": 2,
        "x": 0.5,
        "ok": None,
        "tags": [],
        "at": {"lat": 2.5, "lon": 3},
        "mixed": "one",
        "odd": [1, "a"],
    },
    {"text": "Wind", "n": None, "x": 2, "ok": False, "tags": None, "at": None, "mixed": {"a": 1}, "empty": {}},
]


def _written(path: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kinds: dict[str, Kind] = {}
    for row in rows:
        note_kinds(kinds, row)
    out = sink(path, {name: column_of(kind) for name, kind in kinds.items()})
    for row in rows:
        out.write(row)
    out.close()
    return pq.read_table(path).to_pylist()  # type: ignore[no-any-return]


def test_each_column_has_the_type_of_its_values(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    first, second, third = _written(path, ROWS)
    types = {field.name: str(field.type) for field in pq.read_schema(path)}
    assert types["n"] == "int64"
    assert types["x"] == "double"
    assert types["ok"] == "bool"
    assert types["tags"].startswith("list<")
    assert "string" in types["tags"]
    assert types["mixed"] == types["none"] == types["empty"] == "string"
    assert (first["n"], second["x"], first["x"], second["ok"]) == (1, 0.5, 1.0, None)
    assert (first["tags"], second["tags"], third["tags"]) == (["a"], [], None)
    assert second["at"] == {"lat": 2.5, "names": None, "lon": 3}
    assert [row["mixed"] for row in (first, second, third)] == ["1", "one", '{"a": 1}']
    assert (second["odd"], third["empty"]) == (["1", "a"], "{}")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(json_values, json_values, json_values)
def test_the_kind_of_several_values_does_not_depend_on_their_order(one: Any, two: Any, three: Any) -> None:
    kinds = [kind_of(value) for value in (one, two, three)]
    there = joint(joint(kinds[0], kinds[1]), kinds[2])
    back = joint(kinds[2], joint(kinds[1], kinds[0]))
    assert _sorted(column_of(there)) == _sorted(column_of(back))
    assert joint(there, kinds[0]) == there


def _sorted(kind: Kind) -> Any:
    if isinstance(kind, str):
        return kind
    return (
        (kind[0], *sorted(((name, _sorted(inner)) for name, inner in kind[1:])))
        if kind[0] == "struct"
        else (kind[0], _sorted(kind[1]))
    )


@given(st.lists(st.dictionaries(st.sampled_from("abc"), json_values), min_size=1, max_size=4))
def test_whatever_rows_hold_can_be_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    if not any(rows):
        return
    back = _written(tmp_path_factory.mktemp("rows") / "out.parquet", rows)
    assert len(back) == len(rows)
    for row, found in zip(rows, back, strict=True):
        for name, value in row.items():
            assert (
                found[name] == value or not isinstance(found[name], type(value)) or isinstance(value, (dict, list, str))
            )


@pytest.fixture
def echoing(journal: JournalFolder) -> JournalFolder:
    """A journal whose calls are answered with what they say."""
    journal.route(default={"provider": "echo"})
    return journal


def _export(tmp_path: Path, source: Path) -> list[dict[str, Any]]:
    output = tmp_path / "export.parquet"
    assert (
        main(
            [
                "batch",
                "run",
                str(source),
                "--context",
                "a.b",
                "--ledger",
                "tides",
                "--output",
                str(tmp_path / "r.jsonl"),
            ]
        )
        == 0
    )
    assert main(["batch", "export", "tides", "--output", str(output)]) == 0
    return sorted(pq.read_table(output).to_pylist(), key=lambda row: row["row"])


def test_an_export_keeps_the_types_of_the_rows(echoing: JournalFolder, tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    first, second, third = _export(tmp_path, source)
    assert (first["n"], second["x"], third["ok"], first["tags"]) == (1, 0.5, False, ["a"])
    assert first["at"] == {"lat": 1.0, "names": ["b"], "lon": None}
    assert (first["response"], third["n"]) == ("Tide", None)
    assert isinstance(first["input_tokens"], int)
    assert isinstance(first["cost_usd"], float)


def test_an_export_gives_dates_times_and_decimals_of_a_parquet_input_their_types_back(
    echoing: JournalFolder, tmp_path: Path
) -> None:
    columns = {
        "text": ["Tide", "Moon"],
        "day": [date(2026, 11, 3), None],
        "at": [datetime(2026, 11, 3, 9, 30, tzinfo=UTC), None],
        "price": [Decimal("1.25"), None],
        "n": [1, None],
    }
    source = tmp_path / "rows.parquet"
    pq.write_table(pa.table(columns), source)
    first, second = _export(tmp_path, source)
    assert {name: first[name] for name in columns} == {name: values[0] for name, values in columns.items()}
    assert {name: second[name] for name in columns} == {name: values[1] for name, values in columns.items()}
    source.unlink()
    assert main(["batch", "export", "tides", "--output", str(tmp_path / "again.parquet")]) == 0
    assert pq.read_table(tmp_path / "again.parquet").to_pylist()[0]["day"] == "2026-11-03"


@given(json_values)
def test_json_has_numbers_in_digits_and_loses_none(value: Any) -> None:
    text = json_text(value)
    assert json.loads(text) == value
    assert json_text({"cost": 7e-06, "said": '7e-06 \\" 1e-5'}) == '{"cost": 0.000007, "said": "7e-06 \\\\\\" 1e-5"}'
