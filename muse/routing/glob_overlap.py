"""Questions about globs themselves: do two of them meet, what does one match; it knows no context and no route."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

_TOKEN = re.compile(r"\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)
_WILDCARD = re.compile(r"[*?[]")
_MOST_TOKENS = 1_000
_SAMPLES = "zqx0_ab1."


def is_glob(pattern: str) -> bool:
    """Whether a pattern has a wildcard, as `muse.routing.router` counts them."""
    return _WILDCARD.search(pattern) is not None


def overlap(one: str, other: str) -> bool:
    """Whether some text matches both patterns (a pattern without wildcards matches itself).

    Two character sets count as meeting, and so do patterns of more than 1,000 characters that begin alike.

    >>> overlap("insight.w*", "insight.*"), overlap("*.frame", "observe.?*"), overlap("a.*", "b.*")
    (True, True, False)
    """
    if not _begin_alike(one, other):
        return False
    left, right = _TOKEN.findall(one), _TOKEN.findall(other)
    if len(left) > _MOST_TOKENS or len(right) > _MOST_TOKENS:
        return True
    seen: set[tuple[int, int]] = set()
    open_ends = [(0, 0)]
    while open_ends:
        i, j = open_ends.pop()
        if (i, j) == (len(left), len(right)):
            return True
        if (i, j) not in seen:
            seen.add((i, j))
            open_ends += _steps(left, right, i, j)
    return False


def sample_match(pattern: str) -> str:
    """A text that a pattern matches, unlike any name that somebody would choose."""
    return "".join(_sample(piece) for piece in _TOKEN.findall(pattern))


def _begin_alike(one: str, other: str) -> bool:
    """Whether the texts before the first wildcards allow a common match: the quick look that settles most pairs."""
    left, right = (_WILDCARD.split(pattern, maxsplit=1)[0] for pattern in (one, other))
    return left.startswith(right) or right.startswith(left)


def _steps(left: list[str], right: list[str], i: int, j: int) -> list[tuple[int, int]]:
    """Where a walk through both patterns can go from `(i, j)`: a star takes nothing or one token of the other."""
    more_left, more_right = i < len(left), j < len(right)
    steps: list[tuple[int, int]] = []
    if more_left and left[i] == "*":
        steps += [(i + 1, j), *([(i, j + 1)] if more_right else [])]
    if more_right and right[j] == "*":
        steps += [(i, j + 1), *([(i + 1, j)] if more_left else [])]
    if more_left and more_right and _overlaps(left[i], right[j]):
        steps.append((i + 1, j + 1))
    return steps


def _overlaps(one: str, other: str) -> bool:
    if "*" in (one, other):
        return False
    if "?" in (one, other) or (len(one) > 1 and len(other) > 1):
        return True
    return fnmatchcase(one, other) if len(other) > 1 else fnmatchcase(other, one)


def _sample(piece: str) -> str:
    if piece == "*":
        return "zq"
    if len(piece) == 1 and piece != "?":
        return piece
    return next((char for char in (*_SAMPLES, *piece[1:-1]) if fnmatchcase(char, piece)), "z")
