"""The base of providers on SDKs shaped like openai's and anthropic's: a `post` method and one error tree.

Entry point: `SdkProvider`. It also holds helpers that several wire forms share, such as `data_url` and `stream_error`.
"""

from __future__ import annotations

import base64
import json
import sys
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from importlib import import_module
from typing import Any, ClassVar

import msgspec
from msgspec.structs import replace

from muse.policies.deadline import Deadline
from muse.providers._backend.provider import Credentials, Payload, Provider, without_query
from muse.providers._http.sse import aread_events, read_events
from muse.providers._replies.errors import connection_error, invalid_body_error, local_error, status_error
from muse.providers._replies.moderation import reasons_of
from muse.types.errors import ContentsError, MuseError, ProviderError, ProviderTimeout
from muse.types.messages import File, Image, Part
from muse.types.provider_spec import ModelProfile
from muse.types.redaction import RedactedStruct

_TRANSPORTS = ("httpx2", "httpx")


_encoder = msgspec.json.Encoder()


def _encode(payload: Payload) -> bytes:
    """Return a payload as JSON; half a surrogate pair, which a model may have written, becomes a question mark."""
    try:
        return _encoder.encode(payload)
    except UnicodeEncodeError:
        return json.dumps(payload, ensure_ascii=False).encode("utf-8", errors="replace")


class SdkConnection(RedactedStruct, frozen=True):
    """An SDK client, the address it posts to, and the type in which its `post` returns the raw answer."""

    _hidden: ClassVar[frozenset[str]] = frozenset({"sdk"})
    _addresses: ClassVar[frozenset[str]] = frozenset({"url"})

    sdk: Any
    url: str
    raw: type[Any]


_NOTHING: Mapping[str, str] = {}
_TOLD = ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")


def _client_options(sdk: Any, access: Credentials, http_client: Any) -> tuple[Credentials, dict[str, Any]]:
    """Return the credentials without the address's query, and the options for every client of an SDK.

    The options turn off the SDK's retries. They also turn off its headers about the system it runs on, which cost a
    twentieth of a call. They hold the query, which belongs after the path of each request.
    """
    quiet = dict.fromkeys((f"X-Stainless-{name}" for name in _TOLD), sdk.Omit())
    address, query = without_query(access.base_url)
    wiring = {"max_retries": 0, "http_client": http_client, "default_headers": quiet, "default_query": query or None}
    return replace(access, base_url=address), wiring


def _options(deadline: Deadline) -> dict[str, Any]:
    """Return a request's options, including those the SDKs would otherwise deep-copy from their own defaults."""
    return {"timeout": deadline.left_s(), "headers": _NOTHING, "params": _NOTHING, "max_retries": 0}


class SdkProvider(Provider):
    """A provider that sends its requests with `client.post(url, content=...)`.

    This is the SDKs' documented way to send a self-made request. It keeps authentication, proxies and error classes. It
    skips the typed methods' walk through every union member of every message. The SDKs' own retries are off.
    """

    path: ClassVar[str]

    @abstractmethod
    def connect(self, sdk: Any, access: Credentials, *, is_async: bool, **wiring: Any) -> Any:
        """Return the SDK's client object, made with the options in `wiring`."""

    def client(self, access: Credentials) -> SdkConnection:
        sdk, http = import_module(self.sdk), import_module("muse.providers._http.clients")
        at, wiring = _client_options(sdk, access, http.sync_client(access.max_bytes))
        return self._line(self.connect(sdk, at, is_async=False, **wiring), http)

    def aclient(self, access: Credentials) -> SdkConnection:
        sdk, http = import_module(self.sdk), import_module("muse.providers._http.clients")
        at, wiring = _client_options(sdk, access, http.async_client(access.max_bytes))
        return self._line(self.connect(sdk, at, is_async=True, **wiring), http)

    def _line(self, sdk: Any, http: Any) -> SdkConnection:
        """Return a connection that posts to one fixed address."""
        # The SDK would parse the address again for each call; `parsed` caches it.
        sdk._prepare_url = http.parsed
        return SdkConnection(sdk, str(sdk.base_url).rstrip("/") + self.path, http.Response)

    async def aclose(self, client: SdkConnection) -> None:
        await client.sdk.close()

    def send(self, client: SdkConnection, payload: Payload, deadline: Deadline) -> bytes:
        options = _options(deadline)
        content = _encode(payload)
        body: bytes = client.sdk.post(client.url, content=content, cast_to=client.raw, options=options).content
        return body

    async def asend(self, client: SdkConnection, payload: Payload, deadline: Deadline) -> bytes:
        options = _options(deadline)
        content = _encode(payload)
        answer = await client.sdk.post(client.url, content=content, cast_to=client.raw, options=options)
        body: bytes = answer.content
        return body

    def stream(self, client: SdkConnection, payload: Payload, deadline: Deadline) -> Iterator[Any]:
        options = _options(deadline)
        content = _encode(self.streamed(payload))
        events = client.sdk.post(client.url, content=content, cast_to=object, options=options, stream=True)
        with events:
            yield from read_events(events.response.iter_bytes(), self.spec.name)

    async def astream(self, client: SdkConnection, payload: Payload, deadline: Deadline) -> AsyncIterator[Any]:
        options = _options(deadline)
        content = _encode(self.streamed(payload))
        posted = client.sdk.post(client.url, content=content, cast_to=object, options=options, stream=True)
        async with (
            await posted as events,
            aclosing(aread_events(events.response.aiter_bytes(), self.spec.name)) as values,
        ):
            async for value in values:
                yield value

    def streamed(self, payload: Payload) -> Payload:
        """Return the payload of a streamed request."""
        return payload | {"stream": True}

    def fault(self, exc: Exception, model: str) -> MuseError | None:
        name = self.spec.name
        own = own_fault(exc, name, model)
        if own is not None:
            return own
        sdk = sys.modules.get(self.sdk)
        if sdk is None or not isinstance(exc, sdk.APIError):
            return transport_fault(exc, name, model)
        if isinstance(exc, sdk.APIConnectionError):
            return transport_fault(exc.__cause__ or exc, name, model) or connection_error(name, model, exc)
        code, message = error_words(exc.body)
        is_answer = isinstance(exc, sdk.APIStatusError)
        return status_error(
            name,
            model,
            exc.status_code if is_answer else STREAM_STATUS,
            code=code,
            message=message or exc.message,
            headers=exc.response.headers if is_answer else None,
            moderation=reasons_of(exc.body),
        )


