"""The journal of a batch as its workers elsewhere see it: their part of the limits, their lines; it knows no engine."""

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
    """Who works for this journal: each has a part of its limits, is given luggage, and brings in its lines."""

    def __init__(self) -> None:
        self.parts = QuotaShares()
        self._has_limits = False
        self._seen_s: dict[str, float] = {}

    def move_to(self, folder: str, journal_path: str | None, given: SecretEnv) -> None:
        """Have this process find the journal, and keys, as the driver does, whose working folder that is."""
        os.chdir(folder)
        given.apply()
        if journal_path is None:
            os.environ.pop("JOURNAL_PATH", None)
        else:
            os.environ["JOURNAL_PATH"] = journal_path

    def begin(self, workers: int) -> None:
        """Expect so many workers.

        Raises:
            ConfigError: a limit does not go into so many parts.
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
        """`wanted`, or as many workers as the limits have parts for."""
        bound = most_parts(_policies().limits)
        return max(wanted if bound is None else min(wanted, bound[0]), 1)

    def worker_config(self, count: int | None = None) -> WorkerConfig:
        """What a worker needs now; `count` is into how many parts limits go, as many as there are by default."""
        section = one_part(providers_section(), max(count or self.parts.count, 1))
        return WorkerConfig(muse.__version__, section, tuple(_spent(_policies())))

    def variables(self) -> SecretEnv:
        """The keys and addresses that a worker needs."""
        return secret_env()

    def bring_in(self, lines: Iterable[bytes]) -> None:
        """Enter the lines of workers into the token log."""
        for line in lines:
            ledger.append(msgspec.json.decode(line, type=dict))

    # Where workers come by themselves, as in a pool of somebody else's, a part is theirs while they keep reporting.

    def lease(self, worker: str) -> float | None:
        """Have a part: the seconds until it may be used; None if all are taken."""
        self._expire()
        if not self._has_limits:
            self.parts.add(1)  # where nothing is shared out, nobody waits for a share
        rest_s = self.parts.take(worker)
        if rest_s is not None:
            self._seen_s[worker] = time.monotonic()
        return rest_s

    def report(self, worker: str, lines: Iterable[bytes]) -> WorkerConfig | None:
        """Enter a worker's lines; what holds for it now, None if its part was given up because it kept silent."""
        self.bring_in(lines)
        self._expire()
        if worker not in self._seen_s:
            return None
        self._seen_s[worker] = time.monotonic()
        return self.worker_config()

    def leave(self, worker: str, lines: Iterable[bytes]) -> None:
        """As `report`, for the last time."""
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
    """What was spent in the windows of budgets and limits of a day; nothing if there are none."""
    starts = [window_start(budget.window) for budget in policies.budgets]
    if any(limit.tokens_per_day or limit.usd_per_day for limit in policies.limits):
        starts.append(window_start("day"))
    if not starts:
        return
    since = min(starts)
    for key, sums in spend_since(since, provider_and_cost).sums.items():
        if key.day >= since:
            yield SpendSnapshot(key.day, key.context, key.provider, key.model, sums.tokens, sums.usd, sums.unpriced)
