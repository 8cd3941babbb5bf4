"""What a worker elsewhere is given of this journal: configuration as data, keys apart from it; it reads no log.

Configuration is the section `providers` of journal.json. `env` and the servers of tools, which may hold secrets, stay
here. Keys and addresses are looked up here by the names that providers declare, and travel as `SecretEnv`, which show
their names alone.
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
    """What was spent in all, by what budgets and limits of a day tell apart."""

    day: str
    context: str
    provider: str
    model: str
    tokens: int
    usd: float
    unpriced: int


class WorkerConfig(Struct, frozen=True):
    """The configuration for one worker, and what all have `spent` since the first day that counts."""

    version: str
    providers: Mapping[str, Any]
    spent: tuple[SpendSnapshot, ...] = ()

    def require_same_version(self) -> None:
        """See that this process runs what packed it.

        Raises:
            ConfigError: another version of muse is installed here.
        """
        if self.version != muse.__version__:
            raise ConfigError(
                "muse-router on a node", f"version {muse.__version__}", f"{self.version}, which the driver runs"
            )


class SecretEnv:
    """Keys and addresses by name; text of it, in whatever log or traceback, has the names alone."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, str | None]) -> None:
        self._values = dict(values)

    def apply(self) -> None:
        """Set them in this process; what the driver does not have is unset."""
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
    """Keys, addresses and models of all providers as this process would find them, from wherever it does."""
    named = [name for spec in specs().values() for name in (spec.env_key, spec.model_env) if name]
    values: dict[str, str | None] = {name: secrets.look_up(name) for name in named}
    addresses = [spec.base_url_env for spec in specs().values() if spec.base_url_env]
    values |= {name: secrets.look_up_address(name) for name in addresses}
    return SecretEnv(values | {name: os.environ.get(name) for name in _ALSO})


def providers_section() -> Mapping[str, Any]:
    """The section `providers` of the journal.json that is in force, as it stands there.

    Raises:
        TrustError: an endpoint in it needs the user's consent; a worker elsewhere cannot ask for it.
    """
    snapshot = config_loader.load()
    consent.require(row.withheld for row in snapshot.config.gateways.values() if row.withheld is not None)
    section: object = snapshot.data.get("providers")
    return section if isinstance(section, Mapping) else {}
