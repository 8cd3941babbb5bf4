"""Shows that a what-if moves the calls whose route would change, at the price of their tokens, and writes nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muse.cli import main
from muse.diagnostics.whatif import RouteChange, WhatIf, compare, route_changes
from muse.errors import ConfigError
from muse.journal.config import Config, parse_config
from muse.models import generate
from muse.providers import specs
from muse.routing import contexts
from muse.types.usage import Usage
from muse.usage_index.index import LogIndex
from muse.usage_index.queries import sums_by_context
from muse.usage_log import prices
from muse.usage_log.totals import UsageTotal
from tests.journal_folder import ROOT, JournalFolder
from tests.log_days import append, line, usage_says

TODAY = f"{date.today():%Y%m%d}"
DAYS = (0, 99_999_999)
OPENAI = {"default": {"provider": "openai", "tier": 2}}
TIERS = specs()["openai"].tiers


@pytest.fixture(name="index")
def _index(journal: JournalFolder) -> Iterator[LogIndex]:
    index = LogIndex(journal.path)
    yield index
    index.close()


def config(**providers: Any) -> Config:
    """A journal.json with these parts of `providers`."""
    return parse_config({"providers": {**OPENAI, **providers}}, specs())[0]


def what_if(used: Mapping[tuple[str, str], UsageTotal], before: Config, after: Config) -> WhatIf:
    """The comparison of some sums, whatever the environment says."""
    return route_changes(used, before, after, days=DAYS, known=contexts.STATIC, known_specs=specs(), environ={})


def total(calls: int = 2, input_tokens: int = 3_000, output_tokens: int = 400, cached_tokens: int = 0) -> UsageTotal:
    """What some calls used."""
    return UsageTotal((), calls, usage=Usage(input_tokens, output_tokens, cached_tokens, requests=calls))


def price(model: str, usage: Usage, *, provider: str = "openai") -> float:
    """Dollars for tokens, as the price list has them."""
    cost = prices.cost_of(model, usage, specs()[provider].price_id)
    assert cost is not None
    return cost.total_cost


# --- what moves


def test_calls_move_where_the_route_changes_and_cost_what_their_tokens_cost_there() -> None:
    used = {("insight.daily", ""): total(), ("insight.mood", ""): total(5), ("app.chat", ""): total()}
    found = what_if(used, config(), config(contexts={"insight.*": {"tier": 1}}))
    assert [(move.context, move.calls) for move in found.rows] == [("insight.mood", 5), ("insight.daily", 2)]
    move, tokens = found.rows[1], total().usage
    assert (move.from_provider, move.from_model, move.to_provider, move.to_model) == (
        *("openai", TIERS[2]),
        *("openai", TIERS[1]),
    )
    assert move.cost_before_usd == pytest.approx(price(TIERS[2], tokens))
    assert move.cost_after_usd == pytest.approx(price(TIERS[1], tokens))
    assert (found.calls, found.moved) == (9, 7)


def test_cached_input_is_priced_as_such_on_both_sides() -> None:
    used = {("insight.daily", ""): total(cached_tokens=2_000)}
    (move,) = what_if(used, config(), config(contexts={"insight.*": {"tier": 1}})).rows
    assert move.cost_before_usd == pytest.approx(price(TIERS[2], total(cached_tokens=2_000).usage))
    assert move.cost_before_usd < price(TIERS[2], total().usage)


def test_the_rates_are_those_of_a_call_and_not_of_the_sum_of_many() -> None:
    model = specs()["google"].tiers[1]
    small = prices.cost_of(model, Usage(100_000, 10), "google")
    many = prices.cost_of(model, Usage(10_000_000, 1_000), "google", calls=100)
    assert small is not None
    assert many is not None
    assert many.total_cost == pytest.approx(100 * small.total_cost)


def test_calls_that_no_route_decides_stay_and_are_named() -> None:
    used = {
        ("insight.daily", "own"): total(3),
        ("insight.daily", "kept"): total(4, 0, 0),
        ("insight.work:17", ""): total(5),
        ("(none)", ""): total(6),
    }
    found = what_if(used, config(), config(default={"provider": "google"}))
    assert (found.own_model, found.kept, found.elsewhere, found.no_context) == (3, 4, 5, 6)
    assert [(move.context, move.calls) for move in found.rows] == [("(none)", 6)]


def test_what_a_batch_service_answered_is_priced_by_the_other_ones_service() -> None:
    used = {("insight.daily", "overnight"): total()}
    after = config(contexts={"insight.*": {"provider": "anthropic"}})
    (move,) = what_if(used, config(), after).rows
    share = specs()["anthropic"].batch_price
    assert share is not None
    assert move.cost_after_usd == pytest.approx(share * price(move.to_model, total().usage, provider="anthropic"))
    assert what_if(used, config(), after).overnight == 2


def test_calls_without_a_known_price_are_counted_and_in_neither_cost() -> None:
    used = {("insight.daily", ""): total()}
    found = what_if(used, config(), config(contexts={"insight.*": {"provider": "openai", "model": "nobody-knows-it"}}))
    (move,) = found.rows
    assert (move.unpriced, move.cost_before_usd, move.cost_after_usd, found.unpriced) == (2, 0.0, 0.0, 2)


def test_a_model_on_this_machine_costs_nothing() -> None:
    (move,) = what_if({("app.chat", ""): total()}, config(), config(contexts={"app.*": {"provider": "local"}})).rows
    assert (move.cost_after_usd, move.unpriced) == (0.0, 0)


def test_a_context_that_could_not_be_routed_says_why() -> None:
    bound = {"insight.*": {"local_only": True}}
    (move,) = what_if({("insight.daily", ""): total()}, config(), config(contexts=bound)).rows
    assert (move.to_provider, move.to_model) == ("", "")
    assert "local_only" in move.problem


_CONTEXT = st.sampled_from(["insight.daily", "app.chat", "(none)", "observe.enrich", "work.f:3", "x"])
_HOW = st.sampled_from(["", "own", "kept", "overnight"])
_TOTAL = st.builds(total, st.integers(1, 9), st.integers(0, 10**6), st.integers(0, 10**5))
_ENTRY = st.fixed_dictionaries(
    {}, optional={"tier": st.sampled_from([1, 2, 3]), "provider": st.sampled_from(["google", "local", "anthropic"])}
)
_CONFIG = st.builds(
    lambda found: config(contexts=found),
    st.dictionaries(st.sampled_from(["insight.*", "*", "app.chat", "observe.*"]), _ENTRY),
)


@given(st.dictionaries(st.tuples(_CONTEXT, _HOW), _TOTAL), _CONFIG, _CONFIG)
def test_the_sums_are_those_of_the_rows_and_no_change_moves_nothing(
    used: dict[tuple[str, str], UsageTotal], before: Config, after: Config
) -> None:
    found = what_if(used, before, after)
    assert found.moved == sum(move.calls for move in found.rows)
    assert found.cost_before_usd == pytest.approx(sum(move.cost_before_usd for move in found.rows))
    assert found.cost_after_usd == pytest.approx(sum(move.cost_after_usd for move in found.rows))
    assert found.calls == sum(one.calls for one in used.values())
    assert what_if(used, before, before).rows == ()
    back = what_if(used, after, before)
    assert back.moved == found.moved
    assert back.cost_after_usd == pytest.approx(found.cost_before_usd)


# --- out of a real log


def test_the_log_of_real_calls_tells_what_was_routed_and_what_was_named(
    journal: JournalFolder, index: LogIndex
) -> None:
    journal.route(default={"provider": "echo", "tier": 2})
    generate("one", context="insight.daily")
    generate("two", context="")
    generate("three", context="insight.daily", model="echo-1")
    before = parse_config(json.loads(journal.config.read_text("utf-8")), specs())[0]
    found = compare(before, config(default={"provider": "local", "tier": 2}), since="1d", index=index, most_s=None)
    assert {move.context: move.calls for move in found.rows} == {"(none)": 1, "insight.daily": 1}
    assert (found.calls, found.own_model, found.no_context, found.is_complete) == (3, 1, 1, True)


def test_costs_before_are_those_of_the_log_where_the_route_and_the_prices_have_stayed(
    journal: JournalFolder, index: LogIndex
) -> None:
    for number in range(50):
        used = Usage(1_000 + 37 * number, 100 + number)
        cost_usd = price(TIERS[2], used)
        append(journal, line(model=TIERS[2], usage=used.as_dict(), cost_usd=cost_usd), day=TODAY)
    found = compare(config(), config(contexts={"insight.*": {"tier": 1}}), index=index, most_s=None)
    assert found.cost_before_usd == pytest.approx(usage_says().total.cost_usd)
    assert sums_by_context(index, DAYS)["insight.daily", ""].calls == 50


def test_only_the_days_that_are_asked_for_count(journal: JournalFolder, index: LogIndex) -> None:
    append(journal, line(), day="20200101")
    append(journal, line(), day=TODAY)
    after = config(contexts={"insight.*": {"tier": 1}})
    assert compare(config(), after, since="7d", index=index, most_s=None).moved == 1
    assert compare(config(), after, since="20200101", index=index, most_s=None).moved == 2
    for bad in ("", "7", "d", "0d", "20201301", "٣d", "9" * 5000 + "d"):
        with pytest.raises(ConfigError, match="since"):
            compare(config(), after, since=bad, index=index)


# --- the command


@pytest.fixture(name="example")
def _example(journal: JournalFolder) -> JournalFolder:
    for name in ("config", "tokens"):
        shutil.copytree(ROOT / "fixtures/journal" / name, journal.path / name)
    return journal


def test_the_command_prints_what_moves_and_what_it_would_cost(
    example: JournalFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in example.path.rglob("*") if path.is_file()}
    words = ["whatif", "--set", "insight.*=tier:3", "--since", "20261101"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert {move["context"] for move in data["rows"]} >= {"insight.daily"}
    for move in data["rows"]:
        assert f"{move['from_provider']} {move['from_model']}" in shown
        assert f"${move['cost_after_usd']:,.4f}" in shown
    assert f"${data['cost_before_usd']:,.4f}" in shown
    assert f"{data['moved']} of {data['calls']} calls" in shown
    assert "estimate" in shown
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("insight.*", "insight.*=tier:3"),
        ("=tier:3", "insight.*=tier:3"),
        ("insight.*=", "insight.*=tier:3"),
        ("insight.*=tier", "insight.*=tier:3"),
        ("insight.*=tier:", "insight.*=tier:3"),
        ("insight.*=speed:3", "insight.*=tier:3"),
        ("insight.*=tier:4", "1, 2 or 3"),
        ("insight.*=tier:fast", "1, 2 or 3"),
        ("insight.*=tier:" + "9" * 5_000, "1, 2 or 3"),
        ("insight.*=tier:1,tier:3", "insight.*=tier:3"),
        ("default=provider:nobody", "one of anthropic"),
    ],
)
def test_a_change_that_cannot_be_read_says_what_is_allowed(
    example: JournalFolder, capsys: pytest.CaptureFixture[str], change: str, expected: str
) -> None:
    assert main(["whatif", "--set", change]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("muse whatif: --set")
    assert expected in said.err


def test_a_pattern_that_matches_no_call_is_named(example: JournalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["whatif", "--set", "insigth.*=tier:3", "--set", "insight.*=tier:2", "--since", "20261101"]
    assert main([*words, "--set", "default=tier:2"]) == 0
    shown = capsys.readouterr().out
    assert "'insigth.*' matches no context of these calls." in shown
    assert shown.count("matches no context") == 1


def test_a_sum_of_nothing_known_is_unknown(example: JournalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["whatif", "--set", "insight.*=model:nobodys-model", "--since", "20261101"]) == 0
    shown = capsys.readouterr().out
    assert "unknown" in next(row for row in shown.splitlines() if row.startswith("all"))
    assert "$0.0000" not in shown
    assert "10 calls moved without a known price on both sides: in neither cost." in shown


def test_a_day_that_is_none_is_misuse(example: JournalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["whatif", "--set", "insight.*=tier:3", "--since", "soon"]) == 2
    assert "since: found 'soon', expected a number of days such as 7d" in capsys.readouterr().err


def test_a_new_tier_or_provider_replaces_the_model_of_its_entry(
    journal: JournalFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    journal.route(**OPENAI, contexts={"insight.*": {"provider": "openai", "model": "gpt-4o"}})
    append(journal, line(), day=TODAY)
    for change, model in (
        ("insight.*=tier:1", TIERS[1]),
        ("insight.*=provider:ollama,model:llama3:8b", "llama3:8b"),
        ("insight.*=provider:google", specs()["google"].tiers[2]),
    ):
        assert main(["whatif", "--set", change, "--json"]) == 0
        (move,) = json.loads(capsys.readouterr().out)["rows"]
        assert (move["from_model"], move["to_model"]) == ("gpt-4o", model)


def test_without_calls_it_says_so(journal: JournalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["whatif", "--set", "insight.*=tier:3"]) == 0
    assert capsys.readouterr().out == "No calls in the token log since 7d; nothing would have moved.\n"


def test_moves_come_with_the_dearest_first() -> None:
    used = {("insight.a", ""): total(1, 10), ("insight.b", ""): total(1, 10**6), ("insight.c", ""): total(1, 10**4)}
    rows: tuple[RouteChange, ...] = what_if(used, config(), config(contexts={"insight.*": {"tier": 1}})).rows
    assert [move.context for move in rows] == ["insight.b", "insight.c", "insight.a"]
