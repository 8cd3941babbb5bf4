"""All that the files of the working folder's project claim, gathered for whoever is asked for consent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from muse import descriptors, journal, keys
from muse.claim import Claim
from muse.journal import Snapshot
from muse.providers import PROVIDER_REGISTRY, specs
from muse.toolbox.files import code_claim, makefile_claim, nearest_makefile


def claims() -> tuple[Claim, ...]:
    """Return the claims of the journal.json, the personas, apps, Makefile and `.env` in force in the working folder.

    Raises:
        ConfigError: journal.json cannot be read.
        OSError: a file that is to be judged cannot be read.
    """
    snapshot = journal.load()
    found = [*snapshot.config.claims, *_of_descriptors(snapshot), *keys.project_addresses(_address_names())]
    return tuple(dict.fromkeys(found))


def _of_descriptors(snapshot: Snapshot) -> Iterator[Claim]:
    said = snapshot.config.descriptors
    if not said.project:
        return
    base = Path(snapshot.path).parent
    personas = descriptors.find(said, str(base)).claims
    yield from personas
    makefile = nearest_makefile(Path.cwd()) if any(claim.place.endswith(": make") for claim in personas) else None
    if makefile is not None:
        yield makefile_claim(makefile)
    for folder in said.apps:
        code = (path for name in ("tools.py", "workspace.html") for path in (base / folder).glob(f"[!_.]*/{name}"))
        yield from (code_claim(app, said.project) for app in sorted({path.parent for path in code}))


def _address_names() -> list[str]:
    return [spec.base_url_env for spec in specs().values() if spec.base_url_env and spec.name in PROVIDER_REGISTRY]
