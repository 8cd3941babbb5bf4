"""Shows how rows come out of files and go into them, what is told of broken ones, and how templates are filled."""

from __future__ import annotations

import csv
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from muse.batching.io.formats import InvalidRow, Row, read, sink
from muse.batching.io.scan import PromptSource, scan
from muse.batching.io.template import Template
from muse.errors import ConfigError
from tests.journal_folder import run


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_a_broken_line_is_told_by_its_number_and_the_others_are_read(tmp_path: Path) -> None:
    lines = [b'\xef\xbb\xbf{"a": 1}', b"no json", b"", b"[1]", b'{"a": "\xff"}', b'{"a": 2', b'  {"a": 3}  ', b"7"]
    found = list(read(_write(tmp_path / "rows.jsonl", b"\n".join(lines))))
    assert [row for row in found if isinstance(row, Row)] == [Row(1, {"a": 1}), Row(7, {"a": 3})]
    broken = {row.number: row.why for row in found if isinstance(row, InvalidRow)}
    assert list(broken) == [2, 4, 5, 6, 8]
    assert "no UTF-8" in broken[5]
    assert "a JSON list" in broken[4]


def test_a_line_may_be_nested_without_end(tmp_path: Path) -> None:
    (found,) = read(_write(tmp_path / "rows.jsonl", b"[" * 200_000))
    assert isinstance(found, InvalidRow)


def test_csv_rows_are_numbered_without_the_headings(tmp_path: Path) -> None:
    text = '\ufeffid,what is said\r\n1,"two\r\nlines"\r\n2\r\n3,a,b\r\n\r\n4,"é"\r\n'.encode()
    found = list(read(_write(tmp_path / "rows.csv", text)))
    assert [row for row in found if isinstance(row, Row)] == [
        Row(1, {"id": "1", "what is said": "two\r\nlines"}),
        Row(5, {"id": "4", "what is said": "é"}),
    ]
    assert [row.number for row in found if isinstance(row, InvalidRow)] == [2, 3]


def test_a_csv_field_may_be_long_and_a_row_may_be_of_another_encoding(tmp_path: Path) -> None:
    found = list(read(_write(tmp_path / "rows.csv", b"a\n" + b"x" * 300_000 + b"\n\xe9\n")))
    assert isinstance(found[0], Row)
    assert found[1] == InvalidRow(2, "found bytes that are no UTF-8, expected text")


