"""Sentences and phrases of a transcript that may tell something, by counting; it knows no model.

A sentence tells more the more rare words, figures and names it has for its length; questions and very short ones tell
less. A phrase may be a topic if its words come again or begin with a capital in the middle of a sentence.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from observe.transcripts.parser import Utterance

LONGEST_CHARS = 300
_LEAST_WORDS = 4
_END = re.compile(r"(?<=[.!?…])\s+(?=[\"“(]?[^\W_a-z])")
_WORD = re.compile(r"[^\W_](?:[\w'’-]*\w)?(?:[.,:]\d+)*")
_COMMON_TEXT = """
    a about after again all also am an and any are as at be been before but by can could did do does don't down for from
    get go goes going got had has have he her here him his how i i'd i'll i'm i've if in into is it it's its just let
    like made make may me more my need no not now of off on one only or other our out over per put said same say says
    see she should so some still take than that that's the their them then there these they thing things think this
    those three to today tomorrow two up us very want was way we we'll we're well went were what when where which who
    why will with would yes yesterday yet you your
"""
_COMMON = frozenset(_COMMON_TEXT.split())
_NO_TOPICS_TEXT = """
    always another anything asks back because between both call called comes doesn't didn't done each eight eighteen
    eighty eleven else enough even every everybody everything exactly fifteen fifth fifty find fine first five forty
    found four friday gave give gives good great half hear hello help here himself hundred isn't january february march
    april june july august september october november december keep kept know known last late later least less long look
    lost many maybe means meet might minute minutes monday month months morning much must never next night nine ninety
    nobody nothing number often okay once open opened opens part past people please question rather read really right
    saturday second seconds seven seventeen seventy sixteen sixty shall showed since something soon stay stays sunday
    sure talk tell tells ten than thank thanks third thirteen thirty through thursday time times together told took
    touch tried tuesday twelve twelfth twenty until used wait waits wednesday week weeks without won't word words work
    works write writes wrote wrong year years
"""
_NO_TOPICS = frozenset(_NO_TOPICS_TEXT.split())


class Sentence(Struct, frozen=True):
    """A sentence as it was said, by whom and when (seconds from the start, None: not known)."""

    text: str
    speaker: str
    start_s: float | None


def sentences_of(utterances: Iterable[Utterance]) -> tuple[Sentence, ...]:
    """All sentences in order, each once; one that is too long is cut at a word."""
    found = (
        Sentence(_cut(text.strip()), one.speaker, one.start_s)
        for one in utterances
        for text in _END.split(one.text)
        if text.strip()
    )
    return tuple({sentence.text: sentence for sentence in found}.values())


def telling(sentences: Sequence[Sentence], every: Sequence[Sentence], most: int) -> tuple[Sentence, ...]:
    """The `most` of `sentences` that tell most among `every`, in the order in which they were said."""
    seen = Counter(word for sentence in every for word in _words(sentence.text))
    long_enough = [sentence for sentence in sentences if len(sentence.text.split()) >= _LEAST_WORDS]
    ranked = sorted(
        long_enough or sentences, key=lambda sentence: _weight(sentence.text, seen, len(every)), reverse=True
    )
    chosen = set(ranked[:most])
    return tuple(sentence for sentence in sentences if sentence in chosen)


def _weight(text: str, seen: Counter[str], count: int) -> float:
    words = _words(text)
    idf = sum(math.log((count + 1) / (seen[word] + 1)) + 0.2 for word in words)
    figures = sum(word[0].isdigit() for word in words)
    weight: float = (idf + 1.5 * min(figures, 2)) / max(len(text.split()), 6) ** 0.5
    return weight * (0.3 if text.endswith("?") else 1.0)


def phrases_of(utterances: Sequence[Utterance], most: int) -> tuple[str, ...]:
    """Up to `most` phrases of one or two words that may be topics, the likeliest first, in lower case but for names.

    Those that come again are likelier, and two words likelier than one; who speaks is no topic.
    """
    names = {word for one in utterances for word in one.speaker.casefold().split()}
    counts: Counter[str] = Counter()
    shown: dict[str, str] = {}
    for sentence in sentences_of(utterances):
        for phrase in _phrases(sentence.text):
            if names.isdisjoint(phrase.casefold().split()):
                counts[phrase.casefold()] += 1
                shown[phrase.casefold()] = max(shown.get(phrase.casefold(), phrase), phrase, key=_capitals)
    weights = {key: _likelihood(shown[key], count) for key, count in counts.items()}
    chosen: list[str] = []
    for key in sorted(weights, key=lambda key: (-weights[key], key)):
        if not any(set(key.split()) & set(other.casefold().split()) for other in chosen):
            chosen.append(shown[key])
        if len(chosen) == most:
            break
    return tuple(chosen)


def _capitals(phrase: str) -> int:
    return sum(word[:1].isupper() for word in phrase.split())


def _likelihood(phrase: str, count: int) -> float:
    """Two words that stand together once say little; twice, or as a name, they are what it is about."""
    is_name = all(word[:1].isupper() for word in phrase.split())
    weight = count if count > 1 or is_name else 0.5
    return weight * (2.5 if " " in phrase and weight >= 1 else 1.0)


def _phrases(text: str) -> Iterator[str]:
    words = _WORD.findall(text)
    cased = [word if place and word[:1].isupper() else word.lower() for place, word in enumerate(words)]
    for place, word in enumerate(cased):
        if not _is_telling(word):
            continue
        yield word
        if place + 1 < len(cased) and _is_telling(cased[place + 1]):
            yield f"{word} {cased[place + 1]}"


def _is_telling(word: str) -> bool:
    plain = word.lower()
    return len(word) > 3 and plain not in _COMMON and plain not in _NO_TOPICS and word.isalpha()


def _words(text: str) -> frozenset[str]:
    return frozenset(word.lower() for word in _WORD.findall(text)) - _COMMON


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_CHARS else text[:LONGEST_CHARS].rpartition(" ")[0] or text[:LONGEST_CHARS]
