"""One logical call carried out: its course of tries and waits, in a thread or an event loop; it knows no wire form."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, ClassVar, TypeVar

from msgspec import field, json
from msgspec.structs import replace

from muse.journal.config import Config
from muse.journal.policy_config import ModelForTier
from muse.policies.deadline import Deadline
from muse.policies.execution import (
    Call,
    ExecutionPlan,
    Fallback,
    Send,
    Sleep,
    execution_plan,
    final_error,
    report_fallback,
    should_fall_back,
)
from muse.policies.pipeline import PolicyPipeline
from muse.providers import backend_of
from muse.providers._backend.attempt import CallMetadata
from muse.providers._backend.backend import Backend
from muse.providers._backend.provider import base_url
from muse.routing.fallbacks import FallbackChain
from muse.streaming.stream_base import NO_STALL_TIMEOUTS, StallTimeouts
from muse.streaming.streams import AsyncReplyStream, ReplyStream
from muse.types.call_ids import Attempted, CallNumber
from muse.types.errors import ConfigError, DeadlineExceeded, MuseError, ProviderTimeout
from muse.types.messages import Assistant, Image, Part, Reply, Request, Route, ToolResults, User
from muse.types.redaction import RedactedStruct
from muse.usage_log import ledger, prices

_T = TypeVar("_T")
# What a picture or a document is counted as by limits on tokens; vendors count 258 to 1,600 a picture, and by page.
_IMAGE_TOKENS = 1_600
_FILE_TOKENS = 4_000


# A try this soon after its call began has all of the call's time.
_AT_ONCE_S = 0.005
_SHORTEST_S = 0.001


class PreparedCall(RedactedStruct, frozen=True):
    """A call with all that it needs; `on_fallback` is told of each step down its fallback chain."""

    _hidden: ClassVar[frozenset[str]] = frozenset({"api_key"})

    request: Request
    chain: FallbackChain
    stack: PolicyPipeline
    config: Config
    model_at: ModelForTier
    segment: str | None = None
    api_key: str | None = None
    on_fallback: Callable[[Fallback], None] | None = None
    number: CallNumber = field(default_factory=CallNumber)

    def run(self) -> Reply:
        """The reply, from the cache or from a provider."""
        key, kept = self.find()
        return kept or self.keep(key, self.ask())

    async def arun(self) -> Reply:
        """As `run`, awaited."""
        key, kept = self.find()
        return kept or self.keep(key, await self.aask())

    def ask(self, request: Request | None = None, deadline: Deadline | None = None) -> Reply:
        """The reply of a provider; to `request` in place of the call's own, within `deadline`, for a repair."""
        if self._is_hedged:
            from muse.calls.hedging import run_in_background  # it brings asyncio, and only who hedges pays its 20 ms

            return run_in_background(lambda: self._first_answer(request or self.request, deadline))
        going = _CallExecution(self, request or self.request, deadline or self.deadline())
        return _run(going.course, going.ask)

    async def aask(self, request: Request | None = None, deadline: Deadline | None = None) -> Reply:
        """As `ask`, awaited."""
        if self._is_hedged:
            return await self._first_answer(request or self.request, deadline)
        going = _CallExecution(self, request or self.request, deadline or await self.adeadline())
        return await _arun(going.course, going.aask)

    @property
    def _is_hedged(self) -> bool:
        return bool(self.chain.rules.hedge_s) and len(self.chain.targets) > 1

    async def _first_answer(self, request: Request, deadline: Deadline | None) -> Reply:
        """The first reply of several targets, each asked where those before keep silent."""
        from muse.calls.hedging import first_answer  # it brings asyncio, and only who hedges pays its 20 ms

        race = _HedgedTargets(self, request, deadline or await self.adeadline())
        return await first_answer(race, len(race.targets), self.chain.rules.hedge_s or 0.0)

    def stream(self) -> ReplyStream:
        """The reply as it is written; a stream that fails before its first piece is tried again, or falls back."""
        return _StreamRetrier(_CallExecution(self, self.request, self.deadline())).first()

    async def astream(self) -> AsyncReplyStream:
        """As `stream`, awaited."""
        return await _AsyncStreamRetrier(_CallExecution(self, self.request, await self.adeadline())).first()

    def deadline(self) -> Deadline:
        """The deadline of the call, from now on; what the provider asked first needs is loaded before that."""
        self.stack.read_log()
        with suppress(ConfigError):  # the try raises it
            backend_of(self.chain.targets[0].provider, self.config).load(self.api_key)
        return Deadline.after(self.request.timeout_s)

    async def adeadline(self) -> Deadline:
        """As `deadline`, awaited."""
        await self.stack.aread_log()
        with suppress(ConfigError):
            route = self.chain.targets[0]
            await _aload(backend_of(route.provider, self.config), route.model, self.api_key)
        return Deadline.after(self.request.timeout_s)

    def find(self) -> tuple[bytes, Reply | None]:
        """The key to keep an answer under, empty if none is kept; and the one that is kept, its line logged."""
        cache_s = self.chain.rules.cache_s
        if not cache_s:
            return b"", None
        route = self.chain.targets[0]
        found, key = self.stack.find(self.request, route, self.address(route), cache_s)
        if found is None:
            return key, None
        attempt = self.number.attempt()
        _log_cache_hit(found, route, self.segment, attempt)
        return key, replace(found, route=route, cost_usd=0.0, call_id=attempt.call_id)

    def address(self, route: Route) -> str:
        """Where a request would go; "" is the SDK's own address, or one that cannot be used, as the try will say."""
        with suppress(ConfigError):
            return base_url(backend_of(route.provider, self.config).spec) or ""
        return ""

    def keep(self, key: bytes, reply: Reply) -> Reply:
        """Keep an answer, if it is that of the model that the key is for; the reply itself."""
        if key and reply.route == self.chain.targets[0]:
            self.stack.keep(key, reply)
        return reply


