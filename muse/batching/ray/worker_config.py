"""The configuration, keys and spending that a worker in another process is given.

The configuration is the section `providers` of journal.json. `env` and the tool servers, which may hold secrets, are
not sent. Keys and addresses are looked up by the names that providers declare, and are sent as a `SecretEnv`, whose
text shows the names only.

Entry points: `WorkerConfig`, `secret_env`, `providers_section`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

import muse
from muse.journal import config_loader, secrets
from muse.journal.trust import consent
from muse.providers import specs
from muse.routing.router import PROVIDER_ENV
from muse.types.errors import ConfigError

_ALSO = (PROVIDER_ENV, "SEGMENT_KEY")


class SpendSnapshot(Struct, frozen=True):
    """The total that all workers spent, by everything that budgets and daily limits distinguish."""

    day: str
    context: str
    provider: str
    model: str
    tokens: int
    usd: float
    unpriced: int


class WorkerConfig(Struct, frozen=True):
    """The configuration for one worker, and what all workers have `spent` since the first day that counts."""

    version: str
    providers: Mapping[str, Any]
    spent: tuple[SpendSnapshot, ...] = ()

    def require_same_version(self) -> None:
        """Raise unless this process runs the version of muse that made the configuration.

        Raises:
            ConfigError: Another version of muse is installed here.
        """
        if self.version != muse.__version__:
            raise ConfigError(
                "muse-router on a node", f"version {muse.__version__}", f"{self.version}, which the driver runs"
            )


class SecretEnv:
    """Keys and addresses by name; its text in any log or traceback has the names only."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, str | None]) -> None:
        self._values = dict(values)

    def apply(self) -> None:
        """Set them in this process's environment; those that the driver lacks are unset."""
        for name, value in self._values.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def __repr__(self) -> str:
        return f"Variables({', '.join(name for name, value in self._values.items() if value is not None)})"

    def __reduce__(self) -> tuple[type[SecretEnv], tuple[dict[str, str | None]]]:
        return SecretEnv, (self._values,)


def secret_env() -> SecretEnv:
    """Return the keys, addresses and models of all providers as this process finds them, from any source."""
    named = [name for spec in specs().values() for name in (spec.env_key, spec.model_env) if name]
    values: dict[str, str | None] = {name: secrets.look_up(name) for name in named}
    addresses = [spec.base_url_env for spec in specs().values() if spec.base_url_env]
    values |= {name: secrets.look_up_address(name) for name in addresses}
    return SecretEnv(values | {name: os.environ.get(name) for name in _ALSO})


def providers_section() -> Mapping[str, Any]:
    """Return the section `providers` of the journal.json in force, unchanged.

    Raises:
        TrustError: An endpoint in it needs the user's consent, which a worker cannot ask for.
    """
    snapshot = config_loader.load()
    consent.require(row.withheld for row in snapshot.config.gateways.values() if row.withheld is not None)
    section: object = snapshot.data.get("providers")
    return section if isinstance(section, Mapping) else {}
