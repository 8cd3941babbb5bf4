"""No object of muse or of an SDK behind it shows a key when it is printed."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from apps.settings.config_state import stand
from muse import agents, models
from muse.agent_loop.mcp_client import servers_of
from muse.agent_loop.run_config import RunConfig
from muse.batching.ray.worker_config import secret_env
from muse.calls import execute
from muse.journal import config_loader, secrets
from muse.journal.config import CompatibleEndpoint
from muse.providers import backend_of, specs
from muse.providers._backend.provider import Credentials
from muse.types.redaction import shown_address
from tests.desk import Desk
from tests.journal_folder import JournalFolder
from tests.provider_cases import WIRES

CANARY = "canary-9f2e7a61c0"
HOUSES = ("muse", "think", "observe", "apps", "openai", "anthropic", "google", "httpx", "httpx2", "aiohttp", "mcp")


def objects(of: Any, depth: int = 6) -> Iterator[Any]:
    """Yield an object and what it holds, level by level, each once."""
    seen: set[int] = set()
    level = [of]
    for _ in range(depth):
        fresh = [one for one in level if id(one) not in seen]
        seen.update(map(id, fresh))
        yield from fresh
        level = [held for one in fresh for held in gc.get_referents(one)]


def leaks(of: Any, depth: int = 6) -> list[str]:
    """The classes of ours and of the SDKs whose objects among these show the canary; plain containers do not count."""
    found = set()
    for one in objects(of, depth):
        kind = type(one)
        if kind.__module__.partition(".")[0] in HOUSES and CANARY in repr(one):
            found.add(f"{kind.__module__}.{kind.__name__}")
    return sorted(found)


def test_this_test_sees_a_leak() -> None:
    class Open(msgspec.Struct):
        key: str

    Open.__module__ = "muse.somewhere"
    assert leaks([Open(CANARY)]) == ["muse.somewhere.Open"]


@pytest.mark.parametrize("case", WIRES, ids=lambda case: case.name)
def test_clients_and_calls_show_no_key(desk: Desk, case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.use(case)
    spec = specs()[case.name]
    monkeypatch.setenv(spec.env_key, CANARY)
    models.generate("Hello", "app.tides")
    backend = backend_of(case.name)
    assert backend.provider.access().key == CANARY  # type: ignore[union-attr]
    assert leaks(backend, depth=9) == []

    async def ask() -> None:
        await models.agenerate("Hello", "app.tides")
        assert leaks(backend, depth=9) == []

    asyncio.run(ask())


def test_a_call_with_its_own_key_shows_none(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.use(WIRES[0])
    seen: list[str] = []
    run = execute.PreparedCall.run

    def noted(self: Any) -> Any:
        seen.extend(leaks(self, depth=2))
        assert self.api_key == CANARY
        return run(self)

    monkeypatch.setattr(execute.PreparedCall, "run", noted)
    models.generate("Hello", "app.tides", api_key=CANARY)
    assert seen == []


def test_configuration_shows_no_secret(journal: JournalFolder) -> None:
    server = {"command": "x", "args": ["--token", CANARY], "env": {"TOKEN": CANARY}}
    remote = {"url": f"https://x.example/mcp?key={CANARY}"}
    row = {"base_url": f"https://x.example/v1?api-key={CANARY}", "env_key": "X_API_KEY"}
    journal.write(
        {
            "providers": {"default": {"provider": "echo"}, "compatible": {"helper": row}},
            "env": {"X_TOKEN": CANARY},
            "mcp_servers": {"a": server, "b": remote},
        }
    )
    snapshot = config_loader.load()
    assert snapshot.config.env == {"X_TOKEN": CANARY}
    prepared = agents.resolve_run({"persona": "default", "prompt": "Hello"})
    for one in (
        snapshot,
        snapshot.config,
        config_loader._cached_reads[snapshot.path],
        specs()["helper"],
        stand(),
        prepared,
        RunConfig.of(prepared.config),
        *servers_of(prepared.config["mcp_servers"]),
        models._resolved_config(),
    ):
        assert CANARY not in repr(one), type(one)
        assert leaks(one, depth=5) == []


def test_keys_on_their_way_show_none(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    secrets.find_key("OPENAI_API_KEY")
    for one in (
        secret_env(),
        Credentials(CANARY, f"https://u:{CANARY}@x.example/v1"),
        CompatibleEndpoint("x", f"https://x/?k={CANARY}"),
    ):
        assert CANARY not in repr(one)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://host.example/v1", "https://host.example/v1"),
        ("https://user:word@host.example:8/v1?a=1&b=2#c", "https://host.example:8/v1?…"),
        ("http://[::1", "an address that cannot be read"),
        ("user:word@host.example/v1", "an address that cannot be read"),
        (f"https://[::1]:8443/a/sk-{CANARY}0123/v1?{CANARY}#{CANARY}", "https://[::1]:8443/a/…/v1?…"),
    ],
)
def test_an_address_is_shown_without_what_may_be_secret(address: str, shown: str) -> None:
    assert shown_address(address) == shown
