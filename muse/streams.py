"""A reply while it is being written: iterate its text, then take the whole; it knows no wire form and no client."""

from __future__ import annotations

import atexit
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Protocol, Self
from weakref import WeakSet

from muse.errors import InterruptedReply, MuseError, ProviderDown, ProviderError
from muse.messages import Reply
from muse.policies.deadline import Deadline, time_limit
from muse.usage import Usage


class Gatherer(Protocol):
    """Puts stream events together again."""

    def feed(self, event: Any) -> str:
        """Take one event; the text it adds, "" if none."""

    def usage(self) -> Usage | None:
        """The tokens reported so far; None if nothing was."""

    def raw(self) -> Mapping[str, Any] | None:
        """The whole answer as it would have come unstreamed; None while its end is missing."""


class Account(Protocol):
    """Keeps the books of one attempt."""

    def answered(self, raw: Mapping[str, Any]) -> Reply:
        """Decode, log and check a whole answer."""

    def failed(self, exc: BaseException, *, usage: Usage | None = None, text: str = "") -> BaseException:
        """Log what went wrong; the error to raise for it."""

    def closed(self, usage: Usage | None, text: str) -> None:
        """Log an answer that the caller did not want to the end."""


_under_way: WeakSet[_Stream] = WeakSet()


@atexit.register
def _close_all() -> None:
    """End what is still open while the interpreter can still do it: afterwards sockets and the token log cannot."""
    for stream in list(_under_way):
        stream.give_up()


class _Stream:
    """What the sync and the async stream share: text so far, the end, and how it is accounted for."""

    def __init__(self, gatherer: Gatherer, account: Account, deadline: Deadline) -> None:
        self._gatherer = gatherer
        self._account = account
        self._deadline = deadline
        self._pieces: list[str] = []
        self._reply: Reply | None = None
        self._error: BaseException | None = None
        self._begun = False
        self._closed = False
        _under_way.add(self)

    @property
    def text(self) -> str:
        """The text that has arrived so far."""
        return "".join(self._pieces)

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come: the reply is whole, the stream failed, or it was closed."""
        return self._reply is not None or self._error is not None or self._closed

    def _take(self, event: Any) -> str:
        piece = self._gatherer.feed(event)
        if piece:
            self._pieces.append(piece)
        return piece

    def _end(self) -> None:
        """All events are there: account for the reply, or say that its end is missing."""
        raw = self._gatherer.raw()
        if raw is None and not self._pieces:
            self._fail(ProviderDown("the stream ended before an answer began", code="no_stream", retryable=True))
        elif raw is None:
            self._fail(InterruptedReply("the stream ended before the answer did", text=self.text))
        else:
            self._settle(raw)

    def _settle(self, raw: Mapping[str, Any]) -> None:
        try:
            self._reply = self._account.answered(raw)
        except MuseError as exc:
            self._error = exc
            raise

    def _fail(self, exc: BaseException) -> None:
        """Log the failure and raise it; with text already there, as `InterruptedReply` that holds it."""
        text = self.text
        usage = self._gatherer.usage()
        error = self._account.failed(exc, usage=usage, text=text)
        if text and isinstance(error, MuseError) and not isinstance(error, InterruptedReply):
            error = _interrupted(error, text)
        self._error = error
        if error is exc:
            raise error
        raise error from (error.__cause__ or exc)

    def _close(self) -> bool:
        """Mark as closed early and log what was spent; False if it was over already."""
        if self.is_over:
            return False
        self._closed = True
        self._account.closed(self._gatherer.usage() if self._begun else Usage(), self.text)
        return True

    def give_up(self) -> None:
        """Nobody will read on: log what was spent."""
        self._close()

    def __del__(self) -> None:
        """Nobody reads on: what was spent is logged as if it had been closed (its events close themselves)."""
        self._close()

    def _whole(self) -> Reply:
        if self._error is not None:
            raise self._error
        if self._reply is None:
            raise InterruptedReply("the stream was closed before its end", text=self.text)
        return self._reply


class ReplyStream(_Stream):
    """A streamed reply: iterate it for text deltas, then read `reply`; closing it early cancels the request.

    >>> with muse.models.stream("Tell me of the tide", context="app.chat") as stream:   # doctest: +SKIP
    ...     for piece in stream:
    ...         print(piece, end="")
    ...     print(stream.reply.usage)
    """

    def __init__(
        self,
        events: Iterator[Any],
        gatherer: Gatherer,
        account: Account,
        deadline: Deadline,
    ) -> None:
        super().__init__(gatherer, account, deadline)
        self._events = events

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self._begun = True
        while not self.is_over:
            try:
                with time_limit(self._deadline):
                    event = next(self._events, _END)
                self._deadline.keep()
                piece = self._take(event) if event is not _END else ""
            except BaseException as exc:  # noqa: BLE001 - accounted for, then raised
                close_events(self._events)
                self._fail(exc)
            if event is _END:
                self._end()
            elif piece:
                return piece
        raise StopIteration

    @property
    def reply(self) -> Reply:
        """The whole reply; what has not been iterated yet is read first.

        Raises:
            InterruptedReply: the stream broke off or was closed early; its `text` is what had arrived.
            ReplyError, ProviderError: as `muse.models.reply`.
        """
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

    def drive(
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


class AsyncReplyStream(_Stream):
    """`ReplyStream` for `async for`; `await stream.reply()` gives the whole."""

    def __init__(self, events: AsyncIterator[Any], gatherer: Gatherer, account: Account, deadline: Deadline) -> None:
        super().__init__(gatherer, account, deadline)
        self._events = events

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        self._begun = True
        while not self.is_over:
            try:
                event = await self._deadline.bound(anext(self._events, _END))
                piece = self._take(event) if event is not _END else ""
            except BaseException as exc:  # noqa: BLE001 - accounted for, then raised
                await aclose_events(self._events)
                self._fail(exc)
            if event is _END:
                self._end()
            elif piece:
                return piece
        raise StopAsyncIteration

    async def reply(self) -> Reply:
        """The whole reply; what has not been iterated yet is read first. Raises as `ReplyStream.reply`."""
        async for _ in self:
            pass
        return self._whole()

    async def aclose(self) -> None:
        """Stop: cancel the request and log what was spent; nothing happens if the stream is over."""
        await aclose_events(self._events)
        self._close()

    async def drive(
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


def _interrupted(cause: MuseError, text: str) -> InterruptedReply:
    """The error for a stream that broke off after `text`."""
    who = {"provider": cause.provider, "model": cause.model} if isinstance(cause, ProviderError) else {}
    error = InterruptedReply(f"the stream broke off after {len(text)} characters: {cause}", text=text, **who)
    error.__cause__ = cause
    return error


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
