"""Checks of journal.json, descriptors, code, keys and packages. Entry point: `examine`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from msgspec import Struct, field

from muse.calls.unknown_options import KNOWN, suggestions
from muse.diagnostics import project_claims
from muse.diagnostics.call_sites import CallSite, scan
from muse.journal import config_loader, persona_fields, personas, secrets
from muse.journal.config import Config, Entry, parse_config
from muse.journal.config_loader import Snapshot
from muse.journal.lenient_parser import Problem, closest_name
from muse.journal.trust import consent
from muse.providers import backend_of, get_provider_list, problem_of, specs
from muse.providers._backend.backend import ProviderBackend
from muse.providers._backend.provider import base_url
from muse.providers.compatible import ROWS
from muse.routing import contexts
from muse.routing.contexts import Registry
from muse.routing.fallbacks import resolve_fallbacks
from muse.routing.glob_overlap import is_glob, overlap
from muse.routing.router import PROVIDER_ENV, Router
from muse.routing.unreachable_rules import config_path_of, find_unreachable_rules
from muse.types.errors import ConfigError, MissingKeyError, PluginError, UnknownProviderError
from muse.types.messages import Route
from muse.types.provider_spec import ProviderSpec, Tier, provider_of
from muse.usage_log import prices

Kind = (
    Literal["entry", "rule", "model", "price", "tier", "context", "key", "package", "setup", "fallbacks", "bound"]
    | Literal["transport", "descriptor", "code", "trust", "plugin", "option"]
)
_HOUSE = Path(__file__).resolve().parents[2]
_HOUSES = ("think", "observe", "apps", "muse")


class Finding(Struct, frozen=True):
    """A problem, and how to fix it."""

    kind: Kind
    where: str
    found: str
    expected: str
    hint: str

    def __str__(self) -> str:
        return f"{self.where}: found {self.found}, expected {self.expected}. {self.hint}"


class Report(Struct, frozen=True):
    """All findings, and how much was checked: `{what: how many}`."""

    findings: tuple[Finding, ...]
    looked_at: Mapping[str, int]


class _View(Struct, frozen=True):
    """A snapshot of everything that the checks examine; `routes` are the routes of known contexts."""

    snapshot: Snapshot
    registry: Registry
    specs: Mapping[str, ProviderSpec]
    providers: tuple[str, ...]
    sites: tuple[CallSite, ...]
    routes: list[tuple[Route, str]] = field(default_factory=list)

    @property
    def config(self) -> Config:
        """The configuration from journal.json."""
        return self.snapshot.config

    @property
    def mend(self) -> str:
        """The hint for problems in journal.json."""
        return f"Mend it in {shown(self.snapshot.path)}."


def examine(folders: Iterable[Path] = ()) -> Report:
    """Check journal.json, descriptors, keys, and the code of muse, think, observe, apps and `folders`.

    Raises:
        ConfigError: journal.json cannot be read at all.
    """
    snapshot = config_loader.load()
    known = specs()
    own = [_HOUSE / name for name in _HOUSES if (_HOUSE / name).is_dir()]
    sites, unreadable, files = scan([*own, *folders])
    names = tuple(sorted({row["name"] for row in get_provider_list()} | set(known)))
    view = _View(snapshot, contexts.registry(snapshot), known, names, tuple(sites))
    findings = [
        *_bad_entries(view),
        *_broken_providers(view),
        *_withheld(),
        *_idle_rules(view),
        *_routes(view),
        *_models(view),
        *_keys_and_packages(view),
        *_descriptors(view),
        *_unregistered(view),
        *_unknown_options(view),
        *(Finding("code", shown(p.path), p.found, p.allowed, "Mend it there.") for p in unreadable),
    ]
    looked_at = {
        "contexts": len(view.registry.contexts),
        "entries in journal.json": len(view.config.contexts),
        "providers": len(view.providers),
        "source files": files,
        "calls with a context": sum(not site.is_open for site in sites),
    }
    return Report(_once(findings), looked_at)


def shown(path: str) -> str:
    """Return a path for display: relative if it is below the working folder."""
    near = os.path.relpath(path) if os.path.isabs(path) else path
    return path if near.startswith("..") else near


def _once(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings without those that repeat an earlier one of the same place."""
    return tuple({(finding.where, finding.found): finding for finding in reversed(list(findings))}.values())[::-1]


def _withheld() -> Iterator[Finding]:
    """Yield what a project's files claim that takes effect only with the user's consent."""
    for claim in consent.withheld(project_claims.claims()):
        error = consent.TrustError(claim)
        hint = "Read what it would do before you consent."
        yield Finding("trust", shown(error.path), error.found, error.allowed, hint)


