"""Whether providers answer: the cheapest live call to each, and what came of the last one; it prints nothing."""

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
    """How a live call to one model went: in `seconds`, at `at` (s since the epoch), and `why` if it failed."""

    provider: str
    model: str
    tier: Tier
    state: State
    seconds: float
    why: str = ""
    at: float = 0.0


def test_connection(name: str) -> dict[str, Any]:
    """Make the cheapest live call to a provider: `{success, provider, model?, duration_s?, error?}`; it never raises.

    The call uses the lite tier's model, has 30 s, is logged under the context `muse.test`, and asks for a word. An
    answer that is cut off at the limit of 64 tokens is one: key, address and model are right.
    """
    try:
        get_provider_module(name)  # a plug-in that nothing leads to is loaded by this
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
    except Exception as exc:  # a plug-in may raise anything, and what went wrong is what is asked for
        log.debug("test of %s", provider, exc_info=True)
        why = secrets.redact(str(exc) or type(exc).__name__)
    seconds = time.perf_counter() - started_s
    if not why:
        state = "slow" if seconds > SLOW_S else "ok"
    return Health(provider, model, tier, state, seconds, why, time.time())


def probe_routed() -> list[Health]:
    """Ask each model that a known context, the default or a fallback leads to, once, all in parallel.

    What came of it is kept, for `last`.
    """
    asked = sorted({(route.provider, route.model): route for route in check.routed()}.values(), key=_by_name)
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as threads:
        found = threads.map(lambda route: probe(route.provider, route.model, route.tier), asked)
        rows = list(found)
    _keep(rows)
    return rows


def probe_provider(name: str) -> list[Health]:
    """Ask each model of a provider that something is routed to, or the one of its lite tier if nothing is; kept too.

    Raises:
        UnknownProviderError: no such provider.
        ConfigError: it has no model that could be asked.
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
    """What came of the last live calls, by `provider model`; nothing is made for it."""
    if not os.path.exists(store_path()):
        return {}
    rows = read("SELECT key, state, why, seconds, at FROM health")
    found: dict[str, Health] = {}
    for key, state, why, seconds, at in rows:
        provider, _, model = key.partition(" ")
        found[key] = Health(provider, model, Tier.LITE, state, seconds, why, at)
    return found


def forget(name: str) -> None:
    """Forget how a provider's models answered, as after a change of its key."""
    if not os.path.exists(store_path()):
        return
    rows = [(key,) for key, row in last().items() if row.provider == name]
    try:
        write(lambda connection: connection.executemany("DELETE FROM health WHERE key = ?", rows))
    except SharedStateBusy:
        log.warning("the last test of %s could not be forgotten: another process is writing %s", name, store_path())


def open_circuits() -> dict[str, str]:
    """The models whose breaker has counted failures, by `provider model`, in words."""
    config = config_loader.load().config.policies.breaker
    return {key: _in_words(state.failures, state.until, config.failures) for key, state in circuit_states()}


def _in_words(failures: int, until: float, most: int) -> str:
    left = until - time.monotonic()
    if failures < most:
        return f"closed, {failures} of {most} failures in a row"
    return f"open for {left:.0f} s more" if left > 0 else "half open: the next call tries"
