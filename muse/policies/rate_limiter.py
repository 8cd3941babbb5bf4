"""Requests and tokens a minute and calls in flight, counted by all processes on the journal together.

A minute is any 60 seconds, not one of the clock. A try takes what it may use at most (an estimate of the tokens that it
says, and all that it lets the model write) and gives back what it did not use. While there is much room, a process
takes a stock for a second ahead, so that most tries are let through without touching the shared file; a stock counts as
spent from then on, for 60 seconds after its own end, so the limit holds all the same. Whoever finds no room stands in
line: nobody goes before one who came earlier and is about to ask again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from random import getrandbits
from typing import Any

from msgspec import Struct

from muse.journal.policy_config import Limit
from muse.policies.execution import ASK_AGAIN_S, Call, Outcome
from muse.policies.shared_state import SharedStateBusy, is_alive, process, write
from muse.types.errors import (
    AuthError,
    LimitReached,
    MissingKeyError,
    NotFoundError,
    QuotaError,
    RateLimitError,
    RequestError,
)
from muse.types.messages import Reply, Route

_MINUTE_S = 60.0
_STOCK_S = 1.0
# How much later than it was let through a request may arrive: what the provider counts is when requests arrive. Until a
# process has heard from a provider it may still be loading that provider's SDK, on a busy machine for seconds.
_SLACK_S = 1.0
_FIRST_SLACK_S = 6.0
# A stock takes this share of the room there is, so that several processes can have one.
_STOCK_SHARE = 0.05
_SHORTEST_S = 0.01
# A place in line is kept by asking again.
_GONE_S = 3.0
_CORRECT_AGAIN_S = 0.5
_MOST_KEPT = 10_000
_TURN_S = 0.02
_LONGEST_TURN_S = 0.5
_LONGEST_SLOT_TURN_S = 0.25
_UNBOUNDED = 1e12


class _PrefetchedQuota(Struct):
    """Requests and tokens that this process took of one limit and has not used."""

    row: int
    requests: int
    tokens: int
    ends_s: float


# What a try took: of which limit, in which row of the shared file, how many tokens.
_Taken = tuple[Limit, int, int]
# A statement and its values.
_Change = tuple[str, tuple[Any, ...]]


class _Reservation(Struct):
    """What one try took; its places in line while it waits."""

    limits: Sequence[Limit]
    taken: list[_Taken] = []
    places: dict[str, int] = {}
    is_taking: bool = False


class RateLimiter:
    """Lets tries through as the limits of journal.json allow."""

    def __init__(self, limits: Sequence[Limit]) -> None:
        self._limits = tuple(limit for limit in limits if _counts_minutes(limit) or limit.in_flight)
        self._lock = threading.RLock()  # the collector may end a stream in the middle of this
        self._stocks: dict[str, _PrefetchedQuota] = {}
        self._passes: dict[int, _Reservation] = {}
        self._owed: deque[_Change] = deque()
        self._correct_at_s = 0.0
        self._matching: dict[tuple[str, str, str], tuple[Limit, ...]] = {}
        self._heard_from: set[str] = set()

    def before(self, call: Call, route: Route) -> float:
        """Take what a try may use, or say how long to wait for it.

        Raises:
            LimitReached: there is no room, and the context asks to be told (`on_limit: "raise"`), or there never is.
        """
        key = (call.context, route.provider, route.model)
        limits = self._matching.get(key)
        if limits is None:
            limits = self._match(key)
        if not limits:
            return 0.0
        held = self._passes.get(id(call))
        if held is None:
            held = self._from_stock(limits, call.tokens)
            if held is not None:
                self._passes[id(call)] = held
                return 0.0
            held = self._passes[id(call)] = _Reservation(limits)
        slack_s = _SLACK_S if route.provider in self._heard_from else _FIRST_SLACK_S
        wait_s, limit = self._from_store(limits, call.tokens, held, slack_s)
        if limit is None:
            return wait_s
        if call.rules.on_limit == "raise":
            self.leave(call)
            raise LimitReached(
                f"{limit.where} ({limit.described()}) leaves no room for {call.context or 'this call'}; the next is in"
                f" about {wait_s:.2g} s",
                retry_after_s=wait_s,
            )
        return max(wait_s, _SHORTEST_S)

    def after(self, call: Call, route: Route, outcome: Outcome | None) -> None:
        """Give back what was not used."""
        self._heard_from.add(route.provider)
        held = self._passes.pop(id(call), None)
        if held is not None:
            used = outcome.usage.total_tokens if isinstance(outcome, Reply) else _used(call, outcome)
            self._settle(held.taken, used)

    def leave(self, call: Call) -> None:
        """Give up the places in line."""
        held = self._passes.pop(id(call), None)
        if held is not None and held.places:
            places = [(place,) for place in held.places.values()]
            with suppress(SharedStateBusy):  # who does not ask again loses the place anyway
                write(lambda connection: connection.executemany("DELETE FROM line WHERE id = ?", places))

    def _match(self, key: tuple[str, str, str]) -> tuple[Limit, ...]:
        """The limits that are about such a call."""
        if len(self._matching) > _MOST_KEPT:
            self._matching.clear()
        found = self._matching[key] = tuple(limit for limit in self._limits if limit.selects(*key))
        return found

    def _from_stock(self, limits: Sequence[Limit], tokens: int) -> _Reservation | None:
        """Take a try from what this process has in stock of every limit; None if that is not enough."""
        now = time.monotonic()
        taken: list[_Taken] = []
        with self._lock:
            for limit in limits:
                stock = self._stocks.get(limit.key)
                asked = _asked(limit, tokens)
                if stock is None or stock.ends_s <= now or stock.requests < 1 or stock.tokens < asked:
                    self._put_back(taken)
                    return None
                stock.requests -= 1
                stock.tokens -= asked
                taken.append((limit, stock.row, asked))
        return _Reservation(limits, taken)

    def _put_back(self, taken: Sequence[_Taken]) -> None:
        """Undo what a try took that cannot go out."""
        for limit, _, asked in taken:
            stock = self._stocks[limit.key]
            stock.requests += 1
            stock.tokens += asked

    def _from_store(
        self, limits: Sequence[Limit], tokens: int, held: _Reservation, slack_s: float
    ) -> tuple[float, Limit | None]:
        """Take a try from the shared file: `(0, None)`, or how long to wait, and for which limit.

        Where another process has the file for longer than a moment, it is a short wait and no limit's fault.
        """
        now = time.monotonic()
        owed = [*self._take_owed(), *self._leftovers(limits), *self._corrections(limits, held, now)]
        held.is_taking = True
        try:
            wait_s, limit, taken = write(lambda at: _taken(at, limits, tokens, held, owed, now, slack_s))
        except SharedStateBusy:
            self._owed += owed
            held.is_taking = False
            return _TURN_S, None
        held.is_taking = limit is None
        if limit is not None:
            return wait_s, limit
        with self._lock:
            for (limit, row, asked), more in taken:
                if more:
                    self._stocks[limit.key] = _PrefetchedQuota(row, more, asked * more, now + _STOCK_S)
                held.taken.append((limit, row, asked))
        held.places.clear()
        return 0.0, None

    def _leftovers(self, limits: Sequence[Limit]) -> Iterator[_Change]:
        """Give back what is left of stocks that are too small or too old to be used."""
        with self._lock:
            stocks = [self._stocks.pop(limit.key) for limit in limits if limit.key in self._stocks]
        for stock in stocks:
            yield _RETURN, (max(0, stock.requests), max(0, stock.tokens), stock.row)

    def _corrections(self, limits: Sequence[Limit], held: _Reservation, now: float) -> Iterator[_Change]:
        """Now and then, what this process really has in flight: a try that was interrupted may have left its place."""
        if now < self._correct_at_s or not any(limit.in_flight for limit in limits):
            return
        self._correct_at_s = now + _CORRECT_AGAIN_S
        passes = [other for other in list(self._passes.values()) if other is not held]
        for limit in limits:
            if limit.in_flight:
                under_way = sum(limit in other.limits for other in passes if other.taken or other.is_taking)
                yield _HAVE, (under_way + len(self._owed), limit.key, process())

    def _settle(self, taken: Sequence[_Taken], used: int) -> None:
        """Enter what was really used: into the stock it came from while that lasts, else into the shared file."""
        changes: list[_Change] = []
        for limit, row, asked in taken:
            if limit.in_flight:
                changes.append((_FREE, (limit.key, process())))
            unused = asked - used if limit.tokens_per_minute is not None else 0
            if unused and not self._back_to_stock(limit, row, unused):
                changes.append((_CORRECT, (unused, row)))
        if not changes:
            return
        owed = [*self._take_owed(), *changes]
        try:
            write(lambda connection: _make(connection, owed))
        except SharedStateBusy:  # the next one who writes makes them
            self._owed += owed

    def _take_owed(self) -> Iterator[_Change]:
        """Changes that could not be made when they were due; threads and finalizers add to them at any moment."""
        while self._owed:
            try:
                yield self._owed.popleft()
            except IndexError:
                return

    def _back_to_stock(self, limit: Limit, row: int, unused: int) -> bool:
        """Put tokens back, or take more, where the stock they came from still lasts."""
        with self._lock:
            stock = self._stocks.get(limit.key)
            if stock is None or stock.row != row or stock.requests < 1 or time.monotonic() >= stock.ends_s:
                return False
            if stock.tokens + unused < 0:
                return False
            stock.tokens += unused
            return True


# Answers by which a provider says that it has done nothing.
_REFUSED = (RateLimitError, AuthError, NotFoundError, RequestError, QuotaError, MissingKeyError)


def _used(call: Call, outcome: Outcome | None) -> int:
    """The tokens of a try that is over without an answer; all it may have used where nobody says."""
    return 0 if isinstance(outcome, _REFUSED) else call.tokens


def _taken(
    connection: Any,
    limits: Sequence[Limit],
    tokens: int,
    held: _Reservation,
    owed: Sequence[_Change],
    now: float,
    slack_s: float,
) -> tuple[float, Limit | None, list[tuple[_Taken, int]]]:
    """Within one transaction: what was taken of each limit and how many more for stock, or what to wait for."""
    _make(connection, owed)
    rooms = [_room(connection, limit, _asked(limit, tokens), now) for limit in limits]
    for limit, room in zip(limits, rooms, strict=True):
        wait_s = room.wait_s or _wait_in_line(connection, limit, held, now, room.calls)
        if room.wait_s and limit.in_flight:
            wait_s = max(wait_s, _turn_s(connection, limit, held))
        if wait_s > 0:
            _enqueue_waiter(connection, limit, held, now, wait_s)
            return wait_s, limit, []
    more = min(_spare(limit, room, tokens) for limit, room in zip(limits, rooms, strict=True))
    taken = [_take(connection, limit, tokens, more, now + slack_s) for limit in limits]
    connection.executemany("DELETE FROM line WHERE id = ?", [(place,) for place in held.places.values()])
    return 0.0, None, taken


def _spare(limit: Limit, room: _Room, tokens: int) -> int:
    """How many more tries a stock may have of a limit; none of places in flight, which are taken one by one."""
    if limit.in_flight:
        return 0
    by_tokens = int(room.tokens * _STOCK_SHARE / max(_asked(limit, tokens), 1))
    return max(0, min(int(room.requests * _STOCK_SHARE), by_tokens) - 1)


def _take(connection: Any, limit: Limit, tokens: int, more: int, arrives_s: float) -> tuple[_Taken, int]:
    """Enter one try, and so many more for stock; it arrives no later than `arrives_s`."""
    if limit.in_flight:
        connection.execute(_HOLD, (limit.key, process()))
    asked = _asked(limit, tokens)
    if not _counts_minutes(limit):
        return (limit, 0, asked), 0
    until = arrives_s + _MINUTE_S + (_STOCK_S if more else 0.0)
    row = getrandbits(62)
    connection.execute(_ENTER, (row, limit.key, until, 1 + more, asked * (1 + more)))
    return (limit, row, asked), more


def _make(connection: Any, changes: Sequence[_Change]) -> None:
    for statement, values in changes:
        connection.execute(statement, values)


_HOLD = "INSERT INTO holders VALUES (?, ?, 1) ON CONFLICT (key, process) DO UPDATE SET slots = slots + 1"
_FREE = "UPDATE holders SET slots = max(0, slots - 1) WHERE key = ? AND process = ?"
_ENTER = "INSERT INTO spent (id, key, until, requests, tokens) VALUES (?, ?, ?, ?, ?)"
_RETURN = "UPDATE spent SET requests = requests - ?, tokens = tokens - ? WHERE id = ?"
_HAVE = "UPDATE holders SET slots = min(slots, ?) WHERE key = ? AND process = ?"
_RENEW = "UPDATE line SET again = ? WHERE id = ? AND key = ? AND process = ?"
_ENTER_AGAIN = "INSERT OR IGNORE INTO line (id, key, again, process) VALUES (?, ?, ?, ?)"
_CORRECT = "UPDATE spent SET tokens = tokens - ? WHERE id = ?"


class _Room(Struct, frozen=True):
    """What a limit leaves: requests and tokens, how long to wait if that is too little, how many such calls fit."""

    requests: float
    tokens: float
    wait_s: float
    calls: float


def _room(connection: Any, limit: Limit, tokens: int, now: float) -> _Room:
    key = limit.key
    slots = _free_slots(connection, limit, key)
    wait_s = 0.0 if slots >= 1 else _TURN_S  # nobody knows when one of those in flight ends
    if not _counts_minutes(limit):
        return _Room(0, 0, wait_s, slots)
    # A row that ends later than any could was entered before this machine was started.
    connection.execute(
        "DELETE FROM spent WHERE key = ? AND (until <= ? OR until > ?)",
        (key, now, now + _MINUTE_S + _FIRST_SLACK_S + 2 * _STOCK_S),
    )
    spent = connection.execute("SELECT total(requests), total(tokens) FROM spent WHERE key = ?", (key,)).fetchone()
    requests = min(limit.requests_per_minute or _UNBOUNDED, _UNBOUNDED) - spent[0]
    left = min(limit.tokens_per_minute or _UNBOUNDED, _UNBOUNDED) - spent[1]
    free_requests, free_tokens = requests, left
    if free_requests < 1 or free_tokens < tokens:
        rows = connection.execute("SELECT until, requests, tokens FROM spent WHERE key = ? ORDER BY until", (key,))
        for until, back_requests, back_tokens in rows:
            free_requests, free_tokens = free_requests + back_requests, free_tokens + back_tokens
            wait_s = max(wait_s, until - now)
            if free_requests >= 1 and free_tokens >= tokens:
                break
    return _Room(requests, left, wait_s, min(slots, requests, left / max(tokens, 1)))


def _free_slots(connection: Any, limit: Limit, key: str) -> float:
    """How many calls may begin beside those in flight."""
    if not limit.in_flight:
        return _UNBOUNDED
    holders = connection.execute("SELECT process, slots FROM holders WHERE key = ?", (key,)).fetchall()
    taken = sum(slots for _, slots in holders)
    if taken < limit.in_flight:
        return float(limit.in_flight - taken)
    gone = [process for process, slots in holders if slots <= 0 or not is_alive(process)]
    connection.executemany("DELETE FROM holders WHERE key = ? AND process = ?", [(key, process) for process in gone])
    return float(limit.in_flight - sum(slots for process, slots in holders if process not in gone))


def _wait_in_line(connection: Any, limit: Limit, held: _Reservation, now: float, calls: float) -> float:
    """0 if there is room for so many `calls` that those who came before and are about to ask have theirs, too.

    Those who have not asked for long, or were killed, are gone.
    """
    before = connection.execute(
        "SELECT process, count(*) FROM line WHERE key = ? AND again BETWEEN ? AND ? AND id < ? GROUP BY process",
        (limit.key, now - _GONE_S, now + _TURN_S, held.places.get(limit.key, 2**62)),
    ).fetchall()
    gone = [name for name, _ in before if name != process() and not is_alive(name)]
    connection.executemany("DELETE FROM line WHERE process = ?", [(name,) for name in gone])
    count = sum(count for name, count in before if name not in gone)
    turns: float = count + 1 - calls
    return min(max(turns, 0.0) * _TURN_S, _LONGEST_TURN_S)


def _turn_s(connection: Any, limit: Limit, held: _Reservation) -> float:
    """When to ask again for a place in flight: who is far behind in line asks more seldom, so that few ask at once."""
    own = held.places.get(limit.key, 2**62)
    row = connection.execute("SELECT count(*) FROM line WHERE key = ? AND id < ?", (limit.key, own)).fetchone()
    return min((int(row[0]) + 1) * _TURN_S, _LONGEST_SLOT_TURN_S)


def _enqueue_waiter(connection: Any, limit: Limit, held: _Reservation, now: float, wait_s: float) -> None:
    again = now + min(max(wait_s, _SHORTEST_S), ASK_AGAIN_S)
    own = held.places.get(limit.key)
    if own is not None:
        renewed = connection.execute(_RENEW, (again, own, limit.key, process())).rowcount
        # Others delete a place that was not kept for some seconds; one whose owner was held up is entered again.
        if renewed or connection.execute(_ENTER_AGAIN, (own, limit.key, again, process())).rowcount:
            return
    gone = (limit.key, now - _GONE_S, now + 2 * ASK_AGAIN_S)
    connection.execute("DELETE FROM line WHERE key = ? AND again NOT BETWEEN ? AND ?", gone)
    values = (limit.key, again, process())
    entered = connection.execute("INSERT INTO line (key, again, process) VALUES (?, ?, ?)", values)
    held.places[limit.key] = int(entered.lastrowid)


def _counts_minutes(limit: Limit) -> bool:
    return limit.requests_per_minute is not None or limit.tokens_per_minute is not None


def _asked(limit: Limit, tokens: int) -> int:
    """The tokens that a try takes: one that may use more than the limit has waits for all of it."""
    return min(tokens, limit.tokens_per_minute) if limit.tokens_per_minute is not None else 0
