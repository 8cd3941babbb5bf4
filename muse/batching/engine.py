"""Who makes the calls of a batch where it does not make them itself; it makes none."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from muse.batching.concurrency import ConcurrencyLimit
from muse.batching.request import BatchRequest
from muse.types.errors import ConfigError
from muse.types.messages import Reply

Name = Literal["here", "ray"]


class Engine(Protocol):
    """Asks what it is given, wherever that is; the batch says how many at once."""

    async def ask(self, request: BatchRequest, replies: list[Reply]) -> str:
        """The text of one answer; the replies that were had for it are added to `replies`."""

    def rest(self) -> None:
        """Let go of what it holds; it may be asked again."""


def engine_of(name: object, concurrency: ConcurrencyLimit, lane: str, client: Any) -> Engine | None:
    """The engine of that name, None for calls of the batch's own.

    Raises:
        ConfigError: there is none of that name, it cannot be had, or it does not go with the other options.
    """
    if name == "here":
        return None
    if name != "ray":
        raise ConfigError("engine", repr(name), "'here' or 'ray'")
    if lane != "now":
        raise ConfigError("engine", f"'ray' with lane {lane!r}", "lane 'now': a batch service needs no workers of ours")
    if client is not None:
        raise ConfigError("client", "one for engine 'ray'", "none: each worker makes its own")
    from muse.batching.ray.engine import RayEngine  # only who asks for it needs Ray

    return RayEngine(concurrency)
