"""The driver's side of Ray workers: their shares of the limits, their configuration, their log lines.

Entry point: `DriverState`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator

import msgspec

import muse
from muse.batching.ray.quota_shares import QuotaShares, is_split, most_parts, one_part
from muse.batching.ray.worker_config import SecretEnv, SpendSnapshot, WorkerConfig, providers_section, secret_env
from muse.calls.log_pricing import provider_and_cost
from muse.journal import config_loader
from muse.journal.policy_config import Policies
from muse.policies.spend import spend_since, window_start
from muse.types.errors import ConfigError
from muse.usage_log import ledger

_LEASE_S = 15.0


class DriverState:
    """The state of the journal's workers.

    Each worker has a share of the limits and a configuration, and sends its log lines here.
    """

    def __init__(self) -> None:
        self.parts = QuotaShares()
        self._has_limits = False
        self._seen_s: dict[str, float] = {}

    def move_to(self, folder: str, journal_path: str | None, given: SecretEnv) -> None:
        """Make this process find the journal and keys as the driver does, whose working folder is `folder`."""
        os.chdir(folder)
        given.apply()
        if journal_path is None:
            os.environ.pop("JOURNAL_PATH", None)
        else:
            os.environ["JOURNAL_PATH"] = journal_path

    def begin(self, workers: int) -> None:
        """Divide the limits among this many workers.

        Raises:
            ConfigError: A limit cannot be divided into so many shares.
        """
        limits = _policies().limits
        bound = most_parts(limits)
        if workers < 1 or (bound is not None and workers > bound[0]):
            most = f"1 to {bound[0]}, as {bound[1]} goes into no more parts" if bound else "1 or more"
            raise ConfigError("workers", str(workers), most)
        self._has_limits = any(map(is_split, limits))
        self.parts = QuotaShares() if self._has_limits else QuotaShares(rest_s=0.0)
        self.parts.begin(workers)

    def most_workers(self, wanted: int) -> int:
        """Return `wanted`, or fewer if the limits cannot be divided into so many shares; at least 1."""
        bound = most_parts(_policies().limits)
        return max(wanted if bound is None else min(wanted, bound[0]), 1)

    def worker_config(self, count: int | None = None) -> WorkerConfig:
        """Return a worker's current configuration; limits are divided by `count`, by default the number of shares."""
        section = one_part(providers_section(), max(count or self.parts.count, 1))
        return WorkerConfig(muse.__version__, section, tuple(_spent(_policies())))

    def variables(self) -> SecretEnv:
        """Return the keys and addresses that a worker needs."""
        return secret_env()

    def bring_in(self, lines: Iterable[bytes]) -> None:
        """Append the lines of workers to the usage log."""
        for line in lines:
            ledger.append(msgspec.json.decode(line, type=dict))

    # For workers that start on their own, as in an actor pool of ray.data: a worker keeps its share while it reports.

    def lease(self, worker: str) -> float | None:
        """Give a worker a share; return the seconds until it may be used, or None if all are taken."""
        self._expire()
        if not self._has_limits:
            self.parts.add(1)  # without limits to divide, no worker waits for a share
        rest_s = self.parts.take(worker)
        if rest_s is not None:
            self._seen_s[worker] = time.monotonic()
        return rest_s

    def report(self, worker: str, lines: Iterable[bytes]) -> WorkerConfig | None:
        """Append a worker's lines and return its current configuration; None if its share expired.

        A share expires when its worker did not report for 15 s.
        """
        self.bring_in(lines)
        self._expire()
        if worker not in self._seen_s:
            return None
        self._seen_s[worker] = time.monotonic()
        return self.worker_config()

    def leave(self, worker: str, lines: Iterable[bytes]) -> None:
        """Append a worker's last lines and free its share."""
        self.bring_in(lines)
        self._seen_s.pop(worker, None)
        self.parts.give_up(worker)

    def _expire(self) -> None:
        late_s = time.monotonic() - _LEASE_S
        for worker in [worker for worker, seen_s in self._seen_s.items() if seen_s < late_s]:
            self.leave(worker, ())


def _policies() -> Policies:
    return config_loader.load().config.policies


def _spent(policies: Policies) -> Iterator[SpendSnapshot]:
    """Yield what was spent in the windows of budgets and daily limits; nothing if there are none."""
    starts = [window_start(budget.window) for budget in policies.budgets]
    if any(limit.tokens_per_day or limit.usd_per_day for limit in policies.limits):
        starts.append(window_start("day"))
    if not starts:
        return
    since = min(starts)
    for key, sums in spend_since(since, provider_and_cost).sums.items():
        if key.day >= since:
            yield SpendSnapshot(key.day, key.context, key.provider, key.model, sums.tokens, sums.usd, sums.unpriced)
