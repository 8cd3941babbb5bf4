"""How much of limits and budgets is used: the function, and what `muse route --explain` says of it."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Any

import pytest

from muse import cli, models
from muse.policies.usage_status import LimitStatus
from tests.journal_folder import JournalFolder

BUDGETS = [{"context": "a.*", "usd": 0.5, "window": "month", "unpriced_usd": 0.01}, {"usd": 0.001, "degrade_at": 1}]
LIMITS = [
    {"provider": "echo", "requests_per_minute": 100, "tokens_per_day": 1000},
    {"context": "a.*", "usd_per_day": 2, "in_flight": 3},
    {"provider": "google", "in_flight": 1},
]


def _log(journal: JournalFolder, **fields: Any) -> None:
    day = journal.tokens / f"{time.strftime('%Y%m%d')}.jsonl"
    day.parent.mkdir(exist_ok=True)
    usage = {"input_tokens": 60, "output_tokens": 40, "total_tokens": 100}
    line = {"timestamp": time.time(), "context": "a.b", "provider": "echo", "model": "echo-1", "model_asked": "echo-1"}
    with day.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**line, "usage": usage, "cost_usd": 0.1, **fields}) + "\n")


def _standings(context: str = "a.b") -> dict[tuple[str, str], LimitStatus]:
    return {(row.where, row.unit): row for row in models.limit_statuses(models.fallback_chain(context))}


def test_each_amount_says_what_is_used_and_left(journal: JournalFolder) -> None:
    journal.route(default={"provider": "echo"}, budgets=BUDGETS, limits=LIMITS)
    _log(journal)
    _log(journal, cost_usd=None)
    _log(journal, context="c.d", cost_usd=0.2)
    found = _standings()
    assert list(found) == [
        ("providers.limits[0]", "requests"),
        ("providers.limits[0]", "tokens"),
        ("providers.limits[1]", "calls"),
        ("providers.limits[1]", "usd"),
        ("providers.budgets[0]", "usd"),
        ("providers.budgets[1]", "usd"),
    ]
    month, day = found[("providers.budgets[0]", "usd")], found[("providers.budgets[1]", "usd")]
    assert (month.used, month.left, month.unpriced, month.state) == (
        pytest.approx(0.11),
        pytest.approx(0.39),
        1,
        "open",
    )
    assert month.ends is not None
    assert month.ends > datetime.now()
    assert month.ends.day == 1
    assert (day.used, day.left, day.state) == (pytest.approx(0.31), 0, "used up")
    assert "of $0.0010 a day used" in str(day)
    assert found[("providers.limits[0]", "tokens")].used == 300
    assert found[("providers.limits[1]", "usd")].used == pytest.approx(0.1)
    assert ("providers.budgets[0]", "usd") not in _standings("c.d")


def test_calls_count_at_once_against_limits_of_the_minute(journal: JournalFolder) -> None:
    journal.route(default={"provider": "echo"}, limits=LIMITS)
    assert _standings()[("providers.limits[0]", "requests")].used == 0
    for _ in range(3):
        models.generate("Hello", "a.b")
    found = _standings()
    assert 3 <= found[("providers.limits[0]", "requests")].used <= 100, "a process takes some ahead"
    assert found[("providers.limits[1]", "calls")].used == 0, "none is under way"


def test_a_budget_that_is_nearly_spent_is_degraded(journal: JournalFolder) -> None:
    journal.route(default={"provider": "echo"}, budgets=[{"context": "a.*", "usd": 1, "degrade_at": 0.5}])
    _log(journal, cost_usd=0.6)
    (row,) = _standings().values()
    assert row.state == "degraded"
    assert "calls go one tier down" in str(row)


def test_explain_says_it_in_words_and_in_json(journal: JournalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    contexts = {"a.*": {"fallbacks": ["google", {"provider": "openai", "tier": 1}], "fallback_on": ["blocked"]}}
    journal.route(default={"provider": "echo"}, budgets=BUDGETS, limits=LIMITS, contexts=contexts)
    _log(journal)
    assert cli.main(["route", "a.b", "--explain"]) == 0
    said = capsys.readouterr().out
    assert "$0.10 of $0.50 a month used, $0.40 left until" in said
    assert all(place in said for place in ("providers.budgets[0]", "providers.budgets[1]", "providers.limits[1]"))
    assert "providers.limits[2]" not in said
    assert cli.main(["route", "a.b", "--explain", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["fallbacks"][0]["provider"] == "google"
    assert shown["policies"]["fallbacks"]["value"][1] == {"provider": "openai", "tier": 1, "model": None}
    assert [row["where"] for row in shown["budgets"]] == ["providers.budgets[0]", "providers.budgets[1]"]
    assert shown["budgets"][0]["left"] == pytest.approx(0.4)
    assert {row["unit"] for row in shown["limits"]} == {"requests", "tokens", "calls", "usd"}


EVERY_RULE: dict[str, Any] = {
    "fallbacks": ["google", {"model": "gpt-5-mini"}],
    "fallback_on": ["blocked", "truncated"],
    "allow": ["echo", "google", "openai"],
    "local_only": False,
    "interactive": True,
    "timeout_s": 5,
    "first_token_s": 1,
    "stall_s": 2,
    "retries": 1,
    "on_limit": "raise",
    "cache_s": 60,
}


@pytest.mark.parametrize("name", EVERY_RULE)
def test_every_rule_is_shown_as_json(journal: JournalFolder, capsys: pytest.CaptureFixture[str], name: str) -> None:
    journal.route(default={"provider": "echo"}, contexts={"a.*": {name: EVERY_RULE[name]}})
    assert cli.main(["route", "a.b", "--explain", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["policies"]
    assert shown[name]["where"] == "providers.contexts['a.*']"
