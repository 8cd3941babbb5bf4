"""When a persona's turn comes: its schedule -> the occasions of the last days; it knows no journal and runs nothing.

`daily` is about a day that is over, `weekly` about a week (Monday to Sunday) that is over, a cron form ("30 7 * *
1-5") about the day of its occasion. Cron forms are read by cronsim: typed, without dependencies, and able to look
backwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta

from cronsim import CronSim, CronSimError
from msgspec import Struct

from muse.types.errors import ConfigError

# Occasions that were missed are made up for so many days back.
DAYS_BACK = 7
DAILY, WEEKLY = "daily", "weekly"


class ScheduledTime(Struct, frozen=True, order=True):
    """One time at which a persona has its turn: `slot` names it for ever, `day` (YYYYMMDD) is what it is about."""

    day: str
    slot: str


def scheduled_times(schedule: object, now: datetime, *, days_back: int = DAYS_BACK) -> tuple[ScheduledTime, ...]:
    """The occasions up to `now` (local time) and from `days_back` days on, the oldest first; of a cron form one a day.

    >>> scheduled_times("weekly", datetime(2026, 11, 4, 6, 0))
    (ScheduledTime(day='20261101', slot='20261101'),)
    >>> scheduled_times("30 7 * * 1-5", datetime(2026, 11, 9, 8, 0), days_back=3)
    (ScheduledTime(day='20261106', slot='20261106T0730'), ScheduledTime(day='20261109', slot='20261109T0730'))

    Raises:
        ConfigError: `schedule` is of no known form.
    """
    today = now.date()
    days = [today - timedelta(days=back) for back in range(days_back, -1, -1)]
    if schedule == DAILY:
        return tuple(_whole_day(day) for day in days[:-1])
    if schedule == WEEKLY:
        return tuple(_whole_day(day) for day in days[:-1] if day.isoweekday() == 7)
    return tuple(_of_cron(schedule, days, now))


def _whole_day(day: date) -> ScheduledTime:
    return ScheduledTime(f"{day:%Y%m%d}", f"{day:%Y%m%d}")


def _of_cron(schedule: object, days: list[date], now: datetime) -> Iterator[ScheduledTime]:
    """The last occasion of each day."""
    for day in days:
        end = min(datetime.combine(day, time.max), now)
        try:
            moment = next(CronSim(str(schedule), end + timedelta(seconds=1), reverse=True), None)
        except CronSimError as exc:
            allowed = "'daily', 'weekly' or a cron form of five fields such as '30 7 * * 1-5'"
            raise ConfigError("schedule", f"{schedule!r} ({exc})", allowed) from exc
        if moment is not None and moment.date() == day:
            yield ScheduledTime(f"{day:%Y%m%d}", f"{moment:%Y%m%dT%H%M}")


def next_time(schedule: object, now: datetime) -> datetime | None:
    """Return the next time of a cron form after `now` (local time); None if there is none or it is no cron form.

    >>> next_time("30 7 * * 1-5", datetime(2026, 11, 6, 8, 0))
    datetime.datetime(2026, 11, 9, 7, 30)
    """
    try:
        return next(CronSim(str(schedule), now), None)
    except CronSimError:
        return None


def span_of(schedule: object, day: str) -> tuple[date, ...]:
    """The days that an occasion is about: the week that ends on `day` for `weekly`, else the day itself."""
    last = datetime.strptime(day, "%Y%m%d").date()
    return tuple(last - timedelta(days=back) for back in range(6 if schedule == WEEKLY else 0, -1, -1))
