"""The title of a conversation, made of its first question by the context `app.chat.title`; it stores none."""

from __future__ import annotations

from pathlib import Path

from apps.host.formatting import plain
from muse.journal.prompts import load_prompt
from muse.models import generate
from think.llm.title_prompt import read_title, title_grammar

CONTEXT = "app.chat.title"
_MOST_CHARS = 400
_MOST_TOKENS = 2_000  # with whatever a model thinks before it speaks


def make_title(question: str) -> str:
    """A title for a conversation that begins with this question.

    Raises:
        MuseError: the model cannot be asked, or gave none.
    """
    message = " ".join(question.split())[:_MOST_CHARS]
    prompt = load_prompt("title", Path(__file__).parent, {"message": message}).text
    text = generate(
        prompt,
        CONTEXT,
        max_output_tokens=_MOST_TOKENS,
        thinking_budget=0,
        complete=True,
        grammar=title_grammar(message),
    )
    return plain(read_title(text))
