"""The claims that a project's journal.json makes, and its `Config` without those that nobody has consented to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec.structs import replace

from muse import trust
from muse.claim import Claim
from muse.config import Config, Gateway
from muse.trust import digest_of, value_shown

FILE = "journal.json"
_REQUEST = "request of a run"
_LARGEST_SCRIPT_BYTES = 5_000_000
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


def restrict(config: Config, folder: str) -> Config:
    """Return the config of the project in `folder` with what nobody has consented to withheld.

    Servers and variables are left out. An endpoint keeps its name, so that a call for it is refused and goes nowhere
    else. Folders of descriptors are marked as the project's: what stands in them is judged file by file.
    """
    servers = {name: server_claim(name, server, folder) for name, server in config.mcp_servers.items()}
    addresses = {name: claim for name, row in config.gateways.items() if (claim := _gateway_claim(row, folder))}
    variables = {name: _variable_claim(name, value, folder) for name, value in config.env.items()}
    claims = (*servers.values(), *addresses.values(), *variables.values())
    withheld = trust.withheld(claims)
    return replace(
        config,
        mcp_servers={name: row for name, row in config.mcp_servers.items() if servers[name] not in withheld},
        gateways={
            name: replace(row, withheld=addresses[name]) if addresses.get(name) in withheld else row
            for name, row in config.gateways.items()
        },
        env={name: value for name, value in config.env.items() if variables[name] not in withheld},
        descriptors=replace(config.descriptors, project=folder),
        claims=claims,
        withheld_servers=tuple(claim for claim in servers.values() if claim in withheld),
        withheld_env={name: claim for name, claim in variables.items() if claim in withheld},
    )


def server_claim(name: str, server: Mapping[str, Any], folder: str, file: str = FILE) -> Claim:
    """Return the claim of an MCP server: the command it starts, or the address that tool calls go to.

    Files of the project that the command names are part of what is consented to.
    """
    content: dict[str, str] = {}
    if server.get("url"):
        does = f"sends what tools are called with to {_without_secrets(str(server['url']))}"
    else:
        words = [str(word) for word in (server.get("command"), *(server.get("args") or ()))]
        env = server.get("env")
        names = ", ".join(sorted(map(str, env))) if isinstance(env, Mapping) else ""
        does = f"starts the command: {' '.join(words)}" + (f" (with {names} set)" if names else "")
        content |= {word: digest_of(path.read_bytes()) for word in words if (path := _script(word, folder))}
    return Claim(folder, f"{file}: mcp_servers[{name!r}]", does, digest_of([dict(server), content]))


def request_claims(entries: Mapping[str, Any], folder: str) -> tuple[Claim, ...]:
    """Return the claims of a run's request that waits in the project's journal, or that a persona hands on to.

    Its file may have come with the project. A request is told from others by what it names, not by its file.
    """
    found: list[Claim] = []
    servers = entries.get("mcp_servers")
    for name, row in servers.items() if isinstance(servers, Mapping) else ():
        found.append(server_claim(str(name), row if isinstance(row, Mapping) else {"url": str(row)}, folder, _REQUEST))
    if entries.get("mcp_server_url"):
        found.append(server_claim("main", {"url": str(entries["mcp_server_url"])}, folder, _REQUEST))
    if entries.get("make"):
        said = {name: entries.get(name) for name in ("make", "make_env")}
        given = f", given the variables {said['make_env']!r}" if said["make_env"] else ""
        does = f"lets an agent run make targets {said['make']!r}{given}; make runs the Makefile's own commands"
        found.append(Claim(folder, f"{_REQUEST}: make", does, digest_of(said)))
    following = entries.get("handoff")
    further = request_claims(following, folder) if isinstance(following, Mapping) else ()
    return (*(replace(claim, place=f"{claim.place} ({claim.digest[:8]})") for claim in found), *further)


def _script(word: str, folder: str) -> Path | None:
    """Return the file of the project that a word of a command names; None if it names none."""
    path = Path(folder, word)
    try:
        is_own = path.is_file() and path.resolve().is_relative_to(Path(folder).resolve())
        return path if is_own and path.stat().st_size <= _LARGEST_SCRIPT_BYTES else None
    except (OSError, ValueError):  # no name that a file could have
        return None


def _gateway_claim(row: Gateway, folder: str) -> Claim | None:
    """Return the claim of an endpoint; none for one on this machine that is given no key."""
    if not row.env_key and _host(row.base_url) in _THIS_MACHINE:
        return None
    key = f"the key {row.env_key} and " if row.env_key else ""
    does = f"sends {key}the texts of calls to {_without_secrets(row.base_url)}"
    return Claim(
        folder, f"{FILE}: providers.compatible[{row.name!r}]", does, digest_of([row.name, row.base_url, row.env_key])
    )


def _variable_claim(name: str, value: str, folder: str) -> Claim:
    does = f"sets the variable {name} to {value_shown(name, value)}"
    return Claim(folder, f"{FILE}: env[{name!r}]", does, digest_of([name, value]))


def _without_secrets(address: str) -> str:
    """Return an address without what may be a secret in it: user, password, query."""
    try:
        parts = urlsplit(address)
        place = f"{parts.scheme}://{parts.hostname or ''}" + (f":{parts.port}" if parts.port else "")
    except ValueError:
        return "an address that cannot be read"
    return place + parts.path


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""
