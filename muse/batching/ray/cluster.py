"""The parts of Ray that batches use: worker processes on nodes, and calls to them. Entry point: `Cluster`.

If Ray is not installed, an error says how to get it. A program that is connected to a cluster stays connected; else
Ray's own rules choose the cluster (`RAY_ADDRESS`), and without one it starts a cluster on this machine.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable
from typing import Any

from muse.types.errors import ConfigError, MuseError

log = logging.getLogger(__name__)

_END_S = 10.0
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class WorkerLost(MuseError):
    """A worker or its node is gone or out of reach; what it was asked to do may or may not have been done."""


class WorkerBroken(MuseError):
    """A worker cannot do its task, and neither could another one."""


def ray_module() -> Any:
    """Return the module `ray`.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import ray  # takes 0.5 s, so it is imported only when needed
    except ImportError as exc:
        raise ConfigError("engine", "'ray' without Ray", "pip install 'muse-router[ray]'") from exc
    return ray


class Cluster:
    """The cluster that this program is connected to; it connects if it is not yet.

    Raises:
        ConfigError: Ray is not installed, or it is connected through Ray Client, from outside the cluster.
    """

    def __init__(self) -> None:
        self._ray = ray_module()
        if not self._ray.is_initialized():
            self._ray.init(include_dashboard=False, log_to_driver=False)
        if self._ray.util.client.ray.is_connected():
            raise ConfigError(
                "engine", "a connection by Ray Client (ray://)", "a program that runs on a cluster's node"
            )

    def size(self) -> tuple[int, int]:
        """Return the current number of nodes and of processors."""
        nodes = sum(bool(node["Alive"]) for node in self._ray.nodes())
        return nodes, int(self._ray.cluster_resources().get("CPU", 0))

    def here(self) -> Any:
        """Return the scheduling strategy that places a worker on this program's node."""
        strategies = self._ray.util.scheduling_strategies
        return strategies.NodeAffinitySchedulingStrategy(self._ray.get_runtime_context().get_node_id(), soft=False)

    def hire(self, kind: type, *, cpus: float = 1.0, where: Any = "SPREAD", calls_at_once: int | None = None) -> Any:
        """Start a worker of class `kind` in a process of its own, without waiting for it.

        It is not restarted if it dies.
        """
        options: dict[str, Any] = {"num_cpus": cpus, "scheduling_strategy": where, "max_restarts": 0}
        return self._ray.remote(kind).options(max_concurrency=calls_at_once, **options).remote()

    def ask(self, method: Any, *arguments: Any) -> Awaitable[Any]:
        """Return an awaitable for the result of a worker's method.

        Raises:
            WorkerLost: The worker is gone.
            WorkerBroken: The method raised.
        """
        return self._awaited(method.remote(*arguments))

    def demand(self, method: Any, *arguments: Any) -> Any:
        """Call a worker's method and wait, for a program without an event loop.

        Errors of muse are raised unchanged.
        """
        try:
            return self._ray.get(method.remote(*arguments))
        except self._ray.exceptions.RayTaskError as exc:
            if isinstance(exc.cause, MuseError):
                raise exc.cause from None
            raise WorkerBroken(_said(exc)) from exc
        except self._ray.exceptions.RayError as exc:
            raise WorkerLost(_said(exc)) from exc

    def send(self, method: Any, *arguments: Any) -> None:
        """Call a worker's method without waiting; a lost worker is noticed elsewhere."""
        method.remote(*arguments)

    def last_words(self, method: Any, *arguments: Any) -> Any:
        """Call the last method of a worker and wait up to 10 s; return None if it fails."""
        try:
            return self._ray.get(method.remote(*arguments), timeout=_END_S)
        except self._ray.exceptions.RayError as exc:
            log.warning("a worker could not be ended in order (%s)", _said(exc))
            return None

    def dismiss(self, worker: Any) -> None:
        """End a worker's process."""
        self._ray.kill(worker, no_restart=True)

    async def _awaited(self, reference: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return await asyncio.wrap_future(reference.future())
        except (errors.RayTaskError, errors.RuntimeEnvSetupError, errors.ActorUnschedulableError) as exc:
            raise WorkerBroken(_said(exc)) from exc
        except errors.RayError as exc:
            raise WorkerLost(_said(exc)) from exc


def _said(exc: Exception) -> str:
    """Return the first line of Ray's message, and the last, where a worker's traceback ends."""
    lines = _COLOUR.sub("", str(exc)).strip().splitlines() or [""]
    return f"{type(exc).__name__}: {lines[0]}" + (f" ... {lines[-1].strip()}" if len(lines) > 1 else "")
