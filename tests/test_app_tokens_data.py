"""Shows that the tables of the tokens app as CSV, and its API, say what the log says."""

from __future__ import annotations

import csv
import io
import json
import shutil
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from muse.cli import main
from tests.journal_folder import ROOT, JournalFolder
from tests.log_days import DAY, append, line, usage_says
from tests.pages import client

BASE = "/app/tokens"


@pytest.fixture(name="pages")
def _pages(journal: JournalFolder) -> TestClient:
    """The site over an empty journal."""
    return client(journal)


@pytest.fixture(name="example")
def _example(journal: JournalFolder, pages: TestClient) -> TestClient:
    """The site over the example days."""
    shutil.copytree(ROOT / "fixtures/journal/tokens", journal.tokens)
    return pages


# --- CSV


@pytest.mark.parametrize("field", ["context", "provider", "model", "segment", "day"])
def test_tables_come_as_csv(example: TestClient, field: Any) -> None:
    answer = example.get(f"{BASE}/csv/{field}?since=all")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"].startswith("attachment")
    *rows, total = csv.DictReader(io.StringIO(answer.text))
    said = usage_says((field,))
    assert [(row[field], float(row["cost_usd"]), int(row["calls"])) for row in rows] == [
        (row.key[0], round(row.cost_usd, 12), row.calls) for row in said.rows
    ]
    assert float(total["cost_usd"]) == round(said.total.cost_usd, 12)
    assert "e-" not in total["cost_usd"]


def test_all_lines_come_as_csv(example: TestClient) -> None:
    rows = list(csv.DictReader(io.StringIO(example.get(f"{BASE}/csv/lines?since=all").text)))
    assert len(rows) == usage_says().total.calls
    assert sum(int(row["failed"]) for row in rows) == usage_says().total.failed


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_is_a_formula(journal: JournalFolder, pages: TestClient, begin: str) -> None:
    cell = f'{begin}cmd|"/c calc"!A1'
    append(journal, line(context=cell, segment=cell, model=cell, error={"class": cell}))
    for place in ("/csv/context", "/csv/segment", "/csv/model", "/csv/lines"):
        text = pages.get(f"{BASE}{place}?since=all").text
        cells = [value for row in csv.reader(io.StringIO(text, newline="")) for value in row]
        assert f"'{cell}" in cells
        assert not any(value.startswith(begin) for value in cells)


# --- the API


def test_the_api_says_what_a_day_used(example: TestClient, capsys: pytest.CaptureFixture[str]) -> None:
    data = example.get(f"{BASE}/api/usage?day={DAY}").json()
    assert list(data)[:7] == ["day", "total", "by_provider", "by_model", "by_token_type", "by_context", "by_segment"]
    for field in ("provider", "model", "context", "segment"):
        assert main(["usage", "--day", DAY, "--by", field, "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        for row in said["rows"]:
            found = data[f"by_{field}"][row.pop(field)]
            assert {name: found[name] for name in row} == row
        assert {name: data["total"][name] for name in said["total"]} == said["total"]
    assert data["by_token_type"]["input"] == data["total"]["input_tokens"]


def test_the_api_says_what_the_days_of_a_month_cost(example: TestClient) -> None:
    said = {row.key[0]: round(row.cost_usd, 10) for row in usage_says(("day",)).rows}
    assert example.get(f"{BASE}/api/stats/202611").json() == said
    assert example.get(f"{BASE}/api/stats/202510").json() == {}


FULL_WIDTH = DAY.translate({ord("0") + digit: 0xFF10 + digit for digit in range(10)})
BAD_DAYS = (
    "",
    "2026110",
    "202611031",
    "20261301",
    "20260230",
    "today",
    "2026-11-03",
    "2026-11-031",
    "../../etc",
    FULL_WIDTH,
)


@pytest.mark.parametrize("day", BAD_DAYS)
def test_a_bad_day_is_refused(pages: TestClient, day: str) -> None:
    answer = pages.get(f"{BASE}/api/usage", params={"day": day})
    assert answer.status_code == 400
    assert "expected a day YYYYMMDD" in answer.json()["error"]
    if day and "/" not in day:
        assert pages.get(f"{BASE}/{quote(day)}").status_code == 400


@pytest.mark.parametrize("month", ["2026", "202600", "202613", "x", "2026110"])
def test_a_bad_month_is_refused(pages: TestClient, month: str) -> None:
    assert pages.get(f"{BASE}/api/stats/{month}").status_code == 400
