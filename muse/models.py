"""The front desk: a context becomes a route, contents a reply; it knows no wire form and writes no file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from muse import providers
from muse.calls import log_pricing
from muse.calls.execute import PreparedCall
from muse.calls.unknown_options import KNOWN, is_near_miss, refuse, unknown_in, warn_unknown
from muse.journal import config, config_loader
from muse.journal.config_loader import Snapshot
from muse.journal.descriptors import LOOK_AGAIN_S
from muse.policies.execution import Fallback
from muse.policies.pipeline import policy_pipeline
from muse.providers import backend_of, owner_of, specs
from muse.providers._backend.function_adapter import FunctionBackend
from muse.routing import contexts
from muse.routing.contexts import Registry
from muse.routing.fallbacks import FallbackChain, resolve_fallbacks
from muse.routing.router import PROVIDER_ENV, Explanation, Router
from muse.streaming.streams import AsyncReplyStream, ReplyStream
from muse.types.content import build_request
from muse.types.deprecation import renamed_attributes
from muse.types.errors import ConfigError, InvalidReply, UnknownProviderError
from muse.types.messages import GenerateOptions, Reply, Request, Route
from muse.types.provider_spec import ProviderSpec, Tier
from muse.types.structured_output import Form, Model, build_repair_request, parse_output, to_json_schema

if TYPE_CHECKING:
    from muse.policies.usage_status import LimitStatus

TIER_PRO = Tier.PRO
TIER_FLASH = Tier.FLASH
TIER_LITE = Tier.LITE
DEFAULT_PROVIDER = config.DEFAULT_PROVIDER
DEFAULT_TIER = config.DEFAULT_TIER

PROVIDER_DEFAULTS = providers.PROVIDER_DEFAULTS
CONTEXT_DEFAULTS = contexts.CONTEXT_DEFAULTS


def _models_of(provider: str) -> tuple[str, ...]:
    """Return a provider's models of tiers 1, 2 and 3; "" where its file could not be loaded."""
    return tuple(PROVIDER_DEFAULTS.get(provider, {}).get(tier, "") for tier in Tier)


GEMINI_PRO, GEMINI_FLASH, GEMINI_LITE = _models_of("google")
GPT_5, GPT_5_MINI, GPT_5_NANO = _models_of("openai")
CLAUDE_OPUS_4, CLAUDE_SONNET_4, CLAUDE_HAIKU_4 = _models_of("anthropic")

calc_token_cost = log_pricing.calc_token_cost
log_token_usage = log_pricing.log_token_usage

_MOST_ROUTES = 10_000
_M = TypeVar("_M", bound=Model)


class _ResolvedConfig:
    """The router of one state of journal.json, registry and specs, and the fallback chains it gave so far."""

    __slots__ = ("chains", "good_until_s", "registry", "router", "snapshot", "specs")

    def __init__(self, snapshot: Snapshot, registry: Registry, known: Mapping[str, ProviderSpec]) -> None:
        self.snapshot = snapshot
        self.registry = registry
        self.specs = known
        self.good_until_s = 0.0
        self.router = Router(snapshot.config, registry.contexts, known)
        self.chains: dict[str | None, tuple[FallbackChain, tuple[str, ...], list[str | None]]] = {}

    def is_current(self) -> bool:
        """Whether the dictionaries that may be changed at run time are still as they were."""
        return self.registry.is_current() and providers.is_current(self.specs)

    def chain(self, context: str | None) -> FallbackChain:
        """The fallback chain of `context`; a kept one holds while the variables it depends on stay as they were."""
        look_up = os.environ.get
        kept = self.chains.get(context)
        if kept is not None and list(map(look_up, kept[1])) == kept[2]:
            return kept[0]
        known = specs()
        if known is not self.specs:  # a variable may name a provider that was not loaded yet
            self.specs, self.router = known, Router(self.snapshot.config, self.registry.contexts, known)
            self.chains.clear()
        found = resolve_fallbacks(self.router.route(context, os.environ), self.router, os.environ)
        names = (PROVIDER_ENV, *(self.specs[target.provider].model_env for target in found.targets))
        if len(self.chains) >= _MOST_ROUTES:
            self.chains.clear()
        self.chains[context] = (found, names, list(map(look_up, names)))
        return found

    def model_at(self, provider: str, tier: int) -> str | None:
        """The model of a provider at a tier, None if it has none."""
        try:
            return self.router.model_at(provider, tier, os.environ, where="provider")[0]
        except ConfigError:
            return None


