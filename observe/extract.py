"""Which frames deserve that more is read off them: rules first, a model for the rest; it asks nothing itself.

A category's `importance` bounds the choice: of `high`, the first frame of each run of such frames is always taken; of
the others, and of later frames of a run, a model chooses by the categories' `extraction` texts. Where no model answers,
the first frame of each run is taken, unless its category is one to `ignore`. Without a prompt none ever is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from muse.errors import InvalidReply
from observe.llm.checked_call import object_of
from observe.llm.prompts import prompt_of
from observe.screens.categories import Category
from observe.screens.frame_store import Line

CONTEXT = "observe.extract.selection"
MOST_EXTRACTED = 24
"""Of one segment; at one frame in two seconds and a segment of five minutes that is one in six."""
BY_RULE = "the first of its kind here, by rule: no model answered"
_MOST_WHY = 200
_MOST_TOLD = 400
_ANY_CATEGORY = "Extract when its content has changed."


class Choice(Struct, frozen=True):
    """What can be said by rule: the frames that are taken (number -> why), and those that a model is asked about."""

    taken: Mapping[int, str]
    open: tuple[int, ...]


def by_rule(lines: Sequence[Line], categories: Mapping[str, Category]) -> Choice:
    """Apply the rules to the frames of a segment in their order; numbers count from 0."""
    taken: dict[int, str] = {}
    undecided: list[int] = []
    before = ""
    for number, line in enumerate(lines):
        category = categories.get(line.category)
        is_first, before = line.category != before, line.category
        if category is None or not category.prompt:
            continue
        if category.importance == "high" and is_first and len(taken) < MOST_EXTRACTED:
            taken[number] = "the first of its kind here, and its category is of high importance"
        else:
            undecided.append(number)
    return Choice(taken, tuple(undecided))


def first_of_each(lines: Sequence[Line], choice: Choice, categories: Mapping[str, Category]) -> dict[int, str]:
    """What is taken where no model could be asked: the first frame of each run."""
    firsts = [
        number
        for number in choice.open
        if categories[lines[number].category].importance != "ignore"
        and (not number or lines[number - 1].category != lines[number].category)
    ]
    return _bounded(choice, dict.fromkeys(firsts, BY_RULE))


def question(lines: Sequence[Line], choice: Choice, categories: Mapping[str, Category]) -> tuple[str, dict[str, Any]]:
    """The prompt about the frames that are open, and the JSON Schema of its answer; frames count from 1 there."""
    present = {lines[number].category for number in choice.open}
    rules = "\n".join(
        f"- {name} ({categories[name].importance}): {categories[name].extraction or _ANY_CATEGORY}"
        for name in sorted(present)
    )
    most = MOST_EXTRACTED - len(choice.taken)
    frames = "\n".join(_row(number, line, choice) for number, line in enumerate(lines) if line.category)
    fields = {"frames": frames, "rules": rules, "most": str(most)}
    prompt = prompt_of("selection", fields)
    frame = {"type": "integer", "enum": [number + 1 for number in choice.open]}
    row = object_of({"frame": frame, "why": {"type": "string"}})
    schema = object_of({"chosen": {"type": "array", "items": row}})
    return prompt, schema


def read_selection(text: str, choice: Choice) -> dict[int, str]:
    """The frames that are taken by rule and by an answer, with why.

    Raises:
        InvalidReply: the answer is none.
    """
    try:
        rows = json.loads(text)["chosen"]
        named = {int(row["frame"]) - 1: str(row["why"])[:_MOST_WHY] for row in rows}
    except (ValueError, TypeError, KeyError) as exc:
        raise InvalidReply(f"selection: found {text[:80]!r}, expected the frames that were chosen", text=text) from exc
    return _bounded(choice, {number: why for number, why in named.items() if number in choice.open})


def _bounded(choice: Choice, more: Mapping[int, str]) -> dict[int, str]:
    room = MOST_EXTRACTED - len(choice.taken)
    kept = dict(sorted(more.items())[: max(room, 0)])
    return dict(sorted({**choice.taken, **kept}.items()))


def _row(number: int, line: Line, choice: Choice) -> str:
    at = "" if line.at_s is None else f" at {int(line.at_s) // 60}:{int(line.at_s) % 60:02}"
    told = " ".join(line.description.split())[:_MOST_TOLD]
    mark = " [already chosen]" if number in choice.taken else "" if number in choice.open else " [not to be chosen]"
    return f"{number + 1}.{at} {line.category}, {line.share:.0%} changed{mark}: {told}"
