"""What every test starts from: an empty journal of its own, no keys, and no memory of the test before."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from muse import models, providers
from muse.journal import config_loader, descriptors, paths, secrets
from muse.policies import cache, pipeline, shared_state, spend
from muse.policies.adaptive_concurrency import AdaptiveConcurrency
from muse.routing import contexts
from muse.routing.router import PROVIDER_ENV
from muse.usage_index.index import close_indexes
from muse.usage_log import in_flight, ledger
from tests.journal_folder import JournalFolder

# A shell without job control has what it starts in the background ignore SIGINT, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes depends on what else the machine does; it is no fault of the code under test.
settings.register_profile("muse", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("muse")

# A program for the tests of batches on Ray, which is an extra of its own; doctests are looked for in every file.
collect_ignore = [] if find_spec("ray") else ["ray_nodes.py"]
# The fixtures `server`, `desk`, `night`, `seeing` (muse over the loopback servers) and `engine_of_this_file`.
pytest_plugins = ("tests.time_limit", "tests.embedded", "tests.desk", "tests.provider_batch_helpers", "tests.seeing")


# Files that take longest: run first, so that no process is left with one of them while the others have nothing to do.
_LONGEST = (
    "test_chaos",
    "test_think_choosing",
    "test_think_daily",
    "test_batch_killed",
    "test_local",
    "test_first_call",
    "tests/browser/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first; the order is otherwise kept."""
    places = {name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: next((place for name, place in places.items() if name in item.nodeid), len(places)))


@pytest.fixture(autouse=True)
def _apart(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keep the test away from the user's journal, price cache and settings; live tests keep their keys."""
    monkeypatch.setenv("JOURNAL_PATH", str(tmp_path_factory.getbasetemp() / "no-journal"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "config"))
    if request.node.get_closest_marker("live") is not None:
        return
    for name in (PROVIDER_ENV, "SEGMENT_KEY"):
        monkeypatch.delenv(name, raising=False)
    for spec in providers.specs().values():
        for name in (spec.env_key, spec.base_url_env, spec.model_env):
            if name:
                monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _forgetful(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give the test fresh memory where muse keeps any between calls; nothing is imported again."""
    for module, names in _MEMORY:
        for name in names:
            monkeypatch.setattr(module, name, set() if name in {"_used", "_said", "_complained"} else {})
    monkeypatch.setattr(models, "_resolved", None)
    monkeypatch.setattr(pipeline, "_pipeline", None)
    monkeypatch.setattr(pipeline, "_adaptive", AdaptiveConcurrency())
    yield
    for path in list(ledger._handles):
        ledger._drop(path)
    in_flight.close_all()
    for _, kept in shared_state._stores.values():
        kept.close()
    close_indexes()
    for opened in cache._caches.values():
        opened.close()


_MEMORY = (
    (config_loader, ("_cached_reads",)),
    (paths, ("_nearest",)),
    (ledger, ("_handles", "_complained", "_ends")),
    (in_flight, ("_own", "_not_before_s")),
    (secrets, ("_files", "_said", "_used", "_withheld")),
    (descriptors, ("_looks",)),
    (contexts, ("_registries",)),
    (shared_state, ("_stores", "_complained")),
    (cache, ("_caches", "_complained", "_not_before_s")),
    (spend, ("_spendings",)),
)


@pytest.fixture(name="journal")
def _journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JournalFolder:
    """An empty journal that `JOURNAL_PATH` names; the working folder is outside of any checkout."""
    folder = JournalFolder(tmp_path / "journal")
    folder.path.mkdir()
    monkeypatch.setenv("JOURNAL_PATH", str(folder.path))
    monkeypatch.chdir(tmp_path)
    return folder