@pytest.mark.parametrize("text", [b"", b"a,a\n1,2\n", b"a,\n1,2\n"])
def test_headings_have_to_name_each_field_once(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(ConfigError, match="line 1: found"):
        list(read(_write(tmp_path / "rows.csv", text)))


def test_a_file_is_known_by_its_ending(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"INPUT: found '.*rows.txt'"):
        list(read(_write(tmp_path / "rows.txt", b"")))
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file"):
        list(read(tmp_path / "none.jsonl"))


def test_rows_survive_csv(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    out = sink(path, {"id": "int64", "said": "string"})
    out.write({"id": 1, "said": 'a "b",\nc', "unknown": 1})
    out.write({"id": None, "said": {"x": [True]}})
    out.close()
    with path.open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["id", "said"], ["1", 'a "b",\nc'], ["", '{"x": [true]}']]


def test_every_line_is_there_as_soon_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    out = sink(path, {})
    for number in range(3):
        out.write({"number": number, "said": "é\u2028"})
        assert json.loads(path.read_bytes().splitlines()[-1])["number"] == number
        assert path.read_bytes().endswith(b"\n")
    out.close()


def test_an_output_in_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--output"):
        sink(tmp_path / "none" / "out.jsonl", {})


def test_parquet_keeps_the_types_of_its_columns(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    table = pa.table({"day": [date(2026, 11, 3), None], "tags": [["a", "b"], []], "response": [1, 2]})
    pq.write_table(table, source)
    rows = [row for row in read(source) if isinstance(row, Row)]
    assert rows[0].fields == {"day": date(2026, 11, 3), "tags": ["a", "b"], "response": 1}
    kinds = {"row": "int64", **scan(source, PromptSource(field="day"), print).kinds, "response": "string"}
    out = sink(target, kinds, source=source)
    for row in rows:
        out.write({"row": row.number, **row.fields, "response": {"hour": 6}})
    assert not target.exists()
    out.close()
    back = pq.read_table(target)
    assert back.schema.field("day").type == pa.date32()
    assert back.schema.field("row").type == pa.int64()
    assert back.to_pylist()[0] == {"row": 1, "day": date(2026, 11, 3), "tags": ["a", "b"], "response": '{"hour": 6}'}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.parquet", "out.parquet"]


def test_parquet_from_json_has_columns_of_what_the_rows_hold(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    rows = [{"n": 1, "x": 1, "mixed": 1, "big": 2**70, "none": None}, {"n": 2, "x": 0.5, "mixed": "a", "b": True}]
    source = _write(tmp_path / "in.jsonl", "\n".join(map(json.dumps, rows)).encode())
    kinds = scan(source, PromptSource(field="n"), print).kinds
    assert kinds == {
        "n": "int64",
        "x": "float64",
        "mixed": "string",
        "big": "string",
        "none": "string",
        "b": "bool",
    }
    out = sink(tmp_path / "out.parquet", kinds, source=source)
    for row in rows:
        out.write(row)
    out.close()
    assert pq.read_table(tmp_path / "out.parquet").to_pylist()[0] == {
        "n": 1,
        "x": 1.0,
        "mixed": "1",
        "big": str(2**70),
        "none": None,
        "b": None,
    }


def test_what_is_no_parquet_is_told(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(ConfigError, match="what is no Parquet"):
        list(read(_write(tmp_path / "rows.parquet", b"PAR1 or so")))


WITHOUT = """
import sys
from pathlib import Path

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pyarrow":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

sys.meta_path.insert(0, Nowhere())
from muse.batching.io import formats
from muse.errors import ConfigError
for work in (lambda: list(formats.read(Path("a.parquet"))), lambda: formats.sink(Path("b.parquet"), {})):
    try:
        work()
    except ConfigError as exc:
        print(exc)
"""


def test_without_pyarrow_the_extra_is_named(tmp_path: Path) -> None:
    said = run(WITHOUT).splitlines()
    assert len(said) == 2
    assert all("pip install 'muse-router[parquet]'" in line for line in said)


@pytest.mark.parametrize(
    ("text", "fields", "filled"),
    [
        ("Say {title}.", {"title": "Tide"}, "Say Tide."),
        ("{a}{a}{b c}", {"a": "{b c}", "b c": 1}, "{b c}{b c}1"),
        ('{"x": 1} {} { a } {{a}} {a.b-c}', {"a.b-c": None}, '{"x": 1} {} { a } {a} '),
        ("{n} {f} {t} {l}", {"n": 3, "f": 0.5, "t": True, "l": ["é", {"k": None}]}, '3 0.5 true ["é", {"k": null}]'),
        ("{ähnlich}", {"ähnlich": "ja"}, "ja"),
    ],
)
def test_a_template_is_filled(text: str, fields: dict[str, Any], filled: str) -> None:
    template = Template(text)
    template.require(fields, "here")
    assert template.fill(fields) == filled


def test_an_unknown_field_is_told_with_its_line_and_the_fields_there_are() -> None:
    template = Template("Say it:\n\n{title} by {author}\n{author}", "ask.txt")
    with pytest.raises(ConfigError) as caught:
        template.require({"title": "Tide", "writer": "K."}, "rows.jsonl line 7")
    assert str(caught.value) == (
        "ask.txt line 3: found {author}, a field that rows.jsonl line 7 does not have,"
        " expected one of title, writer ({{author}} for the braces themselves)"
    )


@pytest.mark.parametrize("name", ["contents", "prompt", "text"])
def test_without_a_template_the_question_is_one_of_three_fields(name: str) -> None:
    assert PromptSource().ask(Row(1, {"id": 1, name: "When?"}), "here") == "When?"
    assert PromptSource(field="id").ask(Row(1, {"id": "x", name: "When?"}), "here") == "x"
    with pytest.raises(
        ConfigError, match=r"rows line 4: found no field 'contents' or 'prompt' or 'text' \(there are id\)"
    ):
        PromptSource().ask(Row(4, {"id": 1}), "rows line 4")


def test_a_file_without_a_usable_row_is_refused(tmp_path: Path) -> None:
    told: list[str] = []
    with pytest.raises(ConfigError, match="no row can be used"):
        scan(_write(tmp_path / "rows.jsonl", b"x\n"), PromptSource(), told.append)
    assert told[0].startswith("rows.jsonl line 1: found no JSON")
    with pytest.raises(ConfigError, match="holds no row"):
        scan(_write(tmp_path / "rows.csv", b"a\n"), PromptSource(), told.append)


def test_what_python_cannot_hold_of_parquet_is_text(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {
        "moment": pa.array([1, 1_000], pa.int64()).cast(pa.timestamp("ns")),
        "far": pa.array([4_000_000, 0], pa.int32()).cast(pa.date32()),
        "inner": pa.array([[{"at": 4_000_000}], []], pa.list_(pa.struct([("at", pa.date32())]))),
        "raw": pa.array([b"Tide", b"\xff\x00"], pa.binary()),
        "day": pa.array([0, 1], pa.int32()).cast(pa.date32()),
    }
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(pa.table(columns), source)
    rows = [row for row in read(source) if isinstance(row, Row)]
    assert rows[0].fields["moment"] == "1970-01-01 00:00:00.000000001"
    assert rows[0].fields["far"] == "12921-08-18"
    assert rows[0].fields["inner"] == '[{"at": "12921-08-18"}]'
    assert rows[1].fields["far"] == date(1970, 1, 1)
    assert [type(PromptSource(field=name).ask(rows[0], "")) for name in ("far", "raw")] == [str, str]
    kinds = scan(source, PromptSource(field="day"), print).kinds
    assert kinds == {"moment": "string", "far": "string", "inner": "string", "raw": "any", "day": "any"}
    out = sink(target, kinds, source=source)
    for row in rows:
        out.write(row.fields)
    out.close()
    assert pq.read_table(target).to_pylist() == [
        {
            "moment": "1970-01-01 00:00:00.000000001",
            "far": "12921-08-18",
            "inner": '[{"at": "12921-08-18"}]',
            "raw": b"Tide",
            "day": date(1970, 1, 1),
        },
        {
            "moment": "1970-01-01 00:00:00.000001",
            "far": "1970-01-01",
            "inner": "[]",
            "raw": b"\xff\x00",
            "day": date(1970, 1, 2),
        },
    ]


def test_text_of_parquet_that_is_no_utf_8_has_question_marks(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    column = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\2\0\0\0\3\0\0\0"), pa.py_buffer(b"T\xffx"))
    pq.write_table(pa.table({"text": column}), tmp_path / "in.parquet")
    assert [row.fields["text"] for row in read(tmp_path / "in.parquet") if isinstance(row, Row)] == ["T\ufffd", "x"]


def test_parquet_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table([[1], [2]], names=["a", "a"]), tmp_path / "in.parquet")
    with pytest.raises(ConfigError, match="as columns, expected a name for each column, none of them twice"):
        list(read(tmp_path / "in.parquet"))


def test_a_column_that_cannot_hold_a_value_leaves_what_was_there(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = _write(tmp_path / "out.parquet", b"before")
    out = sink(path, {"n": "int64"})
    out.write({"n": "one"})
    with pytest.raises(ConfigError, match=r"--output: found rows that '.*out.parquet' cannot hold"):
        out.close()
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_json_lines_are_json_whatever_the_values_are(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    out = sink(path, {})
    out.write({"n": float("nan"), "deep": [{"i": float("-inf")}, 1.5], "raw": b"T\xc3\xa9", "odd": b"\xff"})
    out.close()
    assert path.read_text(encoding="utf-8") == ('{"n": null, "deep": [{"i": null}, 1.5], "raw": "Té", "odd": "/w=="}\n')


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_utf_16_is_told_as_such(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="which is UTF-16, expected text in UTF-8: save it as that"):
        list(read(_write(tmp_path / name, '{"größe": 1}\n'.encode("utf-16"))))


def test_headings_of_another_encoding_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"headings with bytes that are no UTF-8 \('id', 'gr\\udcf6\\udcdfe'\)"):
        list(read(_write(tmp_path / "rows.csv", "id,größe\n1,2\n".encode("latin-1"))))


def test_csv_has_numbers_in_digits(tmp_path: Path) -> None:
    out = sink(tmp_path / "out.csv", {"cost": "float64", "n": "int64", "x": "float64", "none": "string"})
    out.write({"cost": 7e-06, "n": 3, "x": 1.25, "none": None})
    out.write({"cost": float("nan"), "n": 0, "x": 2.5e21, "none": ""})
    out.close()
    assert (tmp_path / "out.csv").read_text() == "cost,n,x,none\n0.000007,3,1.25,\n,0,2500000000000000000000,\n"
