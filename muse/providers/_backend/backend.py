"""A provider with all that surrounds it, sync and async: keys, clients, deadline, books, streams; no wire form."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from muse.policies.deadline import Deadline, time_limit
from muse.policies.resend_guard import STALE
from muse.providers._backend.attempt import AttemptRecorder, CallMetadata
from muse.providers._backend.client_cache import ClientCache
from muse.providers._backend.provider import Answer, Credentials, Payload, Provider
from muse.providers._http.sse import read_events
from muse.providers._replies.errors import invalid_body_error
from muse.streaming.streams import AsyncReplyStream, ReplyStream
from muse.types.call_ids import Attempted, CallNumber
from muse.types.content import build_request
from muse.types.errors import ProviderDown, UnavailableError
from muse.types.messages import Reply, Request
from muse.types.provider_spec import ProviderSpec
from muse.types.surrogates import join_surrogates_in
from muse.usage_log.ledger import caller_context

if TYPE_CHECKING:
    from asyncio import Future

_decode = msgspec.json.Decoder().decode
_MARK = b"\xef\xbb\xbf"
# How a body begins that is a stream of events, or an array of chunks.
_STREAMED = (b"data:", b"event:", b"id:", b"retry:", b":", b"[")


class Backend(Protocol):
    """What the front desk needs of a provider module, whatever it is made of."""

    @property
    def spec(self) -> ProviderSpec:
        """What the provider declares about itself."""

    def reply(self, request: Request, origin: CallMetadata, api_key: str | None = None) -> Reply:
        """One call, answered."""

    async def areply(self, request: Request, origin: CallMetadata, api_key: str | None = None) -> Reply:
        """As `reply`, awaited."""

    def stream(self, request: Request, origin: CallMetadata, api_key: str | None = None) -> ReplyStream:
        """One call, its answer as it is written."""

    async def astream(self, request: Request, origin: CallMetadata, api_key: str | None = None) -> AsyncReplyStream:
        """As `stream`, awaited."""

    def load(self, api_key: str | None = None) -> None:
        """Import what calls need and make the client, before the clock of the first call starts."""

    async def aload(self, api_key: str | None = None) -> None:
        """As `load`, for the running loop, which is not held meanwhile."""


class _OpenedCall(Struct, frozen=True):
    """A call that is ready to go out."""

    payload: Payload
    account: AttemptRecorder
    deadline: Deadline
    access: Credentials


class ProviderBackend:
    """A `Provider` behind the seed's signatures; one per provider, for all threads and loops."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self._clients: ClientCache[Any] = ClientCache(provider.client, provider.aclient, provider.aclose)
        self._is_loaded = False
        # One thread of the loop loads, however many calls wait for it.
        self._loading: Future[None] | None = None

    @property
    def spec(self) -> ProviderSpec:
        """What the provider declares about itself."""
        return self.provider.spec

    def load(self, api_key: str | None = None) -> None:
        """Import what calls need and make the client, before the clock of the first call starts.

        What goes wrong is left to the call, which raises it and writes it down.
        """
        if self._is_loaded:
            return
        with suppress(Exception):
            client = self._clients.get(self.provider.access(api_key))
            self.provider.warm(client)
            self._is_loaded = True

    async def aload(self, api_key: str | None = None) -> None:
        """As `load`, for the running loop, which is not held meanwhile."""
        if self._is_loaded:
            return
        import asyncio  # a coroutine runs, so it is loaded

        if api_key is not None:
            await asyncio.to_thread(self.load, api_key)
            return
        loop = asyncio.get_running_loop()
        loading = self._loading
        if loading is None or loading.done() or loading.get_loop() is not loop:
            loading = self._loading = loop.run_in_executor(None, copy_context().run, self.load)
        try:
            await asyncio.shield(loading)  # others may wait for it
        finally:
            if loading.done() and self._loading is loading:
                self._loading = None

    def reply(self, request: Request, origin: CallMetadata, api_key: str | None = None) -> Reply:
        """One call, answered, checked and logged; see `muse.types.errors` for what it raises."""
        self.load(api_key)
        if origin.attempt is not None:
            return self._replied(request, origin, api_key)
        number = CallNumber()  # nobody above tries again, so a kept connection that had ended is made up for here
        try:
            return self._replied(request, _numbered(origin, number.attempt()), api_key)
        except ProviderDown as error:
            if error.code != STALE:
                raise
        return self._replied(request, _numbered(origin, number.attempt(on_new_connection=True)), api_key)

    def _replied(self, request: Request, origin: CallMetadata, api_key: str | None) -> Reply:
        """One attempt, answered."""
        call = self._open(request, origin, api_key)
        if self.provider.must_stream(call.payload):
            return self._streamed(call).reply
        with call.account:
            client = self._client(call.access)
            with call.account.begin(), time_limit(call.deadline):
                body = self.provider.send(client, call.payload, call.deadline)
            raw = _loads(body, self.provider, request.model)
        return call.account.answered(raw)

    async def areply(self, request: Request, origin: CallMetadata, api_key: str | None = None) -> Reply:
        """As `reply`, awaited."""
        await self.aload(api_key)
        if origin.attempt is not None:
            return await self._areplied(request, origin, api_key)
        number = CallNumber()
        try:
            return await self._areplied(request, _numbered(origin, number.attempt()), api_key)
        except ProviderDown as error:
            if error.code != STALE:
                raise
        return await self._areplied(request, _numbered(origin, number.attempt(on_new_connection=True)), api_key)

    async def _areplied(self, request: Request, origin: CallMetadata, api_key: str | None) -> Reply:
        """As `_replied`, awaited."""
        call = self._open(request, origin, api_key)
        if self.provider.must_stream(call.payload):
            return await (await self._astreamed(call)).reply()
        with call.account:
            client = await self._aclient(call.access)
            with call.account.begin():
                body = await call.deadline.bound(self.provider.asend(client, call.payload, call.deadline))
            raw = _loads(body, self.provider, request.model)
        return call.account.answered(raw)

    def stream(self, request: Request, origin: CallMetadata, api_key: str | None = None) -> ReplyStream:
        """One call, its answer as it is written; the request goes out when the first piece is asked for."""
        self.load(api_key)
        return self._streamed(self._open(request, origin, api_key))

    async def astream(self, request: Request, origin: CallMetadata, api_key: str | None = None) -> AsyncReplyStream:
        """As `stream`, awaited."""
        await self.aload(api_key)
        return await self._astreamed(self._open(request, origin, api_key))

    def _streamed(self, call: _OpenedCall) -> ReplyStream:
        with call.account:
            events = self.provider.stream(self._client(call.access), call.payload, call.deadline)
        return ReplyStream(events, self.provider.gather(), call.account, call.deadline)

    async def _astreamed(self, call: _OpenedCall) -> AsyncReplyStream:
        with call.account:
            events = self.provider.astream(await self._aclient(call.access), call.payload, call.deadline)
        return AsyncReplyStream(events, self.provider.gather(), call.account, call.deadline)

    def generate(
        self,
        contents: Any,
        model: str,
        temperature: float = 0.3,
        max_output_tokens: int = 8192 * 2,
        system_instruction: str | None = None,
        json_output: bool = False,
        thinking_budget: int | None = None,
        timeout_s: float | None = None,
        context: str | None = None,
        **kwargs: Any,
    ) -> str:
        """Text for `contents` from `model`, logged under `context` (the caller's name if None).

        `contents` is text, or a list of text, images (PIL, bytes, path), PDF files and role dicts. `max_output_tokens`
        bounds the text; a `thinking_budget` (tokens: None the model's own way, 0 none, n that many) comes on top.
        `timeout_s` is for the whole call. `kwargs`: `json_schema`, `api_key`, `segment` and the provider's own
        options; others are dropped.

        Raises:
            MissingKeyError, ContentsError, ProviderError, ReplyError: see `muse.types.errors`.
        """
        options = _options(
            temperature, max_output_tokens, system_instruction, json_output, thinking_budget, timeout_s, kwargs
        )
        origin, api_key = _origin(options, context, caller_context(2) if context is None else "")
        return self.reply(build_request(contents, model, options, needs_text=True), origin, api_key).text

    async def agenerate(
        self,
        contents: Any,
        model: str,
        temperature: float = 0.3,
        max_output_tokens: int = 8192 * 2,
        system_instruction: str | None = None,
        json_output: bool = False,
        thinking_budget: int | None = None,
        timeout_s: float | None = None,
        context: str | None = None,
        **kwargs: Any,
    ) -> str:
        """As `generate`, awaited."""
        options = _options(
            temperature, max_output_tokens, system_instruction, json_output, thinking_budget, timeout_s, kwargs
        )
        origin, api_key = _origin(options, context, caller_context(2) if context is None else "")
        return (await self.areply(build_request(contents, model, options, needs_text=True), origin, api_key)).text

    async def run_agent(
        self, config: Mapping[str, Any], on_event: Callable[[dict[str, Any]], None] | None = None
    ) -> str:
        """Run an agent to its answer, with MCP tools between turns and events to `on_event`.

        `config` has `prompt`, `model`, and any further entry of `muse.agent_loop.run_config.RunConfig`.

        Raises:
            ValueError: `prompt` or `model` is missing.
            RuntimeError: tools are wanted and no `mcp_server_url` is given.
        """
        from muse.agent_loop.loop import run as run_loop  # 6 ms, and only who runs agents pays it

        return await run_loop(config, on_event, model=_BackendModel(self), provider=self.spec.name)

    def _open(self, request: Request, origin: CallMetadata, api_key: str | None) -> _OpenedCall:
        """Everything a call needs before it touches the network; contents and keys are checked here."""
        deadline = Deadline.after(request.timeout_s)
        encoded = self.provider.encode_fitted(request)
        unknown = tuple(name for name in request.extras if name not in self.spec.options)
        account = AttemptRecorder(self.provider, request, origin, deadline, encoded.dropped + unknown)
        with account:
            access = self.provider.access(api_key)
        return _OpenedCall(encoded.payload, account, deadline, access)

    async def aclient(self) -> Any:
        """The async client with the key and address in force, for what is no call: the provider's batch service.

        Raises:
            MissingKeyError, UnavailableError: there is no key, or the SDK is not installed.
        """
        return await self._aclient(self.provider.access())

    def _client(self, access: Credentials) -> Any:
        try:
            return self._clients.get(access)
        except ModuleNotFoundError as exc:
            raise _missing_sdk(self.provider, exc) from exc

    async def _aclient(self, access: Credentials) -> Any:
        try:
            return await self._clients.aget(access)
        except ModuleNotFoundError as exc:
            raise _missing_sdk(self.provider, exc) from exc


