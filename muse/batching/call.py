"""Helpers around a batch's calls: schema checks, repair of answers, usage of failed calls.

Entry points: `run_call`, `answer_of`, `calls_of`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from msgspec import Struct

from muse.batching.concurrency import ConcurrencyLimit
from muse.batching.notifier import is_being_cancelled
from muse.batching.request import BatchRequest, Call
from muse.models import calc_token_cost, resolve_provider
from muse.types.content import to_turns
from muse.types.errors import ConfigError, InvalidReply, MuseError, RateLimitError
from muse.types.json_schema.patterns import has_patterns
from muse.types.json_schema.validation import check_schema
from muse.types.messages import Assistant, Attempt, Reply, Request
from muse.types.structured_output import build_repair_request, parse_output
from muse.types.usage import Usage


class FailedCall(Struct, frozen=True):
    """The model, usage and cost of a call that failed, over all its attempts."""

    model: str
    provider: str
    usage: Usage
    cost_usd: float | None
    attempts: tuple[Attempt, ...]


def calls_of(replies: Sequence[Reply], problem: BaseException | None) -> Sequence[Call]:
    """Return all replies that were received for a request, with the failed call if there was one."""
    if not isinstance(problem, MuseError) or not problem.attempts:
        return replies
    attempts: tuple[Attempt, ...] = problem.attempts
    costs = [_cost_of(attempt) for attempt in attempts]
    whole = None if None in costs else sum(cost for cost in costs if cost is not None)
    usage = sum((attempt.usage for attempt in attempts), Usage())
    return [*replies, FailedCall(attempts[-1].model, attempts[-1].provider, usage, whole, attempts)]


def note_model(request: BatchRequest) -> None:
    """Set `model_used` of a request that no reply names it for: the requested model, else the routed one."""
    if request.model_used is None and not request.attempts:
        with suppress(ConfigError):  # a caller may replace muse.batch.agenerate; then no route is needed
            request.model_used = request.model or resolve_provider(request.context)[1]


def _cost_of(attempt: Attempt) -> float | None:
    if not attempt.usage.total_tokens:
        return 0.0
    entry = {"model": attempt.model, "provider": attempt.provider, "usage": attempt.usage.as_dict()}
    cost = calc_token_cost(entry)
    return float(cost["total_cost"]) if cost else None


def record_outcome(concurrency: ConcurrencyLimit, request: BatchRequest, began_s: float) -> None:
    """Report to an adaptive concurrency limit how a call went that began at `began_s` (`time.perf_counter`)."""
    if not concurrency.is_auto:
        return
    limited = any(attempt.error == RateLimitError.__name__ for attempt in request.attempts)
    if limited or isinstance(request.exception, RateLimitError):
        concurrency.limited(began_s)
    elif request.state == "done":
        concurrency.succeeded()


async def run_call(call: Awaitable[str]) -> tuple[str, BaseException | None]:
    """Return the text of a call, or the error that it raised, of any kind.

    Raises:
        asyncio.CancelledError: The running task is being cancelled. A CancelledError that the call itself raises is
            returned as its result.
    """
    try:
        return await call, None
    except asyncio.CancelledError as exc:
        if is_being_cancelled():
            raise
        return "", exc
    except Exception as exc:  # noqa: BLE001 - a caller may replace muse.batch.agenerate; its errors are results
        return "", exc


async def answer_of(ask: Callable[..., Awaitable[str]], request: BatchRequest, client: Any) -> str:
    """Return the text that `ask` gives for a request; with a schema, it is JSON that fits.

    Raises:
        ConfigError: The schema is not usable; nothing was sent.
        InvalidReply: There is no text, or it does not fit the schema.
    """
    check(request.json_schema)
    text = await ask(**request.options(client))
    if request.json_schema is not None:
        return await coerce_to_schema(ask, request, client, text)
    if text is None:
        raise InvalidReply("found None, expected text")
    return text


def check(schema: Mapping[str, Any] | None) -> None:
    """Raise if a schema cannot be used, before anything is sent with it.

    Raises:
        ConfigError: The schema cannot be used.
    """
    if schema is None:
        return
    try:
        _check_once(json.dumps(schema))
    except (ValueError, TypeError, RecursionError) as exc:
        raise ConfigError("json_schema", f"none that can be used ({exc})", "a JSON Schema") from exc


@lru_cache(maxsize=64)
def _check_once(schema: str) -> None:
    check_schema(json.loads(schema))


async def coerce_to_schema(ask: Callable[..., Awaitable[str]], request: BatchRequest, client: Any, text: str) -> str:
    """Return the JSON of an answer, without the text that models put around it.

    An answer that does not fit the schema is sent back to the model once.

    Raises:
        InvalidReply: The second answer does not fit either.
    """
    schema = request.json_schema or {}
    try:
        return await _fitting(text, schema)
    except InvalidReply as problem:
        if not isinstance(text, str):
            raise
        contents = _repaired(request.contents, text, problem)
    return await _fitting(await ask(**{**request.options(client), "contents": contents}), schema)


async def _fitting(text: object, schema: Mapping[str, Any]) -> str:
    """Call `coercer_for`, in a thread if the schema has patterns, whose matching could block the event loop."""
    return await asyncio.to_thread(coercer_for, text, schema) if has_patterns(schema) else coercer_for(text, schema)


def coercer_for(text: object, schema: Mapping[str, Any]) -> str:
    """Return the JSON of an answer that fits the schema.

    Raises:
        InvalidReply: The answer does not fit.
    """
    if not isinstance(text, str):
        raise InvalidReply(f"found {type(text).__name__}, expected text")
    return json.dumps(parse_output(_as_reply(text), schema), ensure_ascii=False)


def _repaired(contents: Any, text: str, problem: InvalidReply) -> list[Any]:
    """Return the contents followed by the answer that did not fit and what is wrong with it."""
    system, turns = to_turns(contents)
    asked = build_repair_request(Request("", turns), _as_reply(text), problem)
    return [*([{"role": "system", "content": system}] if system else []), *asked.turns]


def _as_reply(text: str) -> Reply:
    return Reply(text, Assistant(text), Usage(), "stop", "", "")
