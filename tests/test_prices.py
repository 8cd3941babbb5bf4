"""What tokens cost: the price list's own figures, to the last digit, and the contract of calc_token_cost."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import genai_prices
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muse import providers
from muse.models import PROVIDER_DEFAULTS, calc_token_cost
from muse.types.usage import Usage
from muse.usage_log import prices
from muse.usage_log.prices import Cost, cost_of, is_priced
from tests.journal_folder import JournalFolder, run

PRICED = [
    (model, spec.price_id)
    for spec in providers.specs().values()
    if spec.price_id is not None
    for model in sorted(set(spec.tiers.values()))
]
OTHERS = [("gpt-4o", "openai"), ("claude-sonnet-4-20250514", "anthropic"), ("gemini-2.5-pro", "google")]


@pytest.fixture(autouse=True)
def _own_book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin without kept rates, in memory and on disk."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(prices, "_price_cache", {})
    monkeypatch.setattr(prices, "_price_cache_is_read", False)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    counted_in = draw(st.integers(0, 2_000_000))
    cached = draw(st.integers(0, counted_in))
    written = draw(st.integers(0, counted_in - cached))
    counted_out = draw(st.integers(0, 200_000))
    return Usage(counted_in, counted_out, cached, written, draw(st.integers(0, counted_out)), requests=1)


def listed(model: str, usage: Usage, price_id: str) -> tuple[float, float]:
    """What the price list itself says: `(input, output)`."""
    theirs = genai_prices.calc_price(
        genai_prices.Usage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cached_tokens,
            cache_write_tokens=usage.cache_write_tokens,
        ),
        model,
        provider_id=price_id,
        genai_request_timestamp=datetime.now(UTC),
    )
    return float(theirs.input_price), float(theirs.output_price)


def assert_as_listed(model: str, usage: Usage, price_id: str) -> None:
    ours = cost_of(model, usage, price_id)
    assert ours is not None
    assert (ours.input_cost, ours.output_cost) == pytest.approx(listed(model, usage, price_id), rel=1e-12, abs=1e-12)
    assert ours.total_cost == ours.input_cost + ours.output_cost


@pytest.mark.parametrize(("model", "price_id"), [*PRICED, *OTHERS])
def test_a_cost_is_what_the_price_list_says(model: str, price_id: str) -> None:
    @given(usages())
    def check(usage: Usage) -> None:
        assert_as_listed(model, usage, price_id)

    check()


@pytest.mark.parametrize(("model", "price_id"), [*PRICED, *OTHERS])
def test_a_price_step_begins_where_the_list_has_it(model: str, price_id: str) -> None:
    steps = prices._rates(model, price_id)
    assert steps is not None
    for start in (step.start for step in steps):
        for counted_in in (max(start - 1, 0), start, start + 1):
            assert_as_listed(model, Usage(counted_in, 1000, cached_tokens=counted_in // 3), price_id)


def test_some_listed_price_has_a_step() -> None:
    steps = prices._rates("gemini-2.5-pro", "google")
    assert steps is not None
    assert len(steps) > 1


def test_every_default_model_of_the_big_three_has_a_price() -> None:
    for provider in ("google", "openai", "anthropic"):
        price_id = providers.specs()[provider].price_id
        for model in PROVIDER_DEFAULTS[provider].values():
            assert is_priced(model, price_id), f"{provider} {model}"


def test_reasoning_is_never_billed_twice() -> None:
    plain, thinking = Usage(1000, 500), Usage(1000, 500, reasoning_tokens=400)
    assert cost_of("gpt-4o", thinking, "openai") == cost_of("gpt-4o", plain, "openai")


def test_cached_input_is_never_billed_above_the_input() -> None:
    all_cached = cost_of("gpt-4o", Usage(1000, 0, cached_tokens=1000), "openai")
    plain = cost_of("gpt-4o", Usage(1000, 0), "openai")
    assert all_cached is not None
    assert plain is not None
    assert all_cached.input_cost < plain.input_cost
    assert cost_of("gpt-4o", Usage(1000, 0, cached_tokens=99_000, cache_write_tokens=7), "openai") == all_cached


@given(usages(), usages())
def test_no_cost_is_negative_and_output_costs_add_up(one: Usage, two: Usage) -> None:
    costs = [cost_of("gpt-4o", usage, "openai") for usage in (one, two, one + two)]
    assert all(isinstance(cost, Cost) and cost.input_cost >= 0 and cost.output_cost >= 0 for cost in costs)
    first, second, both = (cost.output_cost for cost in costs if cost)
    assert both == pytest.approx(first + second)


@pytest.mark.parametrize("model", ["no-such-model", "", "x" * 5000, "gpt-\ud800"], ids=ascii)
def test_a_model_that_the_list_lacks_has_no_price(model: str) -> None:
    assert cost_of(model, Usage(10, 10), "openai") is None
    assert not is_priced(model, None)


def test_rates_are_looked_up_once_and_kept_for_the_next_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost = cost_of("gpt-4o", Usage(1000, 10), "openai")
    kept = json.loads((tmp_path / "muse" / "prices.json").read_text())
    assert list(kept["rates"]) == ["openai/gpt-4o"]
    monkeypatch.setattr(prices, "_price_cache", {})
    monkeypatch.setattr(prices, "_price_cache_is_read", False)
    monkeypatch.setattr(prices, "_look_up", lambda *_: pytest.fail("looked up again"))
    assert cost_of("gpt-4o", Usage(1000, 10), "openai") == cost


@pytest.mark.parametrize(
    "kept", [b"", b"{torn", b"[]", b"null", b'{"stamp": 1}', b'{"stamp": [], "rates": 7}', b"\xff"], ids=repr
)
def test_a_damaged_book_is_looked_up_again(tmp_path: Path, kept: bytes) -> None:
    (tmp_path / "muse").mkdir()
    (tmp_path / "muse" / "prices.json").write_bytes(kept)
    assert cost_of("gpt-4o", Usage(1000, 10), "openai") is not None


def test_a_book_of_the_right_day_and_wrong_shape_is_looked_up_again(tmp_path: Path) -> None:
    (tmp_path / "muse").mkdir()
    rows = {"openai/gpt-4o": [{"start": 0, "input": 1.0}]}
    (tmp_path / "muse" / "prices.json").write_text(json.dumps({"stamp": prices._stamp(), "rates": rows}))
    assert cost_of("gpt-4o", Usage(1000, 10), "openai") is not None


def test_rates_of_another_day_are_not_used(tmp_path: Path) -> None:
    stamp = prices._stamp()
    rows = {"openai/gpt-4o": [{"start": 0, "input": 9e9, "output": 0.0, "cached": 0.0, "cache_write": 0.0}]}
    (tmp_path / "muse").mkdir()
    (tmp_path / "muse" / "prices.json").write_text(json.dumps({"stamp": [*stamp[:3], 0], "rates": rows}))
    cost = cost_of("gpt-4o", Usage(1000, 0), "openai")
    assert cost is not None
    assert cost.input_cost < 1


def test_a_cache_folder_that_cannot_be_written_costs_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cost_of("gpt-4o", Usage(1000, 10), "openai") is not None


def test_a_second_process_prices_without_the_price_list(tmp_path: Path) -> None:
    assert cost_of("gpt-4o", Usage(1000, 10), "openai") is not None
    code = """
