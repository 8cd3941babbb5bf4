"""The claims that a project's journal.json makes, and its `Config` without those that nobody has consented to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec.structs import replace

from muse.journal.config import CompatibleEndpoint, Config
from muse.journal.trust import consent
from muse.journal.trust.consent import digest_of, value_shown
from muse.types.trust_claim import Claim

FILE = "journal.json"
_REQUEST = "request of a run"
_LARGEST_SCRIPT_BYTES = 5_000_000
_BETWEEN = re.compile(r"[\s=;&|<>()'\"`,]+")
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
    withheld = consent.withheld(claims)
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
        content |= {str(path): digest_of(path.read_bytes()) for path in _scripts(words, folder)}
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


def _scripts(words: Sequence[str], folder: str) -> Iterator[Path]:
    """Yield the files of the project that a command names, in its folder or in the working one.

    They may stand in a word with more in it (`sh -c './serve.sh | tee log'`, `--config=serve.js`), or behind `-m`.
    """
    names: dict[str, None] = {}
    for before, word in zip(("", *words), words, strict=False):
        names |= dict.fromkeys((word, *_BETWEEN.split(word)))
        if before == "-m":
            module = word.replace(".", os.sep)
            names |= dict.fromkeys(
                (f"{module}.py", *(os.path.join(module, f"__{one}__.py") for one in ("main", "init")))
            )
    found = (os.path.normpath(os.path.join(place, name)) for name in names for place in _places(folder))
    yield from (Path(path) for path in dict.fromkeys(found) if _is_script(path, folder))


def _places(folder: str) -> tuple[str, ...]:
    """Return the folders from which a command's names count: the project's, and the working folder below it."""
    try:
        here = os.getcwd()
    except OSError:  # it was deleted
        return (folder,)
    return (folder, here)


def _is_script(path: str, folder: str) -> bool:
    """Whether a path is a file that the project decides: it stands in its folder, or a link in it leads there."""
    try:
        is_own = any(Path(path).is_relative_to(place) for place in (folder, os.path.realpath(folder)))
        return is_own and os.path.isfile(path) and os.path.getsize(path) <= _LARGEST_SCRIPT_BYTES
    except (OSError, ValueError):  # no name that a file could have
        return False


def _gateway_claim(row: CompatibleEndpoint, folder: str) -> Claim | None:
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