class _BackendModel:
    """A backend as the agent loop asks it."""

    def __init__(self, backend: ProviderBackend) -> None:
        self._backend = backend

    async def load(self) -> None:
        await self._backend.aload()

    async def ask(self, request: Request, context: str) -> Reply:
        return await self._backend.areply(request, CallMetadata(context))

    async def open(self, request: Request, context: str) -> AsyncReplyStream:
        return await self._backend.astream(request, CallMetadata(context))


def _numbered(origin: CallMetadata, attempt: Attempted) -> CallMetadata:
    return replace(origin, attempt=attempt)


def _missing_sdk(provider: Provider, exc: ModuleNotFoundError) -> UnavailableError:
    spec = provider.spec
    return UnavailableError(
        f"provider {spec.name!r}",
        f"no module {exc.name!r} on this Python",
        f"the package that brings it: pip install 'muse-router[{spec.extra or spec.name}]'",
    )


def _options(
    temperature: float,
    max_output_tokens: int,
    system_instruction: str | None,
    json_output: bool,
    thinking_budget: int | None,
    timeout_s: float | None,
    further: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "temperature": temperature,
        "max_output_tokens": max_output_tokens,
        "system_instruction": system_instruction,
        "json_output": json_output,
        "thinking_budget": thinking_budget,
        "timeout_s": timeout_s,
        **further,
    }


