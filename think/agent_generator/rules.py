"""What rules read out of a wish in English words: when an agent is to run, what its file is called; no model."""

from __future__ import annotations

import re

NAME = re.compile(r"[a-z][a-z0-9_]{1,39}")
"""The names that a persona's file may have."""

_LONGEST_NAME = 40
_DANGLING = re.compile(r"(?:_(?:a|an|and|at|by|for|from|in|of|or|the|to|with))+$")
_WEEKDAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_CLOCK = re.compile(r"\b(?:at|um)\s+([01]?\d|2[0-3])(?::([0-5]\d))?\s*(am|pm)?\b", re.IGNORECASE)
_EVERY_DAY = re.compile(r"\b(every|each)\s+(day|morning|evening|night|noon)\b|\bdaily\b", re.IGNORECASE)
_EVERY_WEEK = re.compile(r"\b(every|each|once a)\s+week\b|\bweekly\b", re.IGNORECASE)
_WORKDAYS = re.compile(r"\b(every|each)\s+(working ?day|workday|weekday)\b", re.IGNORECASE)
_DAY = rf"(?:{'|'.join(_WEEKDAYS)})s?"
_DAYS_NAMED = re.compile(rf"\b(?:every|each|on)\s+({_DAY}(?:(?:\s*,\s*(?:and\s+)?|\s+and\s+){_DAY})*)\b", re.IGNORECASE)
_HOURS = {"morning": 7, "noon": 12, "evening": 18, "night": 22}
_TIME_OF_DAY = re.compile(rf"\b(?:every|each|at|by|in the|{_DAY})\s+({'|'.join(_HOURS)})\b", re.IGNORECASE)


def schedule_of(wish: str) -> str:
    """The schedule that a wish names in English words; "" if it names none.

    >>> schedule_of("Every Monday at 8 list the meetings"), schedule_of("Sum up each day"), schedule_of("Find my keys")
    ('0 8 * * 1', 'daily', '')
    >>> schedule_of("Every Monday, Tuesday and Thursday at 9"), schedule_of("Every evening sum up the day")
    ('0 9 * * 1,2,4', '0 18 * * *')
    """
    clock = _CLOCK.search(wish)
    listed = " ".join(match[1].lower() for match in _DAYS_NAMED.finditer(wish))
    named = [number for number, day in enumerate(_WEEKDAYS) if day in listed]
    if _WORKDAYS.search(wish):
        return f"{_time(wish, clock)} * * 1-5"
    if named:
        return f"{_time(wish, clock)} * * {','.join(map(str, named))}"
    if _EVERY_DAY.search(wish):
        return f"{_time(wish, clock)} * * *" if clock or _TIME_OF_DAY.search(wish) else "daily"
    return "weekly" if _EVERY_WEEK.search(wish) else ""


def name_of(title: str) -> str:
    """A file's name for a title: its words in small letters.

    >>> name_of("List open to-dos, due this week!")
    'list_open_to_dos_due_this_week'
    """
    words = "_".join(re.findall(r"[a-z0-9]+", title.lower()))
    whole = words if NAME.match(words) else f"agent_{words}".rstrip("_")
    return whole if len(whole) <= _LONGEST_NAME else _DANGLING.sub("", whole[:_LONGEST_NAME].rpartition("_")[0])


def _time(wish: str, clock: re.Match[str] | None) -> str:
    """Minute and hour of a cron form: those named, else those of the time of day."""
    if clock is None:
        said = _TIME_OF_DAY.search(wish)
        return f"0 {_HOURS[said[1].lower() if said else 'morning']}"
    hour = int(clock[1]) % 12 + (12 if clock[3].lower() == "pm" else 0) if clock[3] else int(clock[1])
    return f"{int(clock[2] or 0)} {hour}"