class _CallExecution:
    """A call under way."""

    __slots__ = ("call", "course", "ready", "request")

    def __init__(
        self, ready: PreparedCall, request: Request, deadline: Deadline, targets: tuple[Route, ...] | None = None
    ) -> None:
        self.ready = ready
        self.request = request
        stack = ready.stack
        targets = targets or stack.targets(ready.chain, ready.model_at)
        tokens = _max_tokens_estimate(request) if stack.counts_tokens else 0
        self.call = Call(
            targets[0].context,
            targets,
            ready.chain.rules,
            deadline,
            tokens,
            bool(ready.api_key),
            ready.on_fallback,
            ready.address,
        )
        self.course = execution_plan(self.call, stack.steps)

    @property
    def watch(self) -> StallTimeouts:
        """How long a stream may keep silent."""
        rules = self.call.rules
        if not (rules.first_token_s or rules.stall_s):
            return NO_STALL_TIMEOUTS
        return StallTimeouts(rules.first_token_s or None, rules.stall_s or None)

    def ask(self, step: Send) -> Reply:
        """One try."""
        self._load(step)
        backend, request, origin, api_key = self._given(step)
        return backend.reply(request, origin, api_key)

    async def aask(self, step: Send) -> Reply:
        """As `ask`, awaited."""
        await self._aload(step)
        backend, request, origin, api_key = self._given(step)
        return await backend.areply(request, origin, api_key)

    def open(self, step: Send) -> ReplyStream:
        """One try, as a stream."""
        self._load(step)
        backend, request, origin, api_key = self._given(step)
        return backend.stream(request, origin, api_key)

    async def aopen(self, step: Send) -> AsyncReplyStream:
        """As `open`, awaited."""
        await self._aload(step)
        backend, request, origin, api_key = self._given(step)
        return await backend.astream(request, origin, api_key)

    def _load(self, step: Send) -> None:
        """Load what another target than the first needs, before the time that is left for it is looked at."""
        if step.route is not self.call.targets[0]:
            backend_of(step.route.provider, self.ready.config).load(self._key_for(step.route))

    async def _aload(self, step: Send) -> None:
        """As `_load`, awaited, for no longer than the target's time.

        Raises:
            DeadlineExceeded: the time ran out before.
        """
        if step.route is self.call.targets[0]:
            return
        provider = step.route.provider
        try:
            backend = backend_of(provider, self.ready.config)
            await step.deadline.bound(_aload(backend, step.route.model, self._key_for(step.route)))
        except TimeoutError as exc:
            raise DeadlineExceeded(f"the time ran out while the SDK of {provider} was being loaded") from exc

    def _key_for(self, route: Route) -> str | None:
        """The caller's own key, for the provider that was routed to and for nobody else."""
        return self.ready.api_key if route.provider == self.ready.chain.targets[0].provider else None

    def _given(self, step: Send) -> tuple[Backend, Request, CallMetadata, str | None]:
        """Who is asked, and the request as this try sends it: to this model, within what is left of its time."""
        route, limit, ready, request = step.route, step.deadline, self.ready, self.request
        left_s = limit.remaining_s()
        if limit is not self.call.deadline or route.model != request.model or limit.timeout_s - left_s > _AT_ONCE_S:
            request = replace(request, model=route.model, timeout_s=max(left_s, _SHORTEST_S))
        origin = CallMetadata(
            route.context or None, route, ready.segment, ready.number.attempt(on_new_connection=step.on_new_connection)
        )
        return backend_of(route.provider, ready.config), request, origin, self._key_for(route)


