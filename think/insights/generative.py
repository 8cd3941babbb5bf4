"""A topic served by a model that reads a day: what it is asked, and what its replies hold; it sends nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from muse.journal.prompts import load_prompt, render
from muse.types.messages import Route
from think.entries.transcripts import Part, Utterance
from think.insights.definition import Topic, prompt_fields
from think.insights.validation import Checked, check_reply, merge, reply_schema
from think.llm.paths import PROMPTS

LEAST_TOKENS = 16_000
"""A model that holds fewer tokens is not asked to read; it chooses among sentences (`think.insights.extractive`)."""

_SHARE = 0.4  # of what a model holds, for what it reads: the rest is for rules, schema and answer
_MOST_TOKENS = 48_000  # beyond that models pass over what stands in the middle
_BYTES_A_TOKEN = 3  # fewer than any of the models' tokenizers needs for prose
_LONGEST_LINE = 2_000  # characters


class Ask(Struct, frozen=True):
    """One question about some parts of a day; `key` names all its answer depends on."""

    key: str
    prompt: str
    schema: Mapping[str, Any]
    parts: tuple[Part, ...]


def asks_of(topic: Topic, parts: Sequence[Part], route: Route, days: tuple[str, str], context_tokens: int) -> list[Ask]:
    """What is to be asked for a topic: one question, or several where the parts do not fit into one.

    `days` are the first and the last (`YYYYMMDD`), `context_tokens` what the model of `route` holds.

    Raises:
        ConfigError: the topic's text has a field that is not known.
    """
    fields = prompt_fields(*days)
    task = render(topic.prompt, fields, where=topic.path)
    span = fields["day"] if days[0] == days[1] else f"{fields['first_date']} to {fields['date']}"
    most_bytes = int(min(context_tokens * _SHARE, _MOST_TOKENS)) * _BYTES_A_TOKEN
    return [_ask(topic, task, span, chunk, route) for chunk in chunks_of(parts, most_bytes)]


def read_answers(asks: Sequence[Ask], answers: Mapping[str, str]) -> Checked:
    """The occurrences in all answers, each once."""
    checked = [check_reply(answers[ask.key], ask.parts, ask.schema) for ask in asks]
    found = merge(one for each in checked for one in each.occurrences)
    return Checked(found, sum(each.dropped for each in checked))


def chunks_of(parts: Sequence[Part], most_bytes: int) -> list[tuple[Part, ...]]:
    """Parts in groups of at most `most_bytes` as they are shown; a longer one is cut between its utterances."""
    chunks: list[tuple[Part, ...]] = []
    begun: list[Part] = []
    room = most_bytes
    for piece in (piece for part in parts for piece in _pieces(part, most_bytes)):
        size = _size(piece)
        if begun and size > room:
            chunks.append(tuple(begun))
            begun, room = [], most_bytes
        begun.append(piece)
        room -= size
    return [*chunks, tuple(begun)] if begun else chunks


def _ask(topic: Topic, task: str, span: str, parts: tuple[Part, ...], route: Route) -> Ask:
    entries = "\n\n".join(map(_shown, parts))
    prompt = load_prompt("reading", PROMPTS, {"task": task, "span": span, "entries": entries}).text
    schema = reply_schema(topic.schema, [part.source for part in parts])
    asked = [topic.context, route.provider, route.model, prompt, schema]
    key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]
    return Ask(key, prompt, schema, parts)


def _pieces(part: Part, most_bytes: int) -> Iterator[Part]:
    """The part, or where it is too long its utterances in several."""
    said: list[Utterance] = []
    room = most_bytes - _head_size(part)
    for utterance in (piece for one in part.utterances for piece in _lines(one)):
        size = len(_line(utterance).encode()) + 1
        if said and size > room:
            yield replace(part, utterances=tuple(said))
            said, room = [], most_bytes - _head_size(part)
        said.append(utterance)
        room -= size
    if said:
        yield replace(part, utterances=tuple(said))


def _lines(said: Utterance) -> Iterator[Utterance]:
    """An utterance, or pieces of one that is very long, cut between words."""
    text, begin = said.text, 0
    while len(text) - begin > _LONGEST_LINE:
        blank = text.rfind(" ", begin + _LONGEST_LINE // 2, begin + _LONGEST_LINE)
        end = blank if blank > 0 else begin + _LONGEST_LINE
        yield replace(said, text=text[begin:end].strip())
        begin = end
    yield replace(said, text=text[begin:].strip())


def _shown(part: Part) -> str:
    return "\n".join((_head(part), *map(_line, part.utterances)))


def _head(part: Part) -> str:
    what = f" ({part.heading})" if part.heading else ""
    return f"## {part.source}{what}"


def _line(said: Utterance) -> str:
    named = f"{said.speaker}: {said.text}" if said.speaker else said.text
    return f"{said.at} {named}" if said.at else named


def _head_size(part: Part) -> int:
    return len(_head(part).encode()) + 2


def _size(part: Part) -> int:
    return _head_size(part) + sum(len(_line(said).encode()) + 1 for said in part.utterances)
