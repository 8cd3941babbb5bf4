"""journal.json's text -> `Config` plus a list of problems; pure: it reads no file and knows no provider's code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar, TypeVar

from msgspec import Struct, field

from muse.journal.lenient_parser import UNKNOWN_KEY, LenientParser, Problem, closest_name, describe_value
from muse.journal.policy_config import (
    RULES,
    CallPolicy,
    Policies,
    parse_answer_limits,
    parse_breaker,
    parse_budgets,
    parse_cache_mb,
    parse_call_policy,
    parse_limits,
)
from muse.types.errors import ConfigError
from muse.types.provider_names import built_in_names, normalize_name
from muse.types.provider_spec import Tier
from muse.types.redaction import RedactedStruct
from muse.types.trust_claim import Claim

DEFAULT_PROVIDER = "google"
DEFAULT_TIER = Tier.FLASH
_DEEPEST = 64
# A gateway's name makes the names of its variables: `<NAME>_API_KEY`, `<NAME>_MODEL`.
_GATEWAY_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")

_T = TypeVar("_T")
Check = Callable[[Any, str], Any]


class Entry(Struct, frozen=True):
    """What one place of journal.json says of a route and of how its calls are made; None where it says nothing.

    `problem` is what of it is malformed in a way that leaves open who is to serve: a call that it would route fails.
    """

    provider: str | None = None
    tier: Tier | None = None
    model: str | None = None
    rules: CallPolicy = CallPolicy()
    problem: Problem | None = None


class CompatibleEndpoint(RedactedStruct, frozen=True):
    """A user-defined OpenAI-shaped endpoint (`providers.compatible.<name>`).

    `withheld` is set where it stands in a project's file and nobody has consented to it; calls are refused then.
    """

    _addresses: ClassVar[frozenset[str]] = frozenset({"base_url"})

    name: str
    base_url: str
    env_key: str = ""
    label: str = ""
    models: Mapping[int, str] = field(default_factory=dict)
    images: bool = False
    withheld: Claim | None = None


class LocalModel(Struct, frozen=True):
    """The embedded model (`providers.local`): a GGUF file in place of the bundled one, and its context in tokens."""

    model_path: str | None = None
    context_tokens: int = 4096


class Descriptors(Struct, frozen=True):
    """Further folders: categories (`*.json`), agents (`*.json`), apps (`*/agents/*.json`), insight topics (`*.md`).

    `project` is the project whose file names them, and empty where the user's own configuration does.
    """

    categories: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    apps: tuple[str, ...] = ()
    insights: tuple[str, ...] = ()
    project: str = ""


class Config(Struct, frozen=True):
    """All that journal.json says, without its unusable entries; `repr` shows neither `env` nor what servers are given.

    Of a project's file, `claims` are all entries that need consent (`muse.journal.trust`), `withheld_servers` and
    `withheld_env` those left out of `mcp_servers` and `env` because nobody has consented to them.
    `refused` are the rows of `providers.compatible` that cannot be used, each with what is wrong with it.
    """

    default: Entry = Entry(DEFAULT_PROVIDER, DEFAULT_TIER)
    contexts: Mapping[str, Entry] = field(default_factory=dict)
    models: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    gateways: Mapping[str, CompatibleEndpoint] = field(default_factory=dict)
    refused: Mapping[str, Problem] = field(default_factory=dict)
    local: LocalModel = LocalModel()
    system_instruction: str | None = None
    policies: Policies = Policies()
    descriptors: Descriptors = Descriptors()
    agents: Mapping[str, float] = field(default_factory=dict)
    mcp_servers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    identity: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    withheld_servers: tuple[Claim, ...] = ()
    withheld_env: Mapping[str, Claim] = field(default_factory=dict)

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name not in _UNSHOWN)
        return f"Config({', '.join(shown)}, {len(self.mcp_servers)} servers, env of {len(self.env)})"


# Entries in which secrets may stand.
_UNSHOWN = ("env", "mcp_servers", "claims", "withheld_servers", "withheld_env")


def parse_json(text: bytes | str, where: str) -> tuple[dict[str, Any], tuple[Problem, ...]]:
    """The JSON object in `text`, with a problem for each duplicate key (the last one counts).

    Raises:
        ConfigError: not UTF-8, not JSON, nested too deep, or not an object; the text names line and column.
    """
    duplicates: list[Problem] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            seen: set[str] = set()
            twice = sorted({key for key, _ in pairs if key in seen or seen.add(key)})  # type: ignore[func-returns-value]
            duplicates.extend(
                Problem(f"key {key!r}", "it twice in one object", "it once; the last one counts") for key in twice
            )
        return entries

    try:
        data = json.loads(text, object_pairs_hook=unique, parse_constant=_refuse_constant)
    except UnicodeDecodeError as exc:
        raise ConfigError(where, f"a byte that is not UTF-8 at position {exc.start}", "UTF-8 text") from exc
    except json.JSONDecodeError as exc:
        raise ConfigError(where, f"{exc.msg} (line {exc.lineno}, column {exc.colno})", "a JSON object") from exc
    except RecursionError as exc:
        raise ConfigError(where, "objects nested too deep to read", "a JSON object as in the schema") from exc
    except ValueError as exc:  # a number of thousands of digits, or NaN
        raise ConfigError(where, str(exc), "a JSON object") from exc
    if _is_deeper(data, _DEEPEST):
        raise ConfigError(where, f"objects nested more than {_DEEPEST} deep", "a JSON object as in the schema")
    if not isinstance(data, dict):
        raise ConfigError(where, type(data).__name__, "a JSON object")  # it may hold secrets
    return data, tuple(duplicates)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name}, which is no JSON number")


def _is_deeper(data: object, most: int) -> bool:
    """Whether `data` has containers inside each other more than `most` deep."""
    level: list[object] = [data]
    for _ in range(most + 1):
        level = [
            child
            for node in level
            if isinstance(node, (dict, list))
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return False
    return True


def parse_config(data: Mapping[str, Any], known: Collection[str] | None = None) -> tuple[Config, tuple[Problem, ...]]:
    """`(config, problems)`; a bad entry is a problem and falls back to its default, the rest works.

    `known` are the provider names that count as known besides the file's own gateways; None checks no names.
    """
    return _Parser(data, known).parse()


def _misrouting(problems: Collection[Problem], path: str, *keys: str) -> Problem | None:
    """Return the problem by which it is open what one of `keys` in the object at `path` says; None if there is none.

    It is malformed itself, or the object is, or a key looks like a misspelt one of them.
    """
    places = {path, *(f"{path}.{key}" if path else key for key in keys)}
    for problem in problems:
        if problem.path in places:
            return problem
        above, _, key = problem.path.rpartition(".")
        if problem.found == UNKNOWN_KEY and above == path and closest_name(key, keys):
            return problem
    return None


class _Parser(LenientParser):
    """One pass over one document; collects problems as it goes."""

    def __init__(self, data: Mapping[str, Any], known: Collection[str] | None) -> None:
        super().__init__()
        self.data = data
        gateways = self.members(self.members(data.get("providers"), None).get("compatible"), None)
        self.known = None if known is None else {*known, *gateways}
        self.tier: Tier = DEFAULT_TIER
        self.refused: dict[str, Problem] = {}

    def parse(self) -> tuple[Config, tuple[Problem, ...]]:
        """Walk the document by its one table of keys."""
        top = self.fields(self.data, "", _TOP)
        providers = self.fields(top.get("providers", {}), "providers", _PROVIDERS)
        default = self._default(providers.get("default", {}))
        config = Config(
            default=default,
            contexts=self.entries(providers.get("contexts", {}), "providers.contexts", self._entry),
            models=self._models(providers.get("models", {})),
            gateways=self._gateways(providers.get("compatible", {})),
            refused=self.refused,
            local=self._local(providers.get("local", {})),
            system_instruction=providers.get("system_instruction"),
            policies=self._policies(providers),
            descriptors=self._descriptors(top.get("descriptors", {})),
            agents=self._limits(top.get("agents", {})),
            mcp_servers=self._servers(top.get("mcp_servers", {})),
            identity=top.get("identity", {}),
            env=self.entries(top.get("env", {}), "env", self._env),
        )
        return config, tuple(self.problems)

    def _default(self, raw: Mapping[str, Any]) -> Entry:
        misplaced = _misrouting(self.problems, "providers", "default") or _misrouting(self.problems, "", "providers")
        before = len(self.problems)
        entry = self._entry(raw, "providers.default")
        self.tier = entry.tier or DEFAULT_TIER
        problem = misplaced or entry.problem
        if not (problem or entry.provider or entry.model):
            problem = next((one for one in self.problems[before:] if one.found == UNKNOWN_KEY), None)
        provider = entry.provider or (None if entry.model else DEFAULT_PROVIDER)
        return Entry(provider, self.tier, entry.model, entry.rules, problem)

    def _entry(self, raw: object, path: str) -> Entry:
        before = len(self.problems)
        entry = self.members(raw, path)
        fields = self.fields(entry, path, _ENTRY)
        problem = _misrouting(self.problems[before:], path, "provider", "model")
        provider = fields.get("provider")
        if provider is not None and self.known is not None and provider not in self.known:
            self.problem(f"{path}.provider", repr(provider), f"one of {', '.join(sorted(self.known))}")
        tier = self._tier(fields["tier"], f"{path}.tier") if "tier" in fields else None
        return Entry(
            provider, tier, fields.get("model"), parse_call_policy(self, entry, fields, path, self.known), problem
        )

    def _policies(self, raw: Mapping[str, Any]) -> Policies:
        """What holds for the calls of all contexts."""
        return Policies(
            limits=parse_limits(self, raw.get("limits", []), "providers.limits", self.known),
            budgets=parse_budgets(self, raw.get("budgets", []), "providers.budgets"),
            breaker=parse_breaker(self, raw.get("breaker", {}), "providers.breaker"),
            cache_mb=parse_cache_mb(self, raw.get("cache", {}), "providers.cache"),
            answers=parse_answer_limits(self, raw.get("answers", {}), "providers.answers", self.known),
        )

    def _tier(self, raw: object, path: str) -> Tier:
        """A tier; whatever is not 1, 2 or 3 is a problem and becomes the default tier (CONTRACT, resolve_provider)."""
        if isinstance(raw, (int, float)) and not isinstance(raw, bool) and raw in (1, 2, 3):
            return Tier(int(raw))
        self.problem(path, describe_value(raw), "1, 2 or 3")
        return self.tier

    def _models(self, raw: object) -> Mapping[str, Mapping[int, str]]:
        for name in self.members(raw, "providers.models"):
            if self.known is not None and name not in self.known:
                self.problem(f"providers.models[{name!r}]", repr(name), f"one of {', '.join(sorted(self.known))}")
        return self.entries(raw, "providers.models", self._tier_models)

    def _tier_models(self, raw: object, path: str) -> Mapping[int, str]:
        models: dict[int, str] = {}
        for key, model in self.members(raw, path).items():
            place = f"{path}[{key!r}]"
            if key not in ("1", "2", "3"):
                self.problem(place, repr(key), "the tiers '1', '2' or '3' as keys")
            elif self.is_text(model, place):
                models[int(key)] = model
        return models

    def _gateways(self, raw: object) -> Mapping[str, CompatibleEndpoint]:
        gateways: dict[str, CompatibleEndpoint] = {}
        for name, row in self.members(raw, "providers.compatible").items():
            before = len(self.problems)
            gateway = self._gateway(name, row, {normalize_name(other): other for other in (*gateways, *self.refused)})
            if gateway is not None:
                gateways[name] = gateway
            else:
                self.refused[name] = self.problems[before:][-1]
        return gateways

    def _gateway(self, name: str, raw: object, others: Mapping[str, str]) -> CompatibleEndpoint | None:
        path = f"providers.compatible[{name!r}]"
        members = self.members(raw, path)
        address = members.get("base_url")
        is_unset = isinstance(address, str) and not address.strip()  # said, and so as the variable says
        fields = self.fields({k: v for k, v in members.items() if not is_unset or k != "base_url"}, path, _GATEWAY)
        if not _GATEWAY_NAME.fullmatch(name):
            self.problem(path, repr(name), "a name of letters, digits, _ and -, a letter first")
            return None
        if normalize_name(name) in built_in_names():
            allowed = f"a name of its own, such as 'my-{name.lower()}'; nothing is sent to either until then"
            self.problem(path, f"{name!r}, the name of a built-in provider", allowed)
            return None
        if normalize_name(name) in others:
            self.problem(
                path, f"{name!r} beside {others[normalize_name(name)]!r}", "names that differ by more than case or -"
            )
            return None
        base_url = fields.get("base_url", "").strip()
        if not is_unset and not base_url.lower().startswith(("http://", "https://")):
            self.problem(f"{path}.base_url", repr(base_url), "an address that begins with http:// or https://")
            return None
        models = self._tier_models(fields.get("models", {}), f"{path}.models")
        return CompatibleEndpoint(
            name, base_url, fields.get("env_key", ""), fields.get("label", ""), models, fields.get("images", False)
        )

    def _local(self, raw: Mapping[str, Any]) -> LocalModel:
        fields = self.fields(raw, "providers.local", _LOCAL)
        tokens = int(fields.get("context_tokens", 4096))
        if not 512 <= tokens <= 1_048_576:
            self.problem("providers.local.context_tokens", str(tokens), "512 to 1048576")
            tokens = 4096
        return LocalModel(fields.get("model_path"), tokens)

    def _descriptors(self, raw: Mapping[str, Any]) -> Descriptors:
        fields = self.fields(raw, "descriptors", _DESCRIPTORS)
        folders = {
            kind: tuple(path for i, path in enumerate(paths) if self.is_text(path, f"descriptors.{kind}[{i}]"))
            for kind, paths in fields.items()
        }
        return Descriptors(**folders)  # type: ignore[arg-type]  # its other field is no list

    def _limits(self, raw: Mapping[str, Any]) -> Mapping[str, float]:
        """The limits of agent runs that name none of their own."""
        limits = self.fields(raw, "agents", _LIMITS)
        for name in [name for name, limit in limits.items() if limit <= 0]:
            self.problem(f"agents.{name}", describe_value(limits.pop(name)), "a number above 0")
        return {name: int(limit) if _LIMITS[name] is int else limit for name, limit in limits.items()}

    def _servers(self, raw: object) -> Mapping[str, Mapping[str, Any]]:
        servers = self.entries(raw, "mcp_servers", self._server)
        return {name: server for name, server in servers.items() if server is not None}

    def _server(self, raw: object, path: str) -> Mapping[str, Any] | None:
        """An MCP server in the form that other programs use too: an address, or a command to start."""
        fields = self.fields(self.members(raw, path), path, _SERVER)
        args = [arg for i, arg in enumerate(fields.get("args", [])) if self._is_argument(arg, f"{path}.args[{i}]")]
        env = self.entries(fields.get("env", {}), f"{path}.env", self._env)
        if "url" not in fields and "command" not in fields:
            self.problem(path, "neither url nor command", "one of them")
            return None
        return {**fields, "args": args, "env": env or None}

    def _is_argument(self, raw: object, path: str) -> bool:
        return self.is_text(raw, path, empty=True)

    def _env(self, raw: object, path: str) -> str:
        return str(raw) if self.is_text(raw, path, empty=True, secret=True) else ""


# The keys of each object of journal.json and the JSON type of each; muse/journal.schema.json is tested against these.
_TOP: Mapping[str, type] = {
    "$schema": str,
    "providers": dict,
    "agents": dict,
    "mcp_servers": dict,
    "identity": dict,
    "env": dict,
    "descriptors": dict,
}
_PROVIDERS: Mapping[str, type] = {
    "default": dict,
    "contexts": dict,
    "models": dict,
    "compatible": dict,
    "local": dict,
    "system_instruction": str,
    "limits": list,
    "budgets": list,
    "breaker": dict,
    "cache": dict,
    "answers": dict,
}
_ENTRY: Mapping[str, type] = {"provider": str, "tier": int, "model": str, **RULES}
_GATEWAY: Mapping[str, type] = {"base_url": str, "env_key": str, "label": str, "models": dict, "images": bool}
_LOCAL: Mapping[str, type] = {"model_path": str, "context_tokens": int}
_LIMITS: Mapping[str, type] = {
    "max_turns": int,
    "max_tokens": int,
    "max_tool_calls": int,
    "max_total_tokens": int,
    "max_cost_usd": float,
    "timeout_s": float,
    "tool_timeout_s": float,
}
_SERVER: Mapping[str, type] = {"url": str, "command": str, "args": list, "env": dict}
_DESCRIPTORS: Mapping[str, type] = {"categories": list, "agents": list, "apps": list, "insights": list}
