"""A provider with all that a call needs: credentials, clients, deadline, usage log and streams.

Entry points: `Backend` (the protocol) and `ProviderBackend` (its implementation around a `Provider`). Both have sync
and async methods.
"""

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
# The first bytes of a body that is an event stream or an array of chunks.
_STREAMED = (b"data:", b"event:", b"id:", b"retry:", b":", b"[")


class Backend(Protocol):
    """The interface through which muse calls a provider module, however the module is implemented."""

    @property
    def spec(self) -> ProviderSpec:
        """Return the provider's declaration of itself."""

    def reply(self, request: Request, origin: CallMetadata, api_key: str | None = None) -> Reply:
        """Make one call and return its reply."""

    async def areply(self, request: Request, origin: CallMetadata, api_key: str | None = None) -> Reply:
        """Do the same as `reply`, asynchronously."""

    def stream(self, request: Request, origin: CallMetadata, api_key: str | None = None) -> ReplyStream:
        """Make one call and return its answer as a stream."""

    async def astream(self, request: Request, origin: CallMetadata, api_key: str | None = None) -> AsyncReplyStream:
        """Do the same as `stream`, asynchronously."""

    def load(self, api_key: str | None = None) -> None:
        """Import what calls need and make the client, so that the first call's deadline does not include this time."""

    async def aload(self, api_key: str | None = None) -> None:
        """Do the same as `load` without blocking the running event loop."""


class _OpenedCall(Struct, frozen=True):
    """A call that is ready to be sent."""

    payload: Payload
    account: AttemptRecorder
    deadline: Deadline
    access: Credentials


