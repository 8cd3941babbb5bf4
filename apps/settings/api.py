"""The settings as JSON for programs: providers with routes and the state of keys, and journal.json without secrets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from apps.settings import config_change, form_data
from apps.settings.config_change import DEFAULT, Change, object_at, require_readable
from apps.settings.config_state import Standing, section, stamp_from, stand
from apps.settings.entry_form import applied
from apps.settings.redaction import masked_data, whole
from muse import models
from muse.diagnostics import check
from muse.errors import ConfigError
from muse.journal.config_loader import FileVersion
from muse.providers import backend_of, get_provider_list, specs
from muse.routing.unreachable_rules import config_path_of

_SECTIONS = ("$schema", "providers", "agents", "mcp_servers", "identity", "env", "descriptors")


def get_providers(_request: Request) -> Response:
    """`GET api/providers`: providers, the default, the rules, every known context, and which keys are there."""
    return _answer(stand(), _providers)


async def put_providers(request: Request) -> Response:
    """`PUT api/providers` with `{default?, contexts?: {pattern: {...} or null}}`: the state after it, as by GET.

    What `default` names is set there, or taken out where it is null; a rule is replaced as a whole, or taken out.
    With `If-Match`, a file that moved since that answer is a 409.
    """
    body = await form_data.read_json(request)
    return await run_in_threadpool(
        _put, _entries_change(body), "providers by a program", _expected(request), _providers
    )


def get_config(_request: Request) -> Response:
    """`GET api/config`: journal.json, every `env` value only as a boolean: whether it is set."""
    return _answer(stand(), _config)


async def put_config(request: Request) -> Response:
    """`PUT api/config` with some of journal.json's sections: each is replaced, or taken out where it is null.

    Of `env`, what is named is set, or taken out where it is null; true and false, as GET shows them, leave a value as
    it is. The same holds for the `env` of `mcp_servers`. Where another secret is not shown, its sign leaves it.
    """
    body = await form_data.read_json(request)
    return await run_in_threadpool(_put, _sections_change(body), "sections by a program", _expected(request), _config)


def _answer(now: Standing, shown: Any) -> Response:
    require_readable(now)
    return JSONResponse(shown(now), headers={"ETag": f'"{now.mark}"', "Cache-Control": "no-store"})


def _put(change: Change, what: str, expected: FileVersion | None, shown: Any) -> Response:
    require_readable(stand())
    config_change.save(change, what, expected=expected)
    return _answer(stand(), shown)


def _expected(request: Request) -> FileVersion | None:
    tag = request.headers.get("If-Match")
    return stamp_from(tag.strip().removeprefix("W/").strip('"')) if tag else None


def _providers(now: Standing) -> dict[str, Any]:
    rows = get_provider_list()
    return {
        "providers": rows,
        "default": {"provider": now.config.default.provider, "tier": now.config.default.tier}
        | dict(section(now.data, "default")),
        "contexts": dict(now.entries),
        "context_defaults": models.get_context_registry(),
        "api_keys": {row["name"]: _has_key(row["name"]) for row in rows},
    }


def _has_key(name: str) -> bool:
    """Whether a provider's key is there; False too for one that needs none or cannot be loaded."""
    spec = specs().get(name) or backend_of(name).spec
    return not spec.broken and check.key_state(spec) == "present"


def _config(now: Standing) -> dict[str, Any]:
    return masked_data(now.data)


def _entries_change(body: Mapping[str, Any]) -> Change:
    """The change that a PUT of providers asks for.

    Raises:
        ConfigError: it names something else, or not in that form.
    """
    _only(body, ("default", "contexts"), "providers")
    default = _members(body.get("default", {}), DEFAULT)
    rules = _members(body.get("contexts", {}), "providers.contexts")
    for pattern, entry in rules.items():
        if entry is not None:
            _members(entry, config_path_of(pattern))

    def change(data: dict[str, Any]) -> None:
        providers = object_at(data, "providers", "providers")
        if default:
            providers["default"] = applied(object_at(providers, "default", DEFAULT), default)
        contexts = object_at(providers, "contexts", "providers.contexts") if rules else {}
        for pattern, entry in rules.items():
            if entry is None:
                contexts.pop(pattern, None)
            else:
                contexts[pattern] = entry

    return change


def _sections_change(body: Mapping[str, Any]) -> Change:
    """The change that a PUT of the configuration asks for.

    Raises:
        ConfigError: it names something that is no section.
    """
    _only(body, _SECTIONS, "")

    def change(data: dict[str, Any]) -> None:
        sections = json.loads(whole(json.dumps(body), json.dumps(data)))
        for name, wanted in sections.items():
            if wanted is None:
                data.pop(name, None)
            elif name == "env":
                data["env"] = _env(data.get("env"), wanted, "env", keep_others=True)
            elif name == "mcp_servers":
                data[name] = _servers(data.get(name), wanted)
            else:
                data[name] = wanted

    return change


def _servers(before: Any, wanted: Any) -> dict[str, Any]:
    old = before if isinstance(before, Mapping) else {}
    after: dict[str, Any] = {}
    for name, server in _members(wanted, "mcp_servers").items():
        after[name] = server
        if isinstance(server, Mapping) and "env" in server:
            was = old.get(name)
            env = was.get("env") if isinstance(was, Mapping) else None
            place = f"mcp_servers[{name!r}].env"
            after[name] = {**server, "env": _env(env, server["env"], place, keep_others=False)}
    return after


def _env(before: Any, wanted: Any, place: str, *, keep_others: bool) -> dict[str, Any]:
    """An `env` after a change; a boolean stands for the value that is there.

    Raises:
        ConfigError: there is none.
    """
    old = dict(before) if isinstance(before, Mapping) else {}
    after = dict(old) if keep_others else {}
    for name, value in _members(wanted, place).items():
        if isinstance(value, bool):
            if name not in old:
                raise ConfigError(f"{place}[{name!r}]", "a boolean, where no value stands", "text, or null")
            after[name] = old[name]
        elif value is None:
            after.pop(name, None)
        else:
            after[name] = value
    return after


def _only(body: Mapping[str, Any], allowed: tuple[str, ...], place: str) -> None:
    for name in body:
        if name not in allowed:
            raise ConfigError(f"{place}.{name}" if place else name, "an unknown key", f"one of {', '.join(allowed)}")


def _members(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(place, type(value).__name__, "an object {...}")
    return value
