"""How each vendor's SDK reports what goes wrong; it does not know how it is made to."""

from __future__ import annotations

import json
from dataclasses import dataclass

import aiohttp
import anthropic
import httpx2
import openai
from google.genai import errors

from tests.loopback.behaviours import Close, CloseHalfway, Hang, HangHalfway, Step
from tests.loopback.scenarios import PROVIDERS


@dataclass(frozen=True)
class Fault:
    """One step and the class raised for it.

    Attributes:
        httpx2: raised by the sync clients, and by the async ones over httpx2.
        aiohttp: raised by the async clients over aiohttp.
    """

    provider: str
    step: Step
    httpx2: type[Exception]
    aiohttp: type[Exception]

    @property
    def timeout_s(self) -> float:
        """How long a client should wait: short where it waits in vain."""
        return 0.1 if isinstance(self.step, Hang | HangHalfway) else 5.0

    def __str__(self) -> str:
        """Return a name for a test's id."""
        step = self.step if isinstance(self.step, str) else type(self.step).__name__
        return f"{self.provider}-{step}"


_OPENAI_ERRORS: dict[str, type[Exception]] = {
    "error_400": openai.BadRequestError,
    "error_401": openai.AuthenticationError,
    "error_403": openai.PermissionDeniedError,
    "error_404": openai.NotFoundError,
    "error_429": openai.RateLimitError,
    "error_quota": openai.RateLimitError,
    "error_500": openai.InternalServerError,
    "error_503": openai.InternalServerError,
    "error_529": openai.InternalServerError,
}
ERRORS: dict[str, dict[str, type[Exception]]] = {
    "openai": _OPENAI_ERRORS,
    "compatible": _OPENAI_ERRORS | {"error_402": openai.APIStatusError, "blocked_prompt": openai.BadRequestError},
    "anthropic": {
        "error_400": anthropic.BadRequestError,
        "error_401": anthropic.AuthenticationError,
        "error_402": anthropic.PaymentRequiredError,
        "error_403": anthropic.PermissionDeniedError,
        "error_404": anthropic.NotFoundError,
        "error_429": anthropic.RateLimitError,
        "error_quota": anthropic.BadRequestError,
        "error_500": anthropic.InternalServerError,
        "error_503": anthropic.ServiceUnavailableError,
        "error_529": anthropic.OverloadedError,
    },
    "google": {name: errors.ClientError for name in _OPENAI_ERRORS if name < "error_5"}
    | {"error_key": errors.ClientError, "error_quota": errors.ClientError}
    | dict.fromkeys(("error_500", "error_503", "error_529"), errors.ServerError),
}

"""Class raised by provider and scenario, the same for plain and streamed requests."""

BROKEN = [
    *(Fault(name, "malformed", json.JSONDecodeError, json.JSONDecodeError) for name in PROVIDERS),
    Fault("openai", "empty_body", json.JSONDecodeError, json.JSONDecodeError),
    Fault("compatible", "empty_body", json.JSONDecodeError, json.JSONDecodeError),
    Fault("anthropic", "empty_body", json.JSONDecodeError, json.JSONDecodeError),
    Fault("openai", Close(), openai.APIConnectionError, openai.APITimeoutError),
    Fault("compatible", Close(), openai.APIConnectionError, openai.APITimeoutError),
    Fault("anthropic", Close(), anthropic.APIConnectionError, anthropic.APIConnectionError),
    Fault("google", Close(), httpx2.RemoteProtocolError, aiohttp.ServerDisconnectedError),
    Fault("openai", CloseHalfway(), openai.APIConnectionError, openai.APIConnectionError),
    Fault("compatible", CloseHalfway(), openai.APIConnectionError, openai.APIConnectionError),
    Fault("anthropic", CloseHalfway(), anthropic.APIConnectionError, anthropic.APIConnectionError),
    Fault("google", CloseHalfway(), httpx2.RemoteProtocolError, aiohttp.ClientPayloadError),
    Fault("openai", Hang(), openai.APITimeoutError, openai.APITimeoutError),
    Fault("compatible", HangHalfway(), openai.APITimeoutError, openai.APITimeoutError),
    Fault("anthropic", Hang(), anthropic.APITimeoutError, anthropic.APITimeoutError),
    Fault("google", Hang(), httpx2.ReadTimeout, TimeoutError),
]
"""Plain replies that never come or come broken."""

BROKEN_STREAMS = [
    Fault("openai", "stream_cut", openai.APIConnectionError, openai.APIConnectionError),
    Fault("compatible", "stream_cut", openai.APIConnectionError, openai.APIConnectionError),
    Fault("anthropic", "stream_cut", httpx2.RemoteProtocolError, httpx2.ReadError),
    Fault("google", "stream_cut", httpx2.RemoteProtocolError, aiohttp.ClientPayloadError),
    Fault("openai", "stream_malformed", json.JSONDecodeError, json.JSONDecodeError),
    Fault("compatible", "stream_malformed", json.JSONDecodeError, json.JSONDecodeError),
    Fault("anthropic", "stream_malformed", json.JSONDecodeError, json.JSONDecodeError),
    Fault("google", "stream_malformed", errors.UnknownApiResponseError, errors.UnknownApiResponseError),
    Fault("openai", "stream_error_nested", openai.APIError, openai.APIError),
    Fault("compatible", "stream_error", openai.APIError, openai.APIError),
    Fault("anthropic", "stream_error", anthropic.APIStatusError, anthropic.APIStatusError),
    Fault("google", "stream_error", errors.ServerError, errors.ServerError),
    Fault("openai", HangHalfway(), openai.APITimeoutError, openai.APITimeoutError),
    Fault("anthropic", HangHalfway(), httpx2.ReadTimeout, httpx2.ReadTimeout),
    Fault("google", HangHalfway(), httpx2.ReadTimeout, TimeoutError),
]
"""Streams that break after some text."""
