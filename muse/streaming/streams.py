"""A reply while it is being written: iterate its text, then take the whole; it knows no wire form and no client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, Protocol, Self

from muse.policies.deadline import Deadline, time_limit
from muse.streaming.stream_base import AttemptOutcome, StallTimeouts, Stream, StreamAccumulator, StreamOwner
from muse.types.messages import Reply


class StreamSource(StreamOwner, Protocol):
    """A source in a thread."""

    def another(self, error: Exception) -> ReplyStream:
        """The stream to read in place of one that failed; raises if there is none."""


class AsyncStreamSource(StreamOwner, Protocol):
    """A source in an event loop."""

    async def another(self, error: Exception) -> AsyncReplyStream:
        """As `StreamSource.another`, awaited."""


class ReplyStream(Stream):
    """A streamed reply: iterate it for text deltas, then read `reply`; closing it early cancels the request.

    >>> with muse.models.stream("Tell me of the tide", context="app.chat") as stream:   # doctest: +SKIP
    ...     for piece in stream:
    ...         print(piece, end="")
    ...     print(stream.reply.usage)
    """

    def __init__(
        self,
        events: Iterator[Any],
        accumulator: StreamAccumulator,
        account: AttemptOutcome,
        deadline: Deadline,
    ) -> None:
        super().__init__(accumulator, account, deadline)
        self._events = events
        self._again: StreamSource | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def attach(self, source: StreamSource, watch: StallTimeouts) -> Self:
        """Fail only when `source` has no other stream to read; this stream."""
        self._source, self._again, self._watch = source, source, watch
        return self

    def __next__(self) -> str:
        while not self.is_over:
            try:
                piece = self._step()
            except BaseException as exc:  # noqa: BLE001 - accounted for, and raised unless there is another stream
                self._go_on(exc)
                continue
            if piece:
                self._is_seen = self._is_read
                return piece
        raise StopIteration

    def _step(self) -> str:
        """Take one event; the text it adds."""
        wait = self._wait()
        sending = self._begin()
        try:
            with sending, time_limit(wait):
                event = next(self._events, _END)
            wait.keep()
            piece = self._take(event) if event is not _END else ""
        except BaseException as exc:  # noqa: BLE001 - accounted for, then raised
            close_events(self._events)
            if not self._is_whole_despite(exc):
                self._fail(self._silence(exc, wait))
            event = _END
        return self._end() if event is _END else piece

    def _go_on(self, exc: BaseException) -> None:
        if self._again is None or self._is_seen or not isinstance(exc, Exception):
            self._leave()
            raise exc
        try:
            other = self._again.another(exc)
        except BaseException as error:
            self._error = error
            raise
        self._events = other._events
        self._take_over(other)

    @property
    def reply(self) -> Reply:
        """The whole reply; what has not been iterated yet is read first.

        Raises:
            InterruptedReply: the stream broke off or was closed early; its `text` is what had arrived.
            ReplyError, ProviderError: as `muse.models.reply`.
        """
        with self._unseen():
            for _ in self:
                pass
        return self._whole()

    def give_up(self) -> None:
        """Nobody will read on: end the request, and log what was spent."""
        self.close()

    def close(self) -> None:
        """Stop: cancel the request and log what was spent; nothing happens if the stream is over."""
        close_events(self._events)
        self._close()

    def consume(
        self,
        on_token: Callable[[str], object] | None = None,
        on_done: Callable[[Reply], object] | None = None,
        on_error: Callable[[BaseException], object] | None = None,
    ) -> Reply:
        """Run to the end with callbacks: `on_token` per piece in order, then `on_done` once, or `on_error` once.

        An error still raises after `on_error` was told of it.
        """
        try:
            for piece in self:
                if on_token is not None:
                    on_token(piece)
            reply = self._whole()
        except Exception as exc:
            self.close()
            if on_error is not None:
                on_error(exc)
            raise
        if on_done is not None:
            on_done(reply)
        return reply

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncReplyStream(Stream):
    """`ReplyStream` for `async for`; `await stream.reply()` gives the whole."""

    def __init__(
        self, events: AsyncIterator[Any], accumulator: StreamAccumulator, account: AttemptOutcome, deadline: Deadline
    ) -> None:
        super().__init__(accumulator, account, deadline)
        self._events = events
        self._again: AsyncStreamSource | None = None

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    def attach(self, source: AsyncStreamSource, watch: StallTimeouts) -> Self:
        """As `ReplyStream.belong_to`."""
        self._source, self._again, self._watch = source, source, watch
        return self

    async def __anext__(self) -> str:
        while not self.is_over:
            try:
                piece = await self._step()
            except BaseException as exc:  # noqa: BLE001 - accounted for, and raised unless there is another stream
                await self._go_on(exc)
                continue
            if piece:
                self._is_seen = self._is_read
                return piece
        raise StopAsyncIteration

    async def _step(self) -> str:
        """Take one event; the text it adds."""
        wait = self._wait()
        sending = self._begin()
        try:
            with sending:
                event = await wait.bound(anext(self._events, _END))
            piece = self._take(event) if event is not _END else ""
        except BaseException as exc:  # noqa: BLE001 - accounted for, then raised
            await aclose_events(self._events)
            if not self._is_whole_despite(exc):
                self._fail(self._silence(exc, wait))
            event = _END
        return self._end() if event is _END else piece

    async def _go_on(self, exc: BaseException) -> None:
        if self._again is None or self._is_seen or not isinstance(exc, Exception):
            self._leave()
            raise exc
        try:
            other = await self._again.another(exc)
        except BaseException as error:
            self._error = error
            raise
        self._events = other._events
        self._take_over(other)

    async def reply(self) -> Reply:
        """The whole reply; what has not been iterated yet is read first. Raises as `ReplyStream.reply`."""
        with self._unseen():
            async for _ in self:
                pass
        return self._whole()

    async def aclose(self) -> None:
        """Stop: cancel the request and log what was spent; nothing happens if the stream is over."""
        await aclose_events(self._events)
        self._close()

    async def consume(
        self,
        on_token: Callable[[str], object] | None = None,
        on_done: Callable[[Reply], object] | None = None,
        on_error: Callable[[BaseException], object] | None = None,
    ) -> Reply:
        """As `ReplyStream.drive`, awaited; the callbacks themselves are plain functions."""
        try:
            async for piece in self:
                if on_token is not None:
                    on_token(piece)
            reply = self._whole()
        except Exception as exc:
            await self.aclose()
            if on_error is not None:
                on_error(exc)
            raise
        if on_done is not None:
            on_done(reply)
        return reply

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


_END: Any = object()


def close_events(events: Iterator[Any]) -> None:
    """Close an event generator, and with it the connection behind it."""
    close = getattr(events, "close", None)
    if close is not None:
        close()


async def aclose_events(events: AsyncIterator[Any]) -> None:
    """As `close_events`, awaited."""
    aclose = getattr(events, "aclose", None)
    if aclose is not None:
        await aclose()
