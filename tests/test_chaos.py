"""A bad day, smaller than that of `make chaos`: whatever fails, calls are answered, limits and books hold."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.day import live
from tests.chaos.verdict import verdicts
from tests.embedded import needs_model


@needs_model
def test_on_a_bad_day_all_calls_are_answered_within_limits_and_on_the_books(tmp_path: Path) -> None:
    day = live(tmp_path, calls=600, kills=50, timeout_s=60, seed=3)
    assert [f"{verdict.claim}: {verdict.found}" for verdict in verdicts(day) if not verdict.holds] == []
    assert len(day.rows) == 600
    assert day.kills == 50
    assert {"openai", "anthropic"} <= set(day.answered())
