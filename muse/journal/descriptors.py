"""Descriptor files (categories, personas), read anew when they change; it knows no meaning of their fields."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from muse.journal.config import Descriptors
from muse.journal.lenient_parser import Problem
from muse.journal.storage.path_containment import IN_PROJECT, LEADS_OUT, escapes_folder
from muse.journal.trust import consent
from muse.journal.trust.project_config import request_claims, server_claim
from muse.types.trust_claim import Claim

Kind = Literal["category", "agent"]
_Stamp = tuple[str, int, int]
_HOUSE = Path(__file__).resolve().parents[2]
LOOK_AGAIN_S = 1.0


class Descriptor(Struct, frozen=True):
    """One descriptor: `owner` is "" for a category, "system" or the app's name for an agent.

    `claims` are the entries of a project's persona that need the user's consent (see `muse.journal.trust.consent`).
    """

    kind: Kind
    name: str
    owner: str
    path: str
    data: Mapping[str, Any]
    claims: tuple[Claim, ...] = ()


class DiscoveryResult(Struct, frozen=True):
    """All descriptors at one moment, in order (a later one wins a name); `version` rises with every change.

    `claims` are those of all personas, also of those that are left out for want of consent.
    """

    version: int
    descriptors: tuple[Descriptor, ...]
    problems: tuple[Problem, ...]
    claims: tuple[Claim, ...] = ()


class _ScanCache(Struct):
    """The last look at one set of folders."""

    at_s: float
    stamps: tuple[_Stamp, ...]
    found: DiscoveryResult


_looks: dict[tuple[Descriptors, str], _ScanCache] = {}
_versions = iter(range(1, 1 << 62))


def find(further: Descriptors, base: str, *, at_once: bool = True) -> DiscoveryResult:
    """The descriptors of the checkout or installed packages, then those of `further` folders (relative to `base`).

    Files are read only when their stamp (path, mtime, size) moved. `at_once=False` looks at most once a second, for hot
    paths; a new file is seen a second later at the most.
    """
    key = (further, base)
    known = _looks.get(key)
    now = time.monotonic()
    if known is not None and not at_once and now - known.at_s < LOOK_AGAIN_S:
        return known.found
    places = list(_places(further, base))
    stamps = tuple(_stamps(places))
    if further.project:
        stamps += (("", *consent.stamp()[1:]),)
    if known is not None and known.stamps == stamps:
        known.at_s = now
        return known.found
    found = _read_all(places, further.project)
    _looks[key] = _ScanCache(now, stamps, found)
    return found


class _SearchFolder(Struct, frozen=True):
    """A folder that may hold descriptors; `is_shipped` where it comes with muse, and no configuration names it."""

    kind: Kind
    owner: str
    folder: str
    is_shipped: bool = False


def _places(further: Descriptors, base: str) -> Iterator[_SearchFolder]:
    """Yield every folder that may hold descriptors."""
    yield _SearchFolder("category", "", str(_HOUSE / "observe" / "categories"), is_shipped=True)
    yield from (_SearchFolder("category", "", str(Path(base, path))) for path in further.categories)
    yield _SearchFolder("agent", "system", str(_HOUSE / "muse" / "agents"), is_shipped=True)
    yield from (_SearchFolder("agent", "system", str(Path(base, path))) for path in further.agents)
    for folder, is_shipped in ((_HOUSE / "apps", True), *((Path(base, path), False) for path in further.apps)):
        for app in _names(str(folder)):
            if not app.startswith(("_", ".")):
                yield _SearchFolder("agent", app, str(folder / app / "agents"), is_shipped)


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the folder's name
        return []


def _files(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from sorted(
                (entry for entry in entries if entry.name.endswith(".json")), key=lambda entry: entry.name
            )
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the folder's name
        return


def _stamps(places: list[_SearchFolder]) -> Iterator[_Stamp]:
    for place in places:
        for entry in _files(place.folder):
            try:
                info = entry.stat()
            except OSError:  # a link to nowhere: reading it will say so
                yield entry.path, 0, 0
            else:
                yield entry.path, info.st_mtime_ns, info.st_size


def _read_all(places: list[_SearchFolder], project: str) -> DiscoveryResult:
    descriptors: list[Descriptor] = []
    problems: list[Problem] = []
    shipped: set[tuple[str, str]] = set()
    every: list[Claim] = []
    for source, entry in [(place, entry) for place in places for entry in _files(place.folder)]:
        kind, owner = source.kind, source.owner
        is_link_out = escapes_folder(entry.path, project)
        data = Problem(entry.path, LEADS_OUT, IN_PROJECT) if is_link_out else _read(entry.path)
        if isinstance(data, Problem):
            problems.append(data)
            continue
        found = Descriptor(kind, entry.name[: -len(".json")], owner, entry.path, data)
        if kind == "agent" and source.is_shipped:
            shipped.add((owner, found.name))
        elif project and kind == "agent":
            found = replace(found, claims=claims_of(found, project, is_shipped=(owner, found.name) in shipped))
            every += found.claims
            withheld = next((one for one in found.claims if one.place.endswith(".json")), None)
            if withheld is not None and not consent.is_trusted(withheld):
                problems.append(_problem(withheld))
                continue
        descriptors.append(found)
    return DiscoveryResult(next(_versions), tuple(descriptors), tuple(problems), tuple(every))


def claims_of(descriptor: Descriptor, project: str, *, is_shipped: bool) -> tuple[Claim, ...]:
    """Return the claims of a project's persona: make targets, servers of its own, and another one's place.

    `is_shipped` says that one of its name comes with muse, whose place it takes.
    """
    place, data = _inside(descriptor.path, project), descriptor.data
    claims = []
    if is_shipped:
        text = Path(descriptor.path).with_suffix(".txt")
        said = text.read_bytes().decode("utf-8", errors="replace") if text.is_file() else ""
        does = f"takes the place of the persona {descriptor.name!r} that comes with muse"
        claims.append(Claim(project, place, does, consent.digest_of([data, said])))
    if data.get("make"):
        wanted = [data["make"], data["make_env"]] if data.get("make_env") else data["make"]
        given = f", given the variables {data['make_env']!r}" if data.get("make_env") else ""
        does = f"lets an agent run make targets {data['make']!r}{given}; make runs the Makefile's own commands"
        claims.append(Claim(project, f"{place}: make", does, consent.digest_of(wanted)))
    if isinstance(data.get("handoff"), Mapping):
        claims += request_claims(data["handoff"], project)
    servers = data.get("mcp_servers")
    if isinstance(servers, Mapping):
        rows = ((str(name), row) for name, row in servers.items() if isinstance(row, Mapping))
        claims += [server_claim(name, row, project, place) for name, row in rows]
    return tuple(claims)


def _problem(claim: Claim) -> Problem:
    error = consent.TrustError(claim)
    return Problem(error.path, error.found, error.allowed)


def _inside(path: str, project: str) -> str:
    """A path as one types it in the project's folder."""
    inside = os.path.relpath(path, project)
    return path if inside.startswith(os.pardir) else inside


def _read(path: str) -> Mapping[str, Any] | Problem:
    try:
        data = json.loads(Path(path).read_bytes())
    except OSError as exc:
        return Problem(path, f"an unreadable file ({exc.strerror})", "a JSON object")
    except (ValueError, RecursionError) as exc:
        return Problem(path, f"no JSON ({exc})", "a JSON object")
    return data if isinstance(data, Mapping) else Problem(path, type(data).__name__, "a JSON object")