_resolved: _ResolvedConfig | None = None


def _resolved_config(*, at_once: bool = False) -> _ResolvedConfig:
    """The desk as of now: one `stat` of journal.json, and at most once a second a look at the descriptors."""
    global _resolved
    snapshot = config_loader.load()
    desk = _resolved
    now = time.monotonic()
    if desk is not None and desk.snapshot is snapshot and now < desk.good_until_s and not at_once and desk.is_current():
        return desk
    registry = contexts.registry(snapshot, at_once=at_once)
    known = specs()
    if desk is None or desk.snapshot is not snapshot or desk.registry is not registry or desk.specs is not known:
        desk = _ResolvedConfig(snapshot, registry, known)
    desk.good_until_s = now + LOOK_AGAIN_S
    _resolved = desk
    return desk


def route(context: str | None) -> Route:
    """Who serves `context` now, with the reason; see `muse.routing.router.Router.route` for what it raises."""
    return _resolved_config().chain(context).targets[0]


def fallback_chain(context: str | None) -> FallbackChain:
    """Return the providers to try for `context`, in order, and the call policy.

    Raises:
        MuseError: as `muse.routing.fallbacks.resolve_fallbacks` does.
    """
    return _resolved_config(at_once=True).chain(context)


def explain(context: str | None) -> Explanation:
    """The route of `context` with every rule that matched it and which one won each field."""
    return _resolved_config(at_once=True).router.explain(context, os.environ)


def resolve_provider(context: str | None) -> tuple[str, str]:
    """`(provider, model)` that serve `context`.

    Raises:
        UnknownProviderError: journal.json leads to a provider that is not registered.
    """
    found = _resolved_config().chain(context).targets[0]
    return found.provider, found.model


def resolve(
    context: str | None, *, provider: str | None = None, model: str | None = None, tier: object = None
) -> Route:
    """Return the route of a request for `context` that may name its own provider, model or tier (1, 2 or 3).

    What the request leaves out comes from the route of the context. A model alone goes to the provider that its name
    belongs to; a provider alone serves with the routed model if it is the routed one, else with its model at the tier
    of the context.

    Raises:
        UnknownProviderError: there is no such provider.
        ConfigError: `tier` is none, or the provider has no model at it or at a more capable one.
    """
    desk = _resolved_config()
    level = None if tier in (None, "") else _as_tier(tier)
    if provider and provider not in desk.specs:
        providers.get_provider_module(provider)  # a plug-in is loaded by this; any other name is unknown
        desk = _resolved_config()
    if provider and model:
        return Route(context or "", provider, model, level or desk.router.tier(context, os.environ), "the request")
    found = desk.chain(context).targets[0]
    if model:
        return _overridden(found, model)
    if level is None and provider in (None, "", found.provider):
        return found
    owner, level = provider or found.provider, level or desk.router.tier(context, os.environ)
    served = desk.router.model_at(owner, level, os.environ, where="provider")[0]
    return Route(found.context, owner, served, level, "the request")


def _as_tier(said: object) -> Tier:
    """Return the tier that a request names.

    Raises:
        ConfigError: it is not 1, 2 or 3, as a number or as text.
    """
    if not isinstance(said, bool) and said in (1, 2, 3, "1", "2", "3"):
        return Tier(int(said))
    raise ConfigError("tier", repr(said)[:60], "1, 2 or 3")


def resolve_model_for_provider(context: str | None, provider: str, *, tier: int | None = None) -> str:
    """The model of `provider` at the tier of `context`, or at `tier`; one without falls to the more capable."""
    desk = _resolved_config()
    tier = tier or desk.router.tier(context, os.environ)
    return desk.router.model_at(provider, tier, os.environ, where="provider")[0]


def context_tokens(found: Route) -> int:
    """The tokens of prompt and answer that the model of a route holds, as its provider declares them.

    Of the embedded engine it is what journal.json says (`providers.local.context_tokens`).
    """
    desk = _resolved_config()
    spec = desk.specs[found.provider]
    return desk.snapshot.config.local.context_tokens if spec.name == "local" else spec.capabilities.max_context_tokens


def get_context_registry() -> dict[str, dict[str, Any]]:
    """Every known context: `{pattern: {tier, label, group}}`, static ones, then categories, then agents."""
    known = _resolved_config(at_once=True).registry.contexts
    return {name: {"tier": info.tier, "label": info.label, "group": info.group} for name, info in known.items()}


