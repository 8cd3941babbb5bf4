"""Which sentences of a talk are worth a model's look: split, weighed by what they tell, ranked; it knows no model.

The weight is that of classic extractive summaries: a sentence tells as much as its rare words (inverse document
frequency, Sparck Jones 1972), more if it names figures or dates, more if it has words by which people mark what counts
(cue words, Edmundson 1969), and less the longer it is. The factors were set on the example journal
(`python -m benchmarks.local_quality`). Figures in digits count in any language, number and cue words in English.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping

from msgspec import Struct

from think.entries.transcripts import Part

LONGEST_BYTES = 400
"""A sentence is cut to this many bytes of UTF-8: a token is at least a byte, so that five of them fit 4,096 tokens."""

_SENTENCE_END = re.compile(r"(?:(?<=[.!?…])|(?<=[.!?…][\"”’)]))\s+(?=[\"“\u2018(]?[^\W_a-z])")
_WORD = re.compile(r"[\w'’-]+(?:[.,:]\d[\w-]*)*")
LEAST_WORDS = 5
_LENGTH_POWER, _FIGURE_BONUS, _CUE_BONUS, _QUESTION_FACTOR = 0.5, 0.5, 0.3, 0.3


def words(text: str) -> frozenset[str]:
    """The words of a list that is written as text."""
    return frozenset(text.split())


_COMMON = words(
    """
    a about all an and any are as at be been but by can could did do does don't for from had has have he here
    how i i'm if in is it it's its may me my no not of on one or our out she so some than that the their them
    then there these they this those to up us was we were what when where which who will with would yes you your
    """
)
_FIGURES = words(
    """
    two three four five six seven eight nine ten eleven twelve thirteen fifteen twenty thirty forty fifty sixty
    seventy eighty ninety hundred thousand million first second third fourth fifth sixth seventh eighth ninth
    tenth eleventh twelfth thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth
    thirtieth monday tuesday wednesday thursday friday saturday sunday january february march april june july
    august september october november december
    """
)
_CUES = words(
    """
    agree agreed always because cause condition conditions cost costs decide decided decision fixed granted
    live merged must need needs never offer ordered price promise promised propose reason released rule ship
    ships signed want wants
    """
)


class Sentence(Struct, frozen=True):
    """A sentence as it was said, by whom and when."""

    text: str
    speaker: str
    at: str


def sentences_of(part: Part) -> tuple[Sentence, ...]:
    """All sentences of a part in order, each once; one that is too long is cut at a word."""
    found = (
        Sentence(_cut(text), utterance.speaker, utterance.at)
        for utterance in part.utterances
        for text in _SENTENCE_END.split(utterance.text)
        if text.strip()
    )
    return tuple({sentence.text: sentence for sentence in found}.values())


def words_of(text: str) -> list[str]:
    """The words and figures of a text as they stand in it."""
    return _WORD.findall(text)


def telling_words(text: str) -> frozenset[str]:
    """The words of a text in lower case, without the ones that every text has."""
    return frozenset(word.lower() for word in words_of(text)) - _COMMON


class Weights:
    """How much each sentence of a day tells, compared with all the others."""

    def __init__(self, sentences: Iterable[Sentence]) -> None:
        texts = [sentence.text for sentence in sentences]
        self._sentences = len(texts)
        self._seen: Mapping[str, int] = Counter(word for text in texts for word in telling_words(text))

    def shortlist(self, sentences: Iterable[Sentence], most: int) -> tuple[Sentence, ...]:
        """The `most` sentences that tell most, the first first; very short ones only where there are no others."""
        every = tuple(sentences)
        long_enough = [sentence for sentence in every if len(words_of(sentence.text)) >= LEAST_WORDS]
        ranked = sorted(long_enough or every, key=lambda sentence: self.weight(sentence.text), reverse=True)
        return tuple(ranked[:most])

    def weight(self, text: str) -> float:
        """How much one sentence tells; the unit has no meaning."""
        telling = telling_words(text)
        idf: float = sum(math.log((self._sentences + 1) / (self._seen.get(word, 0) + 1)) for word in sorted(telling))
        figures = sum(map(_is_figure, telling))
        weight: float = idf / max(len(words_of(text)), 1) ** _LENGTH_POWER
        weight *= 1 + _FIGURE_BONUS * min(figures, 2)
        weight *= 1 + _CUE_BONUS * (not telling.isdisjoint(_CUES))
        return weight * (_QUESTION_FACTOR if text.rstrip('"”’').endswith("?") else 1)


def _is_figure(word: str) -> bool:
    return word[0].isdigit() or not _FIGURES.isdisjoint(word.split("-"))


def _cut(text: str) -> str:
    """The beginning of `text` that fits `LONGEST_BYTES`, ending at a word where it has any."""
    data = text.strip().encode("utf-8")
    if len(data) <= LONGEST_BYTES:
        return text.strip()
    kept = data[:LONGEST_BYTES].decode("utf-8", errors="ignore")
    return kept.rpartition(" ")[0] or kept
