"""CPU time of one event of a long stream: muse and the raw SDK."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from statistics import median
from typing import Any

from benchmarks import callers
from benchmarks.blocks import AsyncCall, Call, take_turns, take_turns_async
from benchmarks.long_stream import WORDS
from benchmarks.report import Table, ratio
from benchmarks.world import PROVIDERS, Json, World, serving
from muse import models

_NOTE = f"CPU time of a stream of {WORDS:,} words, an event a word, divided by the words; the text is checked."


def measure(provider: str, kind: str, blocks: int) -> Json:
    """Microseconds a stream by block, of muse and the raw SDK."""
    raw = _RAW[provider]
    if kind == "sync":
        return take_turns({"ours": _ours(provider), "raw": _checked(raw(callers.model_of(provider)))}, blocks, 2)
    return asyncio.run(_measure_async(provider, blocks))


async def _measure_async(provider: str, blocks: int) -> Json:
    raw = _checked_async(_RAW_ASYNC[provider](callers.model_of(provider)))
    return await take_turns_async({"ours": _ours_async(provider), "raw": raw}, blocks, 2)


def _check(text: str) -> None:
    if len(text.split()) != WORDS:
        raise ValueError(f"stream: found {len(text.split())} words, expected {WORDS}")


def _checked(pieces: Callable[[], Iterator[str]]) -> Call:
    return lambda: _check("".join(pieces()))


def _checked_async(pieces: Callable[[], AsyncIterator[str]]) -> AsyncCall:
    async def call() -> None:
        _check("".join([piece async for piece in pieces()]))

    return call


def _ours(provider: str) -> Call:
    return _checked(lambda: models.stream(callers.PROMPT, context=f"bench.{provider}"))


def _ours_async(provider: str) -> AsyncCall:
    async def pieces() -> AsyncIterator[str]:
        async for piece in await models.astream(callers.PROMPT, context=f"bench.{provider}"):
            yield piece

    return _checked_async(pieces)


def _openai(model: str) -> Callable[[], Iterator[str]]:
    import openai

    client = openai.OpenAI()

    def pieces() -> Iterator[str]:
        with client.responses.create(model=model, input=callers.PROMPT, stream=True) as events:
            yield from (event.delta for event in events if event.type == "response.output_text.delta")

    return pieces


def _openai_async(model: str) -> Callable[[], AsyncIterator[str]]:
    import openai

    client = openai.AsyncOpenAI()

    async def pieces() -> AsyncIterator[str]:
        async with await client.responses.create(model=model, input=callers.PROMPT, stream=True) as events:
            async for event in events:
                if event.type == "response.output_text.delta":
                    yield event.delta

    return pieces


def _anthropic(model: str) -> Callable[[], Iterator[str]]:
    import anthropic

    client: Any = anthropic.Anthropic()

    def pieces() -> Iterator[str]:
        with client.messages.stream(**_message(model)) as stream:
            yield from stream.text_stream

    return pieces


def _anthropic_async(model: str) -> Callable[[], AsyncIterator[str]]:
    import anthropic

    client: Any = anthropic.AsyncAnthropic()

    async def pieces() -> AsyncIterator[str]:
        async with client.messages.stream(**_message(model)) as stream:
            async for piece in stream.text_stream:
                yield piece

    return pieces


def _message(model: str) -> Json:
    messages = [{"role": "user", "content": callers.PROMPT}]
    return {"model": model, "messages": messages, "max_tokens": callers.MAX_TOKENS}


def _google(model: str) -> Callable[[], Iterator[str]]:
    from google import genai

    client = genai.Client()

    def pieces() -> Iterator[str]:
        for chunk in client.models.generate_content_stream(model=model, contents=callers.PROMPT):
            yield chunk.text or ""

    return pieces


def _google_async(model: str) -> Callable[[], AsyncIterator[str]]:
    from google import genai

    client = genai.Client().aio

    async def pieces() -> AsyncIterator[str]:
        async for chunk in await client.models.generate_content_stream(model=model, contents=callers.PROMPT):
            yield chunk.text or ""

    return pieces


_RAW = {"openai": _openai, "anthropic": _anthropic, "google": _google}
_RAW_ASYNC = {"openai": _openai_async, "anthropic": _anthropic_async, "google": _google_async}


def tables(world: World) -> Iterator[Table]:
    """One row for each provider and kind."""
    with serving(module="benchmarks.long_stream") as url:
        rows = [_row(world, url, provider, kind) for provider in PROVIDERS for kind in ("sync", "async")]
    yield Table("Streaming", ("stream", "muse / raw", "muse µs an event", "raw µs an event"), rows, _NOTE)


def _row(world: World, url: str, provider: str, kind: str) -> list[str]:
    spent = world.measure("streaming", url=url, provider=provider, kind=kind, blocks=world.blocks(12))
    figures = [f"{median(spent[name]) / WORDS:.0f}" for name in ("ours", "raw")]
    return [f"{provider} {kind}", f"{ratio(spent['ours'], spent['raw']):.2f}", *figures]
