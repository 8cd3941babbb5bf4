"""Whether those who are routed to can do what is asked of them, before anything is asked; it makes no call."""

from __future__ import annotations

import json
from collections.abc import Iterable

from muse import models
from muse.errors import ConfigError, MissingKeyError
from muse.journal import paths
from muse.journal.secrets import find_key, look_up
from muse.providers import specs
from muse.types.messages import Route
from muse.types.provider_spec import ProviderSpec


def require_sight(contexts: Iterable[str], *, pattern: str) -> None:
    """See that each of `contexts` is routed to a model that sees pictures, with a key if it needs one.

    Raises:
        ConfigError: one is not; the text names it, its route, and what to put into journal.json under `pattern`.
    """
    blind = [route for route in map(models.route, contexts) if not _sees(route)]
    if blind:
        first = blind[0]
        others = f" (and {len(blind) - 1} more contexts)" if len(blind) > 1 else ""
        found = f"{first.provider} {first.model} by {first.reason}{others}, which sees no pictures"
        raise ConfigError(first.context, found, f"a model that does: {_remedy(pattern)}")
    for context in contexts:
        require_key(context)


def require_key(context: str) -> None:
    """See that who serves a context has its key.

    Raises:
        MissingKeyError: it has none.
    """
    spec = specs().get(models.route(context).provider)
    if spec is not None and spec.key_required and not find_key(spec.env_key):
        raise MissingKeyError(spec.env_key)


def _sees(route: Route) -> bool:
    spec = specs().get(route.provider)
    return spec is not None and spec.capabilities.vision and spec.profile(route.model).images


def _remedy(pattern: str) -> str:
    """What to put into journal.json; the provider in the example is one that sees, with a key if any has one."""
    seeing = [spec for spec in specs().values() if spec.capabilities.vision and spec.key_required and spec.tiers]
    if not seeing:
        return f"route {pattern} to one in {paths.config_path()} (muse providers)"
    chosen: ProviderSpec = next((spec for spec in seeing if look_up(spec.env_key)), seeing[0])
    entry = json.dumps({"providers": {"contexts": {pattern: {"provider": chosen.name}}}})
    return f"put {entry} into {paths.config_path()}, with {chosen.env_key} set"
