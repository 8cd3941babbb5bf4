"""Where one conversation ends and another begins in a transcript: signs by rule, the decision by a model.

A pause of a quarter of an hour or a clock that goes back is a boundary without a question. A model that holds a few
pages at most is asked yes or no about the other signs; a larger one reads the lines, with the signs as hints.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from muse.types.formatting import total_usd
from observe.llm.checked_call import Answer, Question, Room, ask, object_of, room_of
from observe.llm.prompts import prompt_of
from observe.transcripts.parser import Utterance, said_line
from observe.transcripts.ranking import phrases_of

CONTEXT = "observe.detect.segment"
PAUSE_S, SURE_PAUSE_S = 120.0, 900.0
_WINDOW, _LEAST_BEFORE = 12, 3
_STRANGERS = 0.34
_GLANCE_CHARS = 160
_LINE_CHARS = 600
_MOST_ASKED = 40
_OPENING = re.compile(
    r"^\W*(good (morning|afternoon|evening)|hello|hi (all|everyone|everybody|there)|welcome( back)?"
    r"|let'?s (start|begin)|shall we (start|begin)|guten (morgen|tag|abend)|hallo|bonjour|buenos)\b",
    re.IGNORECASE,
)
_HEADING = re.compile(r"^(#{1,6} |={2,}|-{3,}|\d{1,2}[:.]\d{2}\b.{0,60}$|(?:19|20)\d\d-\d\d-\d\d)")


class Sign(Struct, frozen=True):
    """A sign that utterance `place` (from 0) may begin another conversation; `is_sure` needs no question."""

    place: int
    why: str
    is_sure: bool = False


class Part(Struct, frozen=True):
    """One conversation: its utterances from `first` to `last` (from 1), times in seconds, and why it begins there."""

    first: int
    last: int
    start_s: float | None
    end_s: float | None
    title: str
    why: str


class Divided(Struct, frozen=True):
    """A transcript divided, who said where, and what that cost."""

    parts: tuple[Part, ...]
    by: str
    cost_usd: float | None = 0.0


def signs_of(said: Sequence[Utterance]) -> tuple[Sign, ...]:
    """The signs in a transcript, in order, one for each place at most."""
    return tuple(sign for place in range(1, len(said)) if (sign := _sign(said, place)) is not None)


def _sign(said: Sequence[Utterance], place: int) -> Sign | None:
    before, now = said[place - 1], said[place]
    if before.start_s is not None and now.start_s is not None:
        pause_s = now.start_s - before.start_s
        if pause_s < 0:
            return Sign(place, "the clock goes back", is_sure=True)
        if pause_s >= PAUSE_S:
            return Sign(place, f"a pause of {pause_s / 60:.0f} minutes", is_sure=pause_s >= SURE_PAUSE_S)
    if _HEADING.match(now.text):
        return Sign(place, "a heading")
    if _OPENING.match(now.text):
        return Sign(place, "an opening")
    earlier, later = _voices(said[max(0, place - _WINDOW) : place]), _voices(said[place : place + _WINDOW])
    is_new = place >= _LEAST_BEFORE and now.speaker and now.speaker not in earlier
    if earlier and later and is_new and len(earlier & later) / min(len(earlier), len(later)) < _STRANGERS:
        return Sign(place, "other people")
    return None


def _voices(said: Sequence[Utterance]) -> set[str]:
    return {one.speaker for one in said if one.speaker}


async def divide(said: Sequence[Utterance]) -> Divided:
    """The conversations in a transcript.

    Raises:
        InvalidReply: a reply did not fit, twice.
        MuseError: a call failed.
    """
    signs = signs_of(said)
    room = room_of(CONTEXT)
    if room.writes:
        return await _read_through(said, signs, room)
    return await _decide(said, signs)


async def _decide(said: Sequence[Utterance], signs: Sequence[Sign]) -> Divided:
    """Ask yes or no about each sign that is not sure."""
    begins = {0: "the beginning"}
    by, spent = "rule", list[float | None]()
    asked = [sign for sign in signs if not sign.is_sure][:_MOST_ASKED]
    begins |= {sign.place: sign.why for sign in signs if sign.is_sure}
    for sign in asked:
        found = await ask(_yes_or_no(said, sign.place))
        by = found.made_by
        spent.append(found.cost_usd)
        if found.value["another"] == "yes":
            begins[sign.place] = sign.why
    titles = dict.fromkeys(begins, "")
    return Divided(_parts(said, begins, titles), by, total_usd(spent))


def _yes_or_no(said: Sequence[Utterance], place: int) -> Question:
    before, after = said[place - 1].text[-_GLANCE_CHARS:], said[place].text[:_GLANCE_CHARS]
    prompt = prompt_of("boundary_choose", {"before": before, "after": after})
    schema = object_of({"another": {"type": "string", "enum": ["yes", "no"]}})
    answers = " | ".join(json.dumps(f' {{"another": "{word}"}}') for word in ("yes", "no"))
    options = {"complete": True, "grammar": f"root ::= {answers}", "max_output_tokens": 600}
    return Question(CONTEXT, prompt, schema, options=options)


async def _read_through(said: Sequence[Utterance], signs: Sequence[Sign], room: Room) -> Divided:
    """Have a model read the lines, as many at once as it holds."""
    begins: dict[int, str] = {}
    titles: dict[int, str] = {}
    answers: list[Answer] = []
    why = {sign.place: sign.why for sign in signs}
    for first, last in _stretches(said, room.chunk_chars):
        found = await ask(_question(said, first, last, why))
        answers.append(found)
        for row in found.value["segments"]:
            place = row["first"] - 1
            goes_on = place == first and place > 0 and row["goes_on"]
            if not goes_on:
                begins[place] = why.get(place, "the beginning" if place == 0 else "as the model read it")
                titles[place] = " ".join(row["title"].split())
    for sign in signs:
        if sign.is_sure:
            begins.setdefault(sign.place, sign.why)
    spent = total_usd(answer.cost_usd for answer in answers)
    return Divided(_parts(said, begins, titles), answers[-1].made_by, spent)


def _stretches(said: Sequence[Utterance], most_chars: int) -> list[tuple[int, int]]:
    """`(first, last)` places of neighbouring utterances that fit into one question."""
    found: list[tuple[int, int]] = []
    first, filled = 0, 0
    for place, one in enumerate(said):
        chars = min(len(said_line(one)), _LINE_CHARS) + 8
        if filled and filled + chars > most_chars:
            found.append((first, place - 1))
            first, filled = place, 0
        filled += chars
    return [*found, (first, len(said) - 1)]


def _question(said: Sequence[Utterance], first: int, last: int, why: Mapping[int, str]) -> Question:
    lines = "\n".join(f"{place + 1}. {said_line(said[place])[:_LINE_CHARS]}" for place in range(first, last + 1))
    hints = [f"line {place + 1} ({why[place]})" for place in sorted(why) if first <= place <= last]
    fields = {
        "first": str(first + 1),
        "part": f", from line {first + 1} on" if first else "",
        "hints": f"Look closely at {', '.join(hints)}.\n\n" if hints else "",
        "lines": lines,
    }
    row = object_of(
        {
            "first": {"type": "integer", "minimum": first + 1, "maximum": last + 1},
            "title": {"type": "string"},
            "goes_on": {"type": "boolean"},
        }
    )
    schema = object_of({"segments": {"type": "array", "items": row}})

    def check(value: Any) -> None:
        numbers = [found["first"] for found in value["segments"]]
        if not numbers or numbers[0] != first + 1 or numbers != sorted(set(numbers)):
            raise ValueError(
                f"segments: found them to begin at {numbers}, expected {first + 1} and then rising numbers"
            )

    prompt = prompt_of("boundaries", fields)
    return Question(CONTEXT, prompt, schema, check, options={"max_output_tokens": 8_000})


def _parts(said: Sequence[Utterance], begins: Mapping[int, str], titles: Mapping[int, str]) -> tuple[Part, ...]:
    places = sorted(begins)
    found: list[Part] = []
    for place, end in zip(places, [*places[1:], len(said)], strict=True):
        inside = said[place:end]
        times = [one.start_s for one in inside if one.start_s is not None]
        title = titles.get(place) or ", ".join(phrases_of(inside, 3)) or inside[0].text[:60]
        found.append(
            Part(place + 1, end, times[0] if times else None, times[-1] if times else None, title, begins[place])
        )
    return tuple(found)
