"""The choice of one sentence among a few, as a question to a model; it knows no feature."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from muse.errors import InvalidReply
from think.llm.cached_calls import MOST_TOKENS, Question

MOST_CHOICES = 5


def listed(texts: Sequence[str]) -> str:
    """Sentences as a prompt shows them, each as an item of a list."""
    return "\n".join(f"- {text}" for text in texts)


def choice_question(context: str, prompt: str, texts: Sequence[str], segment: str = "") -> Question:
    """The question which of some sentences it is; a model that takes a schema is bound to them."""
    schema = {
        "type": "object",
        "properties": {"sentence": {"type": "string", "enum": list(texts)}},
        "required": ["sentence"],
        "additionalProperties": False,
    }
    options = {"json_schema": schema, "max_output_tokens": MOST_TOKENS}
    return Question(context, prompt, lambda text: read_choice(text, texts), segment, options)


def read_choice(text: str, allowed: Collection[str]) -> str:
    """The one of `allowed` that a reply names: as JSON, or bare where a model takes no schema.

    Raises:
        InvalidReply: it names none of them.
    """
    said = text.strip().removeprefix("```json").strip("`").strip()
    try:
        data = json.loads(said)
    except ValueError:
        data = said
    named = {_bare(str(value)) for value in (data.values() if isinstance(data, dict) else (data,))}
    for choice in allowed:
        if _bare(choice) in named:
            return choice
    raise InvalidReply(f"choice: found {text[:120]!r}, expected one of the {len(allowed)} sentences", text=text)


def _bare(text: str) -> str:
    return " ".join(text.split()).strip("-\"“”' ").casefold()
