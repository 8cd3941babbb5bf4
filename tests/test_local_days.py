"""Days as questions name them; it knows no tool."""

from __future__ import annotations

from datetime import date

import pytest

from muse.providers._local.tool_planner.date_parsing import days_in, needs_calendar, without_days
from tests.planned import TODAY

NEAR: tuple[tuple[str, date | None], ...] = (
    ("on 3 November", date(2026, 11, 3)),
    ("on the 3rd of November 2025", date(2025, 11, 3)),
    ("November 3, 2026", date(2026, 11, 3)),
    ("2026-11-03", date(2026, 11, 3)),
    ("20261103", date(2026, 11, 3)),
    ("25 December", date(2025, 12, 25)),
    ("yesterday", date(2026, 11, 19)),
    ("on Thursday's trip", date(2026, 11, 19)),
    ("29 February", date(2024, 2, 29)),
    ("31 November", None),
    ("20261103/notes/a.md", None),
    ("may I sail?", None),
    ("version 4.2", None),
)


@pytest.mark.parametrize(("text", "day"), NEAR)
def test_days_are_read_as_people_write_them(text: str, day: date | None) -> None:
    span = days_in(text, TODAY)
    assert (span.first if span else None) == day


def test_the_days_there_are_decide_which_one_is_meant() -> None:
    known = (date(2026, 11, 3), date(2024, 5, 7))
    tuesday, may = days_in("on Tuesday", TODAY, known), days_in("on 7 May", TODAY, known)
    assert tuesday is not None
    assert may is not None
    assert (tuesday.first, may.first) == known


def test_last_week_and_two_dates_are_a_span() -> None:
    week, two = days_in("last week", TODAY), days_in("from 2 November to 5 November", TODAY)
    assert week is not None
    assert two is not None
    assert (week.first, week.last) == (date(2026, 11, 9), date(2026, 11, 15))
    assert (two.first, two.last) == (date(2026, 11, 2), date(2026, 11, 5))
    assert needs_calendar("on Tuesday")
    assert not needs_calendar("on 3 November 2026")
    assert without_days("Who sailed on Tuesday?") == "Who sailed?"
