"""Iterables of requests that a batch takes from as there is room. Entry point: `RequestSource`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from operator import length_hint

from msgspec import Struct

from muse.batching.notifier import Notifier, is_being_cancelled
from muse.batching.request import BatchRequest
from muse.batching.stats import BatchStats


class _Source(Struct, eq=False):
    """One iterable; `announced` is the number of requests it should still yield, `done` is set when all were taken."""

    announced: int
    done: asyncio.Future[None]


class _SyncSource(_Source, eq=False):
    items: Iterator[BatchRequest]


class _AsyncSource(_Source, eq=False):
    items: AsyncIterator[BatchRequest]
    task: asyncio.Task[None] | None = None
    came: BatchRequest | None = None
    is_awaited: bool = False


class RequestSource:
    """The iterables that a batch still takes from: plain ones through `pull`, async ones through one task each.

    Args:
        tally: The counts of the batch.
        admit: Receives each request.
        may_take: Returns True if an async iterable may be asked for its next request. Ring `room` when its result may
            have changed.
        changed: Called when an iterable ends, with the exception that it raised or None.
    """

    def __init__(
        self,
        tally: BatchStats,
        admit: Callable[[BatchRequest], None],
        may_take: Callable[[], bool],
        changed: Callable[[BaseException | None], None],
    ) -> None:
        self.room = Notifier()
        self._tally = tally
        self._admit = admit
        self._may_take = may_take
        self._changed = changed
        self._plain: deque[_SyncSource] = deque()
        self._streams: list[_AsyncSource] = []
        self._is_halted = False

    @property
    def is_over(self) -> bool:
        """True if all iterables are exhausted."""
        return not (self._plain or self._streams)

    @property
    def has_plain(self) -> bool:
        """True if there is a plain iterable to pull from."""
        return bool(self._plain)

    def put(
        self, requests: Iterable[BatchRequest] | AsyncIterable[BatchRequest], total: int | None
    ) -> asyncio.Future[None]:
        """Add an iterable; async ones are read once `start` is called."""
        announced = length_hint(requests, 0) if total is None else total
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if isinstance(requests, AsyncIterable):
            self._streams.append(_AsyncSource(announced, done, aiter(requests)))
        else:
            self._plain.append(_SyncSource(announced, done, iter(requests)))
        self._tally.announced += announced
        return done

    def start(self) -> None:
        """Start a task for each async iterable that has none."""
        self._is_halted = False
        for source in list(self._streams):
            if source.task is not None and source.task.cancelled() and source.is_awaited:
                self._close(source, RuntimeError(_CUT_OFF))
            elif source.task is None or source.task.done():
                source.task = asyncio.get_running_loop().create_task(self._take_from(source))

    def pull(self) -> None:
        """Take one request of the first plain iterable, or note its end."""
        source = self._plain[0]
        try:
            request = next(source.items)
        except StopIteration:
            self._close(source, None)
        except BaseException as exc:  # noqa: BLE001 - from the caller's iterable; drain_batch raises it
            self._close(source, exc)
        else:
            self._pass_on(source, request)

    def halt(self) -> list[asyncio.Task[None]]:
        """Take nothing more until `start`; return the tasks that end because of it.

        A task that is awaiting its stream's next request is not returned: cancelling it would end the stream for good.
        That request is passed on after `start`.
        """
        self._is_halted = True
        self.room.ring()
        return [source.task for source in self._streams if source.task is not None and not source.is_awaited]

    def drop(self) -> None:
        """Discard all iterables."""
        for source in (*self._plain, *self._streams):
            source.done.cancel()
            self._tally.announced -= source.announced
        for task in self.tasks():
            task.cancel()
        self._plain.clear()
        self._streams.clear()

    def tasks(self) -> list[asyncio.Task[None]]:
        """Return the tasks that read async iterables."""
        return [source.task for source in self._streams if source.task is not None]

    async def _take_from(self, source: _AsyncSource) -> None:
        """Read an async iterable, each request as soon as it can be sent."""
        while not self._is_halted and source in self._streams:
            if source.came is not None:
                request, source.came = source.came, None
                self._pass_on(source, request)
            elif self._may_take():
                await self._await_next(source)
            else:
                await self.room.wait()

    async def _await_next(self, source: _AsyncSource) -> None:
        source.is_awaited = True
        try:
            source.came = await anext(source.items)
        except StopAsyncIteration:
            self._close(source, None)
        except BaseException as exc:
            if isinstance(exc, asyncio.CancelledError) and is_being_cancelled():
                raise
            self._close(source, exc)
        source.is_awaited = False

    def _pass_on(self, source: _Source, request: BatchRequest) -> None:
        if source.announced:
            source.announced -= 1
            self._tally.announced -= 1
        try:
            self._admit(request)
        except Exception as exc:  # noqa: BLE001 - may come from the caller's key function; as in pull
            self._close(source, exc)

    def _close(self, source: _Source, problem: BaseException | None) -> None:
        """Note the end of an iterable, unless it was dropped meanwhile."""
        if isinstance(source, _SyncSource) and source in self._plain:
            self._plain.remove(source)
        elif isinstance(source, _AsyncSource) and source in self._streams:
            self._streams.remove(source)
        else:
            return
        self._tally.announced -= source.announced
        if not source.done.done():
            source.done.set_result(None)
        self._changed(problem)


_CUT_OFF = (
    "feed: an async iterable was cancelled while its next request was awaited (its loop ended); what it still had is"
    " lost, and has to be fed again"
)
