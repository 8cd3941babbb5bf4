"""The registry of providers: shipped files, rows of `compatible`, plug-ins and endpoints in journal.json.

| provider | where it is |
|---|---|
| google, openai, anthropic, local, echo | a file each |
| openrouter, lobechat, mindbridge, ollama, digitalocean, azure | rows of `compatible` |
| `providers.compatible.<name>` in journal.json | made from that entry |
| an entry point in the group `muse.providers` | a module with the three functions, loaded at first use |

A provider module exports `generate`, `agenerate` and `run_agent`. Nothing here imports a vendor's SDK. Entries that are
put into `PROVIDER_REGISTRY`, `PROVIDER_METADATA` or `PROVIDER_DEFAULTS` at run time take effect at the next call. A
provider whose code cannot be loaded, or whose name is taken, is listed, and each call to it raises the reason.

Entry points: `specs`, `backend_of`, `get_provider_module`, `get_provider_list`.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from importlib import import_module
from types import MappingProxyType, ModuleType

from msgspec import Struct
from msgspec.structs import replace

from muse import __version__
from muse.journal import config_loader
from muse.journal.config import CompatibleEndpoint, Config, Entry
from muse.providers import compatible
from muse.providers._backend import installed
from muse.providers._backend.backend import Backend
from muse.providers._backend.loader import LoadedProvider, ProviderSource, backend_around, load, refused
from muse.routing.router import PROVIDER_ENV
from muse.types.errors import ConfigError, TrustError, UnknownProviderError
from muse.types.provider_names import SHIPPED, normalize_name, provider_files
from muse.types.provider_spec import ProviderSpec, Tier, TierModels, provider_of

__all__ = [
    "PROVIDER_DEFAULTS",
    "PROVIDER_METADATA",
    "PROVIDER_REGISTRY",
    "backend_of",
    "get_provider_list",
    "get_provider_module",
    "is_current",
    "obstacle_to",
    "owner_of",
    "problem_of",
    "specs",
]

PROVIDER_REGISTRY: dict[str, str] = {name: f"{__name__}.{name}" for name in provider_files()} | {
    name: f"{__name__}.compatible:{name}" for name in compatible.ROWS
}
_SHIPPED_AT: Mapping[str, str] = dict(PROVIDER_REGISTRY)
_lock = threading.RLock()
if sys.platform != "win32":  # as in muse.journal.config_loader: a forked child must not inherit a held lock
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
# `_failed`: registered modules that could not be loaded, by name and place. `_importing`: names being loaded now.
_failed: dict[tuple[str, str], LoadedProvider] = {}
_importing: set[str] = set()
_gateways: dict[str, tuple[CompatibleEndpoint, ProviderSpec, ModuleType]] = {}
_plugins: dict[installed.Plugin, LoadedProvider] = {}
_backends: dict[int, tuple[object, Backend]] = {}
_refusals: dict[tuple[str, str], LoadedProvider] = {}


def _registered(name: str, where: str) -> ModuleType:
    """Return the module of a registered name: the one in `sys.modules` if there is one, else import it.

    A module that cannot be imported is a refused provider from then on.
    """
    module, _, row = where.partition(":")
    if row:
        return compatible.module_of(compatible.ROWS[row])
    known = sys.modules.get(module)
    if known is not None and name not in _importing:
        return known
    with _lock:
        failed = _failed.get((name, where))
        if failed is not None:
            return failed.module
        if name in _importing:  # the module's own import asks for it
            return refused(
                name, ConfigError(f"provider {name!r}", "a module that is being imported", "one that is")
            ).module
        _importing.add(name)
        try:
            loaded = load(_source(name, module), lambda: import_module(module))
        finally:
            _importing.discard(name)
        if loaded.error is not None:
            _failed[(name, where)] = loaded
            sys.modules.pop(module, None)
        return loaded.module


def _source(name: str, module: str) -> ProviderSource:
    if module == f"{__name__}.{name}":
        place = f"muse/providers/{name}.py"
        return ProviderSource(
            name, "muse-router", __version__, place, f"Correct or remove {place}, or route to another provider"
        )
    return ProviderSource(
        name, f"module {module}", "", module, "Correct that module, or its entry in PROVIDER_REGISTRY"
    )


def _declared(name: str, where: str) -> ProviderSpec:
    """Return the spec that a registered provider declares."""
    return _backend_around(_registered(name, where), name).spec


def _row(spec: ProviderSpec) -> dict[str, str]:
    return {"label": spec.label, "env_key": spec.env_key}


def _complete(tiers: TierModels) -> dict[int, str]:
    """Return a model for each of the three tiers; a gap gets the next more capable model, else the most capable one."""
    order = [tiers[tier] for tier in Tier if tier in tiers]
    whole: dict[int, str] = {}
    for tier in Tier:
        whole[int(tier)] = tiers.get(tier) or whole.get(tier - 1) or order[0]
    return whole


def _backend_around(module: ModuleType, name: str) -> Backend:
    """Return the backend of a module; the same module always gives the same backend."""
    known = _backends.get(id(module))
    if known is None or known[0] is not module:
        failed = next((one for one in (*_failed.values(), *_refusals.values()) if one.module is module), None)
        known = _backends[id(module)] = (module, failed.backend if failed else backend_around(module, name))
    return known[1]


# The shipped files are read at import. Any other file may import muse.models, so it is loaded at first use.
_BUILT_IN: Mapping[str, ProviderSpec] = {
    name: compatible.ROWS[name] if name in compatible.ROWS else _declared(name, where)
    for name, where in PROVIDER_REGISTRY.items()
    if name in compatible.ROWS or name in SHIPPED
}
PROVIDER_METADATA: dict[str, dict[str, str]] = {
    name: _row(_BUILT_IN[name]) if name in _BUILT_IN else {"label": name, "env_key": f"{name.upper()}_API_KEY"}
    for name in PROVIDER_REGISTRY
}
PROVIDER_DEFAULTS: dict[str, dict[int, str]] = {
    name: _complete(spec.tiers) for name, spec in _BUILT_IN.items() if spec.tiers
}
# The initial content of these two: only an entry that differs from it overrides a provider's own spec.
_own_metadata = {name: dict(row) for name, row in PROVIDER_METADATA.items()}
_own_defaults = {name: dict(tiers) for name, tiers in PROVIDER_DEFAULTS.items()}


class _State(Struct, frozen=True, eq=False):
    """The providers under one configuration and the inputs they were made from.

    Attributes:
        errors: The reasons of the providers that cannot be used, by name.
    """

    config: Config
    switched: str | None
    path: list[str]
    registry: Mapping[str, str]
    defaults: Mapping[str, Mapping[int, str]]
    metadata: Mapping[str, Mapping[str, str]]
    specs: Mapping[str, ProviderSpec]
    errors: Mapping[str, ConfigError]

    def is_current(self) -> bool:
        """Return True if the registry's dictionaries and `sys.path` are unchanged."""
        return self.registry == PROVIDER_REGISTRY and self.defaults == PROVIDER_DEFAULTS and self.path == sys.path

    def is_told_the_same(self) -> bool:
        """Return True if `MUSE_PROVIDER` and `PROVIDER_METADATA` are unchanged."""
        return self.switched == os.environ.get(PROVIDER_ENV) and self.metadata == PROVIDER_METADATA


