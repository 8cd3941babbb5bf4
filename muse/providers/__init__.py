"""The registry: a file that stands here is a provider; so are rows of `compatible`, plug-ins, journal.json's own.

| provider | where it is |
|---|---|
| google, openai, anthropic, local, echo | a file each |
| openrouter, lobechat, mindbridge, ollama, digitalocean, azure | rows of `compatible` |
| `providers.compatible.<name>` in journal.json | made from that entry |
| an entry point in the group `muse.providers` | a module with the seed's three functions, loaded when it is asked for |

A provider module exports `generate`, `agenerate` and `run_agent`. Nothing here imports a vendor's SDK.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from types import ModuleType

from muse import journal
from muse.config import Config, Gateway
from muse.errors import UnknownProviderError
from muse.providers import compatible
from muse.providers._backend import Backend, ProviderBackend
from muse.providers._plain import PlainBackend
from muse.routing import PROVIDER_ENV
from muse.spec import Spec

__all__ = [
    "PROVIDER_METADATA",
    "PROVIDER_REGISTRY",
    "backend_of",
    "get_provider_list",
    "get_provider_module",
    "specs",
]

_GROUP = "muse.providers"
_FAMILY = ("google", "openai", "anthropic")


def _standing_here() -> Iterator[str]:
    """The names of the provider files, the three of the seed first."""
    names = {name[:-3] for name in os.listdir(os.path.dirname(__file__)) if name.endswith(".py") and name[0] != "_"}
    names.discard("compatible")
    yield from _FAMILY
    yield from sorted(names.difference(_FAMILY))


PROVIDER_REGISTRY: dict[str, str] = {name: f"{__name__}.{name}" for name in _standing_here()} | {
    name: f"{__name__}.compatible:{name}" for name in compatible.ROWS
}


def _built_in(name: str) -> Spec:
    row = compatible.ROWS.get(name)
    if row is not None:
        return row
    spec: Spec = import_module(PROVIDER_REGISTRY[name]).SPEC
    return spec


_BUILT_IN: Mapping[str, Spec] = {name: _built_in(name) for name in PROVIDER_REGISTRY}
PROVIDER_METADATA: dict[str, dict[str, str]] = {
    name: {"label": spec.label, "env_key": spec.env_key} for name, spec in _BUILT_IN.items()
}
_gateways: dict[str, tuple[Gateway, Spec, ModuleType]] = {}
_plugins: dict[str, ModuleType] = {}
_backends: dict[int, tuple[object, Backend]] = {}
_merged: tuple[object, Mapping[str, Spec]] | None = None


def get_provider_module(name: str, config: Config | None = None) -> ModuleType:
    """The module of a provider, imported when it is asked for; what stands in `sys.modules` is honoured.

    `config` is journal.json as it stands now, where the caller has it at hand.

    Raises:
        UnknownProviderError: (a `ValueError`) naming the valid ones.
    """
    gateway = (config or journal.load().config).gateways.get(name)
    if gateway is not None:
        return _gateway(gateway)[1]
    where = PROVIDER_REGISTRY.get(name)
    if where is None:
        return _plugin(name)
    module, _, row = where.partition(":")
    return compatible.module_of(compatible.ROWS[row]) if row else import_module(module)


def get_provider_list() -> list[dict[str, str]]:
    """`[{name, label, env_key}]` of every provider there is, plug-ins and journal.json's own included."""
    rows = [{"name": name, **metadata} for name, metadata in PROVIDER_METADATA.items()]
    further = [spec for spec in specs().values() if spec.name not in PROVIDER_METADATA]
    rows += [{"name": spec.name, "label": spec.label, "env_key": spec.env_key} for spec in further]
    known = {row["name"] for row in rows}
    return rows + [{"name": name, "label": name, "env_key": ""} for name in _plugin_names() if name not in known]


def specs() -> Mapping[str, Spec]:
    """What every provider declares: the built-in ones, those of journal.json, and the plug-ins that are routed to."""
    global _merged
    config = journal.load().config
    _load_plugins(config)
    gateways = config.gateways
    if not gateways and not _plugins:
        return _BUILT_IN
    key = (tuple(gateways.values()), tuple(_plugins))
    if _merged is None or _merged[0] != key:
        further = {name: backend_of(name).spec for name in _plugins}
        own = {name: _gateway(gateway)[0] for name, gateway in gateways.items()}
        _merged = (key, {**_BUILT_IN, **further, **own})
    return _merged[1]


def backend_of(name: str, config: Config | None = None) -> Backend:
    """The whole provider behind a module: the one that `bind` made, else one around its plain functions."""
    module = get_provider_module(name, config)
    bound = getattr(module, "generate", None)
    owner = getattr(bound, "__self__", None)
    if isinstance(owner, ProviderBackend):
        return owner
    known = _backends.get(id(module))
    if known is None or known[0] is not module:
        known = _backends[id(module)] = (module, PlainBackend(module, name))
    return known[1]


def _gateway(gateway: Gateway) -> tuple[Spec, ModuleType]:
    """Spec and module of an endpoint in journal.json, made anew when its entry changes."""
    made = _gateways.get(gateway.name)
    if made is None or made[0] != gateway:
        spec = compatible.spec_of(gateway)
        made = _gateways[gateway.name] = (gateway, spec, compatible.module_of(spec))
    return made[1], made[2]


def _plugin(name: str) -> ModuleType:
    """A provider from an installed package (entry-point group `muse.providers`)."""
    if name not in _plugins:
        from importlib.metadata import entry_points  # 15 ms, and only an unknown name pays it

        found = next((point for point in entry_points(group=_GROUP) if point.name == name), None)
        if found is None:
            raise UnknownProviderError(name, [*PROVIDER_REGISTRY, *journal.load().config.gateways, *_plugin_names()])
        _plugins[name] = found.load()
    return _plugins[name]


_looked_at: tuple[Config, str | None] | None = None


def _load_plugins(config: Config) -> None:
    """Load the plug-ins that journal.json or `MUSE_PROVIDER` names; a name that is none is the router's to refuse."""
    global _looked_at
    switched = os.environ.get(PROVIDER_ENV)
    if _looked_at is not None and _looked_at[0] is config and _looked_at[1] == switched:
        return
    named = {entry.provider for entry in (config.default, *config.contexts.values())} | {switched}
    unknown = {name for name in named if name}.difference(_BUILT_IN, config.gateways, _plugins)
    for name in sorted(unknown.intersection(_plugin_names())) if unknown else ():
        _plugin(name)
    _looked_at = (config, switched)


def _plugin_names() -> list[str]:
    from importlib.metadata import entry_points  # 15 ms, and only a listing pays it

    return sorted(point.name for point in entry_points(group=_GROUP))