def get_model_provider(model: str) -> str:
    """The provider whose models begin like `model` (case does not count), else "unknown"."""
    return (owner_of(model) if model else None) or "unknown"


_heard: ContextVar[list[Reply] | None] = ContextVar("_heard", default=None)


@contextmanager
def capture_replies(replies: list[Reply]) -> Iterator[None]:
    """While it lasts, each reply of which `agenerate` gives the text, in this task, is added to `replies`."""
    mark = _heard.set(replies)
    try:
        yield
    finally:
        _heard.reset(mark)


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
        MuseError: see the tree in `muse.types.errors`.
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
    return prepare_call(contents, context, options, needs_text=True).run().text


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
    found = await prepare_call(contents, context, options, needs_text=True).arun()
    heard = _heard.get()
    if heard is not None:
        heard.append(found)
    return found.text


def reply(contents: Any, context: str, **options: Unpack[GenerateOptions]) -> Reply:
    """The whole reply: text, usage, finish, thinking, the model that served, the route and its reason, the cost."""
    return prepare_call(contents, context, options).run()


async def areply(contents: Any, context: str, **options: Unpack[GenerateOptions]) -> Reply:
    """As `reply`, awaited."""
    return await prepare_call(contents, context, options).arun()


def stream(contents: Any, context: str, **options: Unpack[GenerateOptions]) -> ReplyStream:
    """The reply as it is written: iterate it for text, then read `.reply`; closing it early cancels the request."""
    return prepare_call(contents, context, options).stream()


async def astream(contents: Any, context: str, **options: Unpack[GenerateOptions]) -> AsyncReplyStream:
    """As `stream`, for `async for`."""
    return await prepare_call(contents, context, options).astream()


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
    call = prepare_call(contents, context, {**options, "json_schema": to_json_schema(schema)}, needs_text=True)
    deadline = call.deadline()
    key, kept = call.find()
    first = kept or call.ask(deadline=deadline)
    try:
        found = parse_output(first, schema)
    except InvalidReply as problem:
        first = call.ask(build_repair_request(call.request, first, problem), deadline)
        found = parse_output(first, schema)
    call.keep(key, first)
    return found


@overload
async def agenerate_object(contents: Any, context: str, schema: type[_M], **options: Unpack[GenerateOptions]) -> _M: ...
@overload
async def agenerate_object(
    contents: Any, context: str, schema: Mapping[str, Any], **options: Unpack[GenerateOptions]
) -> Any: ...
async def agenerate_object(contents: Any, context: str, schema: Form, **options: Unpack[GenerateOptions]) -> Any:
    """As `generate_object`, awaited."""
    call = prepare_call(contents, context, {**options, "json_schema": to_json_schema(schema)}, needs_text=True)
    deadline = await call.adeadline()
    key, kept = call.find()
    first = kept or await call.aask(deadline=deadline)
    try:
        found = await _read_object(first, schema)
    except InvalidReply as problem:
        first = await call.aask(build_repair_request(call.request, first, problem), deadline)
        found = await _read_object(first, schema)
    call.keep(key, first)
    return found


async def _read_object(reply: Reply, form: Form) -> Any:
    """As `read_object`; a schema with patterns, which may take long to match, does not hold the event loop."""
    import asyncio  # a coroutine runs, so it is loaded

    from muse.types.json_schema.patterns import has_patterns  # only who asks for objects pays it

    if isinstance(form, Mapping) and has_patterns(form):
        return await asyncio.to_thread(parse_output, reply, form)
    return parse_output(reply, form)


def prepare_call(contents: Any, context: str, options: Mapping[str, Any], *, needs_text: bool = False) -> PreparedCall:
    """Route a call and put its request together; nothing goes out before the result is run.

    With `needs_text` a reply without text is an error although the model called a tool.

    Raises:
        ConfigError, ContentsError, ValueError: it cannot be routed, or its contents or options are not usable.
        OptionError: with `strict=True`, an option is not known.
    """
    _require_context(context)
    given = dict(options)
    is_strict = bool(given.pop("strict", False))
    desk = _resolved_config()
    current = desk.snapshot.config
    found = desk.chain(context)
    asked = given.pop("model", None)
    if asked:
        found = found.with_primary(_overridden(found.targets[0], asked))
    if not KNOWN.issuperset(given):
        _see_to_unknown(given, found.targets[0].provider, desk.specs, is_strict=is_strict)
    segment = given.pop("segment", None) or os.environ.get("SEGMENT_KEY")
    api_key = given.pop("api_key", None)
    if not given.get("system_instruction"):
        given["system_instruction"] = current.system_instruction
    if given.get("timeout_s") is None:
        given["timeout_s"] = found.rules.timeout_s
    request = build_request(contents, found.targets[0].model, given, needs_text=needs_text)
    return PreparedCall(
        request,
        found,
        policy_pipeline(current.policies, log_pricing.provider_and_cost),
        current,
        desk.model_at,
        segment,
        api_key,
    )


