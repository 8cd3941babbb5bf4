"""Ray, as far as batches use it: a worker process on one of its nodes, a call to it, its end; it knows no request.

Whoever has no Ray is told how to get it. A program that is connected to a cluster stays so; else Ray's own rules say
which one is meant (`RAY_ADDRESS`), and without any it begins one on this machine.
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
    """A worker, or the node it was on, is gone or out of reach; what it was asked may have been done or not."""


class WorkerBroken(MuseError):
    """A worker cannot do what it is there for; another one could not either."""


def ray_module() -> Any:
    """Ray.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import ray  # 0.5 s, and only who asks for it pays it
    except ImportError as exc:
        raise ConfigError("engine", "'ray' without Ray", "pip install 'muse-router[ray]'") from exc
    return ray


class Cluster:
    """The cluster that this program is connected to, from now on at the latest.

    Raises:
        ConfigError: Ray is not installed, or connected to by Ray Client, from outside of the cluster.
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
        """How many nodes and processors it has now."""
        nodes = sum(bool(node["Alive"]) for node in self._ray.nodes())
        return nodes, int(self._ray.cluster_resources().get("CPU", 0))

    def here(self) -> Any:
        """What binds a worker to the node of this program."""
        strategies = self._ray.util.scheduling_strategies
        return strategies.NodeAffinitySchedulingStrategy(self._ray.get_runtime_context().get_node_id(), soft=False)

    def hire(self, kind: type, *, cpus: float = 1.0, where: Any = "SPREAD", calls_at_once: int | None = None) -> Any:
        """A worker of that class in a process of its own; it is not there yet, and is not begun again if it dies."""
        options: dict[str, Any] = {"num_cpus": cpus, "scheduling_strategy": where, "max_restarts": 0}
        return self._ray.remote(kind).options(max_concurrency=calls_at_once, **options).remote()

    def ask(self, method: Any, *arguments: Any) -> Awaitable[Any]:
        """Call a method of a worker.

        Raises:
            WorkerLost: it is gone.
            WorkerBroken: it raised something.
        """
        return self._awaited(method.remote(*arguments))

    def demand(self, method: Any, *arguments: Any) -> Any:
        """As `ask`, for a program that has no loop; muse's own errors come out as they are."""
        try:
            return self._ray.get(method.remote(*arguments))
        except self._ray.exceptions.RayTaskError as exc:
            if isinstance(exc.cause, MuseError):
                raise exc.cause from None
            raise WorkerBroken(_said(exc)) from exc
        except self._ray.exceptions.RayError as exc:
            raise WorkerLost(_said(exc)) from exc

    def send(self, method: Any, *arguments: Any) -> None:
        """Call a method of a worker without waiting; if the worker is lost, others notice."""
        method.remote(*arguments)

    def last_words(self, method: Any, *arguments: Any) -> Any:
        """What a method gives that is the last one to be called, None if it does not; this waits, but not long."""
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
    """The first line of what Ray says, and the last, where a traceback of the worker ends."""
    lines = _COLOUR.sub("", str(exc)).strip().splitlines() or [""]
    return f"{type(exc).__name__}: {lines[0]}" + (f" ... {lines[-1].strip()}" if len(lines) > 1 else "")
