"""Asks a server through each vendor's async SDK over two transports; it does not know muse."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack

import aiohttp
from anthropic import AsyncAnthropic
from anthropic import DefaultAioHttpClient as AnthropicAioHttp
from google import genai
from google.genai.client import AsyncClient as AsyncGoogle
from google.genai.types import HttpOptions, HttpRetryOptions
from httpx2 import AsyncHTTPTransport
from openai import AsyncOpenAI
from openai import DefaultAioHttpClient as OpenAIAioHttp

from tests.loopback.outcomes import Outcome
from tests.loopback.sdk_calls import CHAT, HELLO, KEY, MESSAGES, TIMEOUT_S, last_response
from tests.loopback.sdk_replies import (
    read_anthropic,
    read_chunks,
    read_compatible,
    read_google,
    read_openai,
)


async def ask_async(
    url: str,
    provider: str,
    models: Sequence[str],
    *,
    stream: bool,
    transport: str,
    timeout_s: float = TIMEOUT_S,
) -> list[Outcome]:
    """Ask for each of `models` with one client over `transport` (httpx2 or aiohttp)."""
    aio = transport == "aiohttp"
    async with AsyncExitStack() as stack:
        match provider:
            case "openai" | "compatible":
                openai = await stack.enter_async_context(_openai(url, timeout_s, aio=aio))
                ask = _ask_openai if provider == "openai" else _ask_compatible
                return [await ask(openai, model, stream=stream) for model in models]
            case "anthropic":
                anthropic = await stack.enter_async_context(_anthropic(url, timeout_s, aio=aio))
                return [await _ask_anthropic(anthropic, model, stream=stream) for model in models]
            case "google":
                session = await stack.enter_async_context(aiohttp.ClientSession()) if aio else None
                google = await stack.enter_async_context(_google(url, timeout_s, session))
                return [await _ask_google(google, model, stream=stream) for model in models]
            case _:
                raise ValueError(f"provider: found {provider!r}")


def _openai(url: str, timeout_s: float, *, aio: bool) -> AsyncOpenAI:
    return AsyncOpenAI(
        base_url=f"{url}/v1",
        api_key=KEY,
        max_retries=0,
        timeout=timeout_s,
        http_client=OpenAIAioHttp(timeout=timeout_s) if aio else None,
    )


def _anthropic(url: str, timeout_s: float, *, aio: bool) -> AsyncAnthropic:
    return AsyncAnthropic(
        base_url=url,
        api_key=KEY,
        max_retries=0,
        timeout=timeout_s,
        http_client=AnthropicAioHttp(timeout=timeout_s) if aio else None,
    )


def _google(url: str, timeout_s: float, session: aiohttp.ClientSession | None) -> AsyncGoogle:
    """Return a client over `session`, or over httpx2 without one.

    The session is ours because the SDK's own one raises a DeprecationWarning in aiohttp.
    ``attempts=1`` turns off a second try that the SDK makes over aiohttp after 1 to 10 s.
    """
    options = HttpOptions(
        base_url=url,
        timeout=round(timeout_s * 1000),
        aiohttp_client=session,
        async_client_args=None if session else {"transport": AsyncHTTPTransport()},
        retry_options=HttpRetryOptions(attempts=1),
    )
    return genai.Client(api_key=KEY, http_options=options).aio


async def _ask_openai(client: AsyncOpenAI, model: str, *, stream: bool) -> Outcome:
    if not stream:
        return read_openai(await client.responses.create(model=model, input=HELLO))
    events = await client.responses.create(model=model, input=HELLO, stream=True)
    return read_openai(last_response([event async for event in events]))


async def _ask_compatible(client: AsyncOpenAI, model: str, *, stream: bool) -> Outcome:
    if not stream:
        return read_compatible(await client.chat.completions.create(model=model, messages=CHAT))
    chunks = await client.chat.completions.create(
        model=model, messages=CHAT, stream=True, stream_options={"include_usage": True}
    )
    return read_chunks([chunk async for chunk in chunks])


async def _ask_anthropic(client: AsyncAnthropic, model: str, *, stream: bool) -> Outcome:
    messages = client.messages
    if not stream:
        message = await messages.create(model=model, messages=MESSAGES, max_tokens=64)
        return read_anthropic(message)
    async with messages.stream(model=model, messages=MESSAGES, max_tokens=64) as events:
        return read_anthropic(await events.get_final_message())


async def _ask_google(client: AsyncGoogle, model: str, *, stream: bool) -> Outcome:
    if not stream:
        reply = await client.models.generate_content(model=model, contents=HELLO)
        return read_google([reply])
    replies = await client.models.generate_content_stream(model=model, contents=HELLO)
    return read_google([reply async for reply in replies])
