"""Whether a request may go out a second time beneath the policies; it sends nothing.

Transports send a request again whose kept connection ended before an answer began. Where each sending is counted or
paid, that is left to whoever counts.
"""

from __future__ import annotations

from contextvars import ContextVar

# Whether each sending of this thread or task is counted by somebody.
COUNTED: ContextVar[bool] = ContextVar("COUNTED", default=False)


class sent_once:  # noqa: N801 - a context manager, named as a function; a class costs a third of contextlib's
    """While it lasts, no request of this thread or task goes out a second time by itself."""

    __slots__ = ("_mark",)

    def __enter__(self) -> None:
        self._mark = COUNTED.set(True)

    def __exit__(self, *_: object) -> None:
        COUNTED.reset(self._mark)


def may_send_again() -> bool:
    """Whether a transport may send again by itself."""
    return not COUNTED.get()
