"""Call options that nobody knows: which they are, what was probably meant, and where in the code they stand."""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, Iterable, Mapping
from types import FrameType
from typing import Any

from muse.journal.lenient_parser import closest_name
from muse.types.errors import OptionError
from muse.types.messages import GenerateOptions

log = logging.getLogger(__name__)

KNOWN = frozenset(GenerateOptions.__annotations__) | {"client"}
# What other libraries call an option, or where one that calls do not have is said instead.
_MEANT: Mapping[str, str] = {
    "max_tokens": "did you mean 'max_output_tokens'?",
    "max_completion_tokens": "did you mean 'max_output_tokens'?",
    "max_new_tokens": "did you mean 'max_output_tokens'?",
    "system": "did you mean 'system_instruction'?",
    "system_prompt": "did you mean 'system_instruction'?",
    "instructions": "did you mean 'system_instruction'?",
    "timeout": "did you mean 'timeout_s'?",
    "schema": "did you mean 'json_schema'?",
    "response_format": "did you mean 'json_schema' or 'json_output'?",
    "stop_sequences": "did you mean 'stop'?",
    "provider": "it follows from the context (providers.contexts in journal.json) or from 'model'",
    "tier": "it follows from the context (providers.contexts in journal.json)",
    "tools": "tools are for agent runs (muse.agents), not for single calls",
    "messages": "give them as the contents: a list with role dicts",
}
_OURS = (
    "muse.models",
    "muse.calls.unknown_options",
    "muse.batch",
    "muse.batching.",
    "asyncio",
    "contextlib",
    "threading",
)
_MOST_SITES = 10_000
_warned: set[tuple[str, int, str]] = set()


def unknown_in(given: Mapping[str, Any], further: Iterable[Collection[str]]) -> list[str]:
    """Return the names of set options that are neither common ones nor in any of `further`, in their order."""
    names = [name for name, value in given.items() if value is not None and name not in KNOWN]
    return [name for name in names if not any(name in options for options in further)] if names else []


def suggestions(name: str) -> str:
    """Return what to do about an unknown option, in a few words.

    >>> suggestions("temprature"), suggestions("max_tokens")
    ("did you mean 'temperature'?", "did you mean 'max_output_tokens'?")
    """
    if name in _MEANT:
        return _MEANT[name]
    near = closest_name(name, KNOWN)
    return f"did you mean {near!r}?" if near else f"known are {', '.join(sorted(KNOWN))} and those of the providers"


def is_near_miss(name: str) -> bool:
    """Whether an unknown option looks like a misspelling of a common one, or like another library's name for it."""
    return "did you mean" in suggestions(name)


def refuse(names: Collection[str]) -> None:
    """Raise for unknown options.

    Raises:
        OptionError: always; each name with what was probably meant.
    """
    raise OptionError("; ".join(f"unknown option {name!r}: {suggestions(name)}" for name in names))


def warn_unknown(names: Collection[str]) -> None:
    """Log unknown options as ignored, once for each place in the code that gives them."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_OURS):
        frame = frame.f_back
    file, line = (frame.f_code.co_filename, frame.f_lineno) if frame else ("unknown", 0)
    fresh = [name for name in names if (file, line, name) not in _warned]
    if len(_warned) >= _MOST_SITES:
        _warned.clear()
    _warned.update((file, line, name) for name in fresh)
    for name in fresh:
        log.warning("%s:%d: unknown option %r is ignored; %s", file, line, name, suggestions(name))
