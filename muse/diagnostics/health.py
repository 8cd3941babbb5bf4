"""Health checks of providers: the cheapest live call to each, and the outcome of the last one.

Entry points: `test_connection`, `probe_routed`, `probe_provider`, `last`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from msgspec import Struct

from muse.diagnostics import check
from muse.journal import config_loader, secrets
from muse.policies.circuit_breaker import circuit_states
from muse.policies.shared_state import SharedStateBusy, read, store_path, write
from muse.providers import backend_of, get_provider_module, specs
from muse.providers._backend.attempt import CallMetadata
from muse.routing import contexts
from muse.routing.router import Router
from muse.types.content import build_request
from muse.types.errors import MissingKeyError, TruncatedReply
from muse.types.messages import Route
from muse.types.provider_spec import Tier

log = logging.getLogger(__name__)

State = Literal["ok", "slow", "failing", "no key"]
TEST_CONTEXT = "muse.test"
TEST_TIMEOUT_S = 30.0
SLOW_S = 5.0
_TEST_TOKENS = 64
_AT_ONCE = 16


class Health(Struct, frozen=True):
    """The outcome of a live call to one model.

    Attributes:
        provider: The provider.
        model: The model.
        tier: The tier of the model.
        state: The outcome.
        seconds: How long the call took.
        why: Why it failed.
        at: When it was made, in seconds since the epoch.
    """

    provider: str
    model: str
    tier: Tier
    state: State
    seconds: float
    why: str = ""
    at: float = 0.0


def test_connection(name: str) -> dict[str, Any]:
    """Make the cheapest live call to a provider; return `{success, provider, model?, duration_s?, error?}`.

    It never raises. The call uses the lite tier's model, has 30 s, is logged under the context `muse.test`, and asks
    for a word. An answer that is cut off at the limit of 64 tokens counts as a success: key, address and model are
    right.
    """
    try:
        get_provider_module(name)  # loads a plug-in that no route leads to
        snapshot = config_loader.load()
        router = Router(snapshot.config, contexts.registry(snapshot).contexts, specs())
        model = router.model_at(name, Tier.LITE, os.environ, where="provider")[0]
    except ValueError as exc:
        return {"success": False, "provider": name, "error": secrets.redact(str(exc))}
    found = probe(name, model, Tier.LITE)
    report: dict[str, Any] = {"success": not found.why, "provider": name, "model": model}
    return report | ({"error": found.why} if found.why else {"duration_s": round(found.seconds, 3)})


def probe(provider: str, model: str, tier: Tier) -> Health:
    """Ask one model for a word; it never raises."""
    started_s = time.perf_counter()
    state: State = "failing"
    why = ""
    try:
        options = {"max_output_tokens": _TEST_TOKENS, "thinking_budget": 0, "timeout_s": TEST_TIMEOUT_S}
        route = Route(TEST_CONTEXT, provider, model, tier, "a test of the provider")
        backend_of(provider).reply(build_request("Say: ok", model, options), CallMetadata(TEST_CONTEXT, route))
    except TruncatedReply:
        log.info("%s: the answer was cut off at %d tokens, as is to be expected", provider, _TEST_TOKENS)
    except MissingKeyError as exc:
        state, why = "no key", str(exc)
    except Exception as exc:  # a plug-in may raise anything, and the error is the result
        log.debug("test of %s", provider, exc_info=True)
        why = secrets.redact(str(exc) or type(exc).__name__)
    seconds = time.perf_counter() - started_s
    if not why:
        state = "slow" if seconds > SLOW_S else "ok"
    return Health(provider, model, tier, state, seconds, why, time.time())


def probe_routed() -> list[Health]:
    """Call each model that a known context, the default or a fallback leads to, once, in parallel.

    The outcomes are saved for `last`.
    """
    asked = sorted({(route.provider, route.model): route for route in check.routed()}.values(), key=_by_name)
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as threads:
        found = threads.map(lambda route: probe(route.provider, route.model, route.tier), asked)
        rows = list(found)
    _keep(rows)
    return rows


def probe_provider(name: str) -> list[Health]:
    """Call each model of a provider that something is routed to, or the lite tier's model if nothing is.

    The outcomes are saved for `last`.

    Raises:
        UnknownProviderError: There is no such provider.
        ConfigError: It has no model to call.
    """
    asked = {route.model: route for route in check.routed() if route.provider == name}
    if not asked:
        get_provider_module(name)
        snapshot = config_loader.load()
        router = Router(snapshot.config, contexts.registry(snapshot).contexts, specs())
        model = router.model_at(name, Tier.LITE, os.environ, where="provider")[0]
        asked[model] = Route(TEST_CONTEXT, name, model, Tier.LITE, "a test of the provider")
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as threads:
        rows = list(threads.map(lambda route: probe(name, route.model, route.tier), asked.values()))
    _keep(rows)
    return rows


def _by_name(route: Route) -> tuple[str, int, str]:
    return route.provider, int(route.tier), route.model


def _keep(rows: Iterable[Health]) -> None:
    values = [(f"{row.provider} {row.model}", row.state, row.why, row.seconds, row.at) for row in rows]
    try:
        write(lambda connection: connection.executemany("REPLACE INTO health VALUES (?, ?, ?, ?, ?)", values))
    except SharedStateBusy:
        log.warning("what came of it could not be kept: another process is writing %s", store_path())


def last() -> dict[str, Health]:
    """Return the outcomes of the last live calls, by `provider model`, without making any."""
    if not os.path.exists(store_path()):
        return {}
    rows = read("SELECT key, state, why, seconds, at FROM health")
    found: dict[str, Health] = {}
    for key, state, why, seconds, at in rows:
        provider, _, model = key.partition(" ")
        found[key] = Health(provider, model, Tier.LITE, state, seconds, why, at)
    return found


def forget(name: str) -> None:
    """Delete the outcomes of a provider's models, for example after a change of its key."""
    if not os.path.exists(store_path()):
        return
    rows = [(key,) for key, row in last().items() if row.provider == name]
    try:
        write(lambda connection: connection.executemany("DELETE FROM health WHERE key = ?", rows))
    except SharedStateBusy:
        log.warning("the last test of %s could not be forgotten: another process is writing %s", name, store_path())


def open_circuits() -> dict[str, str]:
    """Return a description of each circuit breaker that has counted failures, by `provider model`."""
    config = config_loader.load().config.policies.breaker
    return {key: _in_words(state.failures, state.until, config.failures) for key, state in circuit_states()}


def _in_words(failures: int, until: float, most: int) -> str:
    left = until - time.monotonic()
    if failures < most:
        return f"closed, {failures} of {most} failures in a row"
    return f"open for {left:.0f} s more" if left > 0 else "half open: the next call tries"
