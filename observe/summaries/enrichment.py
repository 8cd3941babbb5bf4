"""Topics, setting and emotion of a transcript, as a model finds them; it keeps nothing.

A model that holds a few pages at most is shown a glance of a page at a time, may only choose topics among phrases of
that page, and is bound to the form by a grammar; the pages are put together by counting. Its choice is a guess.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from muse.types.formatting import total_usd
from observe.llm.checked_call import Answer, Question, ask, object_of, room_of
from observe.llm.prompts import prompt_of
from observe.summaries.sources import Source
from observe.transcripts.chunking import chunks
from observe.transcripts.parser import Utterance, said_line
from observe.transcripts.ranking import phrases_of

CONTEXT = "observe.enrich"
SETTINGS = ("meeting", "call", "interview", "conversation", "presentation", "lesson", "dictation", "media", "other")
EMOTIONS = ("calm", "pleased", "excited", "tense", "worried", "annoyed", "sad", "tired", "mixed")
MOST_TOPICS = 6
_PHRASES = 8
MOST_GLANCES = 40
"""Of one transcript, for a small model: a page takes it a second or two."""
Page = tuple[Utterance, ...]
_GLANCE_CHARS = 700
_MOST_TOKENS = 2_000


class Speaker(Struct, frozen=True):
    """Who spoke, and the share of the words (0 to 1)."""

    name: str
    share: float


class Enrichment(Struct, frozen=True):
    """What a transcript is about; `settings` and `emotions` say in how many of its `pages` each was found.

    A small model is shown `pages` of the `of_pages` that there are, from all of it.
    """

    topics: tuple[str, ...]
    setting: str
    emotion: str
    settings: dict[str, int]
    emotions: dict[str, int]
    pages: int
    of_pages: int
    speakers: tuple[Speaker, ...]
    words: int
    made_by: str
    cost_usd: float | None = 0.0


async def enrich(source: Source, *, segment: str = "") -> Enrichment:
    """The enrichment of what was said; `segment` names it in the token log.

    Raises:
        InvalidReply: a reply did not fit, twice.
        MuseError: a call failed.
    """
    room = room_of(CONTEXT)
    pages = chunks(source.utterances, room.chunk_chars)
    looked = pages if room.writes else _spread(pages, MOST_GLANCES)
    phrases = () if room.writes else phrases_of(source.utterances, 4 * _PHRASES)
    offers = [None if room.writes else _offered(page, phrases, source) for page in looked]
    answers = [await ask(_question(page, segment, offered)) for page, offered in zip(looked, offers, strict=True)]
    return _joined(source, answers, len(pages))


def _spread(pages: Sequence[Page], most: int) -> list[Page]:
    """At most so many of the pages, from the first to the last in equal steps."""
    count = min(most, len(pages))
    return [pages[number * (len(pages) - 1) // max(1, count - 1)] for number in range(count)]


def summary_of(made: Enrichment) -> str:
    """An enrichment in a few words."""
    return f"{made.setting}, {made.emotion}: {', '.join(made.topics)}"


class _Offered(Struct, frozen=True):
    """What a small model may choose among for a page."""

    settings: tuple[str, ...]
    phrases: tuple[str, ...]


def _offered(page: Page, phrases: Sequence[str], everything: Source) -> _Offered:
    return _Offered(_settings_for(len(everything.speakers)), _phrases_of(page, phrases))


def _question(page: Page, segment: str, offered: _Offered | None) -> Question:
    """What is asked about a page of a transcript; a small model chooses among what is `offered` to it."""
    settings, phrases = (offered.settings, offered.phrases) if offered else (SETTINGS, ())
    said = "\n".join(map(said_line, page)) if offered is None else " ".join(map(said_line, page))[:_GLANCE_CHARS]
    fields = {"settings": ", ".join(settings), "emotions": ", ".join(EMOTIONS), "transcript": said}
    prompt = prompt_of("enrich" if offered is None else "enrich_choose", fields)
    options: dict[str, Any] = {"max_output_tokens": _MOST_TOKENS}
    if phrases:
        options |= {"complete": True, "grammar": _grammar(settings, phrases)}
    return Question(CONTEXT, prompt, _schema(settings, phrases), _check, segment, options)


def _settings_for(speakers: int) -> tuple[str, ...]:
    """The settings that so many speakers leave open; 0 is for a transcript without names."""
    if speakers == 1:
        return ("dictation", "presentation")
    return ("meeting", "presentation", "lesson") if speakers > 4 else SETTINGS[:-1]


def _phrases_of(page: Page, everywhere: Sequence[str]) -> tuple[str, ...]:
    """Phrases that may be topics of a page: those of the whole transcript that stand in it, or else its own."""
    said = " ".join(one.text for one in page).casefold()
    found = tuple(one for one in everywhere if one.casefold() in said)[:_PHRASES]
    return found or phrases_of(page, _PHRASES) or (page[0].text[:40],)


def _schema(settings: Sequence[str], phrases: Sequence[str]) -> dict[str, Any]:
    topic: dict[str, Any] = {"type": "string", "enum": list(phrases)} if phrases else {"type": "string"}
    return object_of(
        {
            "setting": {"type": "string", "enum": list(settings)},
            "emotion": {"type": "string", "enum": list(EMOTIONS)},
            "topics": {"type": "array", "items": topic},
        }
    )


def _grammar(settings: Sequence[str], phrases: Sequence[str]) -> str:
    """The schema as a grammar (GBNF) in the order and spacing of the examples."""
    of_settings, of_moods, of_topics = (" | ".join(map(_literal, names)) for names in (settings, EMOTIONS, phrases))
    found = r'root ::= " {\"setting\": " setting ", \"emotion\": " mood ", \"topics\": [" topics "]}"'
    topics = 'topics ::= topic (", " topic){1,3}'
    return f"{found}\n{topics}\nsetting ::= {of_settings}\nmood ::= {of_moods}\ntopic ::= {of_topics}"


def _literal(text: str) -> str:
    """A text in quotation marks, as a literal of the grammar."""
    return json.dumps(json.dumps(text, ensure_ascii=False), ensure_ascii=False)


def _check(value: Any) -> None:
    topics = [topic for topic in value["topics"] if topic.strip()]
    if not topics:
        raise ValueError("topics: found none, expected one to six")


def _joined(source: Source, answers: Sequence[Answer], of_pages: int) -> Enrichment:
    """The pages of a transcript put together: topics that come again first, the setting and mood of most."""
    topics: Counter[str] = Counter()
    shown: dict[str, str] = {}
    for answer in answers:
        for topic in dict.fromkeys(" ".join(topic.split()) for topic in answer.value["topics"]):
            topics[topic.casefold()] += bool(topic)
            shown.setdefault(topic.casefold(), topic)
    settings = Counter(answer.value["setting"] for answer in answers)
    emotions = Counter(answer.value["emotion"] for answer in answers)
    words = Counter[str]()
    for one in source.utterances:
        words[one.speaker] += len(one.text.split())
    total = words.total() or 1
    return Enrichment(
        tuple(shown[key] for key, count in topics.most_common(MOST_TOPICS) if count),
        settings.most_common(1)[0][0],
        emotions.most_common(1)[0][0],
        dict(settings.most_common()),
        dict(emotions.most_common()),
        len(answers),
        of_pages,
        tuple(Speaker(name, round(count / total, 3)) for name, count in words.most_common() if name),
        words.total(),
        answers[-1].made_by,
        total_usd(answer.cost_usd for answer in answers),
    )
