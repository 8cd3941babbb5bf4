"""What streams share, in a thread or a loop: text so far, the end, how it is accounted for; it reads no event."""

from __future__ import annotations

import atexit
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol
from weakref import WeakSet

from msgspec import Struct, json

from muse.policies.deadline import Deadline
from muse.policies.resend_guard import ResendGuard
from muse.types.errors import InterruptedReply, MuseError, ProviderDown, ProviderError, ProviderTimeout
from muse.types.messages import Reply
from muse.types.surrogates import SurrogateJoiner, join_surrogates_in
from muse.types.usage import Usage


class StreamAccumulator(Protocol):
    """Puts stream events together again."""

    def feed(self, event: Any) -> str:
        """Take one event; the text it adds, "" if none."""

    def usage(self) -> Usage | None:
        """The tokens reported so far; None if nothing was."""

    def raw(self) -> Mapping[str, Any] | None:
        """The whole answer as it would have come unstreamed; None while its end is missing."""


class AttemptOutcome(Protocol):
    """Keeps the books of one attempt."""

    def begin(self) -> ResendGuard:
        """Note that the request is about to be sent; the context to send it in."""

    def answered(self, raw: Mapping[str, Any]) -> Reply:
        """Decode, log and check a whole answer."""

    def failed(self, exc: BaseException, *, usage: Usage | None = None, text: str = "") -> BaseException:
        """Log what went wrong; the error to raise for it."""

    def closed(self, usage: Usage | None, text: str) -> None:
        """Log an answer that the caller did not want to the end."""


class StallTimeouts(Struct, frozen=True):
    """How long a stream may keep silent: until its first text, and from one event to the next; None: its own time."""

    first_token_s: float | None = None
    stall_s: float | None = None


NO_STALL_TIMEOUTS = StallTimeouts()
# What reading an answer of an unknown form raises: a field is missing, or of another type than ever.
MISREAD = (LookupError, TypeError, AttributeError, ValueError, RecursionError)


class StreamOwner(Protocol):
    """What a stream belongs to that may be tried again while nothing of it has been given out."""

    def done(self, reply: Reply) -> Reply:
        """The stream is whole: the reply with what came before it."""

    def close(self) -> None:
        """The stream is over without a reply, or is not wanted any more."""


_under_way: WeakSet[Stream] = WeakSet()


@atexit.register
def _close_all() -> None:
    """End what is still open while the interpreter can still do it: afterwards sockets and the token log cannot."""
    for stream in list(_under_way):
        stream.give_up()


