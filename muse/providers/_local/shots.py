"""The prompts for the small model: a few solved examples, then the case at hand, to be continued under a grammar.

It continues examples well and follows instructions badly, so that nothing here is an instruction. The examples are about
nobody's journal: nothing in them can leak into an answer unseen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from muse.providers._local.words import is_telling, words_of

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


def search_words(question: str, label: str) -> Body | None:
    """Asks for the telling words of a question, in their order; None if it has none."""
    words = [word for word in words_of(question) if is_telling(word)]
    shots = "".join(f"Question: {asked}\n{label}: {found}\n\n" for asked, found in _SEARCHES)
    return _completion(shots, question, label, _runs(words, with_gaps=True)) if words else None


def copied_words(question: str, label: str) -> Body | None:
    """Asks for the piece of a question that belongs to an argument; None if it has no words."""
    words = words_of(question)
    shots = "".join(f"Question: {asked}\n{named}: {found}\n\n" for asked, named, found in _COPIES)
    return _completion(shots, question, label, _runs(words, with_gaps=False)) if words else None


def choice(question: str, label: str, values: Sequence[str]) -> Body:
    """Asks for one of the values an argument may have."""
    shots = "".join(f"Question: {asked}\n{named} ({known}): {found}\n\n" for asked, named, known, found in _CHOICES)
    grammar = f"root ::= ({' | '.join(_literal(f' {value}') for value in values)}) {_NEWLINE}"
    return _completion(shots, question, f"{label} ({', '.join(values)})", grammar)


def phrasing(question: str, passage: str) -> Body:
    """Asks for an answer in a sentence, out of one passage."""
    shots = "".join(f"{said}\nQuestion: {asked}\nAnswer: {told}\n\n" for said, asked, told in _ANSWERS)
    body = _completion(f"{shots}{one_line(passage, MOST_PASSAGE_CHARS)}\n", question, "Answer", "")
    return body | {"max_tokens": _ANSWER_TOKENS, "stop": ["\n"]}


def one_line(text: str, most_chars: int) -> str:
    """A text in one line, cut at a word where it is too long."""
    plain = re.sub(r"\s+", " ", text).strip()
    return plain if len(plain) <= most_chars else plain[:most_chars].rpartition(" ")[0] + " …"


_NEWLINE = json.dumps("\n")
_WORDS_TOKENS = 64


def _completion(shots: str, question: str, label: str, grammar: str) -> Body:
    prompt = f"{shots}Question: {one_line(question, MOST_QUESTION_CHARS)}\n{label}:"
    body: Body = {"prompt": prompt, "max_tokens": _WORDS_TOKENS, "temperature": 0}
    return body | {"grammar": grammar} if grammar else body


def _runs(words: Sequence[str], *, with_gaps: bool) -> str:
    """A grammar (GBNF) of the runs of `words` in their order: of neighbours, or with gaps between them."""
    lines = [f"root ::= ({' | '.join(f'w{at}' for at in range(len(words)))}) {_NEWLINE}"]
    for at, word in enumerate(words):
        reach = range(at + 1, len(words) if with_gaps else min(at + 2, len(words)))
        more = f" ({' | '.join(f'w{later}' for later in reach)})?" if reach else ""
        lines.append(f"w{at} ::= {_literal(f' {word}')}{more}")
    return "\n".join(lines)


def _literal(text: str) -> str:
    """A text as a literal of the grammar: quoted and escaped as in JSON, all characters kept."""
    return json.dumps(text, ensure_ascii=False)
