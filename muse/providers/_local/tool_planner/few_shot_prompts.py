"""Prompts for the small model: a few solved examples, then the case to be continued under a grammar.

Entry points: `search_words`, `copied_words`, `choice`, `phrasing`.

The model continues examples well and follows instructions badly, so the prompts contain no instructions. The examples
are about no real journal: text that leaks from an example into an answer is not supported by the passage, and is
discarded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

Body = dict[str, Any]

MOST_QUESTION_CHARS = 400
MOST_PASSAGE_CHARS = 600
_ANSWER_TOKENS = 48
_SEARCHES = (
    ("Who repaired the boiler in the cellar last winter?", "boiler cellar repaired"),
    ("What did we agree with the landlord about the garden?", "agree landlord garden"),
    ("How many chairs were delivered for the hall?", "chairs delivered hall"),
    ("When does the ferry to Skye leave?", "ferry Skye leave"),
    ("Why was the concert in Leeds cancelled?", "concert Leeds cancelled"),
)
_COPIES = (
    ("How tall is the lighthouse of Eddystone?", "building", "lighthouse of Eddystone"),
    ("What does a ticket to Lisbon cost?", "city", "Lisbon"),
    ("Who wrote the play The Weir?", "title", "The Weir"),
    ("Please spell the word rhythm backwards.", "text", "rhythm"),
)
_CHOICES = (
    ("Which books are on loan right now?", "state", "lent, shelved", "lent"),
    ("Show me the large rooms.", "size", "small, large", "large"),
    ("Is it warm in Oslo, in Celsius?", "unit", "celsius, fahrenheit", "celsius"),
)
_ANSWERS = (
    (
        "The council met on Monday. The new bridge opens on 4 May, said Mr Hale.",
        "When does the new bridge open?",
        "The new bridge opens on 4 May.",
    ),
    (
        "Anna: We sold 36 jars of honey at the market, more than ever.",
        "How many jars of honey did we sell?",
        "We sold 36 jars of honey.",
    ),
)


def search_words(question: str, words: Sequence[str], label: str) -> Body:
    """Return a request for the words of a question to search for, in their order; names and figures are always kept."""
    shots = "".join(f"Question: {asked}\n{label}: {found}\n\n" for asked, found in _SEARCHES)
    kept = [at for at, word in enumerate(words) if any(letter.isupper() or letter.isdigit() for letter in word)]
    following = {at: _up_to(kept, at, len(words)) for at in range(-1, len(words))}
    return _completion(shots, question, label, _runs(words, following, kept))


def copied_words(question: str, words: Sequence[str], label: str) -> Body:
    """Return a request for the piece of a question that belongs to an argument."""
    shots = "".join(f"Question: {asked}\n{named}: {found}\n\n" for asked, named, found in _COPIES)
    next_ones = {at: range(at + 1, min(at + 2, len(words))) for at in range(len(words))}
    return _completion(shots, question, label, _runs(words, next_ones | {-1: range(len(words))}))


def choice(question: str, label: str, values: Sequence[str]) -> Body:
    """Return a request for one of the values that an argument may have."""
    shots = "".join(f"Question: {asked}\n{named} ({known}): {found}\n\n" for asked, named, known, found in _CHOICES)
    grammar = f"root ::= ({' | '.join(_literal(f' {value}') for value in values)}) {_NEWLINE}"
    return _completion(shots, question, f"{label} ({', '.join(values)})", grammar)


def phrasing(question: str, passage: str) -> Body:
    """Return a request for an answer in one sentence, based on one passage."""
    shots = "".join(f"{said}\nQuestion: {asked}\nAnswer: {told}\n\n" for said, asked, told in _ANSWERS)
    body = _completion(f"{shots}{one_line(passage, MOST_PASSAGE_CHARS)}\n", question, "Answer", "")
    return body | {"max_tokens": _ANSWER_TOKENS, "stop": ["\n"]}


def one_line(text: str, most_chars: int) -> str:
    """Return a text in one line, cut at a word if it is too long."""
    plain = re.sub(r"\s+", " ", text).strip()
    return plain if len(plain) <= most_chars else plain[:most_chars].rpartition(" ")[0] + " …"


_NEWLINE = json.dumps("\n")
_WORDS_TOKENS = 64


def _completion(shots: str, question: str, label: str, grammar: str) -> Body:
    prompt = f"{shots}Question: {one_line(question, MOST_QUESTION_CHARS)}\n{label}:"
    body: Body = {"prompt": prompt, "max_tokens": _WORDS_TOKENS, "temperature": 0}
    return body | {"grammar": grammar} if grammar else body


def _up_to(kept: Sequence[int], at: int, end: int) -> range:
    """Return the positions that may follow `at`, up to the next word that must not be left out."""
    return range(at + 1, next((place + 1 for place in kept if place > at), end))


def _runs(words: Sequence[str], following: Mapping[int, range], kept: Collection[int] = ()) -> str:
    """Return a grammar (GBNF) of runs of `words`.

    `following` maps a position (-1: the start) to the positions that may follow it.
    """
    last = max(kept, default=-1)
    lines = [f"root ::= {_either(following[-1])} {_NEWLINE}"]
    for at, word in enumerate(words):
        after = f" {_either(following[at])}{'' if at < last else '?'}" if following[at] else ""
        lines.append(f"w{at} ::= {_literal(f' {word}')}{after}")
    return "\n".join(lines)


def _either(places: Iterable[int]) -> str:
    return f"({' | '.join(f'w{at}' for at in places)})"


def _literal(text: str) -> str:
    """Return a text as a literal of the grammar: quoted and escaped as in JSON, non-ASCII characters kept."""
    return json.dumps(text, ensure_ascii=False)
