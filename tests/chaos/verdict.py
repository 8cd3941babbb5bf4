"""What must hold after a bad day, each with what was found; it runs nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from tests.chaos.day import A_WINDOW, AT_ONCE, IN_FLIGHT, Day


@dataclass(frozen=True)
class Verdict:
    """One claim."""

    claim: str
    found: str
    holds: bool


def verdicts(day: Day) -> Iterator[Verdict]:
    """Judge a day.

    Each request that the server saw has its line, those of killed callers too. A try that ended before it was sent has
    its line as well, and was seen by nobody.
    """
    errors = [row for row in day.rows if "error" in row]
    twice = [number for number, count in Counter(row["number"] for row in day.rows).items() if count > 1]
    yield Verdict("every call is answered, once", f"{len(errors)} failed, {len(twice)} twice", not errors and not twice)
    longest = max(row["seconds"] for row in day.rows)
    most_s = day.timeout_s * 1.05 + 0.3
    yield Verdict(f"deadlines are kept ({day.timeout_s:g} s)", f"longest {longest:.2f} s", longest <= most_s)
    most = day.most_in_a_window()
    yield Verdict(f"at most {A_WINDOW} requests in any window", f"{most}", most <= A_WINDOW)
    # The server may hear of a caller's death a moment after its places in flight were free for others.
    most = IN_FLIGHT + (AT_ONCE if day.kills else 0)
    yield Verdict(f"at most {most} calls in flight", f"{day.seen['most_at_once']}", day.seen["most_at_once"] <= most)
    for provider in ("openai", "anthropic"):
        seen = len(day.seen["arrived"].get(provider, ()))
        lost = seen - day.logged(provider)
        found = f"{seen:,} seen, {day.logged(provider):,} logged"
        yield Verdict(f"the log has what {provider} saw", found, -day.unsent(provider) <= lost <= 0)
    yield Verdict("no line is torn", f"{day.torn} torn", not day.torn)
    yield Verdict("no key is in any file", ", ".join(day.files_with_keys) or "none", not day.files_with_keys)
