"""Shows that sums over the token log are what its lines say."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muse import models
from muse.usage_log.totals import FIELDS, Field, Line, UsageSummary, summarize
from tests.journal_folder import ROOT

DAYS = [(path.stem, path) for path in sorted((ROOT / "fixtures/journal/tokens").glob("*.jsonl"))]
EXAMPLE = [(day, json.loads(line)) for day, path in DAYS for line in path.read_text("utf-8").splitlines()]


def _sum(lines: list[tuple[str, Line]], *by: Field) -> UsageSummary:
    return summarize(lines, by, price=lambda line: {"total_cost": 0.25} if line.get("model") else None, owner=str.upper)


def _line(**fields: Any) -> tuple[str, Mapping[str, Any]]:
    usage = {"input_tokens": 10, "output_tokens": 2}
    return "20261103", {"model": "m", "context": "c", "usage": usage, "cost_usd": 0.5, **fields}


@pytest.mark.parametrize("field", FIELDS)
def test_the_totals_of_the_example_are_the_sums_of_its_lines(field: Field) -> None:
    found = summarize(EXAMPLE, [field], price=models.calc_token_cost, owner=models.get_model_provider)
    assert found.total.calls == len(EXAMPLE) == sum(row.calls for row in found.rows)
    assert found.total.failed == sum(1 for _, line in EXAMPLE if line.get("error"))
    assert found.total.usage.input_tokens == sum(line["usage"]["input_tokens"] for _, line in EXAMPLE)
    assert found.total.usage.output_tokens == sum(row.usage.output_tokens for row in found.rows)
    assert found.total.cost_usd == pytest.approx(math.fsum(row.cost_usd for row in found.rows))
    stated = math.fsum(line.get("cost_usd") or 0 for _, line in EXAMPLE)
    computed = [models.calc_token_cost(line) for _, line in EXAMPLE if "cost_usd" not in line]
    assert found.total.cost_usd == pytest.approx(stated + math.fsum(cost["total_cost"] for cost in computed if cost))


def test_each_group_has_the_lines_that_say_its_key() -> None:
    found = summarize(EXAMPLE, ["context"], price=models.calc_token_cost, owner=models.get_model_provider)
    counted = Counter(line["context"] for _, line in EXAMPLE)
    assert {row.key[0]: row.calls for row in found.rows} == counted


def test_an_older_line_is_priced_and_its_provider_told_by_its_model() -> None:
    day, line = _line()
    older = {name: value for name, value in line.items() if name != "cost_usd"}
    found = _sum([(day, older)], "provider")
    assert (found.rows[0].key, found.total.cost_usd, found.total.unpriced) == (("M",), 0.25, 0)


def test_a_line_that_says_its_cost_is_unknown_is_counted_as_unpriced() -> None:
    found = _sum([_line(cost_usd=None), _line()])
    assert (found.total.unpriced, found.total.cost_usd, found.total.calls) == (1, 0.5, 2)


def test_a_failure_without_tokens_is_failed_and_not_unpriced() -> None:
    found = _sum([_line(cost_usd=None, usage={"input_tokens": 0}, error={"class": "ProviderTimeout"})])
    assert (found.total.failed, found.total.unpriced) == (1, 0)


@pytest.mark.parametrize("cost", [float("nan"), float("inf"), True, "0.5", [1]])
def test_a_cost_that_is_no_number_does_not_spoil_the_sum(cost: object) -> None:
    assert _sum([_line(cost_usd=cost), _line()]).total.cost_usd == 0.5


def test_rows_come_dearest_first_and_days_in_order() -> None:
    lines = [("20261104", _line(context="a", cost_usd=9.0)[1]), _line(context="b", cost_usd=1.0), _line(context="c")]
    assert [row.key for row in _sum(lines, "context").rows] == [("a",), ("b",), ("c",)]
    assert [row.key for row in _sum(lines, "day").rows] == [("20261103",), ("20261104",)]


def test_lines_without_a_field_stand_together() -> None:
    assert [row.key for row in _sum([_line(), _line(segment="090500_900")], "segment").rows] == [
        ("(none)",),
        ("090500_900",),
    ]


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "context": st.sampled_from("abc"),
                "model": st.sampled_from("mn"),
                "cost_usd": st.none() | st.floats(0, 1e3),
                "usage": st.fixed_dictionaries(
                    {"input_tokens": st.integers(0, 10**6), "output_tokens": st.integers(0, 99)}
                ),
            }
        )
    ),
    st.sets(st.sampled_from(["context", "model", "day"]), min_size=1),
)
def test_parts_sum_to_the_total_in_any_order(lines: list[dict[str, Any]], by: set[Field]) -> None:
    dated = [("20261103", line) for line in lines]
    found, turned = _sum(dated, *sorted(by)), _sum(dated[::-1], *sorted(by))
    assert found == turned
    assert sum(row.calls for row in found.rows) == found.total.calls
    assert sum(row.unpriced for row in found.rows) == found.total.unpriced
    assert sum(row.usage.total_tokens for row in found.rows) == found.total.usage.total_tokens
    assert math.fsum(row.cost_usd for row in found.rows) == pytest.approx(found.total.cost_usd)