_merged: _State | None = None
_wants_all = False


def specs(config: Config | None = None) -> Mapping[str, ProviderSpec]:
    """Return the specs of the built-in providers, those of journal.json, and the plug-ins that routes use.

    Args:
        config: The configuration; None for the current one.
    """
    now = config_loader.load().config
    if config is None or config is now:
        return _state(now).specs
    with _lock:
        return _make(config).specs


def is_current(known: Mapping[str, ProviderSpec]) -> bool:
    """Return True if `known`, a former result of `specs`, is still valid for unchanged journal.json and environment."""
    state = _merged
    return state is not None and state.specs is known and state.is_current()


def problem_of(name: str, config: Config | None = None) -> ConfigError | None:
    """Return the reason why a provider cannot be used by any call; None if none is known."""
    error = _state(config or config_loader.load().config).errors.get(name)
    if error is None and any(one.name == name for one in installed.find().get(normalize_name(name), ())):
        error = _loaded_plugin(name).error
    return error


def obstacle_to(name: str) -> ConfigError | None:
    """Return why calls to a provider are refused unsent: it is broken, or its entry needs consent; None if neither."""
    problem = problem_of(name)
    if problem is None:
        spec = specs().get(name)
        problem = TrustError(spec.withheld) if spec is not None and spec.withheld is not None else None
    return problem


def owner_of(model: str) -> str | None:
    """Return the provider whose model prefixes match `model`.

    If none matches, all installed plug-ins are loaded and checked too.
    """
    global _merged, _wants_all
    owner = provider_of(model, specs())
    if owner is None and not _wants_all and installed.find():
        _merged, _wants_all = None, True
        owner = provider_of(model, specs())
    return owner


def get_provider_module(name: str, config: Config | None = None) -> ModuleType:
    """Return the module of a provider: the one in `sys.modules` if there is one, else import it.

    The functions of a provider that cannot be used raise the reason.

    Args:
        name: The name of the provider.
        config: The current configuration, if the caller has loaded it already.

    Raises:
        UnknownProviderError: There is no such provider (a `ValueError`); the text lists the valid ones.
    """
    config = config or config_loader.load().config
    state = _state(config)
    error = state.errors.get(name)
    if error is not None:
        return _refused(name, error, state.specs.get(name)).module
    gateway = config.gateways.get(name)
    if gateway is not None:
        return _gateway(gateway)[1]
    where = PROVIDER_REGISTRY.get(name)
    return _plugin(name) if where is None else _registered(name, where)