import sys
from muse.usage_log.prices import cost_of
from muse.types.usage import Usage
print(cost_of("gpt-4o", Usage(1000, 10), "openai").total_cost, "genai_prices" in sys.modules)
"""
    total, loaded = run(code, XDG_CACHE_HOME=os.environ["XDG_CACHE_HOME"]).split()
    assert (float(total) > 0, loaded) == (True, "False")


# --- the contract of calc_token_cost -------------------------------------------------------------------------------

TOKENS = {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100}


@pytest.mark.parametrize("model", ["gpt-4o", "claude-sonnet-4-20250514", "gemini-2.5-flash"])
def test_a_line_of_the_old_form_has_its_cost(journal: JournalFolder, model: str) -> None:
    cost = calc_token_cost({"timestamp": 1.0, "model": model, "context": "x", "usage": TOKENS})
    assert cost is not None
    assert set(cost) == {"total_cost", "input_cost", "output_cost", "currency"}
    assert cost["currency"] == "USD"
    assert cost["total_cost"] == cost["input_cost"] + cost["output_cost"] > 0


def test_known_prices_come_out(journal: JournalFolder) -> None:
    cost = calc_token_cost({"model": "gpt-4o", "usage": {"input_tokens": 1_000_000, "output_tokens": 1_000_000}})
    assert cost == {"total_cost": 12.5, "input_cost": 2.5, "output_cost": 10.0, "currency": "USD"}


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"model": "gpt-4o"},
        {"usage": TOKENS},
        {"model": None, "usage": TOKENS},
        {"model": "", "usage": TOKENS},
        {"model": "gpt-4o", "usage": None},
        {"model": "gpt-4o", "usage": {}},
        {"model": "gpt-4o", "usage": "many"},
        {"model": "no-such-model", "usage": TOKENS},
        {"model": ["gpt-4o"], "usage": TOKENS},
    ],
    ids=repr,
)
def test_a_line_without_model_usage_or_price_has_none(journal: JournalFolder, entry: dict[str, Any]) -> None:
    assert calc_token_cost(entry) is None


def test_reasoning_in_a_line_is_part_of_its_output(journal: JournalFolder) -> None:
    thinking = {"model": "gpt-4o", "usage": {**TOKENS, "reasoning_tokens": 90}}
    assert calc_token_cost(thinking) == calc_token_cost({"model": "gpt-4o", "usage": TOKENS})


def test_cached_input_of_a_line_is_cheaper_and_never_above_its_input(journal: JournalFolder) -> None:
    costs = [calc_token_cost({"model": "gpt-4o", "usage": {**TOKENS, "cached_tokens": n}}) for n in (0, 1000, 5000)]
    plain, cached, above = (cost["input_cost"] for cost in costs if cost)
    assert cached < plain
    assert above == cached


def test_a_free_provider_costs_nothing(journal: JournalFolder) -> None:
    cost = calc_token_cost({"model": "anything", "provider": "local", "usage": TOKENS})
    assert cost == {"total_cost": 0.0, "input_cost": 0.0, "output_cost": 0.0, "currency": "USD"}