def _bad_entries(view: _View) -> Iterator[Finding]:
    """Yield the entries that the parser skipped, checked against the names of all providers."""
    problems = dict.fromkeys((*view.snapshot.problems, *parse_config(view.snapshot.data, view.providers)[1]))
    for problem in problems:
        yield Finding("entry", problem.path, problem.found, problem.allowed, view.mend)
    bad = tuple(problem.path for problem in problems)
    for pattern, entry in view.config.contexts.items():
        if entry == Entry() and not any(path.startswith(config_path_of(pattern)) for path in bad):
            yield Finding("entry", config_path_of(pattern), "an empty entry", "provider, tier or model", view.mend)


def _broken_providers(view: _View) -> Iterator[Finding]:
    """Yield installed providers that cannot be used: their code cannot be loaded, or their name is taken."""
    errors = {name: problem_of(name, view.config) for name in view.providers}
    for name, error in errors.items():
        if isinstance(error, PluginError):
            where = f"provider {name!r} ({' '.join(part for part in (error.package, error.version) if part)})"
            yield Finding("plugin", where, error.reason, "one that can be used", f"{error.remedy}.")
        elif error is not None:
            yield Finding("entry", error.path, error.found, error.allowed, view.mend)


def _idle_rules(view: _View) -> Iterator[Finding]:
    used = {site.context for site in view.sites if not site.is_open}
    names = {config_path_of(name): name for name, entry in view.config.contexts.items() if entry != Entry()}
    for problem in find_unreachable_rules(view.config, view.registry.contexts, view.specs, used):
        if problem.path in names:
            near = get_close_matches(names[problem.path], (*view.registry.contexts, *used), n=1, cutoff=0.8)
            guess = f"Did you mean {near[0]!r}? " if near and near[0] not in view.config.contexts else ""
            hint = f"{guess}Correct or remove it in {shown(view.snapshot.path)}."
            yield Finding("rule", problem.path, problem.found, problem.allowed, hint)


def _routes(view: _View) -> Iterator[Finding]:
    """Route every known context and the default; yield what prevents that."""
    router = Router(view.config, view.registry.contexts, view.specs)
    own = (name for name in view.config.contexts if not is_glob(name))
    stopped: dict[tuple[str, str], list[ConfigError]] = {}
    for name in dict.fromkeys(("", *view.registry.contexts, *own)):
        try:
            found = router.explain(name, os.environ)
            below = resolve_fallbacks(found.route, router, os.environ)
        except UnknownProviderError as exc:
            if exc.path == PROVIDER_ENV:  # in journal.json it is a bad entry already
                yield Finding("entry", exc.path, exc.found, exc.allowed, "Set it to one of these, or unset it.")
        except ConfigError as exc:
            stopped.setdefault((exc.path, exc.allowed), []).append(exc)
        else:
            view.routes.append((found.route, found.rule_sources["model"]))
            view.routes.extend((target, target.reason) for target in below.targets[1:])
            for problem in below.skipped:
                yield Finding("fallbacks", problem.path, problem.found, problem.allowed, view.mend)
    for (path, allowed), errors in stopped.items():
        others = {error.found for error in errors} - {errors[0].found}
        more = f" and {len(others)} more such" if others else ""
        kind: Kind = "bound" if path.endswith((".allow", ".local_only")) else "tier"
        yield Finding(kind, path, f"{errors[0].found}{more}", allowed, view.mend)


def _models(view: _View) -> Iterator[Finding]:
    """Yield models that belong to another provider, and models without a price."""
    places: dict[tuple[str, str], str] = {}
    for where, provider, model in _named_models(view):
        spec = view.specs.get(provider)
        owner = provider_of(model, view.specs)
        if spec is not None and spec.prefixes and owner not in {None, provider}:
            yield Finding("model", where, f"{model!r}, a model of {owner}", f"a model of {provider}", view.mend)
        else:
            places.setdefault((provider, model), where)
    for (provider, model), where in places.items():
        spec = view.specs.get(provider)
        if spec is None or spec.broken or spec.free or _is_here(spec) or prices.is_priced(model, spec.price_id):
            continue
        hint = f"Its calls work, and their cost is logged as unknown. {view.mend}"
        yield Finding("price", where, f"{model!r}, which has no price", f"a priced model of {provider}", hint)


