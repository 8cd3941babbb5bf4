"""Requests that are taken from iterables as there is room for them; it asks none of them."""

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
    """One iterable; `announced` are those that it says it still has, `done` ends when all were taken."""

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
    """The iterables that a batch still takes from: plain ones by `pull`, async ones by a task for each.

    `admit` gets each request. A stream is asked for its next one when `may_take()`; ring `room` when that may have
    changed. `changed` is told when an iterable ends, with what it raised.
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
        """Whether everything was taken."""
        return not (self._plain or self._streams)

    @property
    def has_plain(self) -> bool:
        """Whether there is something to pull from."""
        return bool(self._plain)

    def put(
        self, requests: Iterable[BatchRequest] | AsyncIterable[BatchRequest], total: int | None
    ) -> asyncio.Future[None]:
        """Take from `requests` too, from `start` on."""
        announced = length_hint(requests, 0) if total is None else total
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if isinstance(requests, AsyncIterable):
            self._streams.append(_AsyncSource(announced, done, aiter(requests)))
        else:
            self._plain.append(_SyncSource(announced, done, iter(requests)))
        self._tally.announced += announced
        return done

    def start(self) -> None:
        """Have a task at each stream."""
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
        except BaseException as exc:  # noqa: BLE001 - the caller's own iterable; it is raised where results are drained
            self._close(source, exc)
        else:
            self._pass_on(source, request)

    def halt(self) -> list[asyncio.Task[None]]:
        """Take nothing until `start`; the tasks that end for it.

        A stream that was asked for its next request is left at that, since cancelling it would end it for good; the
        request is taken up after `start`.
        """
        self._is_halted = True
        self.room.ring()
        return [source.task for source in self._streams if source.task is not None and not source.is_awaited]

    def drop(self) -> None:
        """Take nothing more."""
        for source in (*self._plain, *self._streams):
            source.done.cancel()
            self._tally.announced -= source.announced
        for task in self.tasks():
            task.cancel()
        self._plain.clear()
        self._streams.clear()

    def tasks(self) -> list[asyncio.Task[None]]:
        """What runs for the streams."""
        return [source.task for source in self._streams if source.task is not None]

    async def _take_from(self, source: _AsyncSource) -> None:
        """Take from a stream, each request as soon as it can be asked."""
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
        except Exception as exc:  # noqa: BLE001 - the caller's own key, too; as in pull
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
