"""Stands at `muse.batch.agenerate` in tests of the batch: calls that wait until they are let go; it knows no test."""

from __future__ import annotations

import asyncio
from typing import Any

from muse.batch import Batch, BatchRequest
from muse.batching.notifier import Notifier

CONTEXT = "app.tides"


class Calls:
    """Each call waits until it is let go, and what was asked is kept."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.under_way: dict[str, asyncio.Future[str]] = {}
        self.most = 0
        self.cancelled: list[str] = []
        self._notifier = Notifier()

    async def __call__(self, **options: Any) -> str:
        """One call."""
        name = str(options["contents"])
        self.asked.append(options)
        answer = self.under_way[name] = asyncio.get_running_loop().create_future()
        self.most = max(self.most, len(self.under_way))
        self._notifier.ring()
        try:
            return await answer
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        finally:
            self.under_way.pop(name, None)

    async def until(self, count: int) -> None:
        """Wait until so many calls are under way."""
        while len(self.under_way) < count:
            await self._notifier.wait()

    def end(self, name: str | None = None, answer: str | Exception | None = None) -> None:
        """Let a call end (the oldest if none is named), with its name in capitals if nothing else is said."""
        name = next(iter(self.under_way)) if name is None else name
        waiting = self.under_way.pop(name)
        if isinstance(answer, Exception):
            waiting.set_exception(answer)
        else:
            waiting.set_result(answer or name.upper())


def ask(batch: Batch, *names: str) -> list[BatchRequest]:
    """Add a request for each name."""
    requests = [batch.create(contents=name, context=CONTEXT) for name in names]
    for request in requests:
        batch.add(request)
    return requests


async def drained(batch: Batch) -> list[BatchRequest]:
    """All results, as they come."""
    return [request async for request in batch.drain_batch()]


async def turns(count: int = 200) -> None:
    """Let the loop turn so often."""
    for _ in range(count):
        await asyncio.sleep(0)
