"""What a summary is and how it comes about: written or chosen by a model; it keeps nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from muse.types.formatting import total_usd
from observe.llm.checked_call import Answer, Question, Room, ask, object_of
from observe.llm.prompts import prompt_of
from observe.summaries.sources import SCREEN_SPEAKER, Source
from observe.transcripts.chunking import chunks
from observe.transcripts.parser import Utterance, plain, said_line
from observe.transcripts.ranking import Sentence, sentences_of, telling

CONTEXT = "observe.summarize"
MOST_PARTS = 5
_CHOICES = 5
_PART_CHARS = 900
_MOST_TOKENS = 6_000
_MOST_POINTS = 20


class Todo(Struct, frozen=True):
    """What somebody is to do; `who` and `due` are "" where that was not said."""

    who: str
    what: str
    due: str


class Quote(Struct, frozen=True):
    """A sentence as it stands in the source; `start_s` counts from the start of the segment."""

    text: str
    speaker: str
    start_s: float | None


class Summary(Struct, frozen=True, omit_defaults=True):
    """What it came to: written (`text` and lists), or chosen (`quotes`)."""

    title: str
    made_by: str
    text: str = ""
    points: tuple[str, ...] = ()
    decisions: tuple[str, ...] = ()
    todos: tuple[Todo, ...] = ()
    quotes: tuple[Quote, ...] = ()
    pieces: int = 1
    cost_usd: float | None = 0.0


async def write_summary(source: Source, room: Room, segment: str) -> Summary:
    """A summary that a model writes; what is long in pieces, and these once more.

    Raises:
        InvalidReply: a reply did not fit, twice.
        MuseError: a call failed.
    """
    pieces = chunks(source.utterances, room.chunk_chars)
    parts = [await _written("summarize", "\n".join(map(said_line, piece)), segment) for piece in pieces]
    spent = [part.cost_usd for part in parts]
    while len(parts) > 1:
        together = chunks([Utterance(None, "", _told(part)) for part in parts], room.chunk_chars)
        if len(together) >= len(parts):
            together = [
                tuple(one for pair in together[place : place + 2] for one in pair)
                for place in range(0, len(together), 2)
            ]
        parts = [await _written("summarize_joined", "\n\n".join(map(said_line, group)), segment) for group in together]
        spent += (part.cost_usd for part in parts)
    return replace(parts[0], pieces=len(pieces), cost_usd=total_usd(spent))


async def choose_summary(source: Source, segment: str) -> Summary:
    """A summary of sentences that a model chooses: one of each part of the talk.

    Raises:
        InvalidReply: a reply did not fit, twice.
        MuseError: a call failed.
    """
    every = sentences_of(source.utterances)
    length = sum(len(said_line(one)) for one in source.utterances)
    parts = chunks(source.utterances, max(_PART_CHARS, -(-length // MOST_PARTS) + 1))
    quotes: dict[str, Quote] = {}
    made_by, spent = "nobody: there was no choice", list[float | None]()
    for part in parts:
        pool = telling(sentences_of(part), every, _CHOICES)
        if len(pool) == 1:
            quotes.setdefault(pool[0].text, Quote(pool[0].text, pool[0].speaker, pool[0].start_s))
            continue
        found = await ask(_choice(pool, segment))
        made_by = found.made_by
        spent.append(found.cost_usd)
        best = next(one for one in pool if one.text == found.value["sentence"])
        quotes.setdefault(best.text, Quote(best.text, best.speaker, best.start_s))
    return Summary(_title(source), made_by, quotes=tuple(quotes.values()), pieces=len(parts), cost_usd=total_usd(spent))


def _choice(pool: Sequence[Sentence], segment: str) -> Question:
    texts = [one.text for one in pool]
    prompt = prompt_of("summarize_choose", {"sentences": "\n".join(f"- {text}" for text in texts)})
    schema = object_of({"sentence": {"type": "string", "enum": texts}})
    return Question(CONTEXT, prompt, schema, segment=segment, options={"max_output_tokens": 600})


def _title(source: Source) -> str:
    """What can be said without a model: who spoke."""
    names = source.speakers
    if not names:
        seen = all(one.speaker == SCREEN_SPEAKER for one in source.utterances)
        return "On the screen" if seen else "What was said"
    if len(names) == 1:
        return f"{names[0]} speaks"
    named = list(names) if len(names) <= 3 else [*names[:2], f"{len(names) - 2} others"]
    return f"Talk of {', '.join(named[:-1])} and {named[-1]}"


async def _written(prompt: str, text: str, segment: str) -> Summary:
    asked = prompt_of(prompt, {"text": text})
    options = {"max_output_tokens": _MOST_TOKENS}
    return _read(await ask(Question(CONTEXT, asked, _SCHEMA, _check, segment, options)))


def _list_of(item: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


_TEXT = {"type": "string"}
_SCHEMA: Mapping[str, Any] = object_of(
    {
        "title": _TEXT,
        "summary": _TEXT,
        "points": _list_of(_TEXT),
        "decisions": _list_of(_TEXT),
        "todos": _list_of(object_of({"who": _TEXT, "what": _TEXT, "due": _TEXT})),
    }
)


def _check(value: Any) -> None:
    for name in ("title", "summary"):
        if not plain(value[name]):
            raise ValueError(f"{name}: found nothing, expected text")


def _read(answer: Answer) -> Summary:
    value = answer.value
    points, decisions = (
        tuple(text for one in value[name][:_MOST_POINTS] if (text := plain(one))) for name in ("points", "decisions")
    )
    rows = value["todos"][:_MOST_POINTS]
    todos = (Todo(plain(one["who"]), plain(one["what"]), plain(one["due"])) for one in rows)
    return Summary(
        plain(value["title"]),
        answer.made_by,
        plain(value["summary"]),
        points,
        decisions,
        tuple(todo for todo in todos if todo.what),
        cost_usd=answer.cost_usd,
    )


def _told(part: Summary) -> str:
    """A piece's summary as text, to be summed up with the others."""
    todos = [" ".join(filter(None, (todo.who, todo.what, todo.due))) for todo in part.todos]
    lists = (("Points", part.points), ("Decisions", part.decisions), ("To do", todos))
    told = " ".join(f"{name}: {'; '.join(rows)}." for name, rows in lists if rows)
    return f"{part.title}. {part.text} {told}".strip()
