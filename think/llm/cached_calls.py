"""Questions to models, each asked once: what was answered before is remembered; it knows no feature."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec import Struct, field

from muse import models
from muse.errors import MuseError
from muse.types.messages import GenerateOptions, Reply, Route
from muse.types.usage import Usage

MOST_AT_ONCE = 4
MOST_TOKENS = 2_000
"""Of a short answer, with whatever a model thinks before it speaks."""


class Question(Struct, frozen=True):
    """A prompt for a context; `read` makes the answer of a reply's text and raises `InvalidReply` where it cannot."""

    context: str
    prompt: str
    read: Callable[[str], str]
    segment: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def key(self, route: Route) -> str:
        """What the answer depends on: the question and who is asked."""
        asked = [self.context, route.provider, route.model, self.prompt, self.options]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]


class Call(Struct, frozen=True):
    """One question that was sent: by which route, what it used and cost (None: not known), and how it failed.

    `started_s` is on the clock of `time.perf_counter`.
    """

    context: str
    provider: str
    model: str
    reason: str
    usage: Usage
    started_s: float
    duration_s: float
    cost_usd: float | None
    error: str = ""


def served_by(calls: Iterable[Call]) -> str:
    """Who answered: `google gemini-3.8-flash`, with commas if a fallback took over in between; "" if nobody did."""
    return ", ".join(dict.fromkeys(f"{call.provider} {call.model}" for call in calls if not call.error))


class Questions:
    """Asks, a few questions at a time, and keeps the books.

    `answers` are those of earlier runs by key. `on_answer(key, answer)` hears of each new one; `on_asked` is called
    after every question, answered or not.
    """

    def __init__(
        self,
        answers: Mapping[str, str],
        *,
        on_answer: Callable[[str, str], None],
        on_asked: Callable[[], None],
    ) -> None:
        self.calls: list[Call] = []
        self.used: dict[str, str] = {}
        self._answers = answers
        self._on_answer = on_answer
        self._on_asked = on_asked
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)

    async def ask(self, question: Question) -> str:
        """The answer, remembered or new.

        Raises:
            MuseError: there is none; nothing is remembered then.
        """
        route = models.route(question.context)
        key = question.key(route)
        try:
            if key not in self._answers:
                async with self._turns:
                    answer = await self._send(question, route)
                self._on_answer(key, answer)
            else:
                answer = self._answers[key]
        finally:
            self._on_asked()
        self.used[key] = answer
        return answer

    async def _send(self, question: Question, route: Route) -> str:
        options: GenerateOptions = {"temperature": 0.0, "segment": question.segment, **question.options}  # type: ignore[typeddict-item]
        started_s = time.perf_counter()
        reply: Reply | None = None
        try:
            reply = await models.areply(question.prompt, question.context, **options)
            answer = question.read(reply.text)
        except MuseError as exc:
            self._note(question, route, reply, started_s, error=type(exc).__name__)
            raise
        self._note(question, route, reply, started_s)
        return answer

    def _note(
        self, question: Question, route: Route, reply: Reply | None, started_s: float, *, error: str = ""
    ) -> None:
        """Write down a call; what a failed one used stands in the token log alone."""
        self.calls.append(
            Call(
                question.context,
                reply.provider if reply else route.provider,
                reply.model if reply else route.model,
                route.reason,
                reply.usage if reply else Usage(),
                started_s,
                time.perf_counter() - started_s,
                reply.cost_usd if reply else None,
                error,
            )
        )
