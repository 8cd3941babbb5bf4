"""The interface to engines that make a batch's calls elsewhere. Entry point: `engine_of`."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from muse.batching.concurrency import ConcurrencyLimit
from muse.batching.request import BatchRequest
from muse.types.errors import ConfigError
from muse.types.messages import Reply

Name = Literal["here", "ray"]


class Engine(Protocol):
    """An engine that makes calls outside the batch; the batch limits how many run at once."""

    async def ask(self, request: BatchRequest, replies: list[Reply]) -> str:
        """Return the text of one answer and append the replies received for it to `replies`."""

    def rest(self) -> None:
        """Release all resources; a later `ask` acquires them again."""


def engine_of(name: object, concurrency: ConcurrencyLimit, lane: str, client: Any) -> Engine | None:
    """Return the engine of that name, or None for "here": the batch makes the calls itself.

    Raises:
        ConfigError: The name is unknown, the engine is not available, or it does not go with the other options.
    """
    if name == "here":
        return None
    if name != "ray":
        raise ConfigError("engine", repr(name), "'here' or 'ray'")
    if lane != "now":
        raise ConfigError("engine", f"'ray' with lane {lane!r}", "lane 'now': a batch service needs no workers of ours")
    if client is not None:
        raise ConfigError("client", "one for engine 'ray'", "none: each worker makes its own")
    from muse.batching.ray.engine import RayEngine  # Ray is optional: imported only when it is used

    return RayEngine(concurrency)
