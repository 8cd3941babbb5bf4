"""How amounts read, in a terminal as on a page: money, counts, spans of time; it knows not what they are of."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable


def format_usd(value: float | None, *, more: bool = False) -> str:
    """An amount of US dollars with the digits that tell something; `–` where there is none.

    `more` adds a `+`: of something in it the price is not known.

    >>> format_usd(12.5), format_usd(0.5), format_usd(0.115), format_usd(0.0076702)
    ('$12.50', '$0.50', '$0.1150', '$0.0077')
    >>> format_usd(0.0000042), format_usd(0), format_usd(None)
    ('$0.0000042', '$0', '–')
    >>> format_usd(0.25, more=True)
    '$0.25+'
    """
    if value is None or not math.isfinite(value):
        return "–"
    return f"{'-' if value < 0 else ''}{_dollars(abs(value))}{'+' if more else ''}"


def _dollars(size: float) -> str:
    if size == 0:
        return "$0"
    if size < 0.001:
        text = f"{size:.{min(7, 1 - math.floor(math.log10(size)))}f}".rstrip("0")
        return f"${text}" if text != "0." else "<$0.0000001"
    is_cents = math.isclose(size * 100, round(size * 100), abs_tol=1e-7)
    return f"${size:,.{2 if size >= 1 or is_cents else 4}f}"


def total_usd(costs: Iterable[float | None]) -> float | None:
    """The sum of costs in US dollars; None if one of them is not known.

    >>> total_usd([0.25, 0.5]), total_usd([0.25, None]), total_usd([])
    (0.75, None, 0.0)
    """
    total = 0.0
    for cost in costs:
        if cost is None:
            return None
        total += cost
    return round(total, 6)


def exact_usd(value: float | None) -> float | None:
    """Return an amount of US dollars without what binary fractions add to its digits: to a millionth of a cent.

    >>> exact_usd(6.999999999999999e-06), exact_usd(0.1 + 0.2), exact_usd(None)
    (7e-06, 0.3, None)
    """
    return None if value is None else round(value, 12)


def format_number(value: float) -> str:
    """Return a number in digits, without an exponent, for files that people open; no digit of it is lost.

    >>> format_number(7e-06), format_number(1.5), format_number(3), format_number(2.5e+21), format_number(1e-300)
    ('0.000007', '1.5', '3', '2500000000000000000000', '1e-300')
    """
    text = repr(value)
    mantissa, _, exponent = text.partition("e")
    if not exponent or not -40 < int(exponent) < 40:
        return text
    return f"{value:.{max(0, len(mantissa.partition('.')[2]) - int(exponent))}f}"


def expand_exponents(text: str) -> str:
    """Return JSON whose numbers are written in digits, without exponents; strings are left alone.

    >>> expand_exponents('{"cost": 7e-06, "said": "7e-06"}')
    '{"cost": 0.000007, "said": "7e-06"}'
    """
    return re.sub(_NUMBER_OR_TEXT, lambda found: format_number(float(found[1])) if found[1] else found[0], text)


_NUMBER_OR_TEXT = r'(?s)"(?:[^"\\]|\\.)*+"|(-?\d+(?:\.\d+)?[eE][+-]?\d+)'


def format_count(value: float | None) -> str:
    """A number with commas between thousands; `–` where there is none.

    >>> format_count(12345), format_count(1.5), format_count(None)
    ('12,345', '1.5', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.1f}" if value % 1 else f"{int(value):,}"


def format_duration(value: float | None) -> str:
    """A span of time, given in seconds.

    >>> format_duration(0.0042), format_duration(1.26), format_duration(75)
    ('4 ms', '1.3 s', '1 min 15 s')
    >>> format_duration(7260), format_duration(200000)
    ('2 h 1 min', '2 d 7 h')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if value < 0:
        return f"-{format_duration(-value)}"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 59.95:
        return f"{value:.1f} s"
    whole = round(float(value))
    for size, unit, below, lower in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {unit} {rest} {lower}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def pluralize(number: int, what: str) -> str:
    """How many of something there are; `what` is the word for one of them.

    >>> pluralize(1, "call"), pluralize(1200, "call")
    ('1 call', '1,200 calls')
    """
    return f"{number:,} {what}{'' if number == 1 else 's'}"