def _named_models(view: _View) -> Iterator[tuple[str, str, str]]:
    """Yield `(where, provider, model)` of every model that journal.json names, then of every route."""
    entries = {"providers.default": view.config.default}
    entries |= {config_path_of(pattern): entry for pattern, entry in view.config.contexts.items()}
    for where, entry in entries.items():
        provider = entry.provider or (provider_of(entry.model, view.specs) if entry.model else None)
        if entry.model and provider:
            yield f"{where}.model", provider, entry.model
    for name, models in view.config.models.items():
        yield from ((f"providers.models[{name!r}]['{tier}']", name, model) for tier, model in models.items())
    for name, gateway in view.config.gateways.items():
        place = f"providers.compatible[{name!r}].models"
        yield from ((f"{place}['{tier}']", name, model) for tier, model in gateway.models.items())
    yield from ((where, route.provider, route.model) for route, where in view.routes)


def _is_here(spec: ProviderSpec) -> bool:
    """Return True if an endpoint is on this machine, where calls cost nothing."""
    host = urlsplit(spec.base_url or "").hostname
    return host in {"localhost", "127.0.0.1", "::1"}


def _keys_and_packages(view: _View) -> Iterator[Finding]:
    """Yield missing or malformed keys and missing SDKs of providers that something is routed to."""
    serves: dict[str, list[str]] = {}
    for route, _ in view.routes:
        serves.setdefault(route.provider, []).append(route.context or "the default")
    for name, served in serves.items():
        spec = view.specs[name]
        if spec.broken or spec.withheld is not None:  # has a finding of its own
            continue
        what = f"{spec.label}, which serves {_some(served)}"
        found = _BAD_KEYS.get(key_state(spec))
        if found:
            hint = "Set it in the environment or in .env, or route to a provider that needs no key (muse providers)."
            yield Finding("key", spec.env_key, found, f"an API key for {what}", hint)
        elif not is_installed(name):
            hint = f"Install it with: pip install 'muse-router[{spec.extra}]'."
            yield Finding("package", name, "no installed SDK", f"the one for {what}", hint)
        else:
            yield from _set_up(name, what)
            yield from _way(spec, what)


def _set_up(name: str, what: str) -> Iterator[Finding]:
    """Yield what else a provider reports as missing for a call: an address, a model file."""
    lack = missing_requirement(name)
    if lack is not None:
        yield Finding("setup", lack.path, lack.found, f"{lack.allowed} for {what}", f"It says: {lack}.")


# Where the SDKs send calls by default.
_HOMES = {"openai": "https://api.openai.com", "anthropic": "https://api.anthropic.com"}


def _way(spec: ProviderSpec, what: str) -> Iterator[Finding]:
    """Yield a key that is sent unencrypted to another machine, and a proxy that cannot be used."""
    from muse.providers._http.proxies import PORTS, is_loopback, proxy_for  # see LATE in tests/test_architecture.py

    try:
        address = urlsplit(base_url(spec) or _HOMES.get(spec.name, ""))
    except ConfigError:  # has a finding of its own
        return
    host, scheme = address.hostname, address.scheme
    if not host or scheme not in PORTS:
        return
    proxy = None
    try:
        proxy = proxy_for(scheme, host, address.port or PORTS[scheme])
    except ConfigError as exc:
        yield Finding("transport", exc.path, exc.found, exc.allowed, f"It is on the way to {what}.")
    if scheme != "http" or is_loopback(host) or key_state(spec) != "present":
        return
    seen_by = f", and for the proxy that {proxy.variable} names" if proxy else ""
    found = f"http://{host}: {spec.env_key} travels there in clear text, for anybody on the way to read{seen_by}"
    hint = "Use https://, or reach it through a tunnel of your own (SSH, VPN) at an address of this machine."
    yield Finding("transport", _place_of_address(spec), found, f"an https:// address for {what}", hint)


def _place_of_address(spec: ProviderSpec) -> str:
    """Return where the address in force is set: a variable, journal.json, or the provider's own row."""
    if spec.base_url_env and secrets.look_up(spec.base_url_env):
        return spec.base_url_env
    return f"the address of {spec.name}" if spec.name in ROWS else f"providers.compatible[{spec.name!r}].base_url"


def missing_requirement(name: str) -> ConfigError | None:
    """Return what a provider reports as missing for a call: a key, an address, a model file; None if nothing is."""
    backend = backend_of(name)
    if not isinstance(backend, ProviderBackend):
        return None
    try:
        backend.provider.access()
    except ConfigError as exc:
        return exc
    return None


_BAD_KEYS = {"missing": "no value", "malformed": "a value with a blank or another character that no key has"}


def _some(names: list[str]) -> str:
    shown_names = ", ".join(names[:2])
    return shown_names if len(names) <= 2 else f"{shown_names} and {len(names) - 2} more"


def key_state(spec: ProviderSpec) -> Literal["present", "missing", "malformed", "not needed"]:
    """Return the state of a provider's key; the key itself is never shown."""
    try:
        key = secrets.find_key(spec.env_key)
    except MissingKeyError:
        return "malformed"
    if key:
        return "present"
    return "missing" if spec.key_required else "not needed"


