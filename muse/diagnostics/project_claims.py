"""All claims of the files of the working folder's project, for a consent prompt. Entry point: `claims`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from muse.agent_loop.module_loader import code_claim, makefile_claim, nearest_makefile
from muse.journal import config_loader, descriptors, paths, secrets
from muse.journal.config_loader import Snapshot
from muse.providers import PROVIDER_REGISTRY, specs
from muse.runs import run_files
from muse.runs.client import claims_of_request, request_of
from muse.types.trust_claim import Claim


def claims(*, with_makefile: bool = False) -> tuple[Claim, ...]:
    """Return the claims of the journal.json, the personas, apps, Makefile and `.env` in force in the working folder.

    The Makefile is included if a persona of the project names make targets, or if `with_makefile` is True, since a
    persona of the user's own may name them too.

    Raises:
        ConfigError: journal.json cannot be read.
        OSError: A file that has to be checked cannot be read.
    """
    snapshot = config_loader.load()
    found = [*snapshot.config.claims, *_of_descriptors(snapshot), *_of_requests()]
    found += secrets.project_addresses(_address_names())
    makefile = None
    if with_makefile or any(": make" in claim.place for claim in found):
        makefile = nearest_makefile(Path(paths.working_folder()))
    if makefile is not None:
        found.append(makefile_claim(makefile))
    return tuple(dict.fromkeys(found))


def _of_requests() -> Iterator[Claim]:
    """Yield the claims of the requests in the journal that a cortex would execute."""
    if paths.is_project(paths.config_path()):
        for agent_id in (*run_files.ids_in("pending"), *run_files.ids_in("active")):
            yield from claims_of_request(request_of(agent_id))


def _of_descriptors(snapshot: Snapshot) -> Iterator[Claim]:
    said = snapshot.config.descriptors
    if not said.project:
        return
    base = Path(snapshot.path).parent
    yield from descriptors.find(said, str(base)).claims
    for folder in said.apps:
        code = (path for name in ("tools.py", "workspace.html") for path in (base / folder).glob(f"[!_.]*/{name}"))
        yield from (code_claim(app, said.project) for app in sorted({path.parent for path in code}))


def _address_names() -> list[str]:
    return [spec.base_url_env for spec in specs().values() if spec.base_url_env and spec.name in PROVIDER_REGISTRY]
