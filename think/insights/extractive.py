"""A topic served by a model that reads little at a time: rules point out sentences, it chooses among them and titles.

Nothing in an occurrence is made up then: its fields are filled with a sentence of the source, who said it, where and
when, and a title of the sentence's own words. What no rule points out is not found.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from msgspec import Struct

from muse.errors import ConfigError, MuseError
from muse.journal import config_loader, paths
from muse.journal.prompts import load_prompt
from muse.types.json_schema.validation import validate
from think.entries.entries import Event, read_events
from think.entries.people import full_name, people_of
from think.entries.sources import EVENTS
from think.entries.transcripts import Part
from think.insights.definition import Choose, Topic
from think.insights.validation import Checked, Occurrence, merge
from think.llm.cached_calls import Questions
from think.llm.multiple_choice import MOST_CHOICES, choice_question, listed
from think.llm.paths import PROMPTS
from think.llm.sentence_ranking import LEAST_WORDS, Sentence, Weights, sentences_of, words_of
from think.llm.title_prompt import title_question

_CUE_FACTOR = 1.5
_DUE = re.compile(
    r"\b(?:(?:by|on|until|before|at)\s+)?(?:the end of\s+)?(?:today|tomorrow|tonight|next week|this week|"
    r"(?:mon|tues|wednes|thurs|fri|satur|sun)day)(?:\s+(?:morning|noon|afternoon|evening|night))?\b",
    re.IGNORECASE,
)
_NEAR_MINUTES = 10

_T = TypeVar("_T")


class Pool(Struct, frozen=True):
    """Sentences of which one is to be chosen, each with its part; `person` is whom they are about, if anybody."""

    choices: Mapping[str, tuple[Sentence, Part]]
    person: str = ""


def pools_of(topic: Topic, choose: Choose, parts: Sequence[Part], events: Sequence[Event]) -> list[Pool]:
    """What is to be chosen from: for each part, person or day the sentences that tell most and have a cue."""
    spoken = [part for part in parts if part.source != EVENTS]
    every = [(sentence, part) for part in spoken for sentence in sentences_of(part)]
    weights = Weights(sentence for sentence, _ in every)
    needs_speaker = any(choose.fields.get(name) == "speaker" for name in topic.schema.get("required", ()))
    cue = cue_pattern(choose.cues)
    pools = []
    for person, group in _groups(choose, every, spoken, events):
        fit = [one for one in group if cue.search(one[0].text) and (one[0].speaker or not needs_speaker)]
        telling = [one for one in fit if len(words_of(one[0].text)) >= LEAST_WORDS]
        if not choose.cues:  # then every part, person or day has one, if need be a short one
            telling = telling or fit
        ranked = sorted(
            telling, key=lambda one: -weights.weight(one[0].text) * _CUE_FACTOR ** _cues_in(cue, one[0].text)
        )
        if ranked:
            pools.append(Pool({one[0].text: one for one in ranked[:MOST_CHOICES]}, person))
    return pools


def cue_pattern(cues: Sequence[str]) -> re.Pattern[str]:
    """What a sentence needs to come into question: one of the cues, as a word or a sign; without cues it needs none."""
    signs = [rf"(?<!\w){re.escape(cue)}(?!\w)" if cue[-1:].isalnum() else re.escape(cue) for cue in cues]
    return re.compile("|".join(signs).replace("'", "['’]"), re.IGNORECASE)


def count_questions(topic: Topic, pools: Sequence[Pool]) -> int:
    """How many questions a topic takes at most."""
    return len(pools) * (2 if _is_titled(topic) else 1)


async def choose_occurrences(topic: Topic, pools: Sequence[Pool], day: str, questions: Questions) -> Checked:
    """The occurrences of a topic: of each pool the sentence that a model chooses, with what is known about it.

    All choices come before all titles: a model of one's own then reads the examples of the title prompt once.

    Raises:
        MuseError: a question failed; the others were asked all the same, and their answers are remembered.
    """
    if topic.choose is None:
        raise ConfigError(f"{topic.path}: choose", "nothing", "this field, for a model that reads little at a time")
    chosen = await _all([_choose(topic, topic.choose, pool, questions) for pool in pools])
    is_titled = _is_titled(topic)
    titles = await _all([_entitle(topic, text, questions) for text in chosen]) if is_titled else [""] * len(chosen)
    events = read_events(paths.journal_path(), day)
    found: list[Occurrence] = []
    for pool, text, title in zip(pools, chosen, titles, strict=True):
        sentence, part = pool.choices[text]
        known = _Known(sentence, part, pool.person, title, tuple(events))
        found += _occurrence(topic, topic.choose, known)
    return Checked(merge(found), len(pools) - len(found))


class _Known(Struct, frozen=True):
    """What the fields of an occurrence can be filled with."""

    sentence: Sentence
    part: Part
    person: str
    title: str
    events: tuple[Event, ...]


def _groups(
    choose: Choose, every: Sequence[tuple[Sentence, Part]], parts: Sequence[Part], events: Sequence[Event]
) -> Iterator[tuple[str, list[tuple[Sentence, Part]]]]:
    """`(person or "", sentences)` of each part, day or person."""
    if choose.by != "person":
        groups: dict[str, list[tuple[Sentence, Part]]] = {}
        for sentence, part in every:
            groups.setdefault(part.at if choose.by == "day" else part.source, []).append((sentence, part))
        yield from (("", group) for group in groups.values())
        return
    for person in people_of(parts, events, config_loader.load().config.identity):
        own = [one for one in every if one[0].speaker == person.short]
        yield person.name, own or [one for one in every if person.is_in(one[0].text)]


def _cues_in(cue: re.Pattern[str], text: str) -> int:
    """How many different cues a text has, two at most."""
    return min(len({found.lower() for found in cue.findall(text) if found}), 2)


def _is_titled(topic: Topic) -> bool:
    return topic.choose is not None and "title" in topic.choose.fields.values()


async def _all(jobs: Sequence[Awaitable[_T]]) -> list[_T]:
    """What each job gives.

    Raises:
        MuseError: of the first that failed, when all are over.
    """
    found = await asyncio.gather(*jobs, return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException) and not isinstance(one, MuseError):
            raise one
    for one in found:
        if isinstance(one, MuseError):
            raise one
    return [one for one in found if not isinstance(one, BaseException)]


async def _choose(topic: Topic, choose: Choose, pool: Pool, questions: Questions) -> str:
    """The sentence of a pool that a model chooses; of one there is no choice."""
    texts = list(pool.choices)
    if len(texts) == 1:
        return texts[0]
    prompt = load_prompt("choosing", PROMPTS, {"sentences": listed(texts), "question": choose.question}).text
    return await questions.ask(choice_question(topic.context, prompt, texts))


async def _entitle(topic: Topic, text: str, questions: Questions) -> str:
    """A title for a sentence; a small model makes it of the sentence's own words."""
    return await questions.ask(title_question(f"{topic.context}.title", text))


