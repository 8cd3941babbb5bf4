"""On which day a document was made: candidates by rule, the choice among them by a model; it names one context.

A model that holds a few pages at most is not asked where one of the dates alone stands where documents say their own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from observe.documents.date_candidates import Candidate, candidates_of
from observe.documents.text_extraction import read_document
from observe.llm.checked_call import Question, ask, object_of, room_of
from observe.llm.prompts import prompt_of

CONTEXT = "detect.created"
UNKNOWN = "unknown"
_SMALL_CHARS, _LARGE_CHARS = 600, 8_000


class Created(Struct, frozen=True):
    """When a document was made: `date` as `YYYY-MM-DD`, None if it does not say.

    `where` is the place of that date, `by` who chose it: a model, or "rule" where there was no choice. `file_time` is
    when the file was last written, which is never taken for the document's own date.
    """

    date: str | None
    where: str
    by: str
    candidates: tuple[Candidate, ...]
    file_time: str
    cost_usd: float | None = 0.0


async def created(path: Path) -> Created:
    """When the document in a file was made.

    Raises:
        InvalidReply: the reply did not fit, twice.
        MuseError: the document is broken, or the call failed.
        OSError: the file cannot be read.
    """
    document = read_document(path)
    found = candidates_of(document)
    stamp = document.written_at
    if not found:
        return Created(None, "", "rule", (), stamp)
    signs = [one for one in found if one.is_sign]
    if len(signs) == 1 and (len(found) == 1 or not room_of(CONTEXT).writes):
        return Created(signs[0].date, signs[0].where, "rule", found, stamp)
    answer = await ask(_question(document.text, found))
    when = answer.value["date"]
    place = next((one.where for one in found if one.date == when), "")
    return Created(None if when == UNKNOWN else when, place, answer.made_by, found, stamp, answer.cost_usd)


def _question(text: str, found: Sequence[Candidate]) -> Question:
    room = room_of(CONTEXT)
    begin = " ".join(text.split())[: _LARGE_CHARS if room.writes else _SMALL_CHARS]
    dates = ", ".join(f"{one.date} ({one.where}: {one.snippet})" for one in found)
    fields = {"text": begin or "(no text can be read of it)", "dates": dates}
    allowed = [*(one.date for one in found), UNKNOWN]
    schema = object_of({"date": {"type": "string", "enum": allowed}})
    answers = " | ".join(json.dumps(f' {{"date": "{when}"}}') for when in allowed)
    options = {"complete": True, "grammar": f"root ::= {answers}", "max_output_tokens": 1_000}
    return Question(CONTEXT, prompt_of("created", fields), schema, options=options)