class ProviderBackend:
    """A `Backend` around a `Provider`; one per provider, shared by all threads and event loops."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self._clients: ClientCache[Any] = ClientCache(provider.client, provider.aclient, provider.aclose)
        self._is_loaded = False
        # All calls that wait for loading share one executor thread of the event loop.
        self._loading: Future[None] | None = None

    @property
    def spec(self) -> ProviderSpec:
        """Return the provider's declaration of itself."""
        return self.provider.spec

    def load(self, api_key: str | None = None) -> None:
        """Import what calls need and make the client, so that the first call's deadline does not include this time.

        An exception is suppressed here. The call itself runs into it again, raises it and logs it.
        """
        if self._is_loaded:
            return
        with suppress(Exception):
            client = self._clients.get(self.provider.access(api_key))
            self.provider.warm(client)
            self._is_loaded = True

    async def aload(self, api_key: str | None = None) -> None:
        """Do the same as `load` without blocking the running event loop."""
        if self._is_loaded:
            return
        import asyncio  # costs nothing: a running coroutine means that it is already imported

        if api_key is not None:
            await asyncio.to_thread(self.load, api_key)
            return
        loop = asyncio.get_running_loop()
        loading = self._loading
        if loading is None or loading.done() or loading.get_loop() is not loop:
            loading = self._loading = loop.run_in_executor(None, copy_context().run, self.load)
        try:
            await asyncio.shield(loading)  # a cancelled call must not cancel the loading that other calls await
        finally:
            if loading.done() and self._loading is loading:
                self._loading = None

    def reply(self, request: Request, origin: CallMetadata, api_key: str | None = None) -> Reply:
        """Make one call and return its checked and logged reply; `muse.types.errors` lists the errors it raises."""
        self.load(api_key)
        if origin.attempt is not None:
            return self._replied(request, origin, api_key)
        # No caller retries here, so the request is sent again if the kept connection turned out to be closed.
        number = CallNumber()
        try:
            return self._replied(request, _numbered(origin, number.attempt()), api_key)
        except ProviderDown as error:
            if error.code != STALE:
                raise
        return self._replied(request, _numbered(origin, number.attempt(on_new_connection=True)), api_key)

    def _replied(self, request: Request, origin: CallMetadata, api_key: str | None) -> Reply:
        """Make one attempt and return its reply."""
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
        """Do the same as `reply`, asynchronously."""
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
        """Do the same as `_replied`, asynchronously."""
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
        """Make one call and return its answer as a stream; the request is sent when the first piece is read."""
        self.load(api_key)
        return self._streamed(self._open(request, origin, api_key))

    async def astream(self, request: Request, origin: CallMetadata, api_key: str | None = None) -> AsyncReplyStream:
        """Do the same as `stream`, asynchronously."""
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
        """Return the text that `model` generates for `contents`.

        Args:
            contents: Text, or a list of text, images (PIL, bytes, path), PDF files and role dicts.
            model: The name of the model.
            temperature: The sampling temperature.
            max_output_tokens: The limit of the text in tokens; the thinking budget comes on top of it.
            system_instruction: The system prompt.
            json_output: True to get JSON.
            thinking_budget: Tokens for thinking; None leaves it to the model, 0 turns thinking off.
            timeout_s: The time limit of the whole call in seconds.
            context: The context under which the call is logged; None takes the name of the calling code.
            **kwargs: `json_schema`, `api_key`, `segment` and the provider's own options; others are dropped.

        Raises:
            MissingKeyError, ContentsError, ProviderError, ReplyError: See `muse.types.errors`.
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
        """Do the same as `generate`, asynchronously."""
        options = _options(
            temperature, max_output_tokens, system_instruction, json_output, thinking_budget, timeout_s, kwargs
        )
        origin, api_key = _origin(options, context, caller_context(2) if context is None else "")
        return (await self.areply(build_request(contents, model, options, needs_text=True), origin, api_key)).text

    async def run_agent(
        self, config: Mapping[str, Any], on_event: Callable[[dict[str, Any]], None] | None = None
    ) -> str:
        """Run an agent to its final answer, with MCP tool calls between turns.

        Args:
            config: `prompt`, `model`, and any further entry of `muse.agent_loop.run_config.RunConfig`.
            on_event: Receives the events of the run.

        Raises:
            ValueError: `prompt` or `model` is missing.
            RuntimeError: Tools are requested but `mcp_server_url` is missing.
        """
        from muse.agent_loop.loop import run as run_loop  # takes 6 ms, which only agent runs need

        return await run_loop(config, on_event, model=_BackendModel(self), provider=self.spec.name)

    def _open(self, request: Request, origin: CallMetadata, api_key: str | None) -> _OpenedCall:
        """Prepare a call before it touches the network; contents and keys are checked here."""
        deadline = Deadline.after(request.timeout_s)
        encoded = self.provider.encode_fitted(request)
        unknown = tuple(name for name in request.extras if name not in self.spec.options)
        account = AttemptRecorder(self.provider, request, origin, deadline, encoded.dropped + unknown)
        with account:
            access = self.provider.access(api_key)
        return _OpenedCall(encoded.payload, account, deadline, access)

    async def aclient(self) -> Any:
        """Return the async client for the current key and address, for the provider's batch service.

        Raises:
            MissingKeyError, UnavailableError: There is no key, or the SDK is not installed.
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
    """An adapter that gives the agent loop access to a backend."""

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
    """Return the call's metadata and API key, and remove them from `options`."""
    origin = CallMetadata(context or caller, segment=options.pop("segment", None) or os.environ.get("SEGMENT_KEY"))
    return origin, options.pop("api_key", None)


def _loads(body: Answer, provider: Provider, model: str) -> Mapping[str, Any]:
    if not isinstance(body, bytes):
        return body
    try:
        raw = _decode(body)
    except (msgspec.DecodeError, RecursionError):  # msgspec is strict; json also accepts half a surrogate pair
        raw = _lenient(body)
    if isinstance(raw, dict):
        return raw
    gathered = _gathered(body, provider)
    if gathered is None:
        raise invalid_body_error(provider.spec.name, model, body)
    return gathered


def _gathered(body: bytes, provider: Provider) -> Mapping[str, Any] | None:
    """Return the answer of a server that streams although it was not asked to; None if the body is no stream.

    Raises:
        MuseError: The stream contains an error.
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
