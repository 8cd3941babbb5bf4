"""The answer to a question from a tool's result, with its source below it.

Entry points: `answer`, `formed_answer`.

If many records are wanted, they are listed unchanged. Otherwise the model puts the best passage into a sentence. A
sentence that says something the passage does not is discarded, and the passage takes its place.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Mapping
from typing import Any

from msgspec import Struct

from muse.providers._local.tool_planner import few_shot_prompts
from muse.providers._local.tool_planner.argument_filling import Asked, said_in
from muse.providers._local.tool_planner.result_passages import MOST_AROUND_CHARS, Passage, Result, best, is_backed
from muse.providers._local.tool_planner.tokenization import telling

MOST_LISTED = 10
_COUNTED = re.compile(r"\bhow\s+many\b", re.IGNORECASE)

Told = Generator[Asked, Mapping[str, Any], str]


class AnswerRequest(Struct, frozen=True):
    """What to answer.

    Attributes:
        question: The question.
        topic: The question without the days that the call is already limited to.
        words: The stems that the choice of tool and arguments has not settled.
        listed: True if the tool returns records of one kind, all of which the question may be about.
    """

    question: str
    topic: str
    words: tuple[str, ...]
    listed: bool


def answer(wish: AnswerRequest, result: Result) -> Told:
    """Answer from a result that is not empty."""
    if wish.listed:
        counted = _COUNTED.search(wish.question) and result.total is not None
        return (f"There are {result.total}.\n" if counted else "") + _list(_fitting(result.records, wish))
    if not wish.words:
        first = result.records[0]
        return f"{few_shot_prompts.one_line(first.text, few_shot_prompts.MOST_PASSAGE_CHARS)}\n\n{source_line(first)}"
    passage = best(result.passages, wish.topic)
    said = said_in((yield "complete", few_shot_prompts.phrasing(wish.topic, passage.text)))
    if not is_backed(said, passage.text, wish.topic):
        said = few_shot_prompts.one_line(passage.text, MOST_AROUND_CHARS)
    quote = "" if said == passage.around else f": “{few_shot_prompts.one_line(passage.around, MOST_AROUND_CHARS)}”"
    return f"{said}\n\n{source_line(passage)}{quote}"


def formed_answer(
    wish: AnswerRequest, result: Result, form: Mapping[str, Any], max_tokens: int
) -> Generator[Asked, Mapping[str, Any], Mapping[str, Any]]:
    """Answer in JSON of a given format, which has no room for the source."""
    passage = few_shot_prompts.one_line(best(result.passages, wish.topic).text, few_shot_prompts.MOST_PASSAGE_CHARS)
    question = few_shot_prompts.one_line(wish.question, few_shot_prompts.MOST_QUESTION_CHARS)
    said = f"{passage}\n\n{question}\nAnswer as JSON."
    body = {"messages": [{"role": "user", "content": said}], "response_format": form, "temperature": 0}
    return (yield "chat", body | {"max_tokens": max_tokens})


def source_line(passage: Passage) -> str:
    """Return the line that names the source of a passage."""
    return f"Source: {passage.source.line() or 'the tool names none'}"


def _fitting(records: tuple[Passage, ...], wish: AnswerRequest) -> tuple[Passage, ...]:
    """Return the records that share most words with the request; all of them if none shares any."""
    said = frozenset(wish.words)
    shared = [len(said & frozenset(telling(f"{record.text} {record.source.title}"))) for record in records]
    most = max(shared)
    return tuple(record for record, count in zip(records, shared, strict=True) if count == most)


def _list(records: Iterable[Passage]) -> str:
    every = tuple(records)
    lines = [
        f"- {few_shot_prompts.one_line(one.text, MOST_AROUND_CHARS)} [{_place(one)}]" for one in every[:MOST_LISTED]
    ]
    more = len(every) - len(lines)
    return "\n".join([*lines, *([f"… and {more} more."] if more else [])])


def _place(record: Passage) -> str:
    place = "" if record.source.place.endswith(")") and record.source.when else record.source.place
    return ", ".join(part for part in (place, record.source.when) if part)