# An error event in the middle of a stream has no HTTP status of its own, only the 200 with which the stream began.
STREAM_STATUS = 200


def own_fault(exc: BaseException, provider: str, model: str) -> MuseError | None:
    """Return the error of muse's own transport (too large answer, bad proxy) that an SDK wrapped; None if none."""
    cause = exc.__cause__
    if isinstance(cause, ProviderError):
        cause.provider, cause.model = cause.provider or provider, cause.model or model
    return cause if isinstance(cause, MuseError) else None


def transport_fault(exc: BaseException, provider: str, model: str) -> MuseError | None:
    """Return the error for an exception of an HTTP library or socket beneath an SDK; None if it comes from neither."""
    home = type(exc).__module__.partition(".")[0]
    if home == "json":
        return invalid_body_error(provider, model, b"a piece of a stream")
    if isinstance(exc, TimeoutError):
        return None
    if home not in _TRANSPORTS and not isinstance(exc, OSError):
        return None
    local = local_error(exc)
    if local is not None:
        return local
    if type(exc).__name__ in _TIMEOUTS:
        return ProviderTimeout("no answer in time", provider=provider, model=model, code="timeout", retryable=True)
    return connection_error(provider, model, exc)


_TIMEOUTS = frozenset({"ReadTimeout", "WriteTimeout", "ConnectTimeout", "PoolTimeout", "TimeoutException"})


def error_words(body: object) -> tuple[object, object]:
    """Return `(code, message)` of an error body in OpenAI's or Anthropic's shape, nested under `error` or flat."""
    if not isinstance(body, Mapping):
        return None, body
    error = body.get("error", body)
    if not isinstance(error, Mapping):
        return None, error
    return error.get("code") or error.get("type"), error.get("message")


def data_url(part: Image | File) -> str:
    """Return an image or document as a `data:` URL (RFC 2397)."""
    return f"data:{part.media_type};base64,{base64.b64encode(part.data).decode('ascii')}"


def refuse_parts(parts: tuple[Part, ...], profile: ModelProfile, model: str) -> None:
    """Check that the model accepts every part.

    Raises:
        ContentsError: There is an image or file and the model reads none.
    """
    for part in parts:
        if isinstance(part, Image) and not profile.images:
            raise ContentsError(f"{model} reads no images; route this context to a model that sees (muse providers)")
        if isinstance(part, File) and not profile.files:
            raise ContentsError(
                f"{model} reads no files; send its text, or route this context to a model that reads PDF"
            )


ONLY_JSON = "Answer with one JSON object and nothing else: no explanation, no code fence."


def schema_words(schema: Mapping[str, Any]) -> str:
    """Return a request for JSON of this schema in words, for models that accept no schema."""
    return f"{ONLY_JSON} It must fit this JSON Schema: {json.dumps(schema, ensure_ascii=False)}"


def stream_error(provider: str, model: str, body: Mapping[str, Any]) -> MuseError:
    """Return the error for an error body that came with a good status, in a stream or as a whole answer."""
    code, message = error_words(body)
    status = code if isinstance(code, int) and 400 <= code < 600 else STREAM_STATUS
    words, reasons = message or "an answer without output", reasons_of(body)
    return status_error(provider, model, status, code=code, message=words, moderation=reasons)