def get_provider_list() -> list[dict[str, str]]:
    """Return `[{name, label, env_key}]` of all providers, including plug-ins and those of journal.json."""
    found = specs()
    rows = [{"name": name, **PROVIDER_METADATA.get(name, _row(found[name]))} for name in PROVIDER_REGISTRY]
    rows += [{"name": name, **_row(spec)} for name, spec in found.items() if name not in PROVIDER_REGISTRY]
    known = {row["name"] for row in rows}
    return rows + [{"name": name, "label": name, "env_key": ""} for name in _plugin_names() if name not in known]


def backend_of(name: str, config: Config | None = None) -> Backend:
    """Return the backend of a provider: the one that `bind` made, else one around its module's plain functions."""
    return _backend_around(get_provider_module(name, config), name)


def _state(config: Config) -> _State:
    """Return the providers under a configuration, rebuilt when any of their inputs has changed."""
    global _merged
    state = _merged
    if state is not None and state.config is config and state.is_current() and state.is_told_the_same():
        return state
    with _lock:
        made = _make(config)
        if state is not None and state.specs == made.specs and state.errors == made.errors:
            made = replace(made, specs=state.specs, errors=state.errors)
        if not _importing:  # not cached then: a provider that asks for others during its import does not see itself
            _merged = made
        return made


def _make(config: Config) -> _State:
    registry = dict(PROVIDER_REGISTRY)
    found = {name: _spec_at(name, where) for name, where in registry.items() if name not in _importing}
    errors = {name: one.error for (name, where), one in _failed.items() if registry.get(name) == where and one.error}
    found |= {name: _gateway(gateway)[0] for name, gateway in config.gateways.items() if name not in registry}
    errors |= _clashes(config, found)
    for name in _wanted_plugins(config, found):
        loaded = _loaded_plugin(name)
        found[name] = loaded.backend.spec.having(plugin=_package(name))
        if loaded.error is not None:
            errors[name] = loaded.error
    for name, error in errors.items():
        if not found.get(name, _NONE).broken:
            found[name] = _refused(name, error, found.get(name)).backend.spec
    defaults = {name: dict(tiers) for name, tiers in PROVIDER_DEFAULTS.items()}
    metadata = {name: dict(row) for name, row in PROVIDER_METADATA.items()}
    whole = {name: _overlaid(spec, defaults, metadata) for name, spec in found.items()}
    switched = os.environ.get(PROVIDER_ENV)
    return _State(config, switched, list(sys.path), registry, defaults, metadata, MappingProxyType(whole), errors)


_NONE = ProviderSpec("", "", "", {})


def _spec_at(name: str, where: str) -> ProviderSpec:
    """Return the spec of a registered provider.

    For an unshipped file in this folder, also register its tiers and label.
    """
    if name in _BUILT_IN and where == _SHIPPED_AT.get(name) and not _is_replaced(name, where):
        return _BUILT_IN[name]
    spec = _declared(name, where)
    if name in _own_metadata and name not in _BUILT_IN and not spec.broken:
        if PROVIDER_METADATA.get(name) == _own_metadata[name]:
            PROVIDER_METADATA[name] = _row(spec)
        _own_metadata[name] = _row(spec)
        if spec.tiers and name not in _own_defaults:
            _own_defaults[name] = _complete(spec.tiers)
            PROVIDER_DEFAULTS.setdefault(name, dict(_own_defaults[name]))
    return spec


def _is_replaced(name: str, where: str) -> bool:
    """Return True if a shipped file that could not be imported is now in `sys.modules`."""
    return _BUILT_IN[name].broken and where in sys.modules


def _overlaid(
    spec: ProviderSpec, defaults: Mapping[str, TierModels], metadata: Mapping[str, Mapping[str, str]]
) -> ProviderSpec:
    """Return a spec with the changes made to `PROVIDER_DEFAULTS` and `PROVIDER_METADATA` at run time."""
    tiers, own = defaults.get(spec.name, {}), _own_defaults.get(spec.name, {})
    if tiers != own:
        spec = spec.having(
            tiers={int(tier): str(model) for tier, model in tiers.items() if tier in (1, 2, 3) and model}
        )
    row = metadata.get(spec.name)
    if row is not None and row != _own_metadata.get(spec.name):
        spec = spec.having(label=str(row.get("label", spec.label)), env_key=str(row.get("env_key", spec.env_key)))
    return spec


