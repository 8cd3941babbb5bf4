"""The insight of a day: of each part the sentence that tells most, titled, and of these a headline; it prints nothing.

Which sentences come into question is counted (`sentence_ranking`); which one it is, and its title, a model says.
What is shown in quotation marks is always a sentence of the source: the model chooses, it does not write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

from msgspec import Struct

from muse.errors import ConfigError, MuseError
from muse.journal.prompts import load_prompt
from think.entries.transcripts import Part
from think.llm.cached_calls import Questions
from think.llm.multiple_choice import MOST_CHOICES, choice_question, listed
from think.llm.paths import TOPICS
from think.llm.sentence_ranking import Sentence, Weights, sentences_of
from think.llm.title_prompt import title_question

CONTEXT = "insight.daily"
TITLE_CONTEXT = "insight.daily.title"
BUILT_IN = "daily"
"""The topic that is no file."""

_T = TypeVar("_T")


class Finding(Struct, frozen=True, omit_defaults=True):
    """What a part came to: a sentence of it and a title, or why there is none (`error`)."""

    source: str
    at: str
    duration_s: int = 0
    title: str = ""
    sentence: str = ""
    speaker: str = ""
    said_at: str = ""
    error: str = ""


class Digest(Struct, frozen=True, omit_defaults=True):
    """The insight of a day; `headline` is the source of the finding that heads it ("" if none could be chosen)."""

    day: str
    findings: tuple[Finding, ...]
    headline: str = ""
    error: str = ""

    @property
    def failed(self) -> bool:
        """Whether something is missing in it."""
        return bool(self.error) or any(finding.error for finding in self.findings)


def count_questions(parts: Sequence[Part]) -> int:
    """How many questions a day takes at most: a choice for each part, a title where it has none, the headline."""
    return sum(1 if part.heading else 2 for part in parts) + 1


async def make_digest(day: str, parts: Sequence[Part], questions: Questions) -> Digest:
    """The insight of a day; a part whose question fails keeps its error, and the others go on.

    All choices come before all titles: a model of one's own then reads the examples of the title prompt once.

    Raises:
        ConfigError: no question can be asked at all (no such provider, no key, no model).
    """
    everything = [sentences_of(part) for part in parts]
    weights = Weights(sentence for sentences in everything for sentence in sentences)
    pools = [weights.shortlist(sentences, MOST_CHOICES) for sentences in everything]
    chosen = await _all(
        partial(_choose, pool, part.segment, questions) for part, pool in zip(parts, pools, strict=True)
    )
    found = await _all(partial(_entitle, part, choice, questions) for part, choice in zip(parts, chosen, strict=True))
    findings = tuple(
        _failed(part, outcome) if isinstance(outcome, MuseError) else outcome
        for part, outcome in zip(parts, found, strict=True)
    )
    return await _with_headline(Digest(day, findings), weights, questions)


async def _all(jobs: Iterable[Callable[[], Awaitable[_T]]]) -> list[_T | MuseError]:
    """What each job gave: its result, or why its call failed; an error of the configuration ends them all."""
    return await asyncio.gather(*map(_outcome, jobs))


async def _outcome(job: Callable[[], Awaitable[_T]]) -> _T | MuseError:
    try:
        return await job()
    except ConfigError:
        raise
    except MuseError as exc:
        return exc


async def _choose(pool: Sequence[Sentence], segment: str, questions: Questions) -> Sentence:
    """The sentence of `pool` that tells most; of one there is no choice."""
    if len(pool) == 1:
        return pool[0]
    texts = {sentence.text: sentence for sentence in pool}
    prompt = load_prompt("daily", TOPICS, {"sentences": listed(list(texts))}).text
    return texts[await questions.ask(choice_question(CONTEXT, prompt, list(texts), segment))]


async def _entitle(part: Part, choice: Sentence | MuseError, questions: Questions) -> Finding:
    """The finding of a part: its own heading is its title, else a model makes one of the sentence."""
    if isinstance(choice, MuseError):
        raise choice
    title = part.heading
    if not title:
        title = await questions.ask(title_question(TITLE_CONTEXT, choice.text, part.segment))
    return Finding(part.source, part.at, part.duration_s, title, choice.text, choice.speaker, choice.at)


def _failed(part: Part, error: MuseError) -> Finding:
    return Finding(part.source, part.at, part.duration_s, part.heading, error=_error_text(error))


def _error_text(error: MuseError) -> str:
    return f"{type(error).__name__}: {error}"


async def _with_headline(digest: Digest, weights: Weights, questions: Questions) -> Digest:
    """The digest with its headline, chosen among the findings that tell most."""
    by_text = {finding.sentence: finding for finding in digest.findings if not finding.error}
    if not by_text:
        return digest
    pool = weights.shortlist(
        (Sentence(text, found.speaker, found.said_at) for text, found in by_text.items()), MOST_CHOICES
    )
    head = await _outcome(partial(_choose, pool, "", questions))
    if isinstance(head, MuseError):
        return Digest(digest.day, digest.findings, error=_error_text(head))
    return Digest(digest.day, digest.findings, by_text[head.text].source)
