"""The contestants: one call through muse, and one as a sensible user of the raw SDK writes it; it measures nothing.

A raw caller keeps one client, takes the SDK's defaults, calls its typed method and reads the text off the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.blocks import AsyncCall, Call
from benchmarks.floor import SocketFloor
from benchmarks.world import Json
from muse import models

PROMPT = "When does the tide turn today? Answer in one short sentence."
MAX_TOKENS = 16_384
Contents = str | list[Json]


def conversation(messages: int) -> list[Json]:
    """Role dicts, user and assistant in turn, the last one the user's."""
    roles = ("assistant", "user") if messages % 2 == 0 else ("user", "assistant")
    text = "The tide turns at six, and the harbour master wants the boats in before that."
    return [{"role": roles[n % 2], "content": f"{n}: {text}"} for n in range(messages)]


def model_of(provider: str) -> str:
    """The model that muse asks `provider` for."""
    return models.resolve_provider(f"bench.{provider}")[1]


def ours(provider: str, contents: Contents) -> Call:
    """One call through muse."""
    context = f"bench.{provider}"
    return lambda: models.generate(contents, context=context)


def ours_async(provider: str, contents: Contents) -> AsyncCall:
    """As `ours`, awaited."""
    context = f"bench.{provider}"
    return lambda: models.agenerate(contents, context=context)


def raw(provider: str, contents: Contents) -> Call:
    """One call of the raw SDK's typed method."""
    return _RAW[provider](model_of(provider), contents)


def raw_async(provider: str, contents: Contents) -> AsyncCall:
    """As `raw`, with the SDK's default async client."""
    return _RAW_ASYNC[provider](model_of(provider), contents)


def _openai(model: str, contents: Contents) -> Call:
    import openai

    client = openai.OpenAI()
    given: Any = contents
    return lambda: client.responses.create(model=model, input=given, max_output_tokens=MAX_TOKENS).output_text


def _openai_async(model: str, contents: Contents) -> AsyncCall:
    import openai

    client = openai.AsyncOpenAI()
    given: Any = contents

    async def call() -> str:
        reply = await client.responses.create(model=model, input=given, max_output_tokens=MAX_TOKENS)
        return reply.output_text

    return call


def _anthropic(model: str, contents: Contents) -> Call:
    import anthropic

    client = anthropic.Anthropic()
    messages: Any = _messages(contents)

    def call() -> str:
        reply: Any = client.messages.create(model=model, messages=messages, max_tokens=MAX_TOKENS)
        return str(reply.content[0].text)

    return call


def _anthropic_async(model: str, contents: Contents) -> AsyncCall:
    import anthropic

    client = anthropic.AsyncAnthropic()
    messages: Any = _messages(contents)

    async def call() -> str:
        reply: Any = await client.messages.create(model=model, messages=messages, max_tokens=MAX_TOKENS)
        return str(reply.content[0].text)

    return call


def _messages(contents: Contents) -> list[Json]:
    return [{"role": "user", "content": contents}] if isinstance(contents, str) else contents


def _google(model: str, contents: Contents) -> Call:
    from google import genai

    client = genai.Client()
    given = google_contents(contents)

    def call() -> str | None:
        config = genai.types.GenerateContentConfig(temperature=0.3, max_output_tokens=MAX_TOKENS)
        return client.models.generate_content(model=model, contents=given, config=config).text

    return call


def _google_async(model: str, contents: Contents) -> AsyncCall:
    from google import genai

    client = genai.Client().aio
    given = google_contents(contents)

    async def call() -> str | None:
        config = genai.types.GenerateContentConfig(temperature=0.3, max_output_tokens=MAX_TOKENS)
        return (await client.models.generate_content(model=model, contents=given, config=config)).text

    return call


def google_contents(contents: Contents) -> Any:
    """`contents` in the SDK's own types, made once."""
    from google.genai import types

    if isinstance(contents, str):
        return contents
    roles = {"user": "user", "assistant": "model"}
    return [types.Content(role=roles[turn["role"]], parts=[types.Part(text=turn["content"])]) for turn in contents]


_RAW: dict[str, Callable[[str, Contents], Call]] = {"openai": _openai, "anthropic": _anthropic, "google": _google}
_RAW_ASYNC: dict[str, Callable[[str, Contents], AsyncCall]] = {
    "openai": _openai_async,
    "anthropic": _anthropic_async,
    "google": _google_async,
}


def measure(providers: Sequence[str]) -> Json:
    """Make every contestant's call once and see that all give the same text; it warms byte code and prices."""
    for provider in providers:
        given = {
            "ours": ours(provider, PROMPT)(),
            "raw": raw(provider, PROMPT)(),
            "floor": SocketFloor(provider, model_of(provider), PROMPT)(),
        }
        if len(set(given.values())) != 1:
            raise ValueError(f"{provider}: found {given}, expected the same text from all three")
    return {}