def address_in_words(spec: ProviderSpec) -> str:
    """Return the address that calls go to, or a description of it."""
    if spec.is_local or not spec.extra:
        return "this machine"
    try:
        address = base_url(spec)
    except ConfigError as exc:
        return f"not usable: {exc}"
    return address or (f"none: set {spec.base_url_env}" if spec.name in ROWS else "the SDK's own")


def is_installed(name: str) -> bool:
    """Return True if the SDK that a provider needs is installed; it is not imported."""
    backend = backend_of(name)
    if not isinstance(backend, ProviderBackend) or not backend.provider.sdk:
        return True
    try:
        return find_spec(backend.provider.sdk) is not None
    except ModuleNotFoundError:  # the package above it is missing
        return False


def routed() -> Iterator[Route]:
    """Yield every route of a known context and of the default, with its fallback chain."""
    router = _router()
    for name in ("", *router.contexts):
        with contextlib.suppress(ConfigError):
            yield from resolve_fallbacks(router.route(name, os.environ), router, os.environ).targets


def routed_providers() -> Mapping[str, int]:
    """Return how many known contexts each provider serves now; a context without a route is not counted."""
    counts: dict[str, int] = {}
    router = _router()
    for name in router.contexts:
        try:
            provider = router.route(name, os.environ).provider
        except ConfigError:
            continue
        counts[provider] = counts.get(provider, 0) + 1
    return counts


def model_at(name: str, tier: Tier) -> str | None:
    """Return the model that a provider would use for a tier now; None if it has none."""
    try:
        return _router().model_at(name, tier, os.environ, where="provider")[0]
    except ConfigError:
        return None


def _router() -> Router:
    snapshot = config_loader.load()
    return Router(snapshot.config, contexts.registry(snapshot).contexts, specs())


def _descriptors(view: _View) -> Iterator[Finding]:
    for problem in (*view.registry.problems, *personas.problems_of(), *_unknown_tools(view)):
        yield Finding("descriptor", shown(problem.path), problem.found, problem.allowed, "Mend it in that file.")


def _unknown_tools(view: _View) -> Iterator[Problem]:
    """Yield names on personas' allow-lists that are neither a tool nor a pack.

    With MCP servers configured, tools from elsewhere may exist, so nothing is checked.
    """
    if view.config.mcp_servers:
        return
    from muse.agent_loop.tool_registry import tool_modules  # takes 0.1 s, so it is imported only here

    known = {name for pack, tools in tool_modules().items() for name in (pack, *tools)}
    for persona, fields in personas.get_agents().items():
        listed = [] if fields.get("mcp_servers") else persona_fields.names_in(fields.get("tools")) or []
        for name in listed:
            if not is_glob(name) and name not in known:
                near = closest_name(name, known)
                place = f"persona {persona!r}: tools"
                yield Problem(place, repr(name), f"{near!r}?" if near else f"one of {', '.join(sorted(known))}")


def _unknown_options(view: _View) -> Iterator[Finding]:
    """Yield keyword arguments in the code that neither a call nor any provider knows."""
    known = KNOWN | _ARGUMENTS | {option for spec in view.specs.values() for option in spec.options}
    for site in view.sites:
        own = known | _OF_REQUESTS if site.function in ("BatchRequest", "create") else known
        for name in (keyword for keyword in site.keywords if keyword not in own):
            where = f"{shown(site.path)}:{site.line}"
            found = f"{name!r}, which {site.function}() does not know"
            yield Finding("option", where, found, "a known option", f"Calls ignore it: {suggestions(name)}")


# Arguments of a call that are not options, and the further ones of a batch request.
_ARGUMENTS = frozenset({"contents", "context", "schema"})
_OF_REQUESTS = frozenset({"note"})


def _unregistered(view: _View) -> Iterator[Finding]:
    """Yield contexts in the code that are not declared."""
    known = view.registry.contexts
    patterns = [name for name in known if is_glob(name)]
    for site in view.sites:
        names = (*known, *view.config.contexts) if site.is_glob else patterns
        # "" is the default. A context that journal.json names exactly is intended.
        if not site.context or site.context in known or site.context in view.config.contexts:
            continue
        if not any(overlap(name, site.context) for name in names):
            form = "contexts of the form" if site.is_glob else "the context"
            hint = "Correct it there, or declare it: by a descriptor, or by an entry of that name in journal.json."
            found = f"{form} {site.context!r}, which nobody declares"
            yield Finding("context", f"{shown(site.path)}:{site.line}", found, "a known one (muse routes)", hint)
