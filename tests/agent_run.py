"""One agent run in this process and what it said, and the grammar its events must have; it knows no test."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytest

from muse import providers, testing
from muse.providers.echo import Script
from muse.runs.run_files import EventWriter
from muse.testing import Say
from muse.types.messages import ToolResult, ToolResults

PROMPT = "When is the release?"
_LETTERS = {"start": "s", "thinking": "t", "delta": "d", "finish": "f", "error": "e"}
_GRAMMAR = re.compile(r"s(?:t|d|B+E+)*[fe]")


class Run:
    """One agent run on a provider; `events` is all it said."""

    def __init__(self, provider: str = "echo", **config: Any) -> None:
        self.config: dict[str, Any] = {"prompt": PROMPT, "model": "echo-1", **config}
        self.events: list[dict[str, Any]] = []
        self._run_agent = providers.get_provider_module(provider).run_agent

    async def answer(self, also: Callable[[dict[str, Any]], None] | None = None) -> str:
        """The run's answer; `also` hears its events too."""

        def take(event: dict[str, Any]) -> None:
            self.events.append(event)
            if also is not None:
                also(event)

        text: str = await self._run_agent(self.config, take)
        return text

    async def fail(self, kind: type[BaseException], match: str | None = None) -> BaseException:
        """The error of a run that is to fail."""
        with pytest.raises(kind, match=match) as caught:
            await self.answer()
        return caught.value

    def said(self, name: str) -> list[dict[str, Any]]:
        """The events of one kind."""
        return [event for event in self.events if event["event"] == name]

    @property
    def last(self) -> dict[str, Any]:
        """The run's end."""
        return self.events[-1]

    @property
    def names(self) -> list[str]:
        """The kinds of its events, in order."""
        return [event["event"] for event in self.events]

    def result(self, call_id: str = "call-0") -> Any:
        """What the first call of this id gave, as its event has it."""
        return next(event["result"] for event in self.said("tool_end") if event["call_id"] == call_id)


def replay(*steps: Any, **config: Any) -> tuple[AbstractContextManager[Script], Run]:
    """A run on the scripted provider, and its script."""
    return testing.script(*steps), Run(**config)


def calls(*names: str) -> Say:
    """A scripted turn that calls tools without arguments."""
    return testing.calls(*((name, {}) for name in names))


def results(script: Script, number: int) -> tuple[ToolResult, ...]:
    """The tool results that end the request `number` of a script."""
    turn = script.requests[number].turns[-1]
    assert isinstance(turn, ToolResults)
    return turn.results


def record(events: list[dict[str, Any]], *, is_over: bool = True) -> str:
    """Put events where runs are kept; the run's id."""
    recorder = EventWriter.begin()
    for event in events:
        recorder.write(event)
    (recorder.end if is_over else recorder.release)()
    return recorder.agent_id


def is_well_formed(events: Sequence[dict[str, Any]]) -> bool:
    """Whether events are `start (thinking | delta | (tool_start tool_end)*)* (finish | error)`, each call with its end.

    The calls of one turn begin together, then they end: so a turn is some starts and as many ends of the same ids.
    """
    text, begun = "", []
    for event in events:
        match event["event"]:
            case "tool_start":
                begun.append(event["call_id"])
                text += "B"
            case "tool_end":
                if event["call_id"] not in begun:
                    return False
                begun.remove(event["call_id"])
                text += "E"
            case name:
                text += _LETTERS.get(name, "?")
    return not begun and _GRAMMAR.fullmatch(text) is not None