def _origin(options: dict[str, Any], context: str | None, caller: str) -> tuple[CallMetadata, str | None]:
    """The call's origin and key, taken out of `options`."""
    origin = CallMetadata(context or caller, segment=options.pop("segment", None) or os.environ.get("SEGMENT_KEY"))
    return origin, options.pop("api_key", None)


def _loads(body: Answer, provider: Provider, model: str) -> Mapping[str, Any]:
    if not isinstance(body, bytes):
        return body
    try:
        raw = _decode(body)
    except (msgspec.DecodeError, RecursionError):  # it is strict; json also takes half a surrogate pair
        raw = _lenient(body)
    if isinstance(raw, dict):
        return raw
    gathered = _gathered(body, provider)
    if gathered is None:
        raise invalid_body_error(provider.spec.name, model, body)
    return gathered


def _gathered(body: bytes, provider: Provider) -> Mapping[str, Any] | None:
    """The answer of a server that streams although no stream was asked for; None if the body is no such stream.

    Raises:
        MuseError: the stream tells of an error.
    """
    if not body.removeprefix(_MARK).lstrip().startswith(_STREAMED):
        return None
    accumulator = provider.gather()
    for event in read_events([body], provider.spec.name):
        accumulator.feed(event)
    raw = accumulator.raw()
    return None if raw is None else join_surrogates_in(raw)


def _lenient(body: bytes) -> Any:
    try:
        return join_surrogates_in(json.loads(body))
    except (ValueError, RecursionError):
        return None