class Stream:
    """What the sync and the async stream share: text so far, the end, and how it is accounted for."""

    def __init__(self, accumulator: StreamAccumulator, account: AttemptOutcome, deadline: Deadline) -> None:
        self._accumulator = accumulator
        self._account = account
        self._deadline = deadline
        self._pieces: list[str] = []
        self._joiner = SurrogateJoiner()
        self._reply: Reply | None = None
        self._error: BaseException | None = None
        self._begun = False
        self._closed = False
        self._sending = ResendGuard()
        self._watch = NO_STALL_TIMEOUTS
        self._first_by_s: float | None = None
        self._source: StreamOwner | None = None
        self._is_read = True
        self._is_seen = False
        _under_way.add(self)

    @property
    def text(self) -> str:
        """The text that has arrived so far."""
        return "".join(self._pieces)

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come: the reply is whole, the stream failed, or it was closed."""
        return self._reply is not None or self._error is not None or self._closed

    def _begin(self) -> ResendGuard:
        """Note, before the first event is waited for, that the request goes out; the context to wait in."""
        if not self._begun:
            self._begun = True
            self._sending = self._account.begin()
        return self._sending

    def _take(self, event: Any) -> str:
        piece = self._joiner.take(self._accumulator.feed(event))
        if piece:
            self._pieces.append(piece)
        return piece

    def _is_whole_despite(self, exc: BaseException) -> bool:
        """Whether the answer was whole when the connection broke before the end of the body; time-outs stay errors."""
        is_lost = isinstance(exc, Exception) and not isinstance(exc, (MuseError, *MISREAD))
        return is_lost and "Timeout" not in type(exc).__name__ and self._read() is not None

    def _read(self) -> Mapping[str, Any] | None:
        """The whole answer, None while its end is missing; pieces of a form that nobody knows fail the stream."""
        try:
            return self._accumulator.raw()
        except MISREAD as exc:
            self._fail(exc)
            return None

    def _end(self) -> str:
        """All events are there: account for the reply, or say that its end is missing; the text held back so far."""
        piece = self._joiner.rest()
        if piece:
            self._pieces.append(piece)
        raw = self._read()
        if raw is None and not self._pieces:
            self._fail(ProviderDown("the stream ended before an answer began", code="no_stream", retryable=True))
        elif raw is None:
            self._fail(InterruptedReply("the stream ended before the answer did", text=self.text))
        else:
            self._settle(_encodable(raw))
        return piece

    def _settle(self, raw: Mapping[str, Any]) -> None:
        try:
            reply = self._account.answered(raw)
        except MuseError as exc:
            if not isinstance(exc, ProviderError) or not self.text:
                self._error = exc
                raise
            self._error = _interrupted(exc, self.text)
            self._error.attempts = exc.attempts
            raise self._error from exc
        self._reply = reply if self._source is None else self._source.done(reply)

    def _wait(self) -> Deadline:
        """How long the next event may take."""
        if self._watch is NO_STALL_TIMEOUTS:
            return self._deadline
        now = time.monotonic()
        ends = [self._deadline.at_s]
        if not self._pieces and self._watch.first_token_s is not None:
            self._first_by_s = self._first_by_s or now + self._watch.first_token_s
            ends.append(self._first_by_s)
        if self._watch.stall_s is not None and self._begun:
            ends.append(now + self._watch.stall_s)
        return Deadline(min(ends), self._deadline.timeout_s)

    def _silence(self, exc: BaseException, wait: Deadline) -> BaseException:
        """The error for a wait that ended with the watch, and not with the time of the call; else `exc` itself."""
        if wait.at_s >= self._deadline.at_s or time.monotonic() < wait.at_s or not isinstance(exc, Exception):
            return exc
        said = (
            f"no text within {self._watch.first_token_s:g} s"
            if wait.at_s == self._first_by_s
            else f"nothing came for {self._watch.stall_s:g} s"
        )
        error = ProviderTimeout(said, code="stalled", retryable=True)
        error.__cause__ = exc
        return error

    def _take_over(self, other: Stream) -> None:
        """Go on with another stream in place of this one, of which nobody was given any text."""
        other._closed = True
        self._accumulator, self._account, self._deadline = other._accumulator, other._account, other._deadline
        self._error, self._first_by_s, self._begun = None, None, False
        self._joiner = SurrogateJoiner()
        self._pieces.clear()

    @contextmanager
    def _unseen(self) -> Iterator[None]:
        """While it lasts, nobody is given the pieces: a stream that breaks off may be read anew from its beginning."""
        self._is_read = False
        try:
            yield
        finally:
            self._is_read = True

    def _leave(self) -> None:
        if self._source is not None:
            self._source.close()

    def _fail(self, exc: BaseException) -> None:
        """Log the failure and raise it; with text already there, as `InterruptedReply` that holds it."""
        text = self.text
        usage = self._accumulator.usage()
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
        self._account.closed(self._accumulator.usage() if self._begun else Usage(), self.text)
        self._leave()
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


_encoder = json.Encoder()


def _encodable(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """An answer put together from pieces, with all of its text such that it can be encoded."""
    try:
        _encoder.encode(raw)
    except UnicodeEncodeError:
        mended: Mapping[str, Any] = join_surrogates_in(raw)
        return mended
    except (TypeError, ValueError, RecursionError):  # no JSON, as of a provider without a wire form
        pass
    return raw


def _interrupted(cause: MuseError, text: str) -> InterruptedReply:
    """The error for a stream that broke off after `text`."""
    who = {"provider": cause.provider, "model": cause.model} if isinstance(cause, ProviderError) else {}
    error = InterruptedReply(f"the stream broke off after {len(text)} characters: {cause}", text=text, **who)
    error.__cause__, error.attempts = cause, cause.attempts
    return error