def _occurrence(topic: Topic, choose: Choose, known: _Known) -> Iterator[Occurrence]:
    """The occurrence, if what is known fills its schema."""
    filled = {name: _FILL[filler](known) for name, filler in choose.fields.items()}
    fields = {name: value for name, value in filled.items() if value}
    try:
        validate(fields, topic.schema)
    except ValueError:  # it is left out, and the count of what was dropped says so
        return
    sentence, part = known.sentence, known.part
    yield Occurrence(fields, sentence.text, part.source, sentence.at or part.at, sentence.speaker)


def _speakers(known: _Known) -> list[str]:
    named = dict.fromkeys(said.speaker for said in known.part.utterances if said.speaker)
    invited = [name for event in known.events for name in event.participants]
    return [full_name(name, invited) for name in named]


def _heading(known: _Known) -> str:
    """What a part is called: by its writer, else by the appointment at that time."""
    if known.part.heading:
        return known.part.heading
    begin = _minutes(known.part.at)
    near = [event for event in known.events if abs(_minutes(event.start[11:16]) - begin) <= _NEAR_MINUTES]
    return near[0].title if near and near[0].title else f"Conversation at {known.part.at}"


def _minutes(clock: str) -> int:
    hours, _, minutes = clock.partition(":")
    return int(hours) * 60 + int(minutes) if hours.isdigit() and minutes.isdigit() else -_NEAR_MINUTES - 1


def _due(known: _Known) -> str:
    found = _DUE.search(known.sentence.text)
    return found[0] if found else ""


_FILL: Mapping[str, Any] = {
    "title": lambda known: known.title,
    "sentence": lambda known: known.sentence.text,
    "speaker": lambda known: known.sentence.speaker,
    "speakers": _speakers,
    "person": lambda known: known.person,
    "heading": _heading,
    "due": _due,
}