class _HedgedTargets:
    """The targets of a hedged call; each has a course of its own."""

    def __init__(self, ready: PreparedCall, request: Request, deadline: Deadline) -> None:
        self.targets = ready.stack.targets(ready.chain, ready.model_at)
        self._ready = ready
        self._request = request
        self._deadline = deadline

    async def ask(self, place: int) -> Reply:
        """Ask the target at a place."""
        going = _CallExecution(self._ready, self._request, self._deadline, self.targets[place : place + 1])
        return await _arun(going.course, going.aask)

    def goes_on(self, error: Exception) -> bool:
        """Return whether another target may do what this one could not."""
        return should_fall_back(error, self._ready.chain.rules)

    def say(self, failed: int, error: Exception | None, following: int) -> None:
        """Tell that the next target is asked, as the one before failed; None: as it has not answered yet."""
        silent = ProviderTimeout(
            f"no answer after {self._ready.chain.rules.hedge_s:g} s, which is still waited for", code="hedged"
        )
        context, on_fallback = self.targets[0].context, self._ready.on_fallback
        report_fallback(Fallback(context, self.targets[failed], error or silent, self.targets[following]), on_fallback)

    def raised(self, errors: Sequence[Exception]) -> Exception:
        """Return the error of the call, out of those of its targets in their order."""
        attempts = [attempt for error in errors if isinstance(error, MuseError) for attempt in error.attempts]
        return final_error(errors, attempts)


class _PlanRunner:
    """A course that opens streams for who reads them."""

    def __init__(self, going: _CallExecution) -> None:
        self._going = going

    def done(self, reply: Reply) -> Reply:
        """Tell the course of its reply."""
        try:
            self._going.course.send(reply)
        except StopIteration as end:
            whole: Reply = end.value
            return whole
        return reply

    def close(self) -> None:
        """Give the course up."""
        self._going.course.close()


class _StreamRetrier(_PlanRunner):
    """As `_PlanRunner`, in a thread."""

    def first(self) -> ReplyStream:
        """The stream to begin with."""
        return self._opened(next(self._going.course)).attach(self, self._going.watch)

    def another(self, error: Exception) -> ReplyStream:
        """The stream after one that failed."""
        return self._opened(self._going.course.send(error))

    def _opened(self, step: Send | Sleep) -> ReplyStream:
        """Carry out steps until a stream could be opened."""
        try:
            while not isinstance(opened := _perform(self._going.open, step), ReplyStream):
                step = self._going.course.send(opened)
        except BaseException:
            self.close()
            raise
        return opened


class _AsyncStreamRetrier(_PlanRunner):
    """As `_PlanRunner`, in an event loop."""

    async def first(self) -> AsyncReplyStream:
        """The stream to begin with."""
        return (await self._opened(next(self._going.course))).attach(self, self._going.watch)

    async def another(self, error: Exception) -> AsyncReplyStream:
        """The stream after one that failed."""
        return await self._opened(self._going.course.send(error))

    async def _opened(self, step: Send | Sleep) -> AsyncReplyStream:
        """Carry out steps until a stream could be opened."""
        try:
            while not isinstance(opened := await _aperform(self._going.aopen, step), AsyncReplyStream):
                step = self._going.course.send(opened)
        except BaseException:
            self.close()
            raise
        return opened


