"""Ids of logical calls and the numbers of their attempts, as every line of the usage log bears them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from itertools import count
from typing import Any

from msgspec import Struct

# An id is 16 hexadecimal digits. Each process counts from a random number of 62 bits, so that its ids are unique
# without asking the system for random bytes at every call.
_RANDOM_BITS = 62


def _random_start() -> int:
    return int.from_bytes(os.urandom(8), "big") >> (64 - _RANDOM_BITS)


_numbers = count(_random_start())


def _restart() -> None:
    global _numbers
    _numbers = count(_random_start())


if sys.platform != "win32":  # a child would otherwise give the same ids as its parent
    os.register_at_fork(after_in_child=_restart)


def new_call_id() -> str:
    """Return an id that no other call has, in this process or any other."""
    return f"{next(_numbers):016x}"


class Attempted(Struct, frozen=True):
    """One attempt at a logical call: the call's id, and the attempt's number within it, from 1.

    `on_new_connection` is for the attempt after one whose kept connection had ended.
    """

    call_id: str
    number: int = 1
    on_new_connection: bool = False


# The attempt that a plain provider module is working on; `log_token_usage` enters it in the module's line.
UNDER_WAY: ContextVar[Attempted | None] = ContextVar("muse_attempt", default=None)


class CallNumber:
    """The id of one logical call; counts its attempts, also those that run at the same time in several threads."""

    __slots__ = ("_attempts", "call_id")

    def __init__(self) -> None:
        self.call_id = new_call_id()
        self._attempts = count(1)

    def attempt(self, *, on_new_connection: bool = False) -> Attempted:
        """Return the next attempt of the call."""
        return Attempted(self.call_id, next(self._attempts), on_new_connection)


def parse_call_id(entry: Mapping[str, Any]) -> tuple[str, int | None]:
    """Return the call's id and the attempt's number of a line; ("", None) for lines written before there were any."""
    call_id, number = entry.get("call_id"), entry.get("attempt")
    if not (isinstance(call_id, str) and call_id.isascii() and 0 < len(call_id) <= _LONGEST_ID):
        return "", None
    return call_id, number if type(number) is int and 0 < number < _MOST_ATTEMPTS else None


_LONGEST_ID = 64
_MOST_ATTEMPTS = 1 << 31
