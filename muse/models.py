"""The front desk: a context becomes a route, contents a reply; it knows no wire form and writes no file."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from typing import Any, TypeVar, Unpack, overload

from muse import config, contexts, journal, ledger, prices
from muse.contents import make_request
from muse.contexts import Registry
from muse.descriptors import LOOK_AGAIN_S
from muse.errors import InvalidReply
from muse.journal import Snapshot
from muse.messages import GenerateOptions, Reply, Request, Route
from muse.objects import Form, Model, read_object, repair, schema_of
from muse.providers import _BUILT_IN, backend_of, specs
from muse.providers._attempt import Origin
from muse.providers._backend import Backend
from muse.routing import PROVIDER_ENV, Explanation, Router
from muse.spec import Spec, Tier, provider_of
from muse.streams import AsyncReplyStream, ReplyStream
from muse.usage import normalize_usage, usage_of

log = logging.getLogger(__name__)

TIER_PRO = Tier.PRO
TIER_FLASH = Tier.FLASH
TIER_LITE = Tier.LITE
DEFAULT_PROVIDER = config.DEFAULT_PROVIDER
DEFAULT_TIER = config.DEFAULT_TIER

PROVIDER_DEFAULTS: dict[str, dict[int, str]] = {name: dict(spec.tiers) for name, spec in _BUILT_IN.items()}
GEMINI_PRO, GEMINI_FLASH, GEMINI_LITE = (PROVIDER_DEFAULTS["google"][tier] for tier in Tier)
GPT_5, GPT_5_MINI, GPT_5_NANO = (PROVIDER_DEFAULTS["openai"][tier] for tier in Tier)
CLAUDE_OPUS_4, CLAUDE_SONNET_4, CLAUDE_HAIKU_4 = (PROVIDER_DEFAULTS["anthropic"][tier] for tier in Tier)
CONTEXT_DEFAULTS: dict[str, dict[str, Any]] = {
    name: {"tier": info.tier, "label": info.label, "group": info.group} for name, info in contexts.STATIC.items()
}

_MOST_ROUTES = 10_000
_M = TypeVar("_M", bound=Model)


class _Desk:
    """The router of one state of journal.json, registry and specs, and the routes it gave so far."""

    __slots__ = ("good_until_s", "registry", "router", "routes", "snapshot", "specs")

    def __init__(self, snapshot: Snapshot, registry: Registry, known: Mapping[str, Spec]) -> None:
        self.snapshot = snapshot
        self.registry = registry
        self.specs = known
        self.good_until_s = 0.0
        self.router = Router(snapshot.config, registry.contexts, known)
        self.routes: dict[str | None, tuple[Route, str | None, str, str | None]] = {}

    def route(self, context: str | None) -> Route:
        """The route of `context`; a kept one holds while the variables it depends on stay as they were."""
        look_up = os.environ.get
        kept = self.routes.get(context)
        if kept is not None and look_up(PROVIDER_ENV) == kept[1] and look_up(kept[2]) == kept[3]:
            return kept[0]
        found = self.router.route(context, os.environ)
        model_env = self.specs[found.provider].model_env
        if len(self.routes) >= _MOST_ROUTES:
            self.routes.clear()
        self.routes[context] = (found, look_up(PROVIDER_ENV), model_env, look_up(model_env))
        return found


_desk: _Desk | None = None


def _front_desk(*, at_once: bool = False) -> _Desk:
    """The desk as of now: one `stat` of journal.json, and at most once a second a look at the descriptors."""
    global _desk
    snapshot = journal.load()
    desk = _desk
    now = time.monotonic()
    if desk is not None and desk.snapshot is snapshot and now < desk.good_until_s and not at_once:
        return desk
    registry = contexts.registry(snapshot, at_once=at_once)
    known = specs()
    if desk is None or desk.snapshot is not snapshot or desk.registry is not registry or desk.specs is not known:
        desk = _Desk(snapshot, registry, known)
    desk.good_until_s = now + LOOK_AGAIN_S
    _desk = desk
    return desk


def route(context: str | None) -> Route:
    """Who serves `context` now, with the reason; see `muse.routing.Router.route` for what it raises."""
    return _front_desk().route(context)


def explain(context: str | None) -> Explanation:
    """The route of `context` with every rule that matched it and which one won each field."""
    return _front_desk(at_once=True).router.explain(context, os.environ)


def resolve_provider(context: str | None) -> tuple[str, str]:
    """`(provider, model)` that serve `context`.

    Raises:
        UnknownProviderError: journal.json leads to a provider that is not registered.
    """
    found = _front_desk().route(context)
    return found.provider, found.model


def resolve_model_for_provider(context: str | None, provider: str, *, tier: int | None = None) -> str:
    """The model of `provider` at the tier of `context`, or at `tier`; one without falls to the more capable."""
    desk = _front_desk()
    tier = tier or desk.router.tier(context, os.environ)
    return desk.router.model_at(provider, tier, os.environ, where="provider")[0]


def get_context_registry() -> dict[str, dict[str, Any]]:
    """Every known context: `{pattern: {tier, label, group}}`, static ones, then categories, then agents."""
    known = _front_desk(at_once=True).registry.contexts
    return {name: {"tier": info.tier, "label": info.label, "group": info.group} for name, info in known.items()}


def get_model_provider(model: str) -> str:
    """The provider whose models begin like `model` (case does not count), else "unknown"."""
    return (provider_of(model, specs()) if model else None) or "unknown"


def generate(
    contents: Any,
    context: str,
    temperature: float = 0.3,
    max_output_tokens: int = 8192 * 2,
    system_instruction: str | None = None,
    json_output: bool = False,
    thinking_budget: int | None = None,
    timeout_s: float | None = None,
    **kwargs: Any,
) -> str:
    """Text for `contents`, from whichever model journal.json names for `context`.

    `contents` is text, or a list of text, images (PIL, bytes, path), PDF files and role dicts. `max_output_tokens`
    bounds the text; `thinking_budget` (tokens: None the model's own way, 0 none, n that many) comes on top. `kwargs`
    are further `GenerateOptions`; what the model does not take is left out (`reply` says what).

    Raises:
        MuseError: see the tree in `muse.errors`.
    """
    options = {
        "temperature": temperature,
        "max_output_tokens": max_output_tokens,
        "system_instruction": system_instruction,
        "json_output": json_output,
        "thinking_budget": thinking_budget,
        "timeout_s": timeout_s,
        **kwargs,
    }
    backend, request, origin, api_key = _prepare(contents, context, options)
    return backend.reply(request, origin, api_key).text


async def agenerate(
    contents: Any,
    context: str,
    temperature: float = 0.3,
    max_output_tokens: int = 8192 * 2,
    system_instruction: str | None = None,
    json_output: bool = False,
    thinking_budget: int | None = None,
    timeout_s: float | None = None,
    **kwargs: Any,
) -> str:
    """As `generate`, awaited."""
    options = {
        "temperature": temperature,
        "max_output_tokens": max_output_tokens,
        "system_instruction": system_instruction,
        "json_output": json_output,
        "thinking_budget": thinking_budget,
        "timeout_s": timeout_s,
        **kwargs,
    }
    backend, request, origin, api_key = _prepare(contents, context, options)
    return (await backend.areply(request, origin, api_key)).text


def reply(contents: Any, context: str, **options: Unpack[GenerateOptions]) -> Reply:
    """The whole reply: text, usage, finish, thinking, the model that served, the route and its reason, the cost."""
    backend, request, origin, api_key = _prepare(contents, context, options)
    return backend.reply(request, origin, api_key)


async def areply(contents: Any, context: str, **options: Unpack[GenerateOptions]) -> Reply:
    """As `reply`, awaited."""
    backend, request, origin, api_key = _prepare(contents, context, options)
    return await backend.areply(request, origin, api_key)


def stream(contents: Any, context: str, **options: Unpack[GenerateOptions]) -> ReplyStream:
    """The reply as it is written: iterate it for text, then read `.reply`; closing it early cancels the request."""
    backend, request, origin, api_key = _prepare(contents, context, options)
    return backend.stream(request, origin, api_key)


async def astream(contents: Any, context: str, **options: Unpack[GenerateOptions]) -> AsyncReplyStream:
    """As `stream`, for `async for`."""
    backend, request, origin, api_key = _prepare(contents, context, options)
    return await backend.astream(request, origin, api_key)


@overload
def generate_object(contents: Any, context: str, schema: type[_M], **options: Unpack[GenerateOptions]) -> _M: ...
@overload
def generate_object(
    contents: Any, context: str, schema: Mapping[str, Any], **options: Unpack[GenerateOptions]
) -> Any: ...
def generate_object(contents: Any, context: str, schema: Form, **options: Unpack[GenerateOptions]) -> Any:
    """An object of the form `schema`: an instance of that Pydantic model, or a JSON value that fits that JSON Schema.

    The provider is given the schema in its own strict form. A reply that does not fit is sent back once with what is
    wrong.

    Raises:
        InvalidReply: the second reply does not fit either; `text` is that reply.
        MuseError: as `reply`.
    """
    backend, request, origin, api_key = _prepare(contents, context, {**options, "json_schema": schema_of(schema)})
    first = backend.reply(request, origin, api_key)
    try:
        return read_object(first, schema)
    except InvalidReply as problem:
        return read_object(backend.reply(repair(request, first, problem), origin, api_key), schema)


@overload
async def agenerate_object(contents: Any, context: str, schema: type[_M], **options: Unpack[GenerateOptions]) -> _M: ...
@overload
async def agenerate_object(
    contents: Any, context: str, schema: Mapping[str, Any], **options: Unpack[GenerateOptions]
) -> Any: ...
async def agenerate_object(contents: Any, context: str, schema: Form, **options: Unpack[GenerateOptions]) -> Any:
    """As `generate_object`, awaited."""
    backend, request, origin, api_key = _prepare(contents, context, {**options, "json_schema": schema_of(schema)})
    first = await backend.areply(request, origin, api_key)
    try:
        return read_object(first, schema)
    except InvalidReply as problem:
        return read_object(await backend.areply(repair(request, first, problem), origin, api_key), schema)


def _prepare(contents: Any, context: str, options: Mapping[str, Any]) -> tuple[Backend, Request, Origin, str | None]:
    """Route a call and put its request together."""
    _require_context(context)
    given = dict(options)
    desk = _front_desk()
    current = desk.snapshot.config
    found = desk.route(context)
    asked = given.pop("model", None)
    if asked:
        found = _overridden(found, asked, desk.specs)
    segment = given.pop("segment", None) or os.environ.get("SEGMENT_KEY")
    api_key = given.pop("api_key", None)
    if not given.get("system_instruction"):
        given["system_instruction"] = current.system_instruction
    request = make_request(contents, found.model, given)
    return backend_of(found.provider, current), request, Origin(context, found, segment), api_key


def _require_context(context: object) -> None:
    if context is not None and not isinstance(context, str):
        raise ValueError(f"context: found {context!r}, expected text such as 'insight.daily'")


def _overridden(found: Route, model: str, known: Mapping[str, Spec]) -> Route:
    """The route with the caller's own model, and the provider its name belongs to."""
    provider = provider_of(str(model), known) or found.provider
    return Route(found.context, provider, model, found.tier, f"the call's own model={model!r}")


def log_token_usage(model: str, usage: Any, context: str | None = None, segment: str | None = None) -> None:
    """Write one line of the token log for a call made elsewhere; it never raises.

    `usage` may be the unified dict, OpenAI's, Anthropic's or Gemini's own form, a whole Gemini response, or anything
    with integer entries. `context` None means the caller's `module.function:line`.
    """
    entry: dict[str, Any] = {
        "timestamp": time.time(),
        "model": model,
        "context": context or ledger.caller_context(2),
        "usage": _counts(usage),
    }
    named = segment or os.environ.get("SEGMENT_KEY")
    if named:
        entry["segment"] = named
    ledger.append(entry)


def _counts(usage: Any) -> dict[str, int]:
    """The counts of a usage of any make; none, and a warning, if looking at it fails."""
    try:
        return normalize_usage(usage)
    except Exception as exc:  # noqa: BLE001 - an object of the caller's may do anything, and logging never raises
        log.warning("the usage of a call cannot be read (%s: %s); its line has no counts", type(exc).__name__, exc)
        return {}


def calc_token_cost(entry: Mapping[str, Any]) -> dict[str, Any] | None:
    """A log line's `{total_cost, input_cost, output_cost, currency}`; None without model, usage or price."""
    model, raw = entry.get("model"), entry.get("usage")
    if not model or not isinstance(raw, Mapping) or not raw:
        return None
    provider = str(entry.get("provider") or get_model_provider(str(model)))
    spec = specs().get(provider)
    if spec is not None and spec.free:
        return _cost(0.0, 0.0)
    usage = usage_of(raw)
    if not usage.total_tokens and any(normalize_usage(raw).values()):
        return None  # counts of a form that says nothing of input and output
    cost = prices.cost_of(str(model), usage, spec.price_id if spec else None)
    return _cost(cost.input_cost, cost.output_cost) if cost else None


def _cost(input_cost: float, output_cost: float) -> dict[str, Any]:
    total = input_cost + output_cost
    return {"total_cost": total, "input_cost": input_cost, "output_cost": output_cost, "currency": "USD"}
