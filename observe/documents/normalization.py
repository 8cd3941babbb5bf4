"""A pasted transcript as utterances: by its form where that is known, else with a model's help; it writes no file.

Words are never a model's own: what it gives is looked for in the source, and what is not there is sent back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from muse.types.formatting import total_usd
from observe.llm.checked_call import Question, ask, object_of, room_of
from observe.llm.prompts import prompt_of
from observe.transcripts.chunking import chunks
from observe.transcripts.parser import LONGEST_NAME, Transcript, Utterance, plain, seconds

CONTEXT = "observe.detect.json"
KEPT_SHARE = 0.8
"""The share of a text's words that has to be in what it was taken apart into; the rest is names, times, headings."""
_UNSAID = ("plain", "timed")
_SPEECH = r"said|says|asked|asks|answered|answers|replied|replies|added|adds|thinks|thought|explained|wrote|called"
_NAME = r"(?:(?:Mr|Mrs|Ms|Dr)\.? )?[A-Z][\w'’-]+"
_SPOKEN_BY = (
    re.compile(rf"^[-–*•]?\s*({_NAME}(?: {_NAME})?)\s*[:–-]\s"),
    re.compile(rf"\b({_NAME})(?: {_NAME})? (?:{_SPEECH})\b"),
    re.compile(rf"\b(?:{_SPEECH}) ({_NAME})"),
)
_PRONOUNS = {"He", "She", "They", "I", "We", "You", "It", "Then", "That", "This", "Who", "And", "But", "So", "There"}
_NOBODY = "nobody"
_MOST_ASKED = 300


class Normalised(Struct, frozen=True):
    """Utterances, the form they were read from, and by whom: a model, or "rule" where the form says it all."""

    form: str
    by: str
    utterances: tuple[Utterance, ...]
    passed_over: int = 0
    cost_usd: float | None = 0.0


async def normalise(found: Transcript) -> Normalised:
    """The utterances of a transcript; where its form does not say who speaks, a model is asked.

    Raises:
        InvalidReply: a reply did not fit, twice.
        MuseError: a call failed.
    """
    if found.form not in _UNSAID or any(one.speaker for one in found.utterances):
        return Normalised(found.form, "rule", found.utterances, found.passed_over)
    if room_of(CONTEXT).writes:
        return await _taken_apart(found)
    return await _attributed(found)


async def _taken_apart(found: Transcript) -> Normalised:
    """Have a model take the text apart, as much at once as it holds."""
    pieces = chunks(found.utterances, room_of(CONTEXT).chunk_chars // 2)
    said: list[Utterance] = []
    by, spent = "rule", list[float | None]()
    for number, piece in enumerate(pieces):
        text = "\n\n".join(_shown(one) for one in piece)
        answer = await ask(_question(text, number, len(pieces)))
        by = answer.made_by
        spent.append(answer.cost_usd)
        said += map(_read, answer.value["utterances"])
    whole = tuple(one for one in said if one.text)
    return Normalised(found.form, by, whole, found.passed_over, total_usd(spent))


def _read(row: Mapping[str, str]) -> Utterance:
    return Utterance(seconds(row["start"].strip()), plain(row["speaker"])[:LONGEST_NAME], plain(row["text"]))


def _shown(one: Utterance) -> str:
    """An utterance with its time, as it stood in the source."""
    if one.start_s is None:
        return one.text
    minutes, left = divmod(int(one.start_s), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{left:02} {one.text}"


def _question(text: str, number: int, count: int) -> Question:
    row = object_of({name: {"type": "string"} for name in ("speaker", "start", "text")})
    schema = object_of({"utterances": {"type": "array", "items": row}})
    part = f" (part {number + 1} of {count})" if count > 1 else ""
    prompt = prompt_of("utterances", {"text": text, "part": part})
    return Question(
        CONTEXT, prompt, schema, lambda value: _require_source(value, text), options={"max_output_tokens": 30_000}
    )


def _require_source(value: Any, source: str) -> None:
    """See that nothing was made up and little left out.

    Raises:
        ValueError: it was; the text says what.
    """
    whole = _words(source)
    place, kept = 0, 0
    for number, row in enumerate(value["utterances"]):
        words = _words(row["text"])
        if not words:
            continue
        at = _find(whole, words, place)
        if at is None:
            raise ValueError(f"utterances[{number}].text: found {row['text'][:60]!r}, which does not stand there next")
        place, kept = at + len(words), kept + len(words)
    if kept < KEPT_SHARE * len(whole):
        raise ValueError(f"utterances: found {kept} of the {len(whole)} words, expected nearly all of them")


def _find(whole: Sequence[str], words: Sequence[str], start: int) -> int | None:
    size = len(words)
    return next((at for at in range(start, len(whole) - size + 1) if whole[at : at + size] == words), None)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


async def _attributed(found: Transcript) -> Normalised:
    """Have a small model choose who speaks, where a line names somebody who may."""
    said: list[Utterance] = []
    by, asked, spent = "rule", 0, list[float | None]()
    for one in found.utterances:
        names = _named_in(one.text)
        if not names or asked >= _MOST_ASKED:
            said.append(one)
            continue
        asked += 1
        answer = await ask(_who(one.text, names))
        by = answer.made_by
        spent.append(answer.cost_usd)
        speaker = answer.value["speaker"]
        said.append(Utterance(one.start_s, "" if speaker == _NOBODY else speaker, one.text))
    return Normalised(found.form, by, tuple(said), found.passed_over, total_usd(spent))


def _named_in(text: str) -> tuple[str, ...]:
    """Who may be speaking, by the words around a name."""
    found = [match for pattern in _SPOKEN_BY for match in pattern.findall(text)]
    return tuple(dict.fromkeys(name for name in found if name not in _PRONOUNS))


def _who(line: str, names: Sequence[str]) -> Question:
    allowed = [*names, _NOBODY]
    schema = object_of({"speaker": {"type": "string", "enum": allowed}})
    answers = " | ".join(json.dumps(" " + json.dumps({"speaker": name}, ensure_ascii=False)) for name in allowed)
    prompt = prompt_of("speaker_choose", {"line": line[:300]})
    options = {"complete": True, "grammar": f"root ::= {answers}", "max_output_tokens": 600}
    return Question(CONTEXT, prompt, schema, options=options)
