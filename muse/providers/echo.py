"""A provider for tests and dry runs that repeats its input: no network, no key, deterministic answers.

Without a script it answers with the user's last words. `muse.testing.script` makes it play given replies, tool calls
and failures, and record the requests it receives.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct, structs

from muse.policies.deadline import Deadline
from muse.providers._base import (
    Capabilities,
    Credentials,
    EncodedRequest,
    ModelProfile,
    Payload,
    Provider,
    ProviderSpec,
    bind,
)
from muse.types.errors import MuseError
from muse.types.messages import Assistant, Finish, Part, Reply, Request, ToolCall, ToolResults, User
from muse.types.usage import Usage, estimate_usage

__all__ = ["generate", "agenerate", "run_agent"]

SPEC = ProviderSpec(
    name="echo",
    label="Echo (says it again)",
    env_key="",
    tiers={1: "echo-1", 2: "echo-1", 3: "echo-1"},
    prefixes=("echo-",),
    capabilities=Capabilities(vision=True, files=True, structured_output=True, function_calling=True),
    profiles=(ModelProfile("*", files=True),),
    key_required=False,
    free=True,
    is_local=True,
)


class Say(Struct, frozen=True):
    """One scripted answer: text, thinking, tool calls, and finish reason (derived from the calls if left out)."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    thinking: str = ""
    finish: Finish | None = None
    usage: Usage | None = None


Step = str | Say | BaseException


class Script:
    """A queue of answers to give in order; `requests` records the requests received."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps: deque[Step] = deque(steps)
        self.requests: list[Request] = []


class EchoProvider(Provider):
    """A provider that plays the innermost script, or else repeats the last user text."""

    spec = SPEC

    def __init__(self) -> None:
        self.scripts: list[Script] = []

    def encode(self, request: Request) -> EncodedRequest:
        return EncodedRequest({"request": request})

    def decode(self, raw: Mapping[str, Any], request: Request) -> Reply:
        said: Say = raw["say"]
        finish = said.finish or ("tools" if said.calls else "stop")
        usage = said.usage or estimate_usage(request.text_chars, len(said.text + said.thinking))
        turn = Assistant(said.text, said.calls, native=said, provider=SPEC.name)
        usage = structs.replace(usage, estimated=False, requests=1)
        return Reply(said.text, turn, usage, finish, request.model, SPEC.name, said.thinking)

    def client(self, access: Credentials) -> None:
        return None

    def aclient(self, access: Credentials) -> None:
        return None

    async def aclose(self, client: None) -> None:
        """Do nothing: there is nothing to close."""

    def send(self, client: None, payload: Payload, deadline: Deadline) -> Mapping[str, Any]:
        return {"say": self._next(payload["request"])}

    async def asend(self, client: None, payload: Payload, deadline: Deadline) -> Mapping[str, Any]:
        return self.send(client, payload, deadline)

    def stream(self, client: None, payload: Payload, deadline: Deadline) -> Iterator[Any]:
        said = self._next(payload["request"])
        words = said.text.split(" ")
        yield from (word + " " for word in words[:-1])
        yield words[-1]
        yield said

    async def astream(self, client: None, payload: Payload, deadline: Deadline) -> AsyncIterator[Any]:
        for piece in self.stream(client, payload, deadline):
            yield piece

    def gather(self) -> _Accumulator:
        return _Accumulator()

    def fault(self, exc: Exception, model: str) -> MuseError | None:
        return None

    def _next(self, request: Request) -> Say:
        """Return the next scripted answer, or the echo if there is no script.

        Raises:
            AssertionError: The script has no answers left.
        """
        if not self.scripts:
            return _echo(request)
        script = self.scripts[-1]
        script.requests.append(request)
        if not script.steps:
            raise AssertionError(f"echo was asked once more than its script has answers: {_last_words(request)!r}")
        step = script.steps.popleft()
        if isinstance(step, BaseException):
            raise step
        return Say(step) if isinstance(step, str) else step


class _Accumulator:
    """An accumulator that takes the words of an answer, then the whole answer."""

    def __init__(self) -> None:
        self._said: Say | None = None

    def feed(self, event: Any) -> str:
        if isinstance(event, Say):
            self._said = event
            return ""
        return str(event)

    def usage(self) -> Usage | None:
        return self._said.usage if self._said else None

    def raw(self) -> Mapping[str, Any] | None:
        return {"say": self._said} if self._said else None


def _echo(request: Request) -> Say:
    """Return the last words of the conversation, as JSON if the request wants JSON."""
    words = _last_words(request)
    if request.json_output or request.json_schema is not None:
        return Say(json.dumps({"echo": words}, ensure_ascii=False))
    return Say(words)


def _last_words(request: Request) -> str:
    for turn in reversed(request.turns):
        match turn:
            case User(parts):
                return "\n".join(map(_shown, parts))
            case ToolResults(results):
                return "\n".join(_shown(part) for result in results for part in result.parts)
            case _:
                continue
    return ""


def _shown(part: Part) -> str:
    return part if isinstance(part, str) else repr(part)


PROVIDER = EchoProvider()
generate, agenerate, run_agent = bind(PROVIDER)
