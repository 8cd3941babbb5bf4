"""Titles of sentences: how one is asked for, what it may be made of, how it is read; it knows no model.

A small model that may write anything writes nonsense. So the grammar lets it choose among the pieces of the sentence
itself; a model that takes no grammar follows the examples in the prompt instead and may put it better.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from muse.errors import InvalidReply
from muse.journal.prompts import load_prompt
from think.llm.cached_calls import MOST_TOKENS, Question
from think.llm.paths import TOPICS
from think.llm.sentence_ranking import telling_words, words, words_of

_SHORTEST, _LONGEST = 3, 7
_MOST_WORDS = 45
_LONGEST_CHARS = 90
_LOOSE_ENDS = words("a an and as at but by for from if in into is of on or so than that the then to until with")
_LABEL = re.compile(r"^(?:title\s*:)?[\s\"“'*#]*", re.IGNORECASE)


def title_pieces(sentence: str) -> list[str]:
    """The runs of three to seven words of a sentence that may be a title, first letter a capital, each once.

    >>> title_pieces("The soak ends on Monday.")
    ['The soak ends', 'The soak ends on Monday', 'Soak ends on Monday', 'Ends on Monday']
    """
    said = words_of(sentence)[:_MOST_WORDS]
    if len(said) <= _SHORTEST:
        return [_capital(" ".join(said) or sentence)]
    runs = (
        said[start:end]
        for start in range(len(said))
        for end in range(start + _SHORTEST, min(start + _LONGEST, len(said)) + 1)
    )
    whole = [_capital(" ".join(run)) for run in runs if _says_something(run)]
    return list(dict.fromkeys(whole)) or [_capital(" ".join(said[:_LONGEST]))]


def _says_something(run: Sequence[str]) -> bool:
    """Whether a run of words has two that tell something and does not end in the air."""
    return run[-1].lower() not in _LOOSE_ENDS and len(telling_words(" ".join(run))) >= 2


def title_grammar(sentence: str) -> str:
    """A GBNF grammar that admits the pieces of a sentence, each as the rest of a line."""
    pieces = (json.dumps(f" {piece}\n", ensure_ascii=False) for piece in title_pieces(sentence))
    return f"root ::= {' | '.join(pieces)}"


def title_question(context: str, sentence: str, segment: str = "") -> Question:
    """The question what a sentence may be called."""
    prompt = load_prompt("daily_title", TOPICS, {"sentence": sentence}).text
    options = {
        "complete": True,
        "grammar": title_grammar(sentence),
        "max_output_tokens": MOST_TOKENS,
        "thinking_budget": 0,
    }
    return Question(context, prompt, read_title, segment, options)


def read_title(text: str) -> str:
    """The title in a reply: its first line, without label, quotation marks and full stop.

    Raises:
        InvalidReply: there is none.
    """
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    title = _LABEL.sub("", line).rstrip(" .\"”'*")
    if not title:
        raise InvalidReply(f"title: found {text[:80]!r}, expected a line of text", text=text)
    if len(title) <= _LONGEST_CHARS:
        return title
    return (title[:_LONGEST_CHARS].rpartition(" ")[0] or title[:_LONGEST_CHARS]) + " …"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
