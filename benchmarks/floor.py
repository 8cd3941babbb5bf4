"""The floor: the same request and answer with nothing but a socket (or aiohttp) and json; it knows no SDK."""

from __future__ import annotations

import json
import os
import socket
from typing import Any
from urllib.parse import urlsplit

from benchmarks.world import Json

PATHS = {
    "openai": "/v1/responses",
    "anthropic": "/v1/messages",
    "google": "/v1beta/models/{model}:generateContent",
}
_ADDRESS = {"openai": "OPENAI_BASE_URL", "anthropic": "ANTHROPIC_BASE_URL", "google": "GOOGLE_GEMINI_BASE_URL"}


def address(provider: str, model: str) -> str:
    """Where `provider`'s answers come from."""
    parts = urlsplit(os.environ[_ADDRESS[provider]])
    return f"{parts.scheme}://{parts.netloc}{PATHS[provider].format(model=model)}"


def body(provider: str, model: str, prompt: str | list[Json]) -> Json:
    """The request's body; `prompt` is text or a list of role dicts."""
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if provider == "openai":
        return {"model": model, "input": turns, "max_output_tokens": 16_384}
    if provider == "anthropic":
        return {"model": model, "messages": turns, "max_tokens": 16_384}
    return {"contents": [{"role": _google_role(turn), "parts": [{"text": turn["content"]}]} for turn in turns]}


def _google_role(turn: Json) -> str:
    return "user" if turn["role"] == "user" else "model"


def text_of(provider: str, raw: Json) -> str:
    """The text of an answer."""
    if provider == "openai":
        return str(raw["output"][-1]["content"][0]["text"])
    if provider == "anthropic":
        return str(raw["content"][0]["text"])
    return str(raw["candidates"][0]["content"]["parts"][0]["text"])


class SocketFloor:
    """One kept connection, headers made once, the body as JSON each time."""

    def __init__(self, provider: str, model: str, prompt: str | list[Json]) -> None:
        parts = urlsplit(address(provider, model))
        self._provider, self._model, self._prompt = provider, model, prompt
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 80))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"

    def __call__(self) -> str:
        """One call, answered."""
        content = json.dumps(body(self._provider, self._model, self._prompt)).encode()
        self._socket.sendall(f"{self._head}content-length: {len(content)}\r\n\r\n".encode() + content)
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._socket.recv(65_536)
        head, _, answer = received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        while len(answer) < length:
            answer += self._socket.recv(65_536)
        return text_of(self._provider, json.loads(answer))


class AiohttpFloor:
    """An aiohttp session, and json on both sides."""

    def __init__(self, provider: str, model: str, prompt: str | list[Json]) -> None:
        self._provider, self._model, self._prompt = provider, model, prompt
        self._url = address(provider, model)
        self._session: Any = None

    async def __call__(self) -> str:
        """One call, answered."""
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        content = json.dumps(body(self._provider, self._model, self._prompt)).encode()
        async with self._session.post(
            self._url, data=content, headers={"content-type": "application/json"}
        ) as response:
            return text_of(self._provider, json.loads(await response.read()))

    async def aclose(self) -> None:
        """Close the session."""
        await self._session.close()