def _run(course: ExecutionPlan, ask: Callable[[Send], Reply]) -> Reply:
    """Carry out a course in this thread."""
    try:
        step = next(course)
        while True:
            step = course.send(_perform(ask, step))
    except StopIteration as end:
        reply: Reply = end.value
        return reply
    finally:
        course.close()


def _perform(ask: Callable[[Send], _T], step: Send | Sleep) -> _T | Exception | None:
    """Carry out one step: what a try brought, or the exception it ended with; None after a wait."""
    if isinstance(step, Sleep):
        time.sleep(step.seconds)
        return None
    try:
        return ask(step)
    except Exception as exc:  # noqa: BLE001 - the course decides what comes of it, and raises it in the end
        return exc


async def _arun(course: ExecutionPlan, ask: Callable[[Send], Awaitable[Reply]]) -> Reply:
    """As `_run`, in the event loop."""
    try:
        step = next(course)
        while True:
            step = course.send(await _aperform(ask, step))
    except StopIteration as end:
        reply: Reply = end.value
        return reply
    finally:
        course.close()


async def _aperform(ask: Callable[[Send], Awaitable[_T]], step: Send | Sleep) -> _T | Exception | None:
    """As `_perform`, in the event loop."""
    if isinstance(step, Sleep):
        import asyncio  # a coroutine runs, so it is loaded; 20 ms for whoever imports muse without one

        await asyncio.sleep(step.seconds)
        return None
    try:
        return await ask(step)
    except Exception as exc:  # noqa: BLE001 - as in `_perform`
        return exc


async def _aload(backend: Backend, model: str, api_key: str | None) -> None:
    """Have a provider loaded and its model's price looked up, both in a thread where that was not done before."""
    await backend.aload(api_key)
    spec = backend.spec
    if not (spec.free or prices.is_known(model, spec.price_id)):
        import asyncio  # a coroutine runs, so it is loaded

        await asyncio.to_thread(prices.is_priced, model, spec.price_id)


def _max_tokens_estimate(request: Request) -> int:
    """What a request may use at most: all that it says and lets the model write.

    Three bytes of text are counted as a token: more than tokens have in any language's usual writing.
    """
    count = _part_bytes(request.system) if request.system else 0
    for turn in request.turns:
        if isinstance(turn, User):
            for part in turn.parts:
                count += _part_bytes(part)
        else:
            count += _turn_bytes(turn)
    if request.tools:
        count += sum(len(json.encode((tool.name, tool.description, dict(tool.schema)))) for tool in request.tools)
    if request.json_schema is not None:
        count += len(json.encode(dict(request.json_schema)))
    return count // 3 + 1 + request.max_output_tokens + (request.thinking_budget or 0)


def _turn_bytes(turn: Assistant | ToolResults) -> int:
    if isinstance(turn, Assistant):
        return _part_bytes(turn.text) + sum(len(json.encode(dict(call.args))) for call in turn.calls)
    return sum(_part_bytes(part) for result in turn.results for part in result.parts)


def _part_bytes(part: Part) -> int:
    if isinstance(part, str):
        return len(part) if part.isascii() else len(part.encode("utf-8", errors="replace"))
    return 3 * (_IMAGE_TOKENS if isinstance(part, Image) else _FILE_TOKENS)


def _log_cache_hit(reply: Reply, route: Route, segment: str | None, attempt: Attempted) -> None:
    """The line of an answer that cost nothing."""
    entry: dict[str, Any] = {
        "timestamp": time.time(),
        "call_id": attempt.call_id,
        "attempt": attempt.number,
        "model": reply.model,
        "context": route.context or None,
        "usage": {},
        "provider": reply.provider,
        "model_asked": route.model,
        "route": route.reason,
        "duration_s": 0.0,
        "finish": reply.finish,
        "cost_usd": 0.0,
        "cache": "hit",
    }
    ledger.append(entry | ({"segment": segment} if segment else {}))
