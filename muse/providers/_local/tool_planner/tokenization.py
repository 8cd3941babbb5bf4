"""Words of texts for comparison: split, reduced to stems and weighed by rarity.

Entry points: `words_of`, `stem`, `telling`, `InverseDocumentFrequency`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping

_WORD = re.compile(r"[^\W_]+(?:['’.,:/#-][^\W_]+)*%?")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_TO_DO = re.compile(r"\bto[ -]do(s?)\b", re.IGNORECASE)
_LEAST_STEM = 3


def _split(words: str) -> frozenset[str]:
    """Return the words of a list that is written as text."""
    return frozenset(words.split())


_COMMON = _split(
    """
    a about again all already also am an and any anything are as at be been being but by can could did do does
    either every for from get give had has have he her here him his how i if in into is it its just let list long
    many may me mine more most much must my myself no not of off on one ones only or our out over own please
    read really say said see shall she should show so some something still tell than that the their them then there
    these they thing this those to too up us very was we were what when where which while who whom whose why will
    with would yes yet you your happen happened
    """
)
_ALIKE: tuple[frozenset[str], ...] = tuple(
    map(
        _split,
        (
            "event meeting appointment calendar agenda meet call",
            "todo task chore errand",
            "done finish finished complete completed close closed tick",
            "open unfinished pending outstanding",
            "mum mom mother mama",
            "dad father papa",
            "participant people attendee attend join person",
            "location place room venue",
            "file document",
            "weather forecast temperature",
            "mail email message",
            "decide decision decided",
            "cost price pay",
        ),
    )
)


def words_of(text: str) -> list[str]:
    """Return the words of a text unchanged; `4.2`, `HS-40` and `notes/a.md` are one word each."""
    return _WORD.findall(text)


def stem(word: str) -> str:
    """Return a word without English endings of number and tense, hyphens and case.

    A word with digits loses only its case and `'s`.
    """
    plain = re.sub(r"['’]s$", "", word.lower())
    if any(character.isdigit() for character in plain):
        return plain
    plain = re.sub(r"['’-]", "", plain)
    for ending, instead in (("ies", "y"), ("ing", ""), ("ed", ""), ("es", ""), ("s", ""), ("e", "")):
        if plain.endswith(ending) and len(plain) - len(ending) >= _LEAST_STEM and not plain.endswith("ss"):
            shorter = plain[: len(plain) - len(ending)] + instead
            doubled = len(shorter) > _LEAST_STEM and shorter[-1] == shorter[-2] and shorter[-1] not in "ls"
            return shorter[:-1] if doubled else shorter
    return plain


_STEMS_ALIKE: Mapping[str, str] = {stem(word): min(row) for row in _ALIKE for word in row}


def is_telling(word: str) -> bool:
    """Return True if a word says what a text is about, and is not a common function word."""
    return word.lower() not in _COMMON


def telling(text: str) -> list[str]:
    """Return the stems of the telling words of a text in their order; near synonyms share one stem."""
    spaced = _CAMEL.sub(" ", _TO_DO.sub(r"todo\1", text)).replace("_", " ")
    stems = (stem(word) for word in words_of(spaced) if is_telling(word))
    return [_STEMS_ALIKE.get(one, one) for one in stems]


class InverseDocumentFrequency:
    """The weight of a stem among some texts: the fewer of them have it, the higher."""

    def __init__(self, texts: Iterable[Iterable[str]]) -> None:
        stems = [frozenset(text) for text in texts]
        self._texts = len(stems)
        self._seen: Mapping[str, int] = Counter(one for text in stems for one in text)

    def weight(self, one: str) -> float:
        """Return the weight of a stem, from 0.1 (in nearly all texts) upwards."""
        return max(0.1, math.log((self._texts + 1) / (self._seen.get(one, 0) + 0.5)))

    def shared(self, mine: Iterable[str], other: Iterable[str]) -> float:
        """Return the summed weight of the stems that two texts share; each stem counts once."""
        return sum(self.weight(one) for one in sorted(frozenset(mine) & frozenset(other)))
