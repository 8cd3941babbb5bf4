"""Whether a request may go out a second time beneath the policies, and on which connection; it sends nothing.

A kept connection may end at the moment when a request is on its way, before an answer began. The sending that follows
is an attempt of its own, with its line in the usage log, its place under limits and among the call's retries. So within
a call a transport raises the error, the retry policy tries again at once, and that attempt takes a new connection.
Only requests outside of calls, such as a look at a batch service's job, are sent again by the transport itself.
"""

from __future__ import annotations

from contextvars import ContextVar, Token

# The code of the error of a request whose kept connection ended before an answer began.
STALE = "stale_connection"


class ResendGuard:
    """One sending of a request, as a context manager around it.

    `must_be_new` asks for a connection that has served no other request. `is_stale` says afterwards that a kept one
    ended before an answer began.
    """

    __slots__ = ("_token", "is_stale", "must_be_new")

    def __init__(self, *, must_be_new: bool = False) -> None:
        self.must_be_new = must_be_new
        self.is_stale = False
        self._token: Token[ResendGuard | None] | None = None

    def __enter__(self) -> None:
        self._token = _sending.set(self)

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _sending.reset(self._token)
            self._token = None


_sending: ContextVar[ResendGuard | None] = ContextVar("muse_sending", default=None)
sent_once = ResendGuard


def may_send_again() -> bool:
    """Return whether a transport may send a request again whose kept connection ended before an answer began."""
    sending = _sending.get()
    if sending is None:
        return True
    sending.is_stale = True
    return False


def must_be_new() -> bool:
    """Return whether a request is to go out on a connection made for it."""
    sending = _sending.get()
    return sending is not None and sending.must_be_new