def _see_to_unknown(
    given: Mapping[str, Any], provider: str, known: Mapping[str, ProviderSpec], *, is_strict: bool
) -> None:
    """Warn of options that neither muse nor any provider knows; a plain module may take more than it declares.

    Raises:
        OptionError: they are not to be passed over.
    """
    names = unknown_in(given, [spec.options for spec in known.values()])
    if names and isinstance(providers.backend_of(provider), FunctionBackend):
        names = [name for name in names if is_near_miss(name)]
    if names and is_strict:
        refuse(names)
    elif names:
        warn_unknown(names)


def require_allowed(context: str, provider: str, model: str) -> None:
    """See that a run's own model may serve its context.

    Raises:
        ConfigError: a bound in journal.json keeps the context from that provider.
    """
    _starting(_resolved_config(), context, provider, model)


def _starting(desk: _ResolvedConfig, context: str, provider: str, model: str) -> FallbackChain:
    """The fallback chain of a context that begins with the model of a run."""
    found = desk.chain(context)
    first = found.targets[0]
    if (first.provider, first.model) == (provider, model):
        return found
    return found.with_primary(Route(context, provider, model, first.tier, "the run's own model"))


class AgentModel:
    """The model of an agent run: the one named, then the fallback chain of the run's context."""

    def __init__(self, provider: str, model: str, on_fallback: Callable[[Fallback], None]) -> None:
        self._named = (provider, model)
        self._on_fallback = on_fallback

    async def load(self) -> None:
        """Import what calls need, before the clock of a run starts."""
        with suppress(ConfigError):  # the first turn raises it
            await backend_of(self._named[0]).aload()

    async def ask(self, request: Request, context: str) -> Reply:
        """One turn, answered."""
        return await self._ready(request, context).arun()

    async def open(self, request: Request, context: str) -> AsyncReplyStream:
        """One turn, its answer as it is written."""
        return await self._ready(request, context).astream()

    def _ready(self, request: Request, context: str) -> PreparedCall:
        desk = _resolved_config()
        found = _starting(desk, context, *self._named)
        segment = os.environ.get("SEGMENT_KEY")
        return PreparedCall(
            request,
            found,
            policy_pipeline(desk.snapshot.config.policies, log_pricing.provider_and_cost),
            desk.snapshot.config,
            desk.model_at,
            segment,
            None,
            self._on_fallback,
        )


def limit_statuses(found: FallbackChain) -> tuple[LimitStatus, ...]:
    """Return how much of each limit and budget of the chain's context is used now.

    Raises:
        OSError: the usage log cannot be read.
    """
    from muse.policies.usage_status import limit_statuses as look  # 5 ms, and only who asks for it pays it

    first = found.targets[0]
    return look(
        _resolved_config().snapshot.config.policies,
        first.context,
        first.provider,
        first.model,
        log_pricing.provider_and_cost,
    )


def _require_context(context: object) -> None:
    if context is not None and not isinstance(context, str):
        raise ValueError(f"context: found {context!r}, expected text such as 'insight.daily'")


def _overridden(found: Route, model: str) -> Route:
    """The route with the caller's own model, and the provider its name belongs to.

    Raises:
        UnknownProviderError: several plug-ins claim it.
    """
    provider = owner_of(str(model)) or found.provider
    if provider not in (known := specs()):
        raise UnknownProviderError(provider, known, path=f"model={model!r}")
    return Route(found.context, provider, model, found.tier, f"the call's own model={model!r}")


# Names of 0.1.
__getattr__ = renamed_attributes(
    __name__,
    {
        "Asked": "AgentModel",
        "Ladder": "FallbackChain",
        "hearing": "capture_replies",
        "ladder_of": "fallback_chain",
        "prepare": "prepare_call",
        "standings": "limit_statuses",
    },
)