def _clashes(config: Config, found: Mapping[str, ProviderSpec]) -> dict[str, ConfigError]:
    """Return the errors of providers that journal.json describes wrongly or whose name is claimed twice."""
    errors: dict[str, ConfigError] = {}
    by_fold: dict[str, list[str]] = {}
    for name in found:
        by_fold.setdefault(normalize_name(name), []).append(name)
    for name, problem in config.refused.items():
        error = ConfigError(problem.path, problem.found, problem.allowed)
        errors |= dict.fromkeys([name, *by_fold.get(normalize_name(name), ())], error)
    for name in config.gateways:
        place = f"providers.compatible[{name!r}]"
        for other in by_fold[normalize_name(name)] if name in found else ():
            if other in PROVIDER_REGISTRY:
                errors[name] = errors[other] = ConfigError(place, "the name of a registered provider", "another name")
    for key, claiming in installed.find().items():
        for name in by_fold.get(key, ()):
            kind = "an endpoint in journal.json" if name in config.gateways else "a built-in provider"
            error = installed.clash(claiming[0], f"{claiming[0].name!r} is the name of {kind}")
            errors |= dict.fromkeys([name, *(one.name for one in claiming)], error)
    return errors


def _refused(name: str, error: ConfigError, spec: ProviderSpec | None) -> LoadedProvider:
    """Return the refused provider for a name and an error; the same object for the same error text."""
    key = (name, str(error))
    if key not in _refusals:
        if len(_refusals) >= 1_000:
            _refusals.clear()
        _refusals[key] = refused(name, error, spec)
    return _refusals[key]


def _gateway(gateway: CompatibleEndpoint) -> tuple[ProviderSpec, ModuleType]:
    """Return the spec and module of an endpoint in journal.json, remade when its entry changes."""
    made = _gateways.get(gateway.name)
    if made is None or made[0] != gateway:
        spec = compatible.spec_of(gateway)
        made = _gateways[gateway.name] = (gateway, spec, compatible.module_of(spec))
    return made[1], made[2]


def _wanted_plugins(config: Config, found: Mapping[str, ProviderSpec]) -> list[str]:
    """Return the plug-ins to load: those that are named, or all if a model is named that no known provider claims."""
    taken = {normalize_name(name) for name in found}
    there = {row[0].name for key, row in installed.find().items() if key not in taken}
    if not there:
        return []
    unclaimed = (model for model in _models_alone(config) if provider_of(model, found) is None)
    if _wants_all or next(unclaimed, None) is not None:
        return sorted(there - _importing)
    used = {plugin.name for plugin in _plugins}
    return sorted(there & {*_named(config), *used} - _importing)


def _named(config: Config) -> Iterator[str]:
    """Yield every provider that journal.json or `MUSE_PROVIDER` names."""
    for entry in _entries(config):
        targets = entry.rules.fallbacks or ()
        yield from (name for name in (entry.provider, *(target.provider for target in targets)) if name)
        yield from entry.rules.allow or ()
    yield from (limit.provider for limit in config.policies.limits)
    yield from config.models
    yield os.environ.get(PROVIDER_ENV, "")


def _models_alone(config: Config) -> Iterator[str]:
    """Yield every model that journal.json names without a provider."""
    for entry in _entries(config):
        if entry.model and not entry.provider:
            yield entry.model
        yield from (target.model for target in entry.rules.fallbacks or () if target.model and not target.provider)


def _entries(config: Config) -> tuple[Entry, ...]:
    return (config.default, *config.contexts.values())


def _plugin(name: str) -> ModuleType:
    """Return the module of a provider from an installed package.

    Raises:
        UnknownProviderError: No installed package has such a provider.
    """
    if not any(one.name == name for one in installed.find().get(normalize_name(name), ())):
        installed.find(at_once=True)
    if not any(one.name == name for one in installed.find().get(normalize_name(name), ())):
        raise UnknownProviderError(name, [*PROVIDER_REGISTRY, *config_loader.load().config.gateways, *_plugin_names()])
    return _loaded_plugin(name).module


def _loaded_plugin(name: str) -> LoadedProvider:
    """Return an installed plug-in, imported only once."""
    global _merged
    with _lock:
        claiming = installed.find()[normalize_name(name)]
        known = _plugins.get(claiming[0])
        if known is not None:
            return known
        _importing.add(name)
        try:
            loaded = installed.both_refused(claiming) if len(claiming) > 1 else claiming[0].loaded()
        finally:
            _importing.discard(name)
        _plugins[claiming[0]] = loaded
        _merged = None
        _backends[id(loaded.module)] = (loaded.module, loaded.backend)
        return loaded


def _package(name: str) -> str:
    return " and ".join(one.package for one in installed.find()[normalize_name(name)])


def _plugin_names() -> list[str]:
    return sorted({one.name for row in installed.find(at_once=True).values() for one in row})
