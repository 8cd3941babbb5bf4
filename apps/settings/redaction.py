"""journal.json's text without the secrets in it, and with them again: what a page may show; it writes no file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from apps.settings.json_scanner import Path, Place, Scan, words
from muse.errors import ConfigError
from muse.journal import secrets

SHOWN = "(set, not shown)"
# By its name alone; `env_key` is the name of a variable.
_NAMES = r"(?:api[_-]?key|authorization|password|secret|token)"
_SECRET_NAME = re.compile(rf"(?:KEY|(?i:{_NAMES}))$")
# Of a value: a user or password before a host, a secret among the parameters of an address or behind an option, and
# what begins as the keys of well-known services do.
_TELLING = re.compile(
    rf"://[^/@\s]+@|[?&](?:[\w-]*{_NAMES}|key|sig)=[^&\s\"]|^\"--?[\w-]*{_NAMES}=.|"
    r"\b(?:sk-|gh[pousr]_|github_pat_|glpat-|xox[abp]-|AIza|hf_)[\w-]{16}",
    re.IGNORECASE,
)
_OPTION = re.compile(rf"^\"--?[\w-]*{_NAMES}\"$", re.IGNORECASE)
_LITERAL = json.dumps(SHOWN)
_EMPTY = '""'


def masked(text: str) -> str:
    """The text with every secret in it replaced by `SHOWN`; it need not be JSON."""
    return _with(text, dict.fromkeys(_secrets(Scan(text)), _LITERAL))


def unmasked(text: str, source: str) -> tuple[str, tuple[Path, ...]]:
    """`(the text with what `source` says where it says `SHOWN`, the paths at which `source` says nothing)`."""
    signs = [place for place in words(Scan(text)) if text[place.start : place.end] == _LITERAL]
    if not signs:
        return text, ()
    kept: dict[Path, list[str]] = {}
    said = (place for place in words(Scan(source)) if source[place.start : place.end] != _EMPTY)
    for place in sorted(said, key=lambda place: place.start):
        kept.setdefault(place.path, []).append(source[place.start : place.end])
    missing: list[Path] = []
    found: dict[Place, str] = {}
    for place in sorted(signs, key=lambda place: place.start, reverse=True):
        values = kept.get(place.path)
        if not values:
            missing.append(place.path)
            continue
        found[place] = values.pop() if len(values) > 1 else values[0]
    return _with(text, found), tuple(reversed(missing))


def whole(text: str, source: str) -> str:
    """A text with what `source` says wherever it says `SHOWN`.

    Raises:
        ConfigError: `source` says nothing there.
    """
    full, missing = unmasked(text, source)
    if missing:
        place = ".".join(map(str, missing[0]))
        raise ConfigError(place, "the sign for a value that is not shown, where none was", "a value, or no entry")
    return full


def _with(text: str, said: Mapping[Place, str]) -> str:
    """A text that says something else at some places."""
    parts: list[str] = []
    end = 0
    for place in sorted(said, key=lambda place: place.start):
        parts += (text[end : place.start], said[place])
        end = place.end
    return "".join((*parts, text[end:]))


def masked_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """journal.json's data with every `env` value as a boolean: whether it is set; other secrets are `SHOWN`."""
    shown: dict[str, Any] = json.loads(masked(json.dumps(data)))
    if "env" in data:
        shown["env"] = _set_or_not(data["env"])
    servers = data.get("mcp_servers")
    for name, server in servers.items() if isinstance(servers, Mapping) else ():
        if isinstance(server, Mapping) and "env" in server:
            shown["mcp_servers"][name]["env"] = _set_or_not(server["env"])
    return shown


def _set_or_not(env: Any) -> Any:
    return {name: bool(value) for name, value in env.items()} if isinstance(env, Mapping) else bool(env)


def _secrets(scan: Scan) -> list[Place]:
    """Every value that is not to be shown: of an `env`, of a name like a key's, and keys in use wherever they stand."""
    said = [(place, scan.text[place.start : place.end]) for place in words(scan)]
    options = {place.path for place, token in said if _OPTION.match(token)}
    return [
        place
        for place, token in said
        if token != _EMPTY and (_before(place.path) in options or _is_secret(place.path, token))
    ]


def _before(path: Path) -> Path:
    """The path of the item before one of a list: where an option stands whose value this is."""
    return (*path[:-1], path[-1] - 1) if path and isinstance(path[-1], int) else ()


def _is_secret(path: Path, token: str) -> bool:
    """Where a brace is missing, `env` may stand at any depth."""
    names = [step for step in path if isinstance(step, str)]
    if any(name.casefold() == "env" for name in names) or _SECRET_NAME.search(names[-1] if names else ""):
        return True
    return secrets.redact(token) != token or _TELLING.search(token) is not None
