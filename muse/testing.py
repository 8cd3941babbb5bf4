"""Test support for feature code: a scripted provider that needs no network and no key.

Entry points: `script`, `calls`.

With `echo` as the provider, set by journal.json or `MUSE_PROVIDER=echo`:

    with testing.script("Six in the evening.") as script:
        assert models.generate("When does the tide turn?", "app.tides") == "Six in the evening."
    assert script.requests[0].turns[0].parts == ("When does the tide turn?",)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from muse.providers.echo import PROVIDER, Say, Script, Step
from muse.types.messages import ToolCall

__all__ = ["Say", "Script", "calls", "script"]


def calls(*named: tuple[str, dict[str, Any]], text: str = "") -> Say:
    """Return a scripted turn that calls tools: `calls(("search", {"q": "tide"}))`."""
    made = tuple(ToolCall(f"call-{index}", name, args) for index, (name, args) in enumerate(named))
    return Say(text, made)


@contextmanager
def script(*steps: Step) -> Iterator[Script]:
    """Make `echo` play `steps` while the context is open, and record the requests in `.requests`.

    Args:
        *steps: Answers in order: text, a `Say`, or an exception to raise.

    Raises:
        AssertionError: Steps were left over at the end, or there were more requests than steps.
    """
    played = Script(steps)
    PROVIDER.scripts.append(played)
    try:
        yield played
    finally:
        PROVIDER.scripts.remove(played)
    if played.steps:
        raise AssertionError(
            f"{len(played.steps)} of {len(steps)} scripted steps were not used: {list(played.steps)!r}"
        )
